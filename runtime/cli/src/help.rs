//! `--help`, from the same tables that the parser reads.

use std::fmt::Write as _;

use crate::GLOBAL_FLAGS;
use crate::arguments::Flag;
use crate::verbs::{VERBS, Verb};

/// What this program was called as: engines that know runc alone find flint under its name.
fn called_as() -> String {
    let name = std::env::args_os().next().map(std::path::PathBuf::from);
    let name = name.as_deref().and_then(|path| path.file_name()?.to_str());
    name.unwrap_or("flint").to_owned()
}

/// `flint --help`
pub(crate) fn program() -> String {
    let name = called_as();
    let mut text = format!(
        "NAME:
   {name} - Open Container Initiative runtime

A container is made from a bundle: a folder with config.json and a root filesystem.
\"{name} spec\" writes a config.json to begin with, \"{name} run ID\" runs the bundle in the
current folder, \"{name} plan\" shows what running it would do.

USAGE:
   {name} [global options] command [command options] [arguments...]

COMMANDS:
",
    );
    let width = VERBS.iter().map(|verb| verb.name.len()).max().unwrap_or(0);
    for verb in VERBS {
        let _ = writeln!(text, "   {:width$}  {}", verb.name, verb.summary);
    }
    let _ = writeln!(text, "   {:width$}  show this help, or that of a command", "help");
    text.push_str("\nGLOBAL OPTIONS:\n");
    options(&mut text, GLOBAL_FLAGS);
    text
}

/// `flint VERB --help`
pub(crate) fn verb(verb: &Verb) -> String {
    let Verb { name, summary, operands, description, flags, .. } = verb;
    let program = called_as();
    let mut text =
        format!("NAME:\n   {program} {name} - {summary}\n\nUSAGE:\n   {program} {name} [command options] {operands}\n");
    if !description.is_empty() {
        text.push_str("\nDESCRIPTION:\n");
        for line in description.lines() {
            let indent = if line.is_empty() { "" } else { "   " };
            let _ = writeln!(text, "{indent}{line}");
        }
    }
    text.push_str("\nOPTIONS:\n");
    options(&mut text, flags);
    text
}

fn options(text: &mut String, flags: &[Flag]) {
    let mut rows: Vec<(String, &str)> =
        flags.iter().filter(|flag| !flag.help.is_empty()).map(|flag| (names(flag), flag.help)).collect();
    rows.push(("--help, -h".into(), "show this help"));
    let width = rows.iter().map(|(names, _)| names.len()).max().unwrap_or(0);
    for (names, help) in rows {
        let _ = writeln!(text, "   {names:width$}  {help}");
    }
}

fn names(flag: &Flag) -> String {
    let value = flag.value.map_or(String::new(), |value| format!(" {value}"));
    match flag.short {
        Some(short) => format!("--{}{value}, -{short}{value}", flag.long),
        None => format!("--{}{value}", flag.long),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_and_flag_has_its_help() {
        for verb in VERBS {
            assert!(!verb.summary.is_empty(), "{}", verb.name);
            assert!(program().contains(&format!("   {} ", verb.name)), "{}", verb.name);
            let help = super::verb(verb);
            for flag in verb.flags.iter().filter(|flag| !flag.long.starts_with("kernel-memory")) {
                assert!(!flag.help.is_empty(), "{} --{}", verb.name, flag.long);
                assert!(help.contains(&format!("   --{}", flag.long)), "{} --{}", verb.name, flag.long);
            }
        }
    }

    #[test]
    fn no_verb_has_a_name_twice() {
        for verb in VERBS {
            let mut names: Vec<String> = verb
                .flags
                .iter()
                .flat_map(|flag| [Some(flag.long.to_owned()), flag.short.map(String::from)])
                .flatten()
                .chain(["help".to_owned(), "h".to_owned()])
                .collect();
            let all = names.len();
            names.sort();
            names.dedup();
            assert_eq!(names.len(), all, "{}", verb.name);
        }
    }
}
