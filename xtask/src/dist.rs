//! `cargo xtask dist`: the programs as they are shipped, in target/dist/.
//!
//! ```text
//!  cargo build --profile dist ──> target/dist/debug/NAME (symbols) ──> objcopy --strip-all ──> target/dist/NAME
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, bail};

use crate::elf;
use crate::pages;
use crate::workspace::{self, Metadata};

const HELP: &str = "\
usage: cargo xtask dist

Builds all programs of the workspace for release into target/dist/, and the same programs with their
symbols into target/dist/debug/; their manual pages into target/dist/man/, and completions for shells into
target/dist/completions/. The runtime and the shim are static, on musl: this adds the target to
rustup where it is missing. Programs of parts that are not written yet are not built and not listed.";

/// A program that is built for release.
struct Program {
    package: &'static str,
    name: &'static str,
    /// Static, on musl. The others are for the host's own target.
    linked_static: bool,
    /// What `cargo xtask demo` and `bench` run beside the others, and no test does.
    only_measures: bool,
}

const PROGRAMS: &[Program] = &[
    Program::shipped("flint", "flint", true),
    Program::shipped("containerd-shim-flint-v1", "containerd-shim-flint-v1", true),
    Program::shipped("flintd", "flintd", false),
    Program::shipped("flintd", "flintctl", false),
    Program::shipped("flint-bundle", "flint-bundle", false),
    // What containers run and are measured against; static, so that they bring no start-up cost of their own.
    Program::measuring("benches", "flint-floor", true),
    Program::measuring("benches", "spinup", true),
    Program::measuring("benches", "pull", true),
    Program::measuring("payload", "payload", true),
];
/// Built only when they are asked for: they bring the tests' driver, and all that hangs on it.
const DRIVEN_BENCHES: &[Program] =
    &[Program::measuring("shim-bench", "shim-bench", false), Program::measuring("swarm-bench", "swarm-bench", false)];

impl Program {
    const fn shipped(package: &'static str, name: &'static str, linked_static: bool) -> Self {
        Self { package, name, linked_static, only_measures: false }
    }

    const fn measuring(package: &'static str, name: &'static str, linked_static: bool) -> Self {
        Self { package, name, linked_static, only_measures: true }
    }

    /// The target triple that it is built for.
    fn target(&self) -> String {
        if self.linked_static { workspace::musl_target() } else { workspace::host_target() }
    }
}

/// Runs the command.
pub(crate) fn command(parser: lexopt::Parser) -> anyhow::Result<ExitCode> {
    if !crate::only_help(parser, HELP)? {
        return Ok(ExitCode::SUCCESS);
    }
    let built = build()?;
    println!("\n{:<32} {:>10} {:>14}", "target/dist/", "bytes", "with symbols");
    for program in built {
        let kind = if program.linked_static { "static" } else { "dynamic" };
        println!("{:<32} {:>10} {:>14}  {kind}", program.name, program.size, program.size_with_symbols);
    }
    let pages = pages::install(&workspace::dist_folder())?;
    println!("target/dist/man/: {pages} manual pages; target/dist/completions/: for bash, zsh and fish");
    Ok(ExitCode::SUCCESS)
}

/// What was built.
pub(crate) struct Built {
    pub(crate) name: &'static str,
    pub(crate) linked_static: bool,
    pub(crate) size: u64,
    pub(crate) size_with_symbols: u64,
}

/// Builds every program that the workspace has, and says which.
pub(crate) fn build() -> anyhow::Result<Vec<Built>> {
    let mut built = build_those(|program| program.linked_static)?;
    built.extend(build_those(|program| !program.linked_static)?);
    Ok(built)
}

/// Builds one half of the programs that are shipped: the static ones on musl, or those for the host's own target.
pub(crate) fn build_shipped(linked_static: bool) -> anyhow::Result<Vec<Built>> {
    build_those(|program| program.linked_static == linked_static && !program.only_measures)
}

/// Builds programs of one kind of linkage.
fn build_those(wanted: impl Fn(&Program) -> bool) -> anyhow::Result<Vec<Built>> {
    let metadata = Metadata::load()?;
    let is_there = |program: &&Program| wanted(program) && has(&metadata, program);
    let programs: Vec<&Program> = PROGRAMS.iter().filter(is_there).collect();
    let Some(first) = programs.first() else { return Ok(Vec::new()) };
    let dist = workspace::dist_folder();
    fs::create_dir_all(dist.join("debug")).with_context(|| format!("making {}", dist.display()))?;
    let target = first.target();
    ensure_target(&target)?;
    let names: Vec<&str> = programs.iter().map(|program| program.name).collect();
    println!("building {} for {target}", names.join(", "));
    compile(&programs)?;
    programs.into_iter().map(install).collect()
}

/// Builds a benchmark that is linked with the tests' driver beside the programs that [`build`] makes; whether there is such.
pub(crate) fn build_driven_bench(name: &str) -> anyhow::Result<bool> {
    let Some(program) = DRIVEN_BENCHES.iter().find(|program| program.name == name) else { return Ok(false) };
    println!("building {name}");
    compile(&[program])?;
    install(program)?;
    Ok(true)
}

fn has(metadata: &Metadata, program: &Program) -> bool {
    let package = metadata.members().find(|package| package.name == program.package);
    let mut targets = package.map(|package| package.targets.as_slice()).unwrap_or_default().iter();
    targets.any(|target| target.name == program.name && target.kind.iter().any(|kind| kind == "bin"))
}

/// One cargo for all programs of a target, so that they share their dependencies' builds.
///
/// The host's own target is named like the other, so that the programs' flags are not those of what runs while compiling, which is
/// built once for both.
fn compile(programs: &[&Program]) -> anyhow::Result<()> {
    let Some(first) = programs.first() else { return Ok(()) };
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--quiet", "--locked", "--profile", "dist"]);
    for program in programs {
        cargo.args(["--package", program.package, "--bin", program.name]);
    }
    cargo.args(["--target", &first.target()]);
    cargo.env("CARGO_ENCODED_RUSTFLAGS", rust_flags(first.linked_static)?);
    if let Some(commit) = workspace::commit() {
        cargo.env("FLINT_COMMIT", commit);
    }
    let status = cargo.status().context("starting cargo build")?;
    if !status.success() {
        bail!("cargo build failed ({status}); its messages stand above");
    }
    Ok(())
}

/// The caller's flags, those of the linkage, and what keeps this machine's paths out of the programs: two checkouts of a commit
/// give the same bytes.
fn rust_flags(linked_static: bool) -> anyhow::Result<String> {
    const SEPARATOR: &str = "\x1f";
    let mut flags: Vec<String> = match (std::env::var("CARGO_ENCODED_RUSTFLAGS"), std::env::var("RUSTFLAGS")) {
        (Ok(encoded), _) if !encoded.is_empty() => encoded.split(SEPARATOR).map(str::to_owned).collect(),
        (_, Ok(plain)) => plain.split_whitespace().map(str::to_owned).collect(),
        _ => Vec::new(),
    };
    let utf8 = |path: PathBuf| match path.into_os_string().into_string() {
        Ok(path) => Ok(path),
        Err(path) => Err(anyhow::anyhow!("the path {} is not UTF-8; move the checkout", path.display())),
    };
    if linked_static {
        // As in .cargo/config.toml, whose flags these here replace.
        flags.push("-Crelocation-model=static".to_owned());
    } else {
        // Daemons and their clients start once and wait most of their time: the whole-program optimisation of the runtime
        // would be minutes on one core for nothing that was measured. By flags: another profile would build anew what runs
        // while compiling. Against 16 units of code of a profile without that optimisation: 395 CPU seconds, not 448.
        flags.extend(["-Clto=off", "-Clinker-plugin-lto=no", "-Cembed-bitcode=no"].map(str::to_owned));
    }
    flags.push(format!("--remap-path-prefix={}=flint", utf8(workspace::root())?));
    if let Some(home) = cargo_home() {
        flags.push(format!("--remap-path-prefix={}=cargo", utf8(home)?));
    }
    Ok(flags.join(SEPARATOR))
}

fn cargo_home() -> Option<PathBuf> {
    match std::env::var_os("CARGO_HOME") {
        Some(home) => Some(home.into()),
        None => Some(std::env::home_dir()?.join(".cargo")),
    }
}

/// Adds a target to the toolchain where it is missing.
///
/// # Errors
///
/// When the target is missing and rustup is, too, or rustup fails.
pub(crate) fn ensure_target(target: &str) -> anyhow::Result<()> {
    let folder = sysroot()?.join("lib/rustlib").join(target).join("lib");
    if folder.is_dir() {
        return Ok(());
    }
    println!("rustup target add {target}");
    let status = Command::new("rustup").args(["target", "add", target]).current_dir(workspace::root()).status();
    let status = status.with_context(|| {
        format!("the Rust target {target} is missing and rustup is not there to add it; install it by hand")
    })?;
    if !status.success() {
        bail!("rustup target add {target} failed ({status}); its messages stand above");
    }
    Ok(())
}

fn sysroot() -> anyhow::Result<PathBuf> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).args(["--print", "sysroot"]).current_dir(workspace::root()).output();
    let output = output.context("starting rustc --print sysroot")?;
    if !output.status.success() {
        bail!("rustc --print sysroot: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim()))
}

fn install(program: &Program) -> anyhow::Result<Built> {
    let from = workspace::target_folder().join(program.target()).join("dist").join(program.name);
    if program.linked_static {
        let content = fs::read(&from).with_context(|| format!("reading {}", from.display()))?;
        elf::ensure_static(&content).with_context(|| format!("{} must be static", program.name))?;
    }
    let dist = workspace::dist_folder();
    let with_symbols = dist.join("debug").join(program.name);
    let stripped = dist.join(program.name);
    replace(&with_symbols, |new| fs::copy(&from, new).map(drop).context("copying"))?;
    replace(&stripped, |new| strip(&with_symbols, new))?;
    let size = |path: &Path| Ok::<_, std::io::Error>(fs::metadata(path)?.len());
    Ok(Built {
        name: program.name,
        linked_static: program.linked_static,
        size: size(&stripped)?,
        size_with_symbols: size(&with_symbols)?,
    })
}

/// Makes a file beside its place and renames it, since the program may be running.
fn replace(path: &Path, make: impl FnOnce(&Path) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let new = path.with_extension("new");
    make(&new).with_context(|| format!("making {}", new.display()))?;
    fs::rename(&new, path).with_context(|| format!("renaming {} to {}", new.display(), path.display()))
}

fn strip(from: &Path, to: &Path) -> anyhow::Result<()> {
    // The toolchain's own tool first: the same version gives the same bytes everywhere.
    let own = sysroot()?.join("lib/rustlib").join(workspace::host_target()).join("bin/rust-objcopy");
    let tool = if own.is_file() { own } else { "objcopy".into() };
    let status = Command::new(&tool).arg("--strip-all").args([from, to]).status();
    let status = status.with_context(|| format!("starting {} (install binutils)", tool.display()))?;
    if !status.success() {
        bail!("{} --strip-all failed ({status})", tool.display());
    }
    Ok(())
}
