//! The plot: one row a contestant, wall and CPU side by side, as SVG.
//!
//! A bar reaches to the median, a box spans p10 to p90. Colours follow the reader's light or dark scheme.

use std::fmt::Write;

use crate::spin_up::Row;
use crate::statistics::Summary;

const LABELS: f64 = 130.0;
const PANEL: f64 = 380.0;
const GAP: f64 = 56.0;
const ROW: f64 = 34.0;
const TOP: f64 = 84.0;
const STYLE: &str = "\
text{font:13px system-ui,sans-serif;fill:#1f2328}.title{font-size:17px;font-weight:600}.small{font-size:11px;\
fill:#59636e}.back{fill:#fff}.grid{stroke:#d1d9e0}.bar{fill:#a9b4c0}.flint .bar{fill:#e8590c}.floor .bar{fill:#2f9e44}\
.box{fill:none;stroke:#1f2328;stroke-width:1.2}.mark{stroke:#1f2328;stroke-width:2}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.small{fill:#9198a1}.back{fill:#0d1117}.grid{stroke:#30363d}\
.bar{fill:#4b5663}.flint .bar{fill:#f76707}.floor .bar{fill:#37b24d}.box,.mark{stroke:#e6edf3}}";

/// Draws the rows that have samples and did not fail; the others are named below. `subtitle` says where and when.
#[must_use]
pub fn svg(title: &str, subtitle: &str, rows: &[Row]) -> String {
    let drawn: Vec<&Row> = rows.iter().filter(|row| row.failure.is_none() && !row.samples.is_empty()).collect();
    let failed: Vec<&Row> = rows.iter().filter(|row| row.failure.is_some()).collect();
    let width = LABELS + 2.0 * PANEL + GAP + 70.0;
    let bottom = TOP + ROW * to_float(drawn.len());
    let height = bottom + 44.0 + 16.0 * to_float(failed.len());
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" role=\"img\">\n<style>{STYLE}</style>\n\
         <rect class=\"back\" width=\"100%\" height=\"100%\"/>\n\
         <text class=\"title\" x=\"16\" y=\"28\">{}</text>\n<text class=\"small\" x=\"16\" y=\"46\">{}</text>\n",
        escape(title),
        escape(subtitle)
    );
    panel(&mut text, LABELS, "wall time, ms", &drawn, Row::wall, bottom);
    panel(&mut text, LABELS + PANEL + GAP, "CPU time of the waited tree, ms", &drawn, Row::cpu, bottom);
    for (index, row) in drawn.iter().enumerate() {
        let y = TOP + ROW * to_float(index) + 21.0;
        let _ =
            writeln!(text, "<text x=\"{}\" y=\"{y}\" text-anchor=\"end\">{}</text>", LABELS - 10.0, escape(&row.name));
    }
    for (index, row) in failed.iter().enumerate() {
        let y = bottom + 40.0 + 16.0 * to_float(index);
        let why = row.failure.as_deref().unwrap_or("");
        let _ = writeln!(
            text,
            "<text class=\"small\" x=\"16\" y=\"{y}\">left out: {}: {}</text>",
            escape(&row.name),
            escape(why)
        );
    }
    text.push_str("</svg>\n");
    text
}

fn panel(text: &mut String, left: f64, title: &str, rows: &[&Row], samples: fn(&Row) -> Vec<f64>, bottom: f64) {
    let summaries: Vec<Option<Summary>> = rows.iter().map(|row| Summary::of(&samples(row))).collect();
    let largest = summaries.iter().flatten().map(|summary| summary.p90).fold(0.0, f64::max);
    let step = grid_step(largest);
    let end = (largest / step).ceil().max(1.0) * step;
    let scale = PANEL / end;
    let _ = writeln!(text, "<text x=\"{left}\" y=\"{}\">{title}</text>", TOP - 12.0);
    let mut value = 0.0;
    while value <= end + step / 2.0 {
        let x = left + value * scale;
        let _ = writeln!(
            text,
            "<line class=\"grid\" x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{bottom}\"/>\
             <text class=\"small\" x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{value}</text>",
            bottom + 16.0
        );
        value += step;
    }
    for (index, (row, summary)) in rows.iter().zip(&summaries).enumerate() {
        if let Some(summary) = summary {
            bar(text, left, TOP + ROW * to_float(index), scale, &row.name, summary);
        }
    }
}

fn bar(text: &mut String, left: f64, top: f64, scale: f64, name: &str, summary: &Summary) {
    let class = name.split(' ').next().unwrap_or("");
    let median = summary.median * scale;
    let (low, high) = (summary.p10 * scale, summary.p90 * scale);
    let _ = writeln!(
        text,
        "<g class=\"{}\"><rect class=\"bar\" x=\"{left}\" y=\"{:.1}\" width=\"{median:.1}\" height=\"18\"/>\
         <rect class=\"box\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"10\"/>\
         <line class=\"mark\" x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\"/>\
         <text class=\"small\" x=\"{:.1}\" y=\"{:.1}\">{:.2}</text></g>",
        escape(class),
        top + 8.0,
        left + low,
        top + 12.0,
        high - low,
        left + median,
        top + 8.0,
        left + median,
        top + 26.0,
        left + high.max(median) + 5.0,
        top + 21.0,
        summary.median
    );
}

/// A step of 1, 2 or 5 times a power of ten that gives at most six parts.
fn grid_step(largest: f64) -> f64 {
    let rough = (largest / 6.0).max(1e-3);
    let power = 10_f64.powf(rough.log10().floor());
    [1.0, 2.0, 5.0].into_iter().map(|factor| factor * power).find(|&step| step >= rough).unwrap_or(10.0 * power)
}

#[expect(clippy::cast_precision_loss, reason = "a handful of rows")]
fn to_float(count: usize) -> f64 {
    count as f64
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{grid_step, svg};
    use crate::measure::Sample;
    use crate::spin_up::Row;

    #[test]
    fn steps_are_round() {
        for (largest, step) in [(45.0, 10.0), (11.0, 2.0), (1.6, 0.5), (6.0, 1.0)] {
            assert!((grid_step(largest) - step).abs() < 1e-9, "{largest}");
        }
    }

    #[test]
    fn rows_are_drawn_and_failures_told() {
        let mut good = Row::new("flint", "");
        good.samples.push(Sample { wall: Duration::from_micros(2500), cpu: Duration::from_micros(1500) });
        let mut bad = Row::new("crun", "");
        bad.failure = Some("a < b".to_owned());
        let text = svg("t", "s", &[good, bad]);
        assert!(text.contains(">2.50<") && text.contains(">1.50<"), "{text}");
        assert!(text.contains("left out: crun: a &lt; b"), "{text}");
        assert_eq!(text.matches("<g ").count(), text.matches("</g>").count());
    }
}
