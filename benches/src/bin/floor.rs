//! `flint-floor`: makes containers by raw system calls and prints what each cost, as one line of JSON.
#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::process::ExitCode;

use anyhow::{Context, Result};
use benches::floor::{Depth, Floor, Options};
use benches::measure::kernel_memory;

const HELP: &str = "\
flint-floor --rootfs DIR [--program /bin/true] [--count 1]
  --no-network        without a network namespace
  --no-cgroup         without cgroups
  --no-root           without mounts, devices and pivot_root
  --fork-exec-only    clone3 and exec alone
  --name PREFIX       how its cgroups are called (flint-floor-PID)
  --hold N            N containers at once until stdin ends; --program must wait (/bin/pause)
";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("flint-floor: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let Some((options, count, hold)) = parse()? else {
        print!("{HELP}");
        return Ok(());
    };
    let floor = Floor::new(&options)?;
    if hold > 0 { hold_all(&floor, hold) } else { floor.run(count, |sample| print(&sample.to_json())) }
}

fn hold_all(floor: &Floor, count: usize) -> Result<()> {
    let before = kernel_memory()?;
    floor.hold(count, |elapsed| {
        let bytes = kernel_memory()?.saturating_sub(before);
        print(&serde_json::json!({
            "held": count,
            "wall_ns": elapsed.as_nanos() as u64,
            "kernel_bytes_each": bytes / count.max(1) as u64,
        }))?;
        std::io::stdin().read_to_end(&mut Vec::new()).context("cannot read stdin")?;
        Ok(())
    })
}

fn print(line: &serde_json::Value) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).context("cannot write to stdout")
}

/// The options, how many runs, how many to hold; `None` for help.
fn parse() -> Result<Option<(Options, usize, usize)>> {
    use lexopt::prelude::{Long, Short, ValueExt};
    let mut options = Options {
        rootfs: std::path::PathBuf::new(),
        program: "/bin/true".into(),
        network: true,
        cgroup: true,
        depth: Depth::Root,
        name: format!("flint-floor-{}", std::process::id()),
    };
    let (mut count, mut hold) = (1, 0);
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("rootfs") => options.rootfs = parser.value()?.into(),
            Long("program") => options.program = parser.value()?.into(),
            Long("name") => options.name = parser.value()?.string()?,
            Long("count") => count = parser.value()?.parse()?,
            Long("hold") => hold = parser.value()?.parse()?,
            Long("no-network") => options.network = false,
            Long("no-cgroup") => options.cgroup = false,
            Long("no-root") => options.depth = Depth::Namespaces,
            Long("fork-exec-only") => (options.depth, options.cgroup) = (Depth::Exec, false),
            Long("help") | Short('h') => return Ok(None),
            _ => return Err(argument.unexpected().into()),
        }
    }
    anyhow::ensure!(!options.rootfs.as_os_str().is_empty(), "--rootfs is missing; see --help");
    Ok(Some((options, count, hold)))
}
