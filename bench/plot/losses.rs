//! Failed requests per restart, a bar for each server and workload.

use std::path::Path;

use plotters::prelude::*;

use super::{Area, Drawn, NEW, OLD, draw, ink};

/// What one server lost per restart, in each workload. `None`: not measured.
#[derive(Debug)]
pub(crate) struct Loss {
    pub(crate) server: String,
    pub(crate) per_restart: Vec<Option<f64>>,
}

const ROW: u32 = 40;
const NAMES: i32 = 290;

pub(crate) fn losses(path: &Path, workloads: &[String], all: &[Loss]) {
    let height = 90 + ROW * u32::try_from(all.len()).unwrap_or(0);
    draw(path, (960, height), |root| picture(root, workloads, all));
}

fn picture(root: &Area<'_>, workloads: &[String], all: &[Loss]) -> Drawn {
    let colors = [OLD, NEW];
    root.draw(&Text::new("Failed requests per restart", (12, 10), ink(20)))?;
    let mut x = NAMES;
    for (name, color) in workloads.iter().zip(colors) {
        root.draw(&Rectangle::new([(x, 44), (x + 14, 54)], color.filled()))?;
        root.draw(&Text::new(name.clone(), (x + 20, 42), ink(14)))?;
        x += 330;
    }
    let most = all.iter().flat_map(|loss| &loss.per_restart).flatten().fold(1.0_f64, |most, n| most.max(*n));
    let widest = f64::from(960 - NAMES - 80);
    for (row, loss) in all.iter().enumerate() {
        let top = 74 + i32::try_from(row)? * i32::try_from(ROW)?;
        root.draw(&Text::new(loss.server.clone(), (12, top + 8), ink(15)))?;
        for (n, (lost, color)) in loss.per_restart.iter().zip(colors).enumerate() {
            let y = top + 15 * i32::try_from(n)?;
            let Some(lost) = lost else {
                root.draw(&Text::new("not measured", (NAMES + 6, y), ink(13)))?;
                continue;
            };
            let end = NAMES + (widest * lost / most).round() as i32;
            root.draw(&Rectangle::new([(NAMES, y), (end.max(NAMES + 1), y + 12)], color.filled()))?;
            let text = if *lost == 0.0 { "0".to_owned() } else { format!("{lost:.1}") };
            root.draw(&Text::new(text, (end + 6, y), ink(13)))?;
        }
    }
    Ok(())
}
