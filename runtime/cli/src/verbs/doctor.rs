//! `flint doctor`

mod checks;

use std::fmt::Write as _;

use anyhow::Result;
use serde::Serialize;

use super::{CONTAINER, Verb};
use crate::arguments::{Arguments, switch};
use crate::{Session, print};

pub(super) const VERB: Verb = Verb {
    name: "doctor",
    summary: "tell what this host offers, and what is missing",
    operands: "",
    count: (0, 0),
    description:
        "Looks at the kernel, its namespaces and cgroups, and the programs that flint may call. Each line is one
thing: ok, limited (some containers cannot be made) or missing (none can), with what to do about it.
It ends with 1 if something is missing.",
    flags: &[switch("json", None, "print it as JSON")],
    run,
    ..CONTAINER
};

/// How a thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Health {
    /// As it should be.
    Ok,
    /// Some containers cannot be made, or not as asked.
    Limited,
    /// No container can be made.
    Missing,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    /// What was looked at.
    name: &'static str,
    health: Health,
    /// What was found.
    found: String,
    /// What to do; empty when all is well.
    #[serde(skip_serializing_if = "String::is_empty")]
    advice: String,
}

impl Finding {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, health: Health::Ok, found: found.into(), advice: String::new() }
    }

    fn limited(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name, health: Health::Limited, found: found.into(), advice: advice.into() }
    }

    fn missing(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name, health: Health::Missing, found: found.into(), advice: advice.into() }
    }
}

fn run(_: &Session, arguments: &Arguments) -> Result<u8> {
    let findings = checks::all();
    if arguments.is_set("json") {
        print(&(serde_json::to_string_pretty(&findings)? + "\n"))?;
    } else {
        print(&table(&findings))?;
    }
    Ok(u8::from(findings.iter().any(|finding| finding.health == Health::Missing)))
}

fn table(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for finding in findings {
        let health = match finding.health {
            Health::Ok => "ok     ",
            Health::Limited => "limited",
            Health::Missing => "MISSING",
        };
        let _ = writeln!(text, "{health}  {:width$}  {}", finding.name, finding.found);
        if !finding.advice.is_empty() {
            let _ = writeln!(text, "         {:width$}  -> {}", "", finding.advice);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_shows_advice_below_its_thing() {
        let findings = [Finding::ok("kernel", "Linux 6.1"), Finding::limited("criu", "not found", "install criu")];
        assert_eq!(
            table(&findings),
            "ok       kernel  Linux 6.1\nlimited  criu    not found\n                 -> install criu\n"
        );
    }

    #[test]
    fn this_host_can_be_looked_at() {
        let findings = checks::all();
        assert!(findings.iter().any(|finding| finding.name == "kernel" && finding.health == Health::Ok));
        for finding in findings {
            assert_eq!(finding.health == Health::Ok, finding.advice.is_empty(), "{finding:?}");
        }
    }
}
