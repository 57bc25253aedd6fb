//! `cargo xtask fuzz`: the fuzz targets of `fuzz/`, with what they need set up.
//!
//! ```text
//!  nightly, C++, cargo-fuzz: there? ──> cargo fuzz build ──> each target ──> its figures
//!                                                             reads fuzz/corpus/T, writes target/fuzz/corpus/T
//!  --minimise ──> both, as few inputs as reach the same edges ──> fuzz/corpus/T
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, bail};
use lexopt::prelude::*;

use crate::workspace;

const HELP: &str = "\
usage: cargo xtask fuzz [--seconds N] [--minimise] [TARGET...]

Runs the fuzz targets (all, or those that are named) one after the other. They need a nightly compiler
(rustup toolchain install nightly --profile minimal), a C++ compiler and libseccomp; cargo-fuzz is installed
by cargo if it is missing. New inputs go to target/fuzz/corpus; a crash ends the run, and its input is kept in
fuzz/artifacts.

  --seconds N     how long each target runs (60)
  --minimise      do not run: choose as few inputs as reach the same edges, at most 48 KiB of each target,
                  and put them into fuzz/corpus";

/// A fuzz target.
struct Target {
    name: &'static str,
    /// The longest input in bytes.
    longest: u32,
}

/// Bytes of a target's inputs in the repository.
const MOST: u64 = 48 << 10;

const TARGETS: &[Target] = &[
    Target { name: "config_to_plan", longest: 16 << 10 },
    Target { name: "state_file", longest: 4 << 10 },
    // Docker's default profile has 14 KiB.
    Target { name: "seccomp", longest: 16 << 10 },
    Target { name: "arguments", longest: 512 },
    Target { name: "init_handshake", longest: 4 << 10 },
    Target { name: "layer", longest: 16 << 10 },
    Target { name: "documents", longest: 8 << 10 },
    Target { name: "texts", longest: 1 << 10 },
    Target { name: "archives", longest: 16 << 10 },
    Target { name: "manifest", longest: 8 << 10 },
];

/// Runs the command.
pub(crate) fn command(mut parser: lexopt::Parser) -> anyhow::Result<ExitCode> {
    let (mut seconds, mut minimise, mut chosen) = (60_u32, false, Vec::new());
    while let Some(argument) = parser.next()? {
        match argument {
            Long("seconds") => seconds = parser.value()?.parse()?,
            Long("minimise") => minimise = true,
            Short('h') | Long("help") => {
                println!("{HELP}");
                return Ok(ExitCode::SUCCESS);
            }
            Value(name) => {
                let name = name.string()?;
                let names = || TARGETS.iter().map(|target| target.name).collect::<Vec<_>>().join(", ");
                let target = TARGETS.iter().find(|target| target.name == name);
                chosen.push(target.with_context(|| format!("there is no target {name}; there are {}", names()))?);
            }
            other => return Err(other.unexpected().into()),
        }
    }
    let chosen = if chosen.is_empty() { TARGETS.iter().collect() } else { chosen };
    set_up()?;
    for target in &chosen {
        println!("\n== {}", target.name);
        if minimise { target.minimise()? } else { target.run(seconds)? }
    }
    Ok(ExitCode::SUCCESS)
}

/// Says what is missing, and installs cargo-fuzz.
fn set_up() -> anyhow::Result<()> {
    let is_there = |command: &mut Command| {
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    if !is_there(Command::new("rustup").args(["run", "nightly", "rustc", "--version"])) {
        bail!("no nightly compiler, which libFuzzer needs: rustup toolchain install nightly --profile minimal");
    }
    if !is_there(Command::new("c++").arg("--version")) {
        bail!("no C++ compiler, which libFuzzer is built by: apt-get install g++");
    }
    if !is_there(nightly().args(["fuzz", "--version"])) {
        println!("installing cargo-fuzz by cargo");
        let status = workspace::cargo().args(["install", "--quiet", "--locked", "cargo-fuzz"]).status();
        let status = status.context("starting cargo install")?;
        anyhow::ensure!(status.success(), "cargo install cargo-fuzz failed ({status}); its messages stand above");
    }
    Ok(())
}

/// cargo of the nightly compiler, and nothing of the one that started xtask.
fn nightly() -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", "nightly", "cargo"]).current_dir(workspace::root().join("fuzz"));
    for (name, _) in std::env::vars_os() {
        let ours = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
        if name.to_str().is_some_and(|name| ours(name) || name == "CARGO" || name == "RUSTUP_TOOLCHAIN") {
            command.env_remove(name);
        }
    }
    command
}

impl Target {
    /// Where new inputs go.
    fn work(&self) -> PathBuf {
        workspace::target_folder().join("fuzz/corpus").join(self.name)
    }

    /// The inputs of the repository.
    fn corpus(&self) -> PathBuf {
        workspace::root().join("fuzz/corpus").join(self.name)
    }

    /// Runs it for so many seconds, on one thread.
    fn run(&self, seconds: u32) -> anyhow::Result<()> {
        let scratch = Scratch::new()?;
        let mut cargo = self.cargo_fuzz(&[&self.work(), &self.corpus()])?;
        cargo.args([
            format!("-max_total_time={seconds}"),
            format!("-max_len={}", self.longest),
            "-print_final_stats=1".to_owned(),
            "-timeout=30".to_owned(),
            "-rss_limit_mb=4096".to_owned(),
        ]);
        let status = cargo.env("TMPDIR", &scratch.0).status().context("starting cargo fuzz")?;
        anyhow::ensure!(status.success(), "{} found a fault ({status}); it is told above", self.name);
        Ok(())
    }

    /// Puts into the repository as few inputs as reach the same edges of the code; how often they do does not count.
    fn minimise(&self) -> anyhow::Result<()> {
        let scratch = Scratch::new()?;
        let chosen = workspace::target_folder().join("fuzz/minimised").join(self.name);
        if chosen.exists() {
            fs::remove_dir_all(&chosen).with_context(|| format!("emptying {}", chosen.display()))?;
        }
        fs::create_dir_all(&chosen).with_context(|| format!("making {}", chosen.display()))?;
        let mut cargo = self.cargo_fuzz(&[&chosen, &self.work(), &self.corpus()])?;
        cargo.args(["-set_cover_merge=1", "-use_counters=0", &format!("-max_len={}", self.longest)]);
        let status = cargo.env("TMPDIR", &scratch.0).status().context("starting cargo fuzz")?;
        anyhow::ensure!(status.success(), "{} could not be minimised ({status})", self.name);
        let (mut count, mut bytes) = (0, 0);
        fs::remove_dir_all(self.corpus()).with_context(|| format!("emptying {}", self.corpus().display()))?;
        fs::create_dir_all(self.corpus()).with_context(|| format!("making {}", self.corpus().display()))?;
        for file in oldest_first(&chosen)? {
            let (name, size) = (file.file_name().context("a file without a name")?, file.metadata()?.len());
            if bytes + size <= MOST {
                bytes += fs::copy(&file, self.corpus().join(name)).context("copying an input")?;
                count += 1;
            }
        }
        println!("{}: {count} inputs, {bytes} bytes", self.name);
        Ok(())
    }

    /// `cargo fuzz run` with these folders of inputs; the caller adds options of libFuzzer.
    fn cargo_fuzz(&self, folders: &[&Path]) -> anyhow::Result<Command> {
        let mut cargo = nightly();
        cargo.args(["fuzz", "run", "--fuzz-dir", ".", "--target-dir"]).arg(workspace::target_folder().join("fuzz"));
        cargo.arg(self.name).stdin(Stdio::null());
        for folder in folders {
            fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
            cargo.arg(folder);
        }
        cargo.arg("--");
        Ok(cargo)
    }
}

/// The files of a folder in the order in which they were written: libFuzzer's greedy choice writes what reaches most first.
fn oldest_first(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for file in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let file = file?;
        files.push((file.metadata()?.modified()?, file.path()));
    }
    files.sort();
    Ok(files.into_iter().map(|(_, path)| path).collect())
}

/// A folder for what inputs leave behind when they end the target, in memory where that is possible.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> anyhow::Result<Self> {
        let memory = Path::new("/dev/shm");
        let above = if memory.is_dir() { memory.to_path_buf() } else { workspace::target_folder() };
        let folder = above.join(format!("flint-fuzz-{}", std::process::id()));
        fs::create_dir(&folder).with_context(|| format!("making {}", folder.display()))?;
        Ok(Self(folder))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("xtask: removing {}: {error}", self.0.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A target that is in one of the three places alone would not be run, or not be built.
    #[test]
    fn each_target_has_a_file_a_manifest_entry_and_a_corpus() {
        let folder = workspace::root().join("fuzz");
        let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        let mut files: Vec<_> =
            fs::read_dir(folder.join("targets")).unwrap().map(|file| file.unwrap().file_name()).collect();
        files.sort();
        let mut names: Vec<_> =
            TARGETS.iter().map(|target| std::ffi::OsString::from(format!("{}.rs", target.name))).collect();
        names.sort();
        assert_eq!(files, names);
        for target in TARGETS {
            assert!(manifest.contains(&format!("path = \"targets/{}.rs\"", target.name)), "{}", target.name);
            assert!(fs::read_dir(target.corpus()).unwrap().next().is_some(), "{} has no inputs", target.name);
        }
    }
}
