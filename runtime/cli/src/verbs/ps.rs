//! `flint ps`

use std::ffi::OsStr;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{ANY, CONTAINER, Verb};
use crate::arguments::{Arguments, Order, option};
use crate::{Session, print};

pub(super) const VERB: Verb = Verb {
    name: "ps",
    summary: "list the processes of a container",
    operands: "<container-id> [ps options]",
    count: (1, ANY),
    order: Order::OptionsFirst,
    description: "Runs ps on the host and shows its lines about the container's processes. Without ps options
that is \"ps -ef\"; their output needs a PID column.",
    flags: &[option("format", Some('f'), "FORMAT", "table, or json for an array of pids (default: table)")],
    run,
    ..CONTAINER
};

fn run(session: &Session, arguments: &Arguments) -> Result<u8> {
    let format = arguments.text("format")?.unwrap_or("table");
    if !["table", "json"].contains(&format) {
        bail!("invalid format option {format:?}: it must be table or json");
    }
    let pids = session.runtime()?.processes(arguments.operand(0)?)?;
    print(&if format == "json" { serde_json::to_string(&pids)? + "\n" } else { select(&ps(arguments)?, &pids)? })?;
    Ok(0)
}

fn ps(arguments: &Arguments) -> Result<String> {
    let given = arguments.operands.get(1..).unwrap_or_default();
    let mut command = Command::new("ps");
    if given.is_empty() {
        command.arg("-ef");
    }
    let output = command
        .args(given.iter().map(AsRef::<OsStr>::as_ref))
        .output()
        .context("running ps on the host (use --format json where there is none)")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("ps failed on the host with {}: {}", output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The heading, and the lines whose PID is among `pids`.
fn select(output: &str, pids: &[i32]) -> Result<String> {
    let heading = output.lines().next().unwrap_or_default();
    let column = heading
        .split_whitespace()
        .position(|title| title == "PID")
        .context("couldn't find PID field in ps output: choose ps options that show it")?;
    let ours = |line: &&str| {
        let pid = line.split_whitespace().nth(column).and_then(|pid| pid.parse().ok());
        pid.is_some_and(|pid| pids.contains(&pid))
    };
    let mut text = format!("{heading}\n");
    for line in output.lines().skip(1).filter(ours) {
        text.push_str(line);
        text.push('\n');
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::select;

    const OUTPUT: &str = "UID        PID  PPID  C STIME TTY          TIME CMD
root         1     0  0 02:00 ?        00:00:00 init
root      7403     1  0 02:42 ?        00:00:00 /bin/sleep 100
root      7404     1  0 02:42 ?        00:00:00 /bin/sleep 7403
";

    #[test]
    fn lines_are_chosen_by_the_pid_column() {
        assert_eq!(
            select(OUTPUT, &[7403]).expect("a PID column"),
            "UID        PID  PPID  C STIME TTY          TIME CMD
root      7403     1  0 02:42 ?        00:00:00 /bin/sleep 100
"
        );
    }

    #[test]
    fn a_stopped_container_leaves_the_heading() {
        assert_eq!(select(OUTPUT, &[]).expect("a PID column").lines().count(), 1);
    }

    #[test]
    fn no_pid_column_is_an_error() {
        let error = select("COMMAND\nsleep\n", &[1]).expect_err("no pids");
        assert!(error.to_string().contains("couldn't find PID field"));
    }
}
