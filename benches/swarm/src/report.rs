//! The table, the JSON and the goals.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::service::Row;

/// flintd is to be so many times as fast as dockerd.
const FASTER: f64 = 4.0;
/// And to have this part of its memory.
const SMALLER: f64 = 0.1;

/// Prints the table and writes the JSON.
pub(crate) fn print(rows: &[Row], json: Option<&Path>) -> Result<()> {
    let tasks = rows.first().map_or(0, |row| row.tasks);
    let cpus = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("?");
    let mut text = format!(
        "docker service scale from 0 to {tasks} on one worker; {cpus} CPUs, load {load} at the end\n\
         memory is PSS of the worker's daemon, helpers and shims, without containers' own processes\n\n\
         {:<10}{:>9}{:>10}{:>10}{:>10}{:>12}{:>10}{:>12}{:>11}\n",
        "worker", "running", "all s", "half s", "CPU s", "manager s", "idle MiB", "memory MiB", "processes"
    );
    for row in rows {
        writeln!(
            text,
            "{:<10}{:>9}{:>10.1}{:>10.1}{:>10.1}{:>12.1}{:>10.1}{:>12.1}{:>11}",
            row.worker,
            row.running,
            row.seconds,
            row.half,
            row.cpu,
            row.manager_cpu,
            mib(row.idle),
            mib(row.memory),
            row.processes
        )?;
    }
    if let Some((faster, part)) = ratios(rows) {
        writeln!(
            text,
            "\nflintd is {faster:.1} times as fast (goal {FASTER}), with {:.1} % of the memory (goal {} %)",
            part * 100.0,
            SMALLER * 100.0
        )?;
    }
    print!("{text}");
    let Some(path) = json else { return Ok(()) };
    let all: Vec<_> = rows
        .iter()
        .map(|row| {
            serde_json::json!({"worker": row.worker, "tasks": row.tasks, "running": row.running, "all_s": row.seconds,
                "half_s": row.half, "cpu_s": row.cpu, "manager_cpu_s": row.manager_cpu, "idle_bytes": row.idle,
                "memory_bytes": row.memory, "processes": row.processes})
        })
        .collect();
    let json = serde_json::json!({"cpus": cpus, "load": load, "rows": all});
    fs::write(path, format!("{json:#}\n")).with_context(|| format!("write {}", path.display()))
}

#[expect(clippy::cast_precision_loss, reason = "one digit is shown")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Whether the goals are met.
pub(crate) fn is_met(rows: &[Row]) -> Result<bool> {
    let (faster, part) = ratios(rows).context("without both workers there is nothing to compare")?;
    let is_whole = rows.iter().filter(|row| row.worker == "flintd").all(|row| row.running == row.tasks);
    Ok(is_whole && faster >= FASTER && part <= SMALLER)
}

/// How many times as fast flintd is, and which part of dockerd's memory it has; medians of the runs.
fn ratios(rows: &[Row]) -> Option<(f64, f64)> {
    let median = |worker: &str, value: fn(&Row) -> f64| {
        let mut values: Vec<f64> = rows.iter().filter(|row| row.worker == worker).map(value).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    };
    let ratio = |value| Some(median("flintd", value)? / median("dockerd", value)?);
    Some((1.0 / ratio(|row| row.seconds)?, ratio(|row| mib(row.memory))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(worker: &'static str, seconds: f64, memory: u64) -> Row {
        Row {
            worker,
            tasks: 5,
            running: 5,
            seconds,
            half: seconds,
            cpu: 0.0,
            manager_cpu: 0.0,
            idle: 0,
            memory,
            processes: 1,
        }
    }

    #[test]
    fn goals_are_met_or_missed() {
        let rows = [row("flintd", 1.0, 10), row("dockerd", 4.0, 100)];
        assert!(is_met(&rows).unwrap());
        assert!(!is_met(&[row("flintd", 1.1, 10), rows[1]]).unwrap());
        assert!(!is_met(&[row("flintd", 1.0, 11), rows[1]]).unwrap());
        assert!(!is_met(&[Row { running: 4, ..rows[0] }, rows[1]]).unwrap(), "fewer are no win");
        assert!(is_met(&rows[..1]).is_err());
    }
}
