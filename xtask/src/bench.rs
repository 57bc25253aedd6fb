//! `cargo xtask bench`: builds what is measured and starts the measurement, which lives in benches/.

use std::process::ExitCode;

use anyhow::{Context, bail};
use lexopt::prelude::*;

use crate::{dist, workspace};

const HELP: &str = "\
usage: cargo xtask bench spinup [OPTION...]

Builds target/dist/ and compares flint's start with the kernel's floor and the installed peers.
Options go to the program spinup of benches/; `cargo xtask bench spinup --help` lists them.";

/// Runs the command.
pub(crate) fn command(mut parser: lexopt::Parser) -> anyhow::Result<ExitCode> {
    let bench = match parser.next()? {
        None | Some(Short('h') | Long("help")) => {
            println!("{HELP}");
            return Ok(ExitCode::SUCCESS);
        }
        Some(Value(bench)) => bench.string()?,
        Some(other) => return Err(other.unexpected().into()),
    };
    if bench != "spinup" {
        bail!("there is no bench {bench}; there is: spinup");
    }
    dist::build()?;
    let dist = workspace::dist_folder();
    let program = dist.join(&bench);
    let status = std::process::Command::new(&program)
        .args(parser.raw_args()?)
        .status()
        .with_context(|| format!("starting {}", program.display()))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
