//! `cargo xtask test`: every check there is, and one closing line.

mod integration;
mod lanes;
pub(crate) mod programs;
mod release;
mod skips;

use std::ffi::OsString;
use std::fs;
use std::process::{Command, ExitCode, Stdio};
use std::thread::ScopedJoinHandle;
use std::time::Instant;

use anyhow::Context;
use lexopt::prelude::*;

use crate::interrupt::Interrupt;
use crate::tally::Counts;
use crate::{check, dist, packages, vm, workspace};
use integration::Integration;
use lanes::{Lane, Program};
use programs::{Lints, SELECTION, TestProgram};
use release::Release;
use skips::SkipLog;

const HELP: &str = "\
usage: cargo xtask test [--quick] [-- OPTION...]

Checks everything: format, lints, layers, licences, dependencies, files, unit tests, and the integration
tests against the programs of `cargo xtask dist`. Installs the packages that the tests need where it can
(root, apt), and says which. A step that fails does not keep the later ones from running. Ends with one line

    N passed, N failed, N skipped

before which every skipped test stands with its reason, and with exit status 0 only if nothing failed.

  --quick         what needs no root, no packages and no release build: no integration tests
  -- OPTION...    for the integration tests (libtest's: a filter, --test-threads=1, ...)";

/// Runs the command.
pub(crate) fn command(mut parser: lexopt::Parser) -> anyhow::Result<ExitCode> {
    let mut quick = false;
    let mut options: Vec<OsString> = Vec::new();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("quick") => quick = true,
            Short('h') | Long("help") => {
                println!("{HELP}");
                return Ok(ExitCode::SUCCESS);
            }
            // lexopt gives what stands behind `--` as values.
            Value(option) => options.push(option),
            other => return Err(other.unexpected().into()),
        }
    }
    Run::new()?.everything(quick, &options)
}

struct Run {
    interrupt: Interrupt,
    counts: Counts,
    failed: Vec<String>,
    skips: SkipLog,
    started: Instant,
}

impl Run {
    fn new() -> anyhow::Result<Self> {
        let folder = workspace::target_folder();
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let skips = SkipLog::new(folder.join("skipped-tests"))?;
        let interrupt = Interrupt::watch()?;
        Ok(Self { interrupt, counts: Counts::default(), failed: Vec::new(), skips, started: Instant::now() })
    }

    fn everything(mut self, quick: bool, options: &[OsString]) -> anyhow::Result<ExitCode> {
        // It needs none of the packages.
        let release = (!quick).then(Release::begin);
        let (interrupt, skips) = (self.interrupt.clone(), self.skips.clone());
        let integration =
            release.as_ref().map(|release| Integration { release, interrupt: &interrupt, skips: &skips, options });
        std::thread::scope(|scope| {
            let mut beside: Vec<(&str, ScopedJoinHandle<'_, anyhow::Result<Counts>>)> = Vec::new();
            if !quick {
                self.step("packages", || packages::install().map(|()| Counts::default()))?;
                if vm::missing().is_none() {
                    // Who needs the machine waits for it by its lock, and says why there is none.
                    let _ = std::thread::spawn(vm::prepare);
                }
            }
            self.step("format", || passes(workspace::cargo().args(["fmt", "--all", "--check"])))?;
            let mut lints = Lints::Denied;
            if let Some(integration) = &integration {
                // Made from a mirror, which takes minutes and little of a core. Who needs one before it is there waits for it.
                let targets = || Ok(vec!["--test".to_owned(), SYSTEMS.to_owned()]);
                let made_by = self.build("the program that makes systems for the others", targets, &mut lints)?;
                let lane = Lane::of(made_by.iter().map(|program| self.entry(program)).collect());
                beside.push(("systems for the others", scope.spawn(|| lanes::run(vec![lane], &interrupt))));
                let tests = self.build("programs of the integration tests", integration::targets, &mut lints)?;
                beside.push(("integration tests", scope.spawn(move || integration.run(&tests))));
            }
            // The lanes that wait for these are short.
            let tests = unhurried(|| self.build("programs of all tests", || Ok(Vec::new()), &mut lints))?;
            for check in check::ALL {
                self.step(check.name, || check.run().map(Counts::one))?;
            }
            if workspace::find_program("cargo-deny").is_some() {
                let deny = ["deny", "--offline", "check", "bans", "licenses", "sources"];
                self.step("cargo-deny", || passes(workspace::cargo().args(deny)))?;
            }
            // They wait more than they work: beside the rest, too.
            let is_apart = |test: &&TestProgram| {
                let of_a_lane = [integration::PACKAGE, MAKING_SYSTEMS].iter().any(|of| test.is_of(of));
                (of_a_lane && test.is_integration) || test.is_of(integration::LINKED)
            };
            let of_units = Lane::of(tests.iter().filter(|test| !is_apart(test)).map(|test| self.entry(test)).collect());
            beside.push(("unit tests", scope.spawn(|| lanes::run(vec![of_units], &interrupt))));
            let (by_cargo, interrupt) = (self.by_cargo(lints)?, &interrupt);
            let checked = scope.spawn(move || unhurried(|| lanes::run(vec![by_cargo], interrupt)));
            beside.push(("lints for aarch64, and doc tests", checked));
            if let Some(integration) = &integration {
                beside.push(("the linked programs", scope.spawn(move || integration.linked(&tests))));
            }
            // Their programs have said how long they took.
            for (name, lanes) in beside {
                let counts = lanes.join().map_err(|_| anyhow::anyhow!("a thread of lanes panicked"));
                self.ended(name, counts.flatten(), "")?;
            }
            anyhow::Ok(())
        })?;
        self.close()
    }

    /// Builds programs of tests, the workspace's own crates with lints. Where that fails, it is a failure of its own, and these and
    /// later ones are built without: what is told of the lints should not hide what the tests say.
    fn build(
        &mut self,
        name: &str,
        targets: impl Fn() -> anyhow::Result<Vec<String>>,
        lints: &mut Lints,
    ) -> anyhow::Result<Vec<TestProgram>> {
        let mut built = None;
        if *lints == Lints::Denied {
            self.step(&format!("lints, and {name}"), || {
                built = Some(programs::build(&targets()?, Lints::Denied)?);
                Ok(Counts::one(true))
            })?;
        }
        if built.is_none() {
            *lints = Lints::None;
            self.step(name, || {
                built = Some(programs::build(&targets()?, Lints::None)?);
                Ok(Counts::default())
            })?;
        }
        Ok(built.unwrap_or_default())
    }

    /// Runs one step and counts it; an error of the step itself is a failure like any other.
    ///
    /// # Errors
    ///
    /// When xtask was interrupted.
    fn step(&mut self, name: &str, run: impl FnOnce() -> anyhow::Result<Counts>) -> anyhow::Result<()> {
        println!("\n== {name}");
        let started = Instant::now();
        let counts = run();
        self.ended(name, counts, &format!(" ({:.1} s)", started.elapsed().as_secs_f64()))
    }

    fn ended(&mut self, name: &str, counts: anyhow::Result<Counts>, time: &str) -> anyhow::Result<()> {
        let counts = counts.unwrap_or_else(|error| {
            println!("error: {name}: {error:#}");
            Counts::one(false)
        });
        self.interrupt.check()?;
        if counts.failed > 0 {
            self.failed.push(name.to_owned());
        }
        println!("-- {name}: {counts}{time}");
        self.counts.add(counts);
        Ok(())
    }

    /// A program, told where skipped tests append their line.
    fn entry(&self, test: &TestProgram) -> Program {
        let mut command = test.command();
        self.skips.name_to(&mut command);
        Program { name: test.name.clone(), command, is_check: false }
    }

    /// What cargo does itself beside the unit tests: the lints of the runtime for the other architecture that it is written
    /// for (clippy does not link, so no linker is needed), and the tests of the documentation.
    fn by_cargo(&self, lints: Lints) -> anyhow::Result<Lane<'static>> {
        let target = "aarch64-unknown-linux-musl";
        let lints_for_aarch64 = match dist::ensure_target(target) {
            Ok(()) => {
                let mut cargo = workspace::cargo();
                cargo.args(["clippy", "--locked", "--quiet", "--keep-going", "--target", target]);
                let runtime = ["flint-sys", "flint-init", "flint-runtime", "flint"];
                cargo.args(runtime.iter().flat_map(|name| ["--package", name])).args(["--", "-D", "warnings"]);
                cargo.stdin(Stdio::null());
                cargo
            }
            Err(error) => {
                self.skips.add(&format!("SKIP lints for aarch64: {error:#}"))?;
                // It is counted as skipped in the end; as one that passed until then, like libtest's.
                Command::new("true")
            }
        };
        let mut cargo = workspace::cargo();
        cargo.args(["test", "--quiet", "--doc", "--no-fail-fast"]).args(SELECTION);
        lints.apply(&mut cargo);
        self.skips.name_to(&mut cargo);
        cargo.stdin(Stdio::null());
        Ok(Lane::of(vec![
            Program { name: "lints for aarch64".to_owned(), command: lints_for_aarch64, is_check: true },
            Program { name: "doc tests".to_owned(), command: cargo, is_check: false },
        ]))
    }

    fn close(mut self) -> anyhow::Result<ExitCode> {
        let skips = self.skips.read()?;
        // libtest counts a test that returns early as passed.
        let early = skips.len() as u64;
        self.counts.passed = self.counts.passed.saturating_sub(early);
        self.counts.skipped += early;
        println!();
        for skip in &skips {
            println!("skipped: {}: {}", skip.test, skip.reason);
        }
        for failure in &self.counts.failures {
            println!("\n{failure}");
        }
        for name in &self.failed {
            println!("failed: {name}");
        }
        println!("{:.0} s", self.started.elapsed().as_secs_f64());
        println!("{}", self.counts);
        Ok(if self.counts.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Works where that leaves a core idle: on a thread of a lower priority, which Linux has for each thread and gives to its children.
fn unhurried<T: Send>(work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
    let at_work = || {
        rustix::process::nice(5).context("lowering a thread's priority")?;
        work()
    };
    let ended = std::thread::scope(|scope| scope.spawn(at_work).join());
    ended.map_err(|_| anyhow::anyhow!("an unhurried thread panicked"))?
}

/// Runs a program that is one check: it passes with exit status 0.
fn passes(command: &mut Command) -> anyhow::Result<Counts> {
    let status = command.stdin(Stdio::null()).status();
    let status = status.with_context(|| format!("starting {}", command.get_program().display()))?;
    Ok(Counts::one(status.success()))
}

/// It makes what others start, beside all steps; and its package, which needs so little that it is there long before the others.
const SYSTEMS: &str = "systems";
const MAKING_SYSTEMS: &str = "integration-tests/systems";
