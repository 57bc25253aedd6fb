//! What a person types: `cargo xtask dist`, `demo`, `test`, `bench`.
//!
//! ```text
//!  demo ──> dist ──> cargo build (profile dist, musl) ──> elf: static? ──> strip ──> target/dist/
//!  test ─┬> dist ───────────────────────────────┬> integration tests ─┬> one closing line
//!        └> packages ──> fmt ──> clippy, builds ─┴> checks, unit tests ─┘
//!  bench ─> dist ──> cargo run -p benches
//! ```
//!
//! It must not depend on a crate of the workspace: it has to work when they do not build. It touches nothing
//! outside the checkout but what it says it does: the musl target of rustup, the distribution's packages that
//! the tests need, and the containers of the demo, which it takes away again.
#![forbid(unsafe_code)]

mod bench;
mod check;
mod demo;
mod dist;
mod elf;
mod fuzz;
mod interrupt;
mod packages;
mod pages;
mod race;
mod tally;
mod test;
mod vm;
mod workspace;

use std::process::ExitCode;

use lexopt::prelude::*;

const HELP: &str = "\
usage: cargo xtask COMMAND [OPTION...]

  dist                  build all programs for release into target/dist/
  demo                  make a bundle, print its plan, run it, start 200 containers and print a table
  test                  everything: format, lints, checks, unit tests, integration tests
  bench spinup          compare with the kernel's floor and with the installed peers; there are bench shim, pull and swarm, too
  fuzz                  run the fuzz targets
  vm                    run a command or a test in a virtual machine
  check-layers          crates depend on each other only as docs/architecture.md says
  check-licences        every dependency's licence is allowed by deny.toml
  check-dependencies    every direct dependency has its reason in docs/dependencies.md
  check-sources         files are short enough and hold no path of this machine

`cargo xtask COMMAND --help` says more.";

fn main() -> ExitCode {
    match dispatch() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch() -> anyhow::Result<ExitCode> {
    let mut parser = lexopt::Parser::from_env();
    let command = match parser.next()? {
        None | Some(Short('h') | Long("help")) => {
            println!("{HELP}");
            return Ok(ExitCode::SUCCESS);
        }
        Some(Value(command)) => command.string()?,
        Some(other) => return Err(other.unexpected().into()),
    };
    match command.as_str() {
        "help" => {
            println!("{HELP}");
            Ok(ExitCode::SUCCESS)
        }
        "dist" => dist::command(parser),
        "demo" => demo::command(parser),
        "test" => test::command(parser),
        "bench" => bench::command(parser),
        "fuzz" => fuzz::command(parser),
        "vm" => vm::command(parser),
        name => match check::ALL.iter().find(|check| check.name == name) {
            Some(check) => check::command(check, parser),
            None => anyhow::bail!("there is no command {name}; `cargo xtask --help` lists them"),
        },
    }
}

/// Reads the options of a command that has none but `--help`. Returns whether the command shall go on.
fn only_help(mut parser: lexopt::Parser, help: &str) -> anyhow::Result<bool> {
    match parser.next()? {
        None => Ok(true),
        Some(Short('h') | Long("help")) => {
            println!("{help}");
            Ok(false)
        }
        Some(other) => Err(other.unexpected().into()),
    }
}
