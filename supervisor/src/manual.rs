//! Manual pages and completions of flintd and flintctl: what a release carries beside the programs.

use anyhow::{Context, Result};
use clap::Command;
use clap_complete::Shell;

/// The manual page of a program, or of one of its commands, as roff(7); `section` is the manual's: 1 for users, 8 for administrators.
///
/// # Errors
///
/// There is no such command.
pub fn page(mut program: Command, verb: Option<&str>, section: &str) -> Result<Vec<u8>> {
    let name = program.get_name().to_owned();
    // So that each page has its own name and shows the options that hold everywhere.
    program.build();
    let described = match verb {
        None => program,
        Some(verb) => {
            let found = program.find_subcommand(verb);
            let found = found.with_context(|| format!("there is no command {verb:?}; see '{name} --help'"))?;
            found.clone().name(format!("{name}-{verb}")).display_name(format!("{name}-{verb}"))
        }
    };
    let mut page = Vec::new();
    clap_mangen::Man::new(described).section(section).render(&mut page).context("making the manual page")?;
    Ok(page)
}

/// The completion of a program for a shell.
#[must_use]
pub fn completion(mut program: Command, shell: Shell) -> Vec<u8> {
    let name = program.get_name().to_owned();
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut program, name, &mut text);
    text
}
