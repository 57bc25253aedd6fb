//! The table, the JSON and the verdict on the goals.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::spin_up::{FLOOR, Row};
use crate::statistics::Summary;

/// What is held against what, and how much of it is allowed.
const GOALS: [Goal; 5] = [
    Goal { measure: "wall", peer: "crun", most: 0.6 },
    Goal { measure: "CPU", peer: "crun", most: 0.6 },
    Goal { measure: "wall", peer: "runc", most: 0.2 },
    Goal { measure: "CPU", peer: "runc", most: 0.2 },
    Goal { measure: "wall", peer: FLOOR, most: 3.0 },
];
/// CPU of one `state`, in milliseconds.
const STATE_CPU: f64 = 1.0;

struct Goal {
    measure: &'static str,
    peer: &'static str,
    most: f64,
}

/// One goal's outcome.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// Met, missed, or (`None`) not measured.
    pub met: Option<bool>,
    /// One line.
    pub text: String,
}

/// The tables of spin-up: wall and CPU, in milliseconds, with ratios of the medians.
#[must_use]
pub fn spin_up_table(rows: &[Row]) -> String {
    let mut text = String::new();
    for (measure, unit) in [("wall", "wall time, ms"), ("CPU", "CPU time of the waited tree, ms")] {
        table(&mut text, unit, rows, measure, &[FLOOR, "crun", "runc"]);
        text.push('\n');
    }
    failures(&mut text, rows);
    text
}

/// The tables of `state`.
#[must_use]
pub fn query_table(rows: &[Row]) -> String {
    let mut text = String::new();
    for (measure, unit) in [("wall", "state: wall time, ms"), ("CPU", "state: CPU time, ms")] {
        table(&mut text, unit, rows, measure, &["crun", "runc"]);
        text.push('\n');
    }
    failures(&mut text, rows);
    text
}

fn table(text: &mut String, title: &str, rows: &[Row], measure: &str, bases: &[&str]) {
    let _ = write!(text, "{title:<33}{:>5}", "runs");
    for column in ["median", "p10", "p90", "min", "max"] {
        let _ = write!(text, "{column:>9}");
    }
    for base in bases {
        let _ = write!(text, "{:>9}", format!("/ {base}"));
    }
    text.push('\n');
    for row in rows {
        let Some(summary) = summary(row, measure) else { continue };
        let _ = write!(text, "  {:<31}{:>5}", row.name, row.samples.len());
        for value in [summary.median, summary.p10, summary.p90, summary.min, summary.max] {
            let _ = write!(text, "{value:>9.3}");
        }
        for base in bases {
            let ratio = named(rows, base, measure).map(|base| summary.median / base.median);
            let _ = write!(text, "{:>9}", ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}")));
        }
        text.push('\n');
    }
}

fn failures(text: &mut String, rows: &[Row]) {
    for row in rows {
        if let Some(failure) = &row.failure {
            let _ = writeln!(text, "left out: {}: {failure}", row.name);
        }
    }
}

/// The quantiles of a row; none for one that failed, whatever it had measured before.
fn summary(row: &Row, measure: &str) -> Option<Summary> {
    if row.failure.is_some() {
        return None;
    }
    Summary::of(&if measure == "wall" { row.wall() } else { row.cpu() })
}

fn named(rows: &[Row], name: &str, measure: &str) -> Option<Summary> {
    rows.iter().find(|row| row.name == name).and_then(|row| summary(row, measure))
}

/// Holds flint's medians against the goals of spin-up.
#[must_use]
pub fn spin_up_goals(rows: &[Row]) -> Vec<Verdict> {
    let verdict = |goal: &Goal| {
        let flint = named(rows, "flint", goal.measure);
        let peer = named(rows, goal.peer, goal.measure);
        let (Some(flint), Some(peer)) = (flint, peer) else {
            let missing = if flint.is_none() { "flint" } else { goal.peer };
            let text =
                format!("flint {} at most {:.1} x {}: {missing} was not measured", goal.measure, goal.most, goal.peer);
            return Verdict { met: None, text };
        };
        let ratio = flint.median / peer.median;
        let text = format!("flint {} {ratio:.2} x {} (goal: at most {:.1})", goal.measure, goal.peer, goal.most);
        Verdict { met: Some(ratio <= goal.most), text }
    };
    GOALS.iter().map(verdict).collect()
}

/// Holds each of flint's `state` calls against the goal.
#[must_use]
pub fn query_goal(rows: &[Row]) -> Verdict {
    let Some(flint) = named(rows, "flint", "CPU") else {
        return Verdict { met: None, text: "flint state under 1 ms of CPU each: flint was not measured".to_owned() };
    };
    let text = format!(
        "flint state: CPU median {:.3} ms, largest {:.3} ms (goal: each under {STATE_CPU:.0})",
        flint.median, flint.max
    );
    Verdict { met: Some(flint.max < STATE_CPU), text }
}

/// `PASS`, `FAIL` or `NONE` before each goal, one a line.
#[must_use]
pub fn verdicts(all: &[Verdict]) -> String {
    let line = |verdict: &Verdict| {
        let word = match verdict.met {
            Some(true) => "PASS",
            Some(false) => "FAIL",
            None => "NONE",
        };
        format!("{word} {}\n", verdict.text)
    };
    all.iter().map(line).collect()
}

/// Rows as JSON: the summaries in milliseconds and every sample in nanoseconds.
#[must_use]
pub fn rows_json(rows: &[Row]) -> Value {
    let row = |row: &Row| {
        json!({
            "name": row.name,
            "about": row.about,
            "failure": row.failure,
            "wall_ms": summary(row, "wall").map(summary_json),
            "cpu_ms": summary(row, "CPU").map(summary_json),
            "samples": row.samples.iter().map(crate::measure::Sample::to_json).collect::<Vec<_>>(),
        })
    };
    rows.iter().map(row).collect()
}

fn summary_json(summary: Summary) -> Value {
    let Summary { min, p10, median, p90, max } = summary;
    json!({"min": min, "p10": p10, "median": median, "p90": p90, "max": max})
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{query_goal, spin_up_goals, spin_up_table, verdicts};
    use crate::measure::Sample;
    use crate::spin_up::Row;

    fn row(name: &str, milliseconds: u64) -> Row {
        let time = Duration::from_millis(milliseconds);
        let mut row = Row::new(name, "");
        row.samples.push(Sample { wall: time, cpu: time });
        row
    }

    #[test]
    fn goals_are_met_and_missed() {
        let rows = [row("floor", 2), row("flint", 6), row("crun", 10), row("runc", 29)];
        let met: Vec<_> = spin_up_goals(&rows).iter().map(|verdict| verdict.met).collect();
        assert_eq!(met, [Some(true), Some(true), Some(false), Some(false), Some(true)]);
    }

    #[test]
    fn who_failed_is_named_and_not_counted() {
        let mut crun = row("crun", 10);
        crun.failure = Some("it would not".to_owned());
        let rows = [row("floor", 2), row("flint", 6), crun];
        let text = spin_up_table(&rows);
        assert!(text.contains("left out: crun: it would not"), "{text}");
        assert!(!text.contains("10.000"), "{text}");
        assert!(verdicts(&spin_up_goals(&rows)).contains("NONE flint wall at most 0.6 x crun: crun was not measured"));
    }

    #[test]
    fn one_slow_state_misses_the_goal() {
        let mut flint = row("flint", 0);
        assert_eq!(query_goal(std::slice::from_ref(&flint)).met, Some(true));
        flint.samples.push(Sample { wall: Duration::ZERO, cpu: Duration::from_millis(1) });
        assert_eq!(query_goal(&[flint]).met, Some(false));
    }
}
