//! Spin-up: `run` of a static `true`, all contestants interleaved.
//!
//! Each round runs everyone once, in an order shuffled anew: what a run leaves behind for the kernel (namespaces
//! that die later, RCU callbacks) then falls on all alike.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::contestant::{Runtime, truncated};
use crate::measure::{Sample, Stopwatch};

/// What everybody runs.
#[derive(Debug)]
pub struct Setting<'a> {
    /// The bundle that runs `true`.
    pub bundle: &'a Path,
    /// Its rootfs.
    pub rootfs: &'a Path,
    /// flint-floor.
    pub floor: &'a Path,
    /// Where the floor's output goes.
    pub folder: &'a Path,
    /// How all ids and cgroups begin.
    pub prefix: &'a str,
    /// Measured rounds.
    pub runs: usize,
    /// Rounds before them.
    pub warm_up: usize,
    /// For the order; printed, so that it can be repeated.
    pub seed: u64,
}

/// A row of the table.
#[derive(Debug)]
pub struct Row {
    /// The contestant.
    pub name: String,
    /// Its version or what it is.
    pub about: String,
    /// The measured runs.
    pub samples: Vec<Sample>,
    /// Why it was left out.
    pub failure: Option<String>,
}

/// The row of the floor, counted inside flint-floor: from the first mkdir to the last rmdir.
pub const FLOOR: &str = "floor";
/// The row of the same run, with the start of flint-floor itself.
pub const FLOOR_PROGRAM: &str = "floor program";

/// Runs all rounds. The first two rows are the floor's, then the runtimes in their order.
///
/// # Errors
///
/// When the floor fails or a signal asks to stop; a runtime that fails is left out, with the reason in its row.
pub fn measure(setting: &Setting<'_>, runtimes: &[Runtime], stopwatch: &Stopwatch) -> Result<Vec<Row>> {
    let mut rows = vec![
        Row::new(FLOOR, "raw system calls, from the first mkdir to the last rmdir"),
        Row::new(FLOOR_PROGRAM, "the same runs, with the start of the program that makes them"),
    ];
    rows.extend(runtimes.iter().map(|runtime| Row::new(&runtime.name, &runtime.version)));
    let mut random = Random(setting.seed);
    for round in 0..setting.warm_up + setting.runs {
        let mut order: Vec<usize> = (0..=runtimes.len()).collect();
        random.shuffle(&mut order);
        for index in order {
            let measured = round >= setting.warm_up;
            if index == 0 {
                let (inside, outside) = run_floor(setting, stopwatch)?;
                if measured {
                    push(&mut rows, 0, inside);
                    push(&mut rows, 1, outside);
                }
                continue;
            }
            let (Some(runtime), Some(row)) = (runtimes.get(index - 1), rows.get_mut(index + 1)) else { continue };
            if row.failure.is_some() {
                continue;
            }
            match run_runtime(setting, runtime, round, stopwatch) {
                Ok(sample) if measured => row.samples.push(sample),
                Ok(_) => {}
                Err(error) => {
                    stopwatch.check_stopped()?;
                    row.failure = Some(format!("{error:#}"));
                }
            }
        }
    }
    Ok(rows)
}

fn push(rows: &mut [Row], index: usize, sample: Sample) {
    if let Some(row) = rows.get_mut(index) {
        row.samples.push(sample);
    }
}

impl Row {
    pub(crate) fn new(name: &str, about: &str) -> Self {
        Self { name: name.to_owned(), about: about.to_owned(), samples: Vec::new(), failure: None }
    }

    /// A row of a contestant that could not even begin.
    #[must_use]
    pub fn failed(name: &str, failure: String) -> Self {
        Self { failure: Some(failure), ..Self::new(name, "") }
    }

    /// Wall times in milliseconds.
    #[must_use]
    pub fn wall(&self) -> Vec<f64> {
        self.samples.iter().map(|sample| milliseconds(sample.wall)).collect()
    }

    /// CPU times in milliseconds.
    #[must_use]
    pub fn cpu(&self) -> Vec<f64> {
        self.samples.iter().map(|sample| milliseconds(sample.cpu)).collect()
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// One container of the floor: as flint-floor counts it, and the whole program.
fn run_floor(setting: &Setting<'_>, stopwatch: &Stopwatch) -> Result<(Sample, Sample)> {
    let output: PathBuf = setting.folder.join("floor-stdout");
    let mut command = Command::new(setting.floor);
    command.arg("--rootfs").arg(setting.rootfs).args(["--name", &format!("{}-floor", setting.prefix)]);
    command.stdin(Stdio::null()).stdout(truncated(&output)?).stderr(Stdio::inherit());
    let (status, outside) = stopwatch.run(&mut command)?;
    if !status.success() {
        bail!("the floor failed: {status}");
    }
    let text = fs::read_to_string(&output).with_context(|| format!("cannot read {}", output.display()))?;
    let inside = Sample::from_json(text.trim()).context("flint-floor printed something else")?;
    Ok((inside, outside))
}

fn run_runtime(setting: &Setting<'_>, runtime: &Runtime, round: usize, stopwatch: &Stopwatch) -> Result<Sample> {
    let id = format!("{}-{}-{round}", setting.prefix, runtime.name);
    let result = stopwatch.run(&mut runtime.make("run", setting.bundle, &id)?);
    let result = result.and_then(|(status, sample)| runtime.check("run", status).map(|()| sample));
    // A foreground `run` removes its container; one that failed or was killed may not have.
    if runtime.knows(&id)
        && let Err(left) = runtime.delete(&id)
    {
        return Err(match result {
            Ok(_) => left.context("`run` left its container behind"),
            Err(error) => error.context(format!("clean-up failed too ({left:#})")),
        });
    }
    result
}

/// xorshift64: an order needs no better randomness.
#[derive(Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        // Zero would stay zero.
        self.0 = self.0.max(1);
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Fisher and Yates.
    pub(crate) fn shuffle(&mut self, order: &mut [usize]) {
        for last in (1..order.len()).rev() {
            order.swap(last, (self.next() % (last as u64 + 1)) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Random;

    #[test]
    fn everyone_runs_once_a_round_and_every_place_is_taken() {
        let mut random = Random(7);
        let mut first = [0; 4];
        for _ in 0..400 {
            let mut order = [0, 1, 2, 3];
            random.shuffle(&mut order);
            first[order[0]] += 1;
            order.sort_unstable();
            assert_eq!(order, [0, 1, 2, 3]);
        }
        assert!(first.iter().all(|&count| count > 60), "{first:?}");
    }
}
