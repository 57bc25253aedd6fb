//! The house rules that a program can hold.

mod dependencies;
mod layers;
mod licences;
mod sources;

use std::process::ExitCode;

/// A rule of the house.
pub(crate) struct Check {
    /// The command that checks it.
    pub(crate) name: &'static str,
    help: &'static str,
    run: fn() -> anyhow::Result<Findings>,
}

/// What a check found.
#[derive(Default)]
pub(crate) struct Findings {
    /// What it looked at, for the line that is printed when all is well.
    pub(crate) looked_at: String,
    /// Worth a look.
    pub(crate) warnings: Vec<String>,
    /// Against the rules.
    pub(crate) violations: Vec<String>,
}

/// All checks, in the order in which `test` runs them.
pub(crate) const ALL: &[Check] = &[
    Check { name: "check-layers", help: layers::HELP, run: layers::check },
    Check { name: "check-licences", help: licences::HELP, run: licences::check },
    Check { name: "check-dependencies", help: dependencies::HELP, run: dependencies::check },
    Check { name: "check-sources", help: sources::HELP, run: sources::check },
];

impl Check {
    /// Runs it and prints what it found. Returns whether the rule is held.
    ///
    /// # Errors
    ///
    /// When what it needs cannot be read.
    pub(crate) fn run(&self) -> anyhow::Result<bool> {
        let found = (self.run)()?;
        for warning in &found.warnings {
            println!("warning: {warning}");
        }
        for violation in &found.violations {
            println!("error: {violation}");
        }
        let held = found.violations.is_empty();
        let outcome = if held { "ok".to_owned() } else { format!("{} violations", found.violations.len()) };
        println!("{}: {outcome} ({})", self.name, found.looked_at);
        Ok(held)
    }
}

/// Runs one check as a command.
pub(crate) fn command(check: &Check, parser: lexopt::Parser) -> anyhow::Result<ExitCode> {
    if !crate::only_help(parser, check.help)? {
        return Ok(ExitCode::SUCCESS);
    }
    Ok(if check.run()? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
