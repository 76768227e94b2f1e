//! One handover over time: the answers of each generation, their latency, and the failures.

use std::path::Path;
use std::time::{Duration, Instant};

use plotters::coord::ranged1d::ValueFormatter;
use plotters::prelude::*;
use support::load::{Report, Sample};

use super::{Area, Drawn, FAILED, INK, NEW, OLD, draw, ink};

/// The width of a column.
const BIN: Duration = Duration::from_millis(20);

/// An event to be marked.
#[derive(Debug, Clone)]
pub(crate) struct Moment {
    pub(crate) at: Instant,
    pub(crate) what: &'static str,
}

/// Draws the time from a second before the first moment to a second after the last one.
pub(crate) fn timeline(path: &Path, report: &Report, moments: &[Moment]) {
    let (Some(first), Some(last)) = (moments.first(), moments.last()) else { return };
    let picture = Picture {
        zero: first.at,
        from: -1.0,
        to: (last.at - first.at).as_secs_f64() + 1.0,
        report,
        moments,
        oldest: report.samples.iter().map(|s| s.generation).min().unwrap_or(0),
    };
    draw(path, (960, 640), |root| picture.draw(root));
}

struct Picture<'a> {
    zero: Instant,
    from: f64,
    to: f64,
    report: &'a Report,
    moments: &'a [Moment],
    oldest: u64,
}

impl Picture<'_> {
    fn draw(&self, root: &Area<'_>) -> Drawn {
        let (title, rest) = root.split_vertically(34);
        title.draw(&Text::new("One handover under load", (12, 10), ink(20)))?;
        let parts = rest.split_evenly((3, 1));
        self.throughput(&parts[0])?;
        self.latency(&parts[1])?;
        self.failures(&parts[2])
    }

    fn seconds(&self, at: Instant) -> f64 {
        match at.checked_duration_since(self.zero) {
            Some(after) => after.as_secs_f64(),
            None => -(self.zero - at).as_secs_f64(),
        }
    }

    /// The column of a moment, if it is in the picture.
    fn column(&self, at: Instant) -> Option<usize> {
        let seconds = self.seconds(at);
        (seconds >= self.from && seconds < self.to)
            .then_some(((seconds - self.from) / BIN.as_secs_f64()) as usize)
    }

    fn columns(&self) -> usize {
        ((self.to - self.from) / BIN.as_secs_f64()).ceil() as usize
    }

    fn x(&self, column: usize) -> f64 {
        self.from + column as f64 * BIN.as_secs_f64()
    }

    fn answered(&self, sample: &Sample) -> Instant {
        sample.at + sample.took
    }

    fn throughput(&self, area: &Area<'_>) -> Drawn {
        let mut by = [vec![0.0; self.columns()], vec![0.0; self.columns()]];
        for sample in &self.report.samples {
            if let Some(column) = self.column(self.answered(sample)) {
                by[usize::from(sample.generation > self.oldest)][column] += 1.0 / BIN.as_secs_f64() / 1000.0;
            }
        }
        let most = by.iter().flatten().fold(1.0_f64, |most, n| most.max(*n));
        let mut chart = frame(area, 24).build_cartesian_2d(self.from..self.to, 0.0..most * 1.8)?;
        axes(&mut chart, "1000 requests/s")?;
        for (columns, color, name) in [(&by[0], OLD, "old generation"), (&by[1], NEW, "new generation")] {
            let bars = columns.iter().enumerate().filter(|(_, n)| **n > 0.0).map(|(column, n)| {
                let (left, right) = (self.x(column), self.x(column + 1));
                Rectangle::new([(left, 0.0), (right, *n)], color.mix(0.7).filled())
            });
            let swatch = move |(x, y)| Rectangle::new([(x, y - 5), (x + 14, y + 5)], color.filled());
            chart.draw_series(bars)?.label(name).legend(swatch);
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .label_font(ink(14))
            .draw()?;
        self.marks(&mut chart, most * 1.8, true)
    }

    fn latency(&self, area: &Area<'_>) -> Drawn {
        let mut all = vec![Vec::new(); self.columns()];
        for sample in &self.report.samples {
            if let Some(column) = self.column(self.answered(sample)) {
                all[column].push(sample.took.as_secs_f64() * 1000.0);
            }
        }
        all.iter_mut().for_each(|column| column.sort_unstable_by(f64::total_cmp));
        let most = all.iter().filter_map(|column| column.last()).fold(1.0_f64, |most, ms| most.max(*ms));
        let mut chart =
            frame(area, 24).build_cartesian_2d(self.from..self.to, (0.05..most * 20.0).log_scale())?;
        axes(&mut chart, "latency, ms")?;
        for (quantile, color, name) in [(0.5, OLD, "median"), (0.99, NEW, "99 %"), (1.0, FAILED, "slowest")] {
            let at = |(column, all): (usize, &Vec<f64>)| {
                let rank = ((all.len() as f64 * quantile) as usize).min(all.len().checked_sub(1)?);
                Some((self.x(column), all[rank]))
            };
            let line = LineSeries::new(all.iter().enumerate().filter_map(at), color.stroke_width(1));
            let swatch = move |(x, y)| PathElement::new([(x, y), (x + 14, y)], color.stroke_width(2));
            chart.draw_series(line)?.label(name).legend(swatch);
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .label_font(ink(14))
            .draw()?;
        self.marks(&mut chart, most * 20.0, false)
    }

    fn failures(&self, area: &Area<'_>) -> Drawn {
        let mut failed = vec![0.0; self.columns()];
        for lost in &self.report.lost {
            if let Some(column) = self.column(lost.known) {
                failed[column] += 1.0;
            }
        }
        let most = failed.iter().fold(5.0_f64, |most, n| most.max(*n));
        let mut chart = frame(area, 40).build_cartesian_2d(self.from..self.to, 0.0..most)?;
        let all: f64 = failed.iter().sum();
        axes(&mut chart, &format!("failed ({all:.0} in all)"))?;
        let bars = failed.iter().enumerate().filter(|(_, n)| **n > 0.0);
        chart.draw_series(bars.map(|(column, n)| {
            Rectangle::new([(self.x(column), 0.0), (self.x(column + 1), *n)], FAILED.filled())
        }))?;
        self.marks(&mut chart, most, false)?;
        let (width, height) = area.dim_in_pixel();
        let middle = i32::try_from(width / 2)? - 60;
        Ok(area.draw(&Text::new(
            "seconds after the signal",
            (middle, i32::try_from(height)? - 16),
            ink(14),
        ))?)
    }

    fn marks<Y>(&self, chart: &mut Chart<'_, '_, Y>, top: f64, is_named: bool) -> Drawn
    where
        Y: Ranged<ValueType = f64>,
    {
        let bottom = if is_named { 0.0 } else { 1e-3 };
        for (n, moment) in self.moments.iter().enumerate() {
            let x = self.seconds(moment.at);
            chart.draw_series([PathElement::new([(x, bottom), (x, top)], INK.mix(0.8).stroke_width(1))])?;
            if is_named {
                // Names go below each other, because the first two moments are milliseconds apart.
                let y = top * (0.97 - 0.09 * n as f64);
                let name = format!(" {} {:+.3} s", moment.what, x);
                chart.draw_series([Text::new(name, (x, y), ink(13))])?;
            }
        }
        Ok(())
    }
}

type Chart<'a, 'b, Y> =
    ChartContext<'a, SVGBackend<'b>, Cartesian2d<plotters::coord::types::RangedCoordf64, Y>>;

/// A chart with `below` pixels for the numbers of the x axis.
fn frame<'a, 'b>(area: &'a Area<'b>, below: u32) -> ChartBuilder<'a, 'b, SVGBackend<'b>> {
    let mut chart = ChartBuilder::on(area);
    chart.margin(6).margin_right(24).x_label_area_size(below).y_label_area_size(64);
    chart
}

fn axes<Y>(chart: &mut Chart<'_, '_, Y>, name: &str) -> Drawn
where
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let mut mesh = chart.configure_mesh();
    mesh.axis_style(INK).bold_line_style(INK.mix(0.25)).light_line_style(TRANSPARENT);
    mesh.label_style(ink(13)).y_desc(name).axis_desc_style(ink(14)).y_labels(5);
    Ok(mesh.draw()?)
}
