//! `swarm-bench`: a service is scaled from 0 to N on one worker of a swarm: flintd, and dockerd on the same machine.
//!
//! ```text
//!  main (waits, and takes away what is left) ── measuring process
//!                                                 ├── manager: dockerd, drained, in a place of its own
//!                                                 └── one worker after the other, each in a place of its own
//! ```
//!
//! Manager and workers have their own network namespaces, joined by a bridge. Both workers run the same static busybox and have the image before;
//! the service names a worker by its id. What must not happen here: a worker that wins by not running what it says. So the
//! containers' processes are counted on the host, beside what the manager says.
#![forbid(unsafe_code)]

mod report;
mod service;
mod usage;
mod worker;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result, ensure};
use integration_tests::System;
use integration_tests::swarm::Manager;

use crate::worker::Worker;

const HELP: &str = "\
swarm-bench [--tasks 500] [--runs 1] [--patience 600] [--only flintd|dockerd] [--json FILE] [--check]
  --tasks N      a service is scaled from 0 to so many
  --runs N       so many times on each worker, in turns; each time on a new one
  --patience S   a worker that has not all running after so many seconds is measured as it is then
  --check        end with 1 unless flintd has all running 4 times as fast as dockerd, with a tenth of the memory
It takes root, dockerd with containerd and runc, busybox, nft and iptables.
";

/// What was asked for.
struct Options {
    tasks: u64,
    runs: u32,
    patience: u64,
    only: Option<String>,
    json: Option<PathBuf>,
    check: bool,
}

fn main() -> ExitCode {
    let done = parse().and_then(|options| match options {
        None => {
            print!("{HELP}");
            Ok(true)
        }
        Some((options, true)) => measure(&options),
        Some((_, false)) => watch_over(),
    });
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("swarm-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Measures in a process of its own: what an end in the midst of it leaves (Ctrl-C, a failure of the harness) is taken away all the same.
fn watch_over() -> Result<bool> {
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
        // It goes to the whole group: this process only has to outlive it.
        signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false))).context("watch for signals")?;
    }
    let program = std::env::current_exe().context("find this program")?;
    let mut command = std::process::Command::new(program);
    let mut child = command.arg("--measure").args(std::env::args_os().skip(1)).spawn().context("start the measure")?;
    let prefix = format!("flint-it-{}-", child.id());
    let status = child.wait().context("wait for the measure")?;
    integration_tests::sweep(&prefix);
    for folder in [std::env::temp_dir(), "/var/tmp".into()] {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                std::fs::remove_dir_all(entry.path()).with_context(|| format!("remove {}", entry.path().display()))?;
            }
        }
    }
    Ok(status.success())
}

fn measure(options: &Options) -> Result<bool> {
    let manager = Manager::start(System::Host).context("there is no dockerd to be the manager")?;
    let mut rows = Vec::new();
    for run in 0..options.runs {
        for name in worker::NAMES {
            if options.only.as_deref().is_some_and(|only| only != name) {
                continue;
            }
            eprintln!("swarm-bench: {name}, run {} of {}", run + 1, options.runs);
            // Connections have numbers; those of workers that are gone are not used again.
            let number = u8::try_from(rows.len() + 2).context("too many runs")?;
            let worker = Worker::start(name, &manager, number)?;
            let row = service::scale(&manager, &worker, options.tasks, options.patience)?;
            eprintln!("swarm-bench: {name} has {} of {} running after {:.1} s", row.running, row.tasks, row.seconds);
            rows.push(row);
            worker.end(&manager)?;
        }
    }
    report::print(&rows, options.json.as_deref())?;
    Ok(!options.check || report::is_met(&rows)?)
}

/// None: the help is wanted. Whether this is the process that measures.
fn parse() -> Result<Option<(Options, bool)>> {
    use lexopt::prelude::*;
    let mut options = Options { tasks: 500, runs: 1, patience: 600, only: None, json: None, check: false };
    let mut is_measuring = false;
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("measure") => is_measuring = true,
            Long("tasks") => options.tasks = parser.value()?.parse()?,
            Long("runs") => options.runs = parser.value()?.parse()?,
            Long("patience") => options.patience = parser.value()?.parse()?,
            Long("only") => options.only = Some(parser.value()?.string()?),
            Long("json") => options.json = Some(parser.value()?.into()),
            Long("check") => options.check = true,
            Short('h') | Long("help") => return Ok(None),
            other => return Err(other.unexpected().into()),
        }
    }
    ensure!(options.tasks > 0 && options.runs > 0, "nothing is to be measured");
    if let Some(only) = &options.only {
        ensure!(worker::NAMES.contains(&only.as_str()), "there is no worker {only}; there are flintd and dockerd");
    }
    Ok(Some((options, is_measuring)))
}
