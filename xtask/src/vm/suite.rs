//! Integration tests in the machine.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, ensure};
use serde::Deserialize;

use super::{Ended, Options};
use crate::interrupt::Interrupt;
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
const SHORT: [&str; 5] = ["vm_cgroup", "unified", "annotations", "apparmor", "shim_resources"];

/// A line of `cargo test --no-run --message-format=json`.
#[derive(Deserialize)]
struct Message {
    executable: Option<PathBuf>,
    target: Option<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

/// Builds integration tests by name and returns their programs in the same order.
///
/// # Errors
///
/// When one does not build, or there is none of that name.
pub(super) fn build(names: &[String]) -> anyhow::Result<Vec<PathBuf>> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let mut cargo = workspace::cargo();
    cargo.args(["test", "--quiet", "--package", "integration-tests", "--locked", "--no-run", "--message-format=json"]);
    cargo.args(["--features", "vm"]);
    for name in names {
        cargo.args(["--test", name]);
    }
    let output = cargo.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("starting cargo test")?;
    ensure!(output.status.success(), "cargo test --no-run failed ({}); its messages stand above", output.status);
    let text = String::from_utf8(output.stdout).context("the output of cargo is not UTF-8")?;
    let messages: Vec<Message> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let program = |name: &String| {
        let message = messages.iter().find(|message| {
            message.executable.is_some() && message.target.as_ref().is_some_and(|target| target.name == *name)
        });
        let program = message.and_then(|message| message.executable.clone());
        program.with_context(|| format!("cargo built no test named {name}"))
    };
    names.iter().map(program).collect()
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

/// The short form for `cargo xtask test`: one machine with cgroup v2. `line` is told each line of the tests' output.
///
/// # Errors
///
/// As [`super::run`].
pub(crate) fn short(
    interrupt: &Interrupt,
    environment: Vec<(String, OsString)>,
    line: &mut dyn FnMut(&str),
) -> anyhow::Result<Ended> {
    let options = Options { tests: SHORT.map(str::to_owned).to_vec(), environment, ..Options::default() };
    let mut rest = Vec::new();
    super::run(&options, interrupt, &mut |bytes| {
        std::io::stdout().write_all(bytes).context("writing to stdout")?;
        rest.extend_from_slice(bytes);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let whole: Vec<u8> = rest.drain(..=end).collect();
            line(&String::from_utf8_lossy(&whole));
        }
        Ok(())
    })
}
