//! Integration tests in the machine.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context, bail};

use super::{Ended, Options};
use crate::interrupt::Interrupt;
use crate::test::programs::{self, Lints, TestProgram};
use crate::workspace;

/// What a machine needs of the host: a program, and the package that has it.
const PROGRAMS: &[(&str, &str)] = &[
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("mmdebstrap", "mmdebstrap"),
    ("mkfs.erofs", "erofs-utils"),
    ("depmod", "kmod"),
    ("setpriv", "util-linux"),
    ("busybox", "busybox-static"),
];

/// What the short form runs: what needs all controllers on v2, what is different on v2 alone, AppArmor, and want
/// of memory and metrics through the shim.
const SHORT: [&str; 6] = ["vm_cgroup", "vm_limits", "unified", "annotations", "apparmor", "resources"];

/// A test in the machine: a program, and which part of it.
#[derive(Debug)]
pub(super) struct Chosen {
    /// The program.
    pub(super) program: PathBuf,
    /// The module whose tests are run; None for all.
    pub(super) module: Option<String>,
}

impl Chosen {
    /// The program's arguments: words among `given` are beginnings of names in the module.
    pub(super) fn arguments(&self, given: &[OsString]) -> Vec<OsString> {
        let Some(module) = &self.module else { return given.to_vec() };
        let is_option = |word: &&OsString| word.to_string_lossy().starts_with('-');
        let (options, words): (Vec<&OsString>, Vec<&OsString>) = given.iter().partition(is_option);
        let name = |word: &OsString| {
            let mut name = OsString::from(format!("{module}::"));
            name.push(word);
            name
        };
        let mut arguments: Vec<OsString> = options.into_iter().cloned().collect();
        arguments.extend(words.into_iter().map(name));
        if !given.iter().any(|word| !is_option(&word)) {
            arguments.push(name(&OsString::new()));
        }
        arguments
    }
}

/// Where an integration test of this name is: its program's name, and the module in it.
fn found(name: &str) -> anyhow::Result<(String, Option<String>)> {
    let folder = workspace::root().join("integration-tests/tests");
    if folder.join(name).join("main.rs").is_file() || folder.join(format!("{name}.rs")).is_file() {
        return Ok((name.to_owned(), None));
    }
    for entry in std::fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
        let entry = entry?;
        if entry.path().join(format!("{name}.rs")).is_file() {
            return Ok((entry.file_name().to_string_lossy().into_owned(), Some(name.to_owned())));
        }
    }
    bail!("there is no integration test {name}: neither {0}/{name}.rs nor {0}/*/{name}.rs", folder.display())
}

/// Finds integration tests by the names of their programs or files among `built`; builds what is not there.
///
/// # Errors
///
/// When one does not build, or there is none of that name.
pub(super) fn choose(names: &[String], built: &[TestProgram]) -> anyhow::Result<Vec<Chosen>> {
    let found = names.iter().map(|name| found(name)).collect::<anyhow::Result<Vec<_>>>()?;
    let ours = |program: &&TestProgram, name: &str| program.is_of("integration-tests") && program.name == name;
    let missing = |name: &String| !built.iter().any(|program| ours(&program, name));
    let targets: Vec<String> = found
        .iter()
        .filter(|(program, _)| missing(program))
        .flat_map(|(program, _)| ["--test".to_owned(), program.clone()])
        .collect();
    let more = if targets.is_empty() { Vec::new() } else { programs::build(&targets, Lints::None)? };
    let chosen = |(name, module): (String, Option<String>)| {
        let program = built.iter().chain(&more).find(|program| ours(program, &name));
        let program = program.with_context(|| format!("cargo built no test named {name}"))?.path().to_owned();
        Ok(Chosen { program, module })
    };
    found.into_iter().map(chosen).collect()
}

/// Why a machine cannot be run here, if it cannot.
pub(crate) fn missing() -> Option<String> {
    if !cfg!(target_arch = "x86_64") {
        return Some("the machines are x86-64, and this host is not".to_owned());
    }
    if !nix::unistd::geteuid().is_root() {
        return Some("only root can build the machine's image".to_owned());
    }
    let gone = PROGRAMS.iter().find(|(program, _)| workspace::find_program(program).is_none());
    gone.map(|(program, package)| format!("{program} is not installed (package {package})"))
}

/// The short form for `cargo xtask test`: one machine with cgroup v2, and of the programs in `built`. `line` is told each
/// line of the tests' output.
///
/// # Errors
///
/// As [`super::run`].
pub(crate) fn short(
    interrupt: &Interrupt,
    environment: Vec<(String, OsString)>,
    built: &[TestProgram],
    line: &mut dyn FnMut(&str),
) -> anyhow::Result<Ended> {
    let options = Options { tests: SHORT.map(str::to_owned).to_vec(), environment, ..Options::default() };
    let mut rest = Vec::new();
    super::run(&options, built, interrupt, &mut |bytes| {
        rest.extend_from_slice(bytes);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let whole: Vec<u8> = rest.drain(..=end).collect();
            line(&String::from_utf8_lossy(&whole));
        }
        Ok(())
    })
}
