//! The programs of the tests: built once, by cargo, and then executed without it.
//!
//! Cargo chooses features for the packages that it is told to build, so two calls for other packages build most of what
//! they share twice; and two cargos that run tests wait for each other.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use serde::Deserialize;

use crate::workspace;

/// A program that libtest's main is in.
#[derive(Clone, Debug)]
pub(crate) struct TestProgram {
    /// The name of the test, or of the crate whose unit tests these are.
    pub(crate) name: String,
    /// Its package's folder, where cargo would execute it.
    pub(crate) folder: PathBuf,
    /// Of a file in the package's `tests/`; otherwise unit tests.
    pub(crate) is_integration: bool,
    path: PathBuf,
}

impl TestProgram {
    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The command that runs its tests.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.current_dir(&self.folder).env("CARGO_MANIFEST_DIR", &self.folder).stdin(Stdio::null());
        command
    }

    /// Whether it is of the package in this folder of the workspace.
    pub(crate) fn is_of(&self, package: &str) -> bool {
        self.folder == workspace::root().join(package)
    }
}

/// A line of `--message-format=json`.
#[derive(Deserialize)]
struct Message {
    executable: Option<PathBuf>,
    manifest_path: Option<PathBuf>,
    target: Option<Target>,
    profile: Option<Profile>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

/// How workspace crates are compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lints {
    /// By clippy's driver, which compiles as rustc does and lints on the way; a warning is an error.
    Denied,
    /// By rustc.
    None,
}

impl Lints {
    /// Lets `cargo` compile so.
    ///
    /// `cargo clippy` only checks: all that is below the tests would be compiled a second time for them, which is half
    /// of a cold build. This is how it calls its driver, with the one difference that cargo goes on to make programs of it.
    ///
    /// What incremental builds begin with is not kept: making it was a third of a cold build of the workspace's own crates
    /// (348 CPU seconds, 213 without). Nor are tables of lines, a fifth of the rest: a panic says its place without them.
    pub(crate) fn apply(self, cargo: &mut Command) {
        cargo.env("CARGO_INCREMENTAL", "0").env("CARGO_PROFILE_DEV_DEBUG", "0");
        if self == Self::Denied {
            cargo.env("RUSTC_WORKSPACE_WRAPPER", "clippy-driver");
            // cargo-clippy's form of `-D warnings`.
            cargo.env("CLIPPY_ARGS", "-D__CLIPPY_HACKERY__warnings__CLIPPY_HACKERY__");
        }
    }
}

/// What cargo is told at each build of tests, so that it builds nothing twice. The runtime of this build fails where the fault
/// tests tell it to; what ships and what is linted for aarch64 is built without that.
pub(crate) const SELECTION: [&str; 4] = ["--workspace", "--locked", "--features", "integration-tests/vm,flint/faults"];

/// Builds test programs: those of `targets` (cargo's options; none for all).
///
/// # Errors
///
/// When one does not build; its messages stand above.
pub(crate) fn build(targets: &[String], lints: Lints) -> anyhow::Result<Vec<TestProgram>> {
    let mut cargo = workspace::cargo();
    cargo.args(["test", "--quiet", "--no-run", "--message-format=json-render-diagnostics"]);
    cargo.args(SELECTION).args(targets).stdin(Stdio::null()).stderr(Stdio::inherit());
    lints.apply(&mut cargo);
    let output = cargo.output().context("starting cargo test")?;
    ensure!(output.status.success(), "cargo test --no-run failed ({}); its messages stand above", output.status);
    let text = String::from_utf8(output.stdout).context("the output of cargo is not UTF-8")?;
    Ok(text.lines().filter_map(program).collect())
}

fn program(line: &str) -> Option<TestProgram> {
    let message: Message = serde_json::from_str(line).ok()?;
    if !message.profile?.test {
        return None;
    }
    let folder = message.manifest_path?.parent()?.to_owned();
    let target = message.target?;
    let is_integration = target.kind.iter().any(|kind| kind == "test");
    Some(TestProgram { name: target.name, folder, is_integration, path: message.executable? })
}

#[cfg(test)]
mod tests {
    use super::program;

    #[test]
    fn programs_are_read_from_cargos_lines() {
        let line = |test: bool, executable: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","manifest_path":"/w/a/Cargo.toml","target":{{"kind":["test"],"name":"t"}},
                "profile":{{"test":{test}}},"executable":{executable}}}"#
            )
        };
        let found = program(&line(true, r#""/w/target/t""#)).unwrap();
        assert_eq!(
            (found.name.as_str(), found.folder.to_str(), found.is_integration, found.path().to_str()),
            ("t", Some("/w/a"), true, Some("/w/target/t"))
        );
        assert!(program(&line(false, r#""/w/target/t""#)).is_none(), "a program that is no test");
        assert!(program(&line(true, "null")).is_none(), "a library");
        assert!(program(r#"{"reason":"build-finished","success":true}"#).is_none());
    }
}
