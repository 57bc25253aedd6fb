//! Integration tests in the machine.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, ensure};
use serde::Deserialize;

use crate::workspace;

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
