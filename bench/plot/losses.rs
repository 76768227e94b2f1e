//! Failed requests per restart: a row for each server, a column for each workload.

use std::path::Path;

use plotters::prelude::*;

use super::{Area, Drawn, INK, NEW, OLD, draw, ink};

/// The failed requests of one server per restart, for each workload. `None`: not measured.
#[derive(Debug)]
pub(crate) struct Loss {
    pub(crate) server: String,
    pub(crate) per_restart: Vec<Option<f64>>,
}

const WIDTH: u32 = 960;
const ROW: i32 = 26;
/// The top of the first row.
const HEAD: i32 = 92;
/// The left edge of the first column.
const NAMES: i32 = 248;
/// The width of the number next to a bar.
const NUMBER: i32 = 52;

pub(crate) fn losses(path: &Path, workloads: &[String], all: &[Loss]) {
    let height = HEAD + ROW * i32::try_from(all.len()).unwrap_or(0) + 8;
    draw(path, (WIDTH, height.unsigned_abs()), |root| picture(root, workloads, all));
}

fn picture(root: &Area<'_>, workloads: &[String], all: &[Loss]) -> Drawn {
    root.draw(&Text::new("Failed requests per restart", (12, 10), ink(20)))?;
    root.draw(&Text::new("Each column has its own scale.", (12, 38), ink(13)))?;
    for (row, loss) in all.iter().enumerate() {
        let top = HEAD + ROW * i32::try_from(row)?;
        root.draw(&PathElement::new([(12, top), (i32::try_from(WIDTH)? - 12, top)], INK.mix(0.3)))?;
        root.draw(&Text::new(loss.server.clone(), (12, top + 6), ink(14)))?;
    }
    let wide = (i32::try_from(WIDTH)? - NAMES - 12) / i32::try_from(workloads.len().max(1))?;
    for (n, name) in workloads.iter().enumerate() {
        let left = NAMES + wide * i32::try_from(n)?;
        root.draw(&Text::new(name.clone(), (left, HEAD - 22), ink(14)))?;
        let lost: Vec<_> = all.iter().map(|loss| loss.per_restart.get(n).copied().flatten()).collect();
        column(root, left, wide - NUMBER, &lost)?;
    }
    Ok(())
}

/// Draws a column. A zero has another colour, to be seen at a glance.
fn column(root: &Area<'_>, left: i32, widest: i32, lost: &[Option<f64>]) -> Drawn {
    let most = lost.iter().flatten().fold(0.0_f64, |most, n| most.max(*n));
    for (row, lost) in lost.iter().enumerate() {
        let top = HEAD + ROW * i32::try_from(row)?;
        let (text, end, style) = match lost {
            None => ("not measured".to_owned(), left, ink(12)),
            Some(0.0) => ("0".to_owned(), left, ink(14).color(&OLD)),
            Some(n) => {
                let end = left + (f64::from(widest) * n / most).ceil() as i32;
                root.draw(&Rectangle::new([(left, top + 5), (end, top + 18)], NEW.filled()))?;
                (short(*n), end + 5, ink(13))
            }
        };
        root.draw(&Text::new(text, (end, top + 6), style))?;
    }
    Ok(())
}

/// Formats a number, with one decimal place below 10.
fn short(n: f64) -> String {
    let tenths = (10.0 * n).round() / 10.0;
    if n < 10.0 { tenths.to_string() } else { format!("{n:.0}") }
}
