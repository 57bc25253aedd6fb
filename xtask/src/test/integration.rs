//! The integration tests: which of them run beside each other, and what each waits for.
//!
//! ```text
//!  static programs ──┬─> engines
//!                    ├─> runtime, shim, library, faults, ...
//!                    └─> the virtual machine
//!  host's programs ──┬─> swarm
//!                    ├─> supervisor
//!                    ├─> bundles
//!                    └─> the linked programs, when cargo has built these tests
//! ```
//!
//! They wait more than they work, so they begin while the rest is still compiled: no core is idle then.

use std::ffi::OsString;
use std::io::Write;
use std::num::NonZero;
use std::time::Instant;

use anyhow::{Context, ensure};

use super::lanes::{self, Lane, Program};
use super::programs::TestProgram;
use super::release::Release;
use super::skips::SkipLog;
use crate::interrupt::Interrupt;
use crate::tally::{self, Counts};
use crate::vm;
use crate::workspace::{self, Metadata};

/// Their package.
pub(super) const PACKAGE: &str = "integration-tests";
/// Those that have a lane of their own: with real engines, and of each program for the host's own target.
const ENGINES: &str = "engines";
const DAEMONS: [&str; 3] = ["swarm", "supervisor", "bundles"];
const NOT_HERE: &str = "vm";
/// How many of the longest lane's tests run at a time, at least: each waits for an engine of its own. The daemons' tests ask theirs
/// again and again, and together take longer where more of them run.
const ENGINES_AT_ONCE: usize = 4;
/// The package that looks at the linked init side: it wants the release build, and builds programs in the same way.
pub(super) const LINKED: &str = "integration-tests/init-object";

/// `faults` runs the command that fails where it is told to, and cargo builds a package's programs beside its own integration
/// tests.
const RUNTIME_PACKAGE: &str = "flint";

/// What cargo has to be told to build for them. By the names of tests: by those of packages it would choose other features.
///
/// # Errors
///
/// When cargo does not say what the packages have.
pub(super) fn targets() -> anyhow::Result<Vec<String>> {
    let metadata = Metadata::load()?;
    let packages = metadata.members().filter(|package| [PACKAGE, RUNTIME_PACKAGE].contains(&package.name.as_str()));
    let targets = packages.flat_map(|package| &package.targets);
    let tests = targets.filter(|target| target.kind.iter().any(|kind| kind == "test"));
    Ok(tests.flat_map(|test| ["--test".to_owned(), test.name.clone()]).collect())
}

/// What they are run with.
pub(super) struct Integration<'a> {
    pub(super) release: &'a Release,
    pub(super) interrupt: &'a Interrupt,
    pub(super) skips: &'a SkipLog,
    /// For the tests' main.
    pub(super) options: &'a [OsString],
}

impl Integration<'_> {
    /// Runs those of `tests`: with real engines, of each daemon, and in a virtual machine beside all others. Each has a place of
    /// its own. The daemons' wait for the programs of the host; the others begin meanwhile.
    ///
    /// # Errors
    ///
    /// When they were not built, a program cannot be started or heard, or the machine fails.
    pub(super) fn run(&self, tests: &[TestProgram]) -> anyhow::Result<Counts> {
        ensure!(!tests.is_empty(), "not run, since they were not built");
        let lane = |wanted: &dyn Fn(&str) -> bool| {
            let ours = tests.iter().filter(|test| test.is_of(PACKAGE) && wanted(&test.name));
            Lane::of(ours.map(|test| self.program(test)).collect())
        };
        let named = |name: &str| lane(&|test| test == name);
        let apart = [&[ENGINES, NOT_HERE], &DAEMONS[..]].concat();
        let others = lane(&|test| !apart.contains(&test));
        let static_programs = || self.release.static_programs();
        let all_programs = || self.release.all_programs();
        let mut lanes = vec![named(ENGINES).after(&static_programs), others.after(&static_programs)];
        lanes.extend(DAEMONS.map(|name| named(name).after(&all_programs)));
        std::thread::scope(|scope| {
            let machine = scope.spawn(|| self.virtual_machine(tests));
            let mut counts = lanes::run(lanes, self.interrupt)?;
            counts.add(machine.join().map_err(|_| anyhow::anyhow!("the machine's thread panicked"))??);
            Ok(counts)
        })
    }

    /// Runs those of `tests` that look at the linked programs. They build others with cargo, which is at the host's until these
    /// are there.
    ///
    /// # Errors
    ///
    /// When a program cannot be started or heard.
    pub(super) fn linked(&self, tests: &[TestProgram]) -> anyhow::Result<Counts> {
        let all_programs = || self.release.all_programs();
        let linked = tests.iter().filter(|test| test.is_of(LINKED)).map(|test| self.program(test)).collect();
        lanes::run(vec![Lane::of(linked).after(&all_programs)], self.interrupt)
    }

    fn program(&self, test: &TestProgram) -> Program {
        let dist = workspace::dist_folder();
        let mut command = test.command();
        command.args(self.options);
        self.skips.name_to(&mut command);
        command.env("FLINT_DIST", &dist).env("FLINT_BIN", dist.join("flint"));
        command.env("FLINT_FAULTS_BIN", workspace::target_folder().join("debug/flint"));
        command.env("FLINT_DEBUG_BIN", dist.join("debug/flint"));
        if test.name == ENGINES && std::env::var_os("RUST_TEST_THREADS").is_none() {
            let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
            command.env("RUST_TEST_THREADS", ENGINES_AT_ONCE.max(cores).to_string());
        }
        Program { name: test.name.clone(), command, is_check: false }
    }

    /// The short form of `cargo xtask vm`: one machine with cgroup v2 and all its controllers.
    fn virtual_machine(&self, tests: &[TestProgram]) -> anyhow::Result<Counts> {
        if let Some(reason) = vm::missing() {
            self.skips.add(&format!("SKIP virtual machine: {reason}"))?;
            // It is counted as skipped in the end; as one that passed until then, like libtest's.
            return Ok(Counts::one(true));
        }
        self.release.static_programs().context("the virtual machine was not run")?;
        let (mut counts, mut said, started) = (Counts::default(), String::new(), Instant::now());
        let flint = workspace::dist_folder().join("flint");
        let environment = vec![("FLINT_BIN".to_owned(), flint.into())];
        let ended = vm::short(self.interrupt, environment, tests, &mut |line| {
            counts.add(Counts::of_line(line.trim_end()).unwrap_or_default());
            said += line;
        })?;
        counts.failures = tally::failures(&said);
        for skip in &ended.skips {
            self.skips.add(skip)?;
        }
        if ended.code != 0 && counts.failed == 0 {
            counts.add(Counts::one(false));
        }
        let seconds = started.elapsed().as_secs_f64();
        let text = format!("{said}   the virtual machine: {counts} (booted in {} s, {seconds:.1} s)\n", ended.boot);
        std::io::stdout().lock().write_all(text.as_bytes()).context("writing to stdout")?;
        Ok(counts)
    }
}
