//! `state` of many held containers: what a kubelet or a health check asks for all the time.

use std::path::Path;

use anyhow::{Result, bail};

use crate::contestant::Runtime;
use crate::measure::Stopwatch;
use crate::spin_up::{Random, Row};

/// The created containers of all runtimes; removed when dropped, also after a failure.
struct Held<'a> {
    all: Vec<(&'a Runtime, String)>,
}

impl Held<'_> {
    /// Removes all, and tells the first that could not be.
    fn remove(&mut self) -> Result<()> {
        let mut result = Ok(());
        for (runtime, id) in self.all.drain(..) {
            let removed = runtime.delete(&id);
            if result.is_ok() {
                result = removed;
            }
        }
        result
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            eprintln!("spinup: a held container was not removed: {error:#}");
        }
    }
}

/// Creates `count` containers with each runtime and measures `state` once on each, interleaved.
///
/// # Errors
///
/// When a signal asks to stop, or containers cannot be removed; a runtime that fails has the reason in its row.
pub fn measure(
    bundle: &Path,
    runtimes: &[Runtime],
    count: usize,
    prefix: &str,
    stopwatch: &Stopwatch,
) -> Result<Vec<Row>> {
    let mut rows: Vec<Row> = runtimes.iter().map(|runtime| Row::new(&runtime.name, &runtime.version)).collect();
    let mut held = Held { all: Vec::new() };
    let id = |runtime: &Runtime, index: usize| format!("{prefix}-{}-held-{index}", runtime.name);
    for (runtime, row) in runtimes.iter().zip(&mut rows) {
        for index in 0..count {
            let id = id(runtime, index);
            let mut command = runtime.make("create", bundle, &id)?;
            held.all.push((runtime, id));
            let made = stopwatch.run(&mut command).and_then(|(status, _)| runtime.check("create", status));
            if let Err(error) = made {
                stopwatch.check_stopped()?;
                if let Some((runtime, id)) = held.all.pop()
                    && runtime.knows(&id)
                {
                    runtime.delete(&id)?;
                }
                row.failure = Some(format!("{error:#}"));
                break;
            }
        }
    }
    let mut random = Random(1);
    for index in 0..count {
        let mut order: Vec<usize> = (0..runtimes.len()).collect();
        random.shuffle(&mut order);
        for place in order {
            let (Some(runtime), Some(row)) = (runtimes.get(place), rows.get_mut(place)) else { continue };
            if row.failure.is_some() {
                continue;
            }
            let mut command = runtime.command(&["state", &id(runtime, index)])?;
            let ended = stopwatch.run(&mut command);
            match ended.and_then(|(status, sample)| runtime.check("state", status).map(|()| sample)) {
                Ok(sample) => row.samples.push(sample),
                Err(error) => {
                    stopwatch.check_stopped()?;
                    row.failure = Some(format!("{error:#}"));
                }
            }
        }
    }
    if let Err(error) = held.remove() {
        bail!("a held container was not removed: {error:#}");
    }
    Ok(rows)
}
