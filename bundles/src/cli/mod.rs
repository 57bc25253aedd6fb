//! The command line: what may be typed, and who does it.

mod create;
mod images;
mod import;
mod pages;
mod progress;
mod pull;
mod removal;

use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use flint_bundle::image::Platform;
use flint_bundle::store::Store;
use flint_bundle::{Fetch, Reference};

/// Makes OCI bundles of images.
///
/// An image is pulled from a registry, or imported from a file or a folder; a bundle is made of it for flint or another OCI runtime:
/// `flint-bundle create alpine ./web && flint run -b ./web web`.
#[derive(Parser)]
#[command(name = "flint-bundle", version, disable_help_subcommand = true)]
pub(crate) struct CommandLine {
    #[command(flatten)]
    session: Session,
    #[command(subcommand)]
    verb: Verb,
}

/// What holds for every verb.
#[derive(Args)]
pub(crate) struct Session {
    /// The folder of the store [default: /var/lib/flint-bundle for root, else $XDG_DATA_HOME/flint-bundle]
    #[arg(long, global = true, value_name = "FOLDER")]
    root: Option<PathBuf>,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    /// Show no progress
    #[arg(long, short, global = true)]
    quiet: bool,
}

#[derive(Subcommand)]
enum Verb {
    Pull(pull::Pull),
    Create(Box<create::Create>),
    Unpack(create::Unpack),
    List(images::List),
    Inspect(images::Inspect),
    Rm(removal::Rm),
    Gc(removal::Gc),
    Import(import::ImportVerb),
    Export(import::Export),
    Man(pages::Man),
    Completion(pages::Completion),
}

/// Runs what was typed.
pub(crate) fn run() -> ExitCode {
    let CommandLine { session, verb } = CommandLine::parse();
    let result = match verb {
        Verb::Pull(verb) => verb.run(&session),
        Verb::Create(verb) => verb.run(&session),
        Verb::Unpack(verb) => verb.run(&session),
        Verb::List(verb) => verb.run(&session),
        Verb::Inspect(verb) => verb.run(&session),
        Verb::Rm(verb) => verb.run(&session),
        Verb::Gc(verb) => verb.run(&session),
        Verb::Import(verb) => verb.run(&session),
        Verb::Export(verb) => verb.run(&session),
        Verb::Man(verb) => verb.run(),
        Verb::Completion(verb) => verb.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("flint-bundle: {error:#}");
            ExitCode::FAILURE
        }
    }
}

impl Session {
    fn store(&self) -> Result<Store> {
        let root = match &self.root {
            Some(root) => root.clone(),
            None => Store::default_root()?,
        };
        Ok(Store::open(&root)?)
    }

    fn progress(&self) -> progress::Shown {
        progress::Shown::new(self.quiet)
    }

    /// Prints a value as JSON, or the lines.
    fn print(&self, value: &serde_json::Value, lines: &[String]) -> Result<()> {
        if self.json {
            return print(format!("{value:#}\n").as_bytes());
        }
        // What an image says of itself is not for a terminal to obey.
        let plain = |letter: &char| !letter.is_control() || *letter == '\n';
        print((lines.join("\n") + "\n").chars().filter(plain).collect::<String>().as_bytes())
    }
}

/// Writes to stdout; a reader that has gone is no error.
fn print(text: &[u8]) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result.context("writing to stdout"),
    }
}

/// What every verb that takes layers may be told.
#[derive(Args)]
struct Taking {
    /// Layers that are taken at the same time
    #[arg(long, value_name = "NUMBER", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=16))]
    parallel: u8,
    /// The image's platform: linux/ARCHITECTURE[/VARIANT] [default: this machine's]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,
}

impl Taking {
    fn fetch(&self) -> Fetch {
        Fetch { parallel: usize::from(self.parallel), ..Fetch::default() }
    }

    fn platform(&self) -> Platform {
        self.platform.clone().unwrap_or_else(Platform::host)
    }
}

/// The record of an image that must be here.
fn found(store: &Store, name: &Reference) -> Result<flint_bundle::store::ImageRecord> {
    store
        .named(name)?
        .with_context(|| format!("there is no image {name}; see `flint-bundle list`, pull it or import it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        CommandLine::command().debug_assert();
    }
}
