//! `man` and `completion`: what a release carries beside the program.

use anyhow::Result;
use clap::{Args, CommandFactory};
use flintd::manual;

use crate::command::{CommandLine, print};

/// Print a manual page: of the program, or of one of its commands
#[derive(Args)]
pub(crate) struct Man {
    /// The command
    command: Option<String>,
}

impl Man {
    pub(crate) fn run(self) -> Result<u8> {
        let page = manual::page(CommandLine::command(), self.command.as_deref(), "1")?;
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
        print(&String::from_utf8_lossy(&manual::completion(CommandLine::command(), self.shell)))?;
        Ok(0)
    }
}
