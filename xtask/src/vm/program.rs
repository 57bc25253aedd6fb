//! Programs of the distribution that build the machine's parts.

use std::process::{Command, Stdio};

use anyhow::{Context, bail};

/// Runs a program in silence; what it said is in the error.
///
/// # Errors
///
/// When it is not installed (with the package that has it) or fails.
pub(super) fn run(command: &mut Command, package: &str) -> anyhow::Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("starting {name} (install {package})"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        let lines: Vec<_> = text.lines().collect();
        let last = lines.get(lines.len().saturating_sub(12)..).unwrap_or_default().join("\n");
        bail!("{name} failed ({}): {last}", output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("the output of {name} is not UTF-8"))
}

/// Makes a read-only disk of a folder. It is not compressed: that would cost the emulated processor more than the disk
/// costs the host.
///
/// # Errors
///
/// When mkfs.erofs is missing or fails.
pub(super) fn make_disk(disk: &std::path::Path, folder: &std::path::Path) -> anyhow::Result<()> {
    run(Command::new("mkfs.erofs").args([disk, folder]), "erofs-utils").map(drop)
}
