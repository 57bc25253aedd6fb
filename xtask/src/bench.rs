//! `cargo xtask bench`: builds what is measured and starts the measurement, which lives in benches/.

use std::process::ExitCode;

use anyhow::{Context, bail};
use lexopt::prelude::*;

use crate::{dist, workspace};

const HELP: &str = "\
usage: cargo xtask bench spinup|shim|pull|swarm [OPTION...]

Builds target/dist/ and measures flint beside its peers on this machine.
  spinup   the start of a container, beside the kernel's floor, runc and crun
  shim     a container's life through the task API and the shim's memory, beside containerd's shim with runc and crun
  pull     an image from a registry, unpacked, beside containerd, docker, skopeo with umoci, and podman
  swarm    a service scaled from 0 to 500 on one worker of a Docker Swarm, beside dockerd as the worker
Options go to the program of that name in benches/; `cargo xtask bench NAME --help` lists them.";

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
    if !["spinup", "shim", "pull", "swarm"].contains(&bench.as_str()) {
        bail!("there is no bench {bench}; there are spinup, shim, pull and swarm");
    }
    dist::build()?;
    let driven = format!("{bench}-bench");
    let program = if dist::build_driven_bench(&driven)? { driven } else { bench };
    let program = workspace::dist_folder().join(program);
    let status = std::process::Command::new(&program)
        .args(parser.raw_args()?)
        .status()
        .with_context(|| format!("starting {}", program.display()))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
