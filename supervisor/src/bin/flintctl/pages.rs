//! `man` and `completion`: what a release carries beside the program.

use anyhow::{Context, Result};
use clap::{Args, CommandFactory};

use crate::command::{CommandLine, print};

const NAME: &str = "flintctl";

/// Print a manual page: of the program, or of one of its commands
#[derive(Args)]
pub(crate) struct Man {
    /// The command
    command: Option<String>,
}

impl Man {
    pub(crate) fn run(self) -> Result<u8> {
        let mut command = CommandLine::command();
        // So that each page has its own name and shows the options that hold everywhere.
        command.build();
        let command = match &self.command {
            None => command,
            Some(name) => {
                let found = command.find_subcommand(name);
                let found = found.with_context(|| format!("there is no command {name:?}; see '{NAME} --help'"))?;
                found.clone().name(format!("{NAME}-{name}")).display_name(format!("{NAME}-{name}"))
            }
        };
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page).context("making the manual page")?;
        print(&String::from_utf8_lossy(&page))?;
        Ok(0)
    }
}

/// Print a completion for a shell
#[derive(Args)]
pub(crate) struct Completion {
    /// The shell
    shell: clap_complete::Shell,
}

impl Completion {
    pub(crate) fn run(self) -> Result<u8> {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut CommandLine::command(), NAME, &mut text);
        print(&String::from_utf8_lossy(&text))?;
        Ok(0)
    }
}
