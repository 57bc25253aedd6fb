//! `cargo xtask test`: every check there is, and one closing line.

mod lanes;
pub(crate) mod programs;

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::sync::{LazyLock, mpsc};
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::Context;
use lexopt::prelude::*;

use crate::interrupt::Interrupt;
use crate::tally::{self, Counts};
use crate::{check, dist, packages, vm, workspace};
use lanes::{Lane, Program};
use programs::{Lints, SELECTION, TestProgram};

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
    skip_log: PathBuf,
    started: Instant,
}

impl Run {
    fn new() -> anyhow::Result<Self> {
        let folder = workspace::target_folder();
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let skip_log = folder.join("skipped-tests");
        fs::write(&skip_log, "").with_context(|| format!("emptying {}", skip_log.display()))?;
        let interrupt = Interrupt::watch()?;
        Ok(Self { interrupt, counts: Counts::default(), failed: Vec::new(), skip_log, started: Instant::now() })
    }

    fn everything(mut self, quick: bool, options: &[OsString]) -> anyhow::Result<ExitCode> {
        let mut release = None;
        if !quick {
            // It needs none of the packages.
            release = Some(Release::begin());
            self.step("packages", |_| packages::install().map(|()| Counts::default()))?;
            if vm::missing().is_none() {
                // Who needs the machine waits for it by its lock, and says why there is none.
                let _ = std::thread::spawn(vm::prepare);
            }
        }
        self.step("format", |_| passes(workspace::cargo().args(["fmt", "--all", "--check"])))?;
        let mut tests = Vec::new();
        let mut lints = Lints::Denied;
        // Made from a mirror, which takes minutes and little of a core. Who needs one before it is there waits for it.
        let mut systems = None;
        if !quick {
            self.step("the program that makes systems for the others", |run| {
                let programs = programs::build(&["--test".to_owned(), SYSTEMS.to_owned()], lints)?;
                let lane = Lane::of(programs.iter().map(|program| run.entry(program)).collect());
                systems = Some(std::thread::spawn(|| lanes::run(vec![lane])));
                Ok(Counts::default())
            })?;
        }
        self.step("lints, and programs of the tests", |_| {
            tests = programs::build(&[], lints)?;
            Ok(Counts::one(true))
        })?;
        for check in check::ALL {
            self.step(check.name, |_| check.run().map(Counts::one))?;
        }
        if workspace::find_program("cargo-deny").is_some() {
            let deny = ["deny", "--offline", "check", "bans", "licenses", "sources"];
            self.step("cargo-deny", |_| passes(workspace::cargo().args(deny)))?;
        }
        if tests.is_empty() {
            // What is told of the lints should not hide what the tests say.
            lints = Lints::None;
            self.step("programs of the tests", |_| {
                tests = programs::build(&[], lints)?;
                Ok(Counts::default())
            })?;
        }
        // It waits for nothing but cores, and nothing waits for it: beside the rest, where that leaves a core idle.
        let by_cargo = |run: &Self| {
            let lane = run.by_cargo(lints)?;
            anyhow::Ok(std::thread::spawn(move || {
                // Linux has a priority for each thread, and gives it to the thread's children.
                rustix::process::nice(10).context("lowering a thread's priority")?;
                lanes::run(vec![lane])
            }))
        };
        let mut checked = if quick { Some(by_cargo(&self)?) } else { None };
        // They wait more than they work: beside the rest, too.
        let is_apart = |test: &&TestProgram| [INTEGRATION, LINKED, MAKING_SYSTEMS].iter().any(|of| test.is_of(of));
        let of_units = Lane::of(tests.iter().filter(|test| !is_apart(test)).map(|test| self.entry(test)).collect());
        let units = std::thread::spawn(|| lanes::run(vec![of_units]));
        if let Some(release) = release {
            let mut built = None;
            self.step("programs for the integration tests", |_| {
                built = Some(release.static_programs()?);
                Ok(Counts::default())
            })?;
            checked = Some(by_cargo(&self)?);
            self.step("integration tests", |run| match &built {
                Some(host) => run.integration_tests(&tests, host, options),
                None => anyhow::bail!("not run, since their programs were not built"),
            })?;
        }
        self.step("unit tests", |_| joined(units))?;
        if let Some(checked) = checked {
            self.step("lints for aarch64, and doc tests", |_| joined(checked))?;
        }
        if let Some(systems) = systems {
            self.step("systems for the others", |_| joined(systems))?;
        }
        self.close()
    }

    /// Runs one step and counts it; an error of the step itself is a failure like any other.
    ///
    /// # Errors
    ///
    /// When xtask was interrupted.
    fn step(&mut self, name: &str, run: impl FnOnce(&Self) -> anyhow::Result<Counts>) -> anyhow::Result<()> {
        println!("\n== {name}");
        let started = Instant::now();
        let counts = match run(self) {
            Ok(counts) => counts,
            Err(error) => {
                println!("error: {error:#}");
                Counts::one(false)
            }
        };
        self.interrupt.check()?;
        if counts.failed > 0 {
            self.failed.push(name.to_owned());
        }
        println!("-- {name}: {counts} ({:.1} s)", started.elapsed().as_secs_f64());
        self.counts.add(counts);
        Ok(())
    }

    /// A program, told where skipped tests append their line.
    fn entry(&self, test: &TestProgram) -> Program {
        let mut command = test.command();
        command.env("FLINT_SKIP_LOG", &self.skip_log);
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
                self.log_skip(&format!("SKIP lints for aarch64: {error:#}"))?;
                // It is counted as skipped in the end; as one that passed until then, like libtest's.
                Command::new("true")
            }
        };
        let mut cargo = workspace::cargo();
        cargo.args(["test", "--quiet", "--doc", "--no-fail-fast"]).args(SELECTION);
        lints.apply(&mut cargo);
        cargo.env("FLINT_SKIP_LOG", &self.skip_log).stdin(Stdio::null());
        Ok(Lane::of(vec![
            Program { name: "lints for aarch64".to_owned(), command: lints_for_aarch64, is_check: true },
            Program { name: "doc tests".to_owned(), command: cargo, is_check: false },
        ]))
    }

    /// Those of real engines, those of each daemon, and a virtual machine, run beside all others: each has a place of its
    /// own, and waits more than it works. The daemons' wait for the `host`'s programs; the others begin meanwhile.
    fn integration_tests(
        &self,
        tests: &[TestProgram],
        host: &HostPrograms,
        options: &[OsString],
    ) -> anyhow::Result<Counts> {
        let dist = workspace::dist_folder();
        let entry = |test: &TestProgram| {
            let mut entry = self.entry(test);
            entry.command.args(options);
            entry.command.env("FLINT_DIST", &dist).env("FLINT_BIN", dist.join("flint"));
            entry.command.env("FLINT_FAULTS_BIN", workspace::target_folder().join("debug/flint"));
            entry.command.env("FLINT_DEBUG_BIN", dist.join("debug/flint"));
            entry
        };
        let named = |name: &str| {
            let is_it = |test: &&TestProgram| test.is_of(INTEGRATION) && test.name == name;
            Lane::of(tests.iter().filter(is_it).map(entry).collect())
        };
        let apart = [&[ENGINES, NOT_HERE], &DAEMONS[..]].concat();
        let is_other = |test: &&TestProgram| test.is_of(INTEGRATION) && !apart.contains(&test.name.as_str());
        // The last builds programs with cargo, which waits for the host's build.
        let others = tests.iter().filter(is_other).chain(tests.iter().filter(|test| test.is_of(LINKED)));
        let built = || LazyLock::force(host).clone().map_err(anyhow::Error::msg);
        let mut lanes = vec![named(ENGINES), Lane::of(others.map(entry).collect())];
        lanes.extend(DAEMONS.map(|name| named(name).after(&built)));
        std::thread::scope(|scope| {
            let machine = scope.spawn(|| self.virtual_machine(tests));
            let mut counts = lanes::run(lanes)?;
            counts.add(machine.join().map_err(|_| anyhow::anyhow!("the machine's thread panicked"))??);
            Ok(counts)
        })
    }

    /// The short form of `cargo xtask vm`: one machine with cgroup v2 and all its controllers.
    fn virtual_machine(&self, tests: &[TestProgram]) -> anyhow::Result<Counts> {
        if let Some(reason) = vm::missing() {
            self.log_skip(&format!("SKIP virtual machine: {reason}"))?;
            // It is counted as skipped in the end; as one that passed until then, like libtest's.
            return Ok(Counts::one(true));
        }
        let (mut counts, mut said, started) = (Counts::default(), String::new(), Instant::now());
        let flint = workspace::dist_folder().join("flint");
        let environment = vec![("FLINT_BIN".to_owned(), flint.into())];
        let ended = vm::short(&self.interrupt, environment, tests, &mut |line| {
            counts.add(Counts::of_line(line.trim_end()).unwrap_or_default());
            said += line;
        })?;
        counts.failures = tally::failures(&said);
        for skip in &ended.skips {
            self.log_skip(skip)?;
        }
        if ended.code != 0 && counts.failed == 0 {
            counts.add(Counts::one(false));
        }
        let seconds = started.elapsed().as_secs_f64();
        let text = format!("{said}   the virtual machine: {counts} (booted in {} s, {seconds:.1} s)\n", ended.boot);
        std::io::stdout().lock().write_all(text.as_bytes()).context("writing to stdout")?;
        Ok(counts)
    }

    fn log_skip(&self, line: &str) -> anyhow::Result<()> {
        let log = fs::OpenOptions::new().append(true).open(&self.skip_log);
        let written = log.and_then(|mut log| log.write_all(format!("{line}\n").as_bytes()));
        written.with_context(|| format!("writing {}", self.skip_log.display()))
    }

    fn close(mut self) -> anyhow::Result<ExitCode> {
        let log = fs::read_to_string(&self.skip_log).with_context(|| format!("reading {}", self.skip_log.display()))?;
        let skips = tally::skips(&log);
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

/// The release build. It links on one core for minutes: the tests' build has the other meanwhile. It is of another profile,
/// so the cargos do not wait for each other.
struct Release {
    built_static: mpsc::Receiver<anyhow::Result<()>>,
    built: JoinHandle<anyhow::Result<()>>,
}

impl Release {
    fn begin() -> Self {
        let (tell, built_static) = mpsc::channel();
        let built = std::thread::spawn(move || {
            // A receiver that is gone is a run that was interrupted.
            let _ = tell.send(dist::build_shipped(true).map(drop));
            // The last lanes to begin wait for these alone: they are built before what the other lanes do, which are some twenty
            // programs at a time. Only root may; for others they come later.
            let _ = rustix::process::nice(-10);
            dist::build_shipped(false).map(drop)
        });
        Self { built_static, built }
    }

    /// Waits for the static programs; the host's are built after them.
    fn static_programs(self) -> anyhow::Result<HostPrograms> {
        self.built_static.recv().context(PANICKED)??;
        let wait = || {
            let built = self.built.join().unwrap_or_else(|_| Err(anyhow::anyhow!(PANICKED)));
            built.map_err(|error| format!("{error:#}"))
        };
        Ok(LazyLock::new(Box::new(wait)))
    }
}

const PANICKED: &str = "the release build panicked";

/// What lanes on a thread of their own counted.
fn joined(lanes: JoinHandle<anyhow::Result<Counts>>) -> anyhow::Result<Counts> {
    lanes.join().map_err(|_| anyhow::anyhow!("a thread of lanes panicked"))?
}

/// How the build of the programs for the host's own target ended: whoever looks first waits for it, and so do others.
type HostPrograms = LazyLock<Result<(), String>, Box<dyn FnOnce() -> Result<(), String> + Send>>;

/// Runs a program that is one check: it passes with exit status 0.
fn passes(command: &mut Command) -> anyhow::Result<Counts> {
    let status = command.stdin(Stdio::null()).status();
    let status = status.with_context(|| format!("starting {}", command.get_program().display()))?;
    Ok(Counts::one(status.success()))
}

/// The package of the integration tests, and those that run beside each other: with real engines, and of programs for the
/// host's own target.
const INTEGRATION: &str = "integration-tests";
const ENGINES: &str = "engines";
const DAEMONS: [&str; 3] = ["swarm", "supervisor", "bundles"];
const NOT_HERE: &str = "vm";
/// It makes what others start, beside all steps; and its package, which needs so little that it is there long before the others.
const SYSTEMS: &str = "systems";
const MAKING_SYSTEMS: &str = "integration-tests/systems";
/// The package that looks at the linked init side: it wants the release build, and builds programs in the same way.
const LINKED: &str = "integration-tests/init-object";
