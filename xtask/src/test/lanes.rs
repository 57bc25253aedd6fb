//! Test programs beside each other, and what they say in an order that people can read.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::Context;

use crate::interrupt::Interrupt;
use crate::tally::{self, Counts};

/// A program that is to be run.
pub(super) struct Program {
    pub(super) name: String,
    pub(super) command: Command,
    /// It is one check by its exit status, where libtest's programs say what they counted.
    pub(super) is_check: bool,
}

/// Programs that run one after the other.
pub(super) struct Lane<'a> {
    programs: Vec<Program>,
    /// What has to end well before they start.
    after: Option<After<'a>>,
}

/// Waits for what a lane needs.
type After<'a> = &'a (dyn Fn() -> anyhow::Result<()> + Sync + 'a);

impl<'a> Lane<'a> {
    pub(super) fn of(programs: Vec<Program>) -> Self {
        Self { programs, after: None }
    }

    pub(super) fn after(self, after: After<'a>) -> Self {
        Self { after: Some(after), ..self }
    }
}

/// Runs all lanes at once; what libtest counted. A program that ended badly and counted no failure is one, and so is a lane
/// that could not start. After an interrupt no further program is started.
///
/// # Errors
///
/// When a program cannot be started or heard, or xtask was interrupted.
pub(super) fn run(lanes: Vec<Lane<'_>>, interrupt: &Interrupt) -> anyhow::Result<Counts> {
    let console = Console::default();
    let counts = std::thread::scope(|scope| {
        let console = &console;
        let start = |lane| scope.spawn(move || run_lane(lane, console, interrupt));
        let running: Vec<_> = lanes.into_iter().map(start).collect();
        let ended = running.into_iter().map(|lane| lane.join().map_err(|_| anyhow::anyhow!("a lane panicked"))?);
        ended.collect::<anyhow::Result<Vec<Counts>>>()
    })?;
    Ok(counts.into_iter().fold(Counts::default(), |mut sum, lane| {
        sum.add(lane);
        sum
    }))
}

fn run_lane(all: Lane<'_>, console: &Console, interrupt: &Interrupt) -> anyhow::Result<Counts> {
    let mut sum = Counts::default();
    if let Some(after) = all.after
        && let Err(error) = after()
    {
        let names: Vec<&str> = all.programs.iter().map(|program| program.name.as_str()).collect();
        console.print(&format!("error: {error:#}\n   not run: {}\n", names.join(", ")))?;
        return Ok(Counts::one(false));
    }
    for Program { name, mut command, is_check } in all.programs {
        interrupt.check()?;
        let started = Instant::now();
        let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| format!("starting {name}"))?;
        let mut counts = Counts::default();
        let mut said = Said::new(console);
        if let Some(stdout) = child.stdout.take() {
            for line in BufReader::new(stdout).split(b'\n') {
                let line = line.with_context(|| format!("reading what {name} says"))?;
                let line = String::from_utf8_lossy(&line).into_owned();
                counts.add(Counts::of_line(&line).unwrap_or_default());
                said.line(line)?;
            }
        }
        counts.failures = tally::failures(&said.held);
        let status = child.wait().with_context(|| format!("waiting for {name}"))?;
        if !status.success() && counts.failed == 0 {
            said.line(format!("{name} ended with {status}"))?;
            counts.add(Counts::one(false));
        }
        if status.success() && is_check {
            counts.add(Counts::one(true));
        }
        said.end(&format!("   {name}: {counts} ({:.1} s)", started.elapsed().as_secs_f64()))?;
        sum.add(counts);
    }
    Ok(sum)
}

/// One line at a time.
#[derive(Default)]
struct Console(Mutex<()>);

impl Console {
    fn print(&self, text: &str) -> anyhow::Result<()> {
        let _one = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).context("writing to stdout")
    }
}

/// What a program says: the lines of its tests at once, what belongs together (why something failed) at its end.
struct Said<'a> {
    console: &'a Console,
    held: String,
}

impl<'a> Said<'a> {
    fn new(console: &'a Console) -> Self {
        Self { console, held: String::new() }
    }

    fn line(&mut self, line: String) -> anyhow::Result<()> {
        let is_of_a_test = line.starts_with("test ") && self.held.is_empty();
        // libtest's frame around them.
        let is_frame = line.is_empty() || line.starts_with("running ");
        if is_frame && self.held.is_empty() {
            return Ok(());
        }
        let line = line + "\n";
        if is_of_a_test {
            return self.console.print(&line);
        }
        self.held += &line;
        Ok(())
    }

    fn end(self, last: &str) -> anyhow::Result<()> {
        self.console.print(&format!("{}{last}\n", self.held))
    }
}
