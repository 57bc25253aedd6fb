//! `init-object [--entry NAME]... [--list] [PROGRAM]`: checks a linked program's init side.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use lexopt::ValueExt;

const USAGE: &str = "\
usage: init-object [--entry NAME]... [--list] [PROGRAM]

Checks that what PROGRAM runs between clone and exec reaches no allocator, no panic machinery and no std. PROGRAM
is the linked program with its symbols: the argument, else FLINT_DEBUG_BIN, else target/dist/debug/flint, which
`cargo xtask dist` makes.

  --entry NAME  start at the functions of this name instead of those of flint-init; may be repeated
  --list        print every reached function";

struct Arguments {
    program: PathBuf,
    entries: Vec<String>,
    list: bool,
}

fn main() -> ExitCode {
    run().unwrap_or_else(|error| {
        eprintln!("init-object: {error:#}");
        ExitCode::FAILURE
    })
}

fn run() -> Result<ExitCode> {
    let Some(arguments) = arguments()? else {
        println!("{USAGE}");
        return Ok(ExitCode::SUCCESS);
    };
    let program = &arguments.program;
    let bytes = std::fs::read(program).with_context(|| format!("reading {}", program.display()))?;
    let entries: Vec<&str> = match arguments.entries.as_slice() {
        [] => init_object::ENTRIES.to_vec(),
        named => named.iter().map(String::as_str).collect(),
    };
    let report = init_object::check(&bytes, &entries).with_context(|| program.display().to_string())?;
    if arguments.list {
        for it in &report.functions {
            println!("{:#x} {:6} instructions, {:3} ud2  {}", it.address, it.instructions, it.traps, it.name);
        }
    }
    for finding in &report.findings {
        println!("{finding}");
    }
    println!("{}: {report}", program.display());
    Ok(if report.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// `None` when help was asked for.
fn arguments() -> Result<Option<Arguments>> {
    let mut program = None;
    let mut entries = Vec::new();
    let mut list = false;
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            lexopt::Arg::Long("entry") => entries.push(parser.value()?.string()?),
            lexopt::Arg::Long("list") => list = true,
            lexopt::Arg::Long("help") | lexopt::Arg::Short('h') => return Ok(None),
            lexopt::Arg::Value(path) if program.is_none() => program = Some(PathBuf::from(path)),
            other => return Err(other.unexpected().into()),
        }
    }
    let program = program
        .or_else(|| std::env::var_os("FLINT_DEBUG_BIN").map(PathBuf::from))
        .unwrap_or_else(|| PathBuf::from("target/dist/debug/flint"));
    Ok(Some(Arguments { program, entries, list }))
}
