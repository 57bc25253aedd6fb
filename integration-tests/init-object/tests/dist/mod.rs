//! Programs built as they are shipped: profile `dist`, static on musl, with their symbols.

use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Builds the package's programs and returns the path of the one with this name.
pub(crate) fn build(package: &str, program: &str) -> PathBuf {
    cargo_build(package, program, &[], None)
}

/// The same, position-independent, as a distribution may build flint.
#[allow(dead_code, reason = "not every test file needs it")]
pub(crate) fn build_position_independent(package: &str, program: &str) -> PathBuf {
    let folder = concat!(env!("CARGO_TARGET_TMPDIR"), "/position-independent");
    cargo_build(package, program, &["--target-dir", folder], Some("-Crelocation-model=pic"))
}

fn cargo_build(package: &str, program: &str, options: &[&str], flags: Option<&str>) -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    let output = Command::new(cargo)
        .args(["build", "--quiet", "--locked", "--profile", "dist", "--message-format", "json-render-diagnostics"])
        .args(["--target", &target, "--package", package, "--bin", program])
        .args(options)
        .envs(flags.map(|flags| ("CARGO_ENCODED_RUSTFLAGS", flags)))
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo can be started");
    assert!(output.status.success(), "cargo build of {package} for {target} failed; its messages stand above");
    let messages = String::from_utf8(output.stdout).expect("cargo's messages are UTF-8");
    let built = messages.lines().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let named = message["target"]["name"] == program;
        if named { message["executable"].as_str().map(PathBuf::from) } else { None }
    });
    built.unwrap_or_else(|| panic!("cargo told of no program {program} of {package}"))
}
