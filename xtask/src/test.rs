//! `cargo xtask test`: every check there is, and one closing line.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::Context;
use lexopt::prelude::*;

use crate::interrupt::Interrupt;
use crate::tally::{self, Counts};
use crate::{check, dist, packages, vm, workspace};

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
        // The release build links on one core for minutes: lints and unit tests have the other meanwhile. It is of another
        // profile, so the cargos do not wait for each other.
        let mut programs = None;
        if !quick {
            self.step("packages", |_| packages::install().map(|()| Counts::default()))?;
            programs = Some(std::thread::spawn(dist::build));
        }
        self.step("format", |_| passes(workspace::cargo().args(["fmt", "--all", "--check"])))?;
        self.step("lints", |_| {
            let clippy = [
                "clippy",
                "--workspace",
                "--all-targets",
                "--locked",
                "--quiet",
                "--keep-going",
                "--features",
                "integration-tests/vm",
                "--",
                "-D",
                "warnings",
            ];
            passes(workspace::cargo().args(clippy))
        })?;
        self.step("lints for aarch64", Self::lints_for_aarch64)?;
        for check in check::ALL {
            self.step(check.name, |_| check.run().map(Counts::one))?;
        }
        if workspace::find_program("cargo-deny").is_some() {
            let deny = ["deny", "--offline", "check", "bans", "licenses", "sources"];
            self.step("cargo-deny", |_| passes(workspace::cargo().args(deny)))?;
        }
        self.step("unit tests", |run| {
            let apart = ["--exclude", "integration-tests", "--exclude", "init-object"];
            let tests = ["test", "--workspace", "--locked", "--no-fail-fast"];
            run.tests(workspace::cargo().args(tests).args(apart))
        })?;
        if !quick {
            let mut faulty = None;
            self.step("programs for the integration tests", |_| {
                let built = programs.map(std::thread::JoinHandle::join);
                built.transpose().map_err(|_| anyhow::anyhow!("the release build panicked"))?.transpose()?;
                faulty = Some(faulty_runtime()?);
                Ok(Counts::default())
            })?;
            self.step("the linked init side", |run| {
                let program = workspace::dist_folder().join("debug/flint");
                let tests = ["test", "--package", "init-object", "--locked", "--no-fail-fast"];
                run.tests(workspace::cargo().args(tests).env("FLINT_DEBUG_BIN", program))
            })?;
            self.step("integration tests", |run| match &faulty {
                Some(faulty) => run.integration_tests(faulty, options),
                None => anyhow::bail!("not run, since their programs were not built"),
            })?;
            self.step("the virtual machine", |run| match &faulty {
                Some(_) => run.virtual_machine(),
                None => anyhow::bail!("not run, since its programs were not built"),
            })?;
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

    /// The runtime for the other architecture that it is written for. clippy does not link, so no linker is needed.
    fn lints_for_aarch64(&self) -> anyhow::Result<Counts> {
        let target = "aarch64-unknown-linux-musl";
        if let Err(error) = dist::ensure_target(target) {
            self.log_skip(&format!("SKIP lints for aarch64: {error:#}"))?;
            // It is counted as skipped in the end; as one that passed until then, like libtest's.
            return Ok(Counts::one(true));
        }
        let clippy = ["clippy", "--locked", "--quiet", "--keep-going", "--target", target];
        let runtime = ["flint-sys", "flint-init", "flint-runtime", "flint"];
        let mut cargo = workspace::cargo();
        cargo.args(clippy).args(runtime.iter().flat_map(|name| ["--package", name])).args(["--", "-D", "warnings"]);
        passes(&mut cargo)
    }

    /// Those of real engines run beside all others: each has a place of its own, and waits more than it works.
    fn integration_tests(&self, faulty: &Path, options: &[OsString]) -> anyhow::Result<Counts> {
        let cargo = |tests: &[String]| {
            let dist = workspace::dist_folder();
            let mut cargo = workspace::cargo();
            cargo.args(["test", "--package", "integration-tests", "--locked", "--no-fail-fast"]).args(tests);
            cargo.env("FLINT_DIST", &dist).env("FLINT_BIN", dist.join("flint")).env("FLINT_FAULTS_BIN", faulty);
            cargo
        };
        // Built before, so that the two do not wait for each other to build.
        if !cargo(&["--no-run".to_owned()]).status().context("starting cargo test")?.success() {
            anyhow::bail!("they do not build; the messages stand above");
        }
        let of_engine = |name: &String| ENGINES.iter().any(|engine| name.contains(engine));
        let (engines, others): (Vec<String>, Vec<String>) = integration_test_names()?.into_iter().partition(of_engine);
        let only = |names: &[String], own: &[&str]| -> Vec<String> {
            let tests = names.iter().flat_map(|name| ["--test".to_owned(), name.clone()]);
            own.iter().map(|&word| word.to_owned()).chain(tests).collect()
        };
        let (mut engines, mut others) = (cargo(&only(&engines, &[])), cargo(&only(&others, &["--lib"])));
        engines.arg("--").args(options).env("FLINT_SKIP_LOG", &self.skip_log).stdin(Stdio::null());
        let engines = std::thread::spawn(move || engines.output());
        let mut counts = self.tests(others.arg("--").args(options))?;
        let engines =
            engines.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?.context("starting cargo test")?;
        for text in [&engines.stderr, &engines.stdout] {
            std::io::stdout().write_all(text).context("writing to stdout")?;
        }
        let mut own = Counts::default();
        String::from_utf8_lossy(&engines.stdout).lines().filter_map(Counts::of_line).for_each(|line| own.add(line));
        if !engines.status.success() && own.failed == 0 {
            own.add(Counts::one(false));
        }
        counts.add(own);
        Ok(counts)
    }

    /// The short form of `cargo xtask vm`: one machine with cgroup v2 and all its controllers.
    fn virtual_machine(&self) -> anyhow::Result<Counts> {
        if let Some(reason) = vm::missing() {
            self.log_skip(&format!("SKIP virtual machine: {reason}"))?;
            // It is counted as skipped in the end; as one that passed until then, like libtest's.
            return Ok(Counts::one(true));
        }
        let mut counts = Counts::default();
        let flint = workspace::dist_folder().join("flint");
        let ended = vm::short(&self.interrupt, vec![("FLINT_BIN".to_owned(), flint.into())], &mut |line| {
            counts.add(Counts::of_line(line.trim_end()).unwrap_or_default());
        })?;
        println!("booted in {} s", ended.boot);
        for skip in &ended.skips {
            self.log_skip(skip)?;
        }
        if ended.code != 0 && counts.failed == 0 {
            counts.add(Counts::one(false));
        }
        Ok(counts)
    }

    fn log_skip(&self, line: &str) -> anyhow::Result<()> {
        let log = fs::OpenOptions::new().append(true).open(&self.skip_log);
        let written = log.and_then(|mut log| log.write_all(format!("{line}\n").as_bytes()));
        written.with_context(|| format!("writing {}", self.skip_log.display()))
    }

    /// Runs libtest programs under cargo, shows what they say, and adds up what they count.
    fn tests(&self, cargo: &mut Command) -> anyhow::Result<Counts> {
        cargo.env("FLINT_SKIP_LOG", &self.skip_log).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = cargo.spawn().context("starting cargo test")?;
        let mut counts = Counts::default();
        if let Some(output) = child.stdout.take() {
            let mut console = std::io::stdout().lock();
            for line in BufReader::new(output).split(b'\n') {
                let line = line.context("reading what cargo test says")?;
                counts.add(Counts::of_line(&String::from_utf8_lossy(&line)).unwrap_or_default());
                console.write_all(&line).and_then(|()| console.write_all(b"\n")).context("writing to stdout")?;
            }
        }
        let status = child.wait().context("waiting for cargo test")?;
        // Did not build, or died before it could count.
        if !status.success() && counts.failed == 0 {
            counts.add(Counts::one(false));
        }
        Ok(counts)
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
        for name in &self.failed {
            println!("failed: {name}");
        }
        println!("{:.0} s", self.started.elapsed().as_secs_f64());
        println!("{}", self.counts);
        Ok(if self.counts.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Runs a program that is one check: it passes with exit status 0.
fn passes(command: &mut Command) -> anyhow::Result<Counts> {
    let status = command.stdin(Stdio::null()).status();
    let status = status.with_context(|| format!("starting {}", command.get_program().display()))?;
    Ok(Counts::one(status.success()))
}

/// What stands in the names of tests with real engines.
const ENGINES: [&str; 5] = ["buildah", "containerd", "cri", "docker", "podman"];

/// The tests that need no feature: `vm_` ones run in a virtual machine alone.
fn integration_test_names() -> anyhow::Result<Vec<String>> {
    let folder = workspace::root().join("integration-tests/tests");
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        names.extend(name.strip_suffix(".rs").filter(|name| !name.starts_with("vm_")).map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

/// Builds the runtime that fails where it is told to, for the fault tests, with what the unit tests have built already. It
/// is not in target/dist/: it never ships.
fn faulty_runtime() -> anyhow::Result<PathBuf> {
    println!("building flint with faults");
    let status = workspace::cargo()
        .args(["build", "--quiet", "--locked", "--package", "flint", "--features", "faults"])
        .status()
        .context("starting cargo build")?;
    anyhow::ensure!(status.success(), "cargo build failed ({status}); its messages stand above");
    // Away from cargo's place, where the next build without faults would put its own.
    let built = workspace::target_folder().join("debug/flint");
    let folder = workspace::target_folder().join("faults");
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let kept = folder.join("flint");
    fs::copy(&built, &kept).with_context(|| format!("copying {} to {}", built.display(), kept.display()))?;
    Ok(kept)
}
