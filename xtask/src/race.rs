//! Starts containers by several programs in turn and tells how long each took.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

use crate::interrupt::Interrupt;

/// A way to start one container and to wait for its end.
pub(crate) struct Runner {
    pub(crate) name: String,
    /// Makes the command of the start with this number.
    pub(crate) start: Box<dyn Fn(usize) -> Command>,
    /// Takes away what a failed start with this number may have left.
    pub(crate) clean: Box<dyn Fn(usize)>,
    samples: Vec<Sample>,
}

/// One start, from spawn to the end of the program.
#[derive(Clone, Copy)]
struct Sample {
    wall: Duration,
    /// User and system time of the program and of all it waited for.
    cpu: Duration,
}

impl Runner {
    pub(crate) fn new(
        name: impl Into<String>,
        start: impl Fn(usize) -> Command + 'static,
        clean: impl Fn(usize) + 'static,
    ) -> Self {
        Self { name: name.into(), start: Box::new(start), clean: Box::new(clean), samples: Vec::new() }
    }

    /// Starts one container without counting it.
    ///
    /// # Errors
    ///
    /// When it fails, with what the program said.
    pub(crate) fn try_once(&self) -> anyhow::Result<()> {
        let output =
            (self.start)(0).stdin(Stdio::null()).output().with_context(|| format!("starting {}", self.name))?;
        if !output.status.success() {
            (self.clean)(0);
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("{}: {}", output.status, said.trim().lines().last().unwrap_or("it said nothing"));
        }
        Ok(())
    }

    fn measure(&mut self, number: usize) -> anyhow::Result<()> {
        let mut command = (self.start)(number);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let cpu = children_cpu()?;
        let started = Instant::now();
        let status = command.status().with_context(|| format!("starting {}", self.name))?;
        let wall = started.elapsed();
        if !status.success() {
            (self.clean)(number);
            bail!("start {number} by {} failed ({status}); its message stands above", self.name);
        }
        self.samples.push(Sample { wall, cpu: children_cpu()?.saturating_sub(cpu) });
        Ok(())
    }

    /// The middle of the starts by CPU time, and wall time at a tenth, a half and nine tenths.
    fn summary(&self) -> Option<Summary> {
        Some(Summary {
            cpu: quantile(self.samples.iter().map(|sample| sample.cpu), 50)?,
            low: quantile(self.samples.iter().map(|sample| sample.wall), 10)?,
            wall: quantile(self.samples.iter().map(|sample| sample.wall), 50)?,
            high: quantile(self.samples.iter().map(|sample| sample.wall), 90)?,
        })
    }
}

struct Summary {
    cpu: Duration,
    low: Duration,
    wall: Duration,
    high: Duration,
}

/// Starts `rounds` containers by each runner, in turn, so that noise of the machine falls on all alike.
///
/// # Errors
///
/// When a start fails, or xtask was interrupted.
pub(crate) fn run(runners: &mut [Runner], rounds: usize, interrupt: &Interrupt) -> anyhow::Result<()> {
    for number in 1..=rounds {
        for runner in &mut *runners {
            runner.measure(number)?;
            interrupt.check()?;
        }
    }
    Ok(())
}

/// Prints the medians; `base` is the runner that the last column compares with.
pub(crate) fn print(runners: &[Runner], base: &str) {
    let base_wall = runners.iter().find(|runner| runner.name == base).and_then(Runner::summary).map(|base| base.wall);
    let against = if base_wall.is_some() { format!("{:>12}", format!("x {base}")) } else { String::new() };
    println!("{:<16} {:>9} {:>15} {:>9} {:>9}{against}", "", "wall ms", "p10 to p90", "CPU ms", "a second");
    for runner in runners {
        let Some(summary) = runner.summary() else { continue };
        let spread = format!("{:.2} to {:.2}", millis(summary.low), millis(summary.high));
        let ratio = base_wall.map(|base| format!("{:>12.2}", summary.wall.as_secs_f64() / base.as_secs_f64()));
        println!(
            "{:<16} {:>9.2} {spread:>15} {:>9.2} {:>9.0}{}",
            runner.name,
            millis(summary.wall),
            millis(summary.cpu),
            1.0 / summary.wall.as_secs_f64(),
            ratio.unwrap_or_default(),
        );
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The value below which `percent` of the values lie; None without values.
fn quantile(values: impl Iterator<Item = Duration>, percent: usize) -> Option<Duration> {
    let mut values: Vec<Duration> = values.collect();
    values.sort_unstable();
    let last = values.len().checked_sub(1)?;
    values.get((last * percent + 50) / 100).copied()
}

fn children_cpu() -> anyhow::Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).context("getrusage")?;
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(Duration::from_micros(micros.unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_seen() {
        let values = || (1..=101).rev().map(Duration::from_millis);
        assert_eq!(quantile(values(), 50), Some(Duration::from_millis(51)));
        assert_eq!(quantile(values(), 10), Some(Duration::from_millis(11)));
        assert_eq!(quantile(values(), 90), Some(Duration::from_millis(91)));
        assert_eq!(quantile(std::iter::empty(), 50), None);
        assert_eq!(quantile(std::iter::once(Duration::ZERO), 90), Some(Duration::ZERO));
    }

    #[test]
    fn a_start_that_fails_is_cleaned_and_told() {
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join("cleaned");
        let cleaned = mark.clone();
        let mut failing = Runner::new(
            "false",
            |_| Command::new("false"),
            move |number| {
                std::fs::write(&mark, number.to_string()).unwrap();
            },
        );
        assert!(failing.measure(7).unwrap_err().to_string().contains("start 7 by false"));
        assert_eq!(std::fs::read_to_string(cleaned).unwrap(), "7");
        assert!(failing.summary().is_none());
    }
}
