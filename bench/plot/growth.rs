//! Times by the number of connections or addresses. Both axes are logarithmic, so linear growth is a line of slope 1.

use std::path::Path;

use plotters::prelude::*;

use super::{Drawn, FAILED, INK, NEW, OLD, draw, ink};

/// Draws the lines. Each has a name and points of a number and milliseconds.
pub(crate) fn growth(path: &Path, title: &str, of_what: &str, lines: &[(&str, Vec<(f64, f64)>)]) {
    let points = || lines.iter().flat_map(|(_, points)| points);
    let range = |value: fn(&(f64, f64)) -> f64| {
        let smallest = points().map(value).fold(f64::INFINITY, f64::min);
        let largest = points().map(value).fold(f64::NEG_INFINITY, f64::max);
        smallest * 0.8..largest * 1.6
    };
    let (x, y) = (range(|point| point.0), range(|point| point.1));
    draw(path, (960, 420), |root| -> Drawn {
        let mut chart = ChartBuilder::on(root);
        let chart = chart.caption(title, ink(20)).margin(10).x_label_area_size(44).y_label_area_size(64);
        let mut chart = chart.build_cartesian_2d(x.log_scale(), y.log_scale())?;
        let mut mesh = chart.configure_mesh();
        mesh.axis_style(INK).bold_line_style(INK.mix(0.25)).light_line_style(TRANSPARENT);
        mesh.label_style(ink(13)).x_desc(of_what).y_desc("milliseconds").axis_desc_style(ink(14)).draw()?;
        for ((name, points), color) in lines.iter().zip([OLD, NEW, FAILED, INK]) {
            let line = LineSeries::new(points.iter().copied(), color.stroke_width(2)).point_size(3);
            let swatch = move |(x, y)| PathElement::new([(x, y), (x + 14, y)], color.stroke_width(2));
            chart.draw_series(line)?.label(*name).legend(swatch);
        }
        let legend = chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .label_font(ink(14))
            .draw();
        Ok(legend?)
    });
}
