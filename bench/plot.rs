//! Charts of the figures: SVG without a background, in colours that are readable on white and on black.

use std::path::Path;

use plotters::prelude::*;

mod growth;
mod losses;
mod timeline;

pub(crate) use growth::growth;
pub(crate) use losses::{Loss, losses};
pub(crate) use timeline::{Moment, timeline};

type Drawn = Result<(), Box<dyn std::error::Error>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

const OLD: RGBColor = RGBColor(0x3b, 0x82, 0xf6);
const NEW: RGBColor = RGBColor(0xf9, 0x73, 0x16);
const FAILED: RGBColor = RGBColor(0xef, 0x44, 0x44);
const INK: RGBColor = RGBColor(0x80, 0x80, 0x80);

fn ink(size: u32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&INK)
}

/// Draws into a file. A failure is printed, but does not end a run of half an hour.
fn draw(path: &Path, size: (u32, u32), what: impl FnOnce(&Area<'_>) -> Drawn) {
    let root = SVGBackend::new(path, size).into_drawing_area();
    match what(&root).and_then(|()| Ok(root.present()?)) {
        Ok(()) => println!("  picture: {}", path.display()),
        Err(error) => println!("  cannot write the picture {}: {error}", path.display()),
    }
}
