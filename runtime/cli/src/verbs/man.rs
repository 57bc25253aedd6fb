//! `flint man`

use std::fmt::Write as _;

use anyhow::{Context, Result};

use super::{CONTAINER, VERBS, Verb};
use crate::arguments::{Arguments, Flag};
use crate::{GLOBAL_FLAGS, Session, print};

pub(super) const VERB: Verb = Verb {
    name: "man",
    summary: "print a manual page",
    operands: "[command]",
    count: (0, 1),
    description: "Prints the manual page of flint, or of one of its commands, for man(1):
flint man run | man -l -
The pages of a release are made from it.",
    run,
    ..CONTAINER
};

/// System administration commands, as runc's pages are.
const SECTION: u8 = 8;

fn run(_: &Session, arguments: &Arguments) -> Result<u8> {
    let page = match arguments.operands.first() {
        None => program(),
        Some(name) => {
            let name = name.to_string_lossy();
            verb(super::find(&name).with_context(|| format!("there is no command {name:?}; see 'flint --help'"))?)
        }
    };
    print(&page)?;
    Ok(0)
}

fn program() -> String {
    let mut page = heading("flint", "runs OCI containers");
    page.push_str(".SH SYNOPSIS\n.B flint\n[global options]\n.I command\n[command options] [arguments...]\n");
    page.push_str(
        ".SH DESCRIPTION\n\
        flint makes containers from OCI bundles: folders with a config.json and a root filesystem. Its command line is that\n\
        of runc, so that containerd, dockerd, podman, cri\\-o and buildkit can call it. A bundle is compiled to a plan before\n\
        anything is made on the host; \"flint plan\" prints it.\n",
    );
    page.push_str(".SH COMMANDS\n");
    for verb in VERBS {
        let _ = writeln!(page, ".TP\n.BR flint\\-{} ({SECTION})\n{}", escape(verb.name), escape(verb.summary));
    }
    page.push_str(".SH GLOBAL OPTIONS\n");
    options(&mut page, GLOBAL_FLAGS);
    page.push_str(
        ".SH EXIT STATUS\n\
        \"run\" and \"exec\" end with the status of the container's program, or 128 and the number of the signal that ended it.\n\
        A failure of flint is 1; of \"exec\", 255; of a command that there is not, 3.\n\
        .SH FILES\n.TP\n.I /run/flint\nthe state of root's containers (\\-\\-root)\n\
        .TP\n.I $XDG_RUNTIME_DIR/flint\nthe state of other users' containers\n",
    );
    let others = VERBS.iter().map(|verb| format!(".BR flint\\-{} ({SECTION})", escape(verb.name)));
    let _ = writeln!(page, ".SH SEE ALSO\n{}", others.collect::<Vec<_>>().join(" ,\n"));
    page
}

fn verb(verb: &Verb) -> String {
    let Verb { name, summary, operands, description, flags, .. } = verb;
    let mut page = heading(&format!("flint-{name}"), summary);
    let _ = writeln!(page, ".SH SYNOPSIS\n.B flint {}\n[command options] {}", escape(name), escape(operands));
    if !description.is_empty() {
        page.push_str(".SH DESCRIPTION\n.nf\n");
        for line in description.lines() {
            let _ = writeln!(page, "{}", escape(line));
        }
        page.push_str(".fi\n");
    }
    page.push_str(".SH OPTIONS\n");
    options(&mut page, flags);
    let _ = writeln!(page, ".SH SEE ALSO\n.BR flint ({SECTION})");
    page
}

fn heading(name: &str, summary: &str) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let title = name.to_uppercase();
    format!(
        ".TH \"{}\" {SECTION} \"\" \"flint {version}\" \"flint\"\n.SH NAME\n{} \\- {}\n",
        escape(&title),
        escape(name),
        escape(summary)
    )
}

fn options(page: &mut String, flags: &[Flag]) {
    for flag in flags.iter().filter(|flag| !flag.help.is_empty()) {
        let short = flag.short.map_or(String::new(), |short| format!(", \\-{short}"));
        let value = flag.value.map_or(String::new(), |value| format!(" \\fI{}\\fR", escape(value)));
        let _ = writeln!(page, ".TP\n\\fB\\-\\-{}{short}\\fR{value}\n{}", escape(flag.long), escape(flag.help));
    }
    page.push_str(".TP\n\\fB\\-\\-help, \\-h\\fR\nshow the help\n");
}

/// What roff would take for its own: backslashes, hyphens (which must stay ones that can be copied), and a line's first
/// dot or quote.
fn escape(text: &str) -> String {
    let escaped = text.replace('\\', "\\e").replace('-', "\\-");
    if escaped.starts_with(['.', '\'']) { format!("\\&{escaped}") } else { escaped }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_roff_takes_for_its_own_is_escaped() {
        assert_eq!(escape(".x a-b\\c"), "\\&.x a\\-b\\ec");
        assert_eq!(escape("'"), "\\&'");
    }

    #[test]
    fn every_verb_has_a_page_with_all_its_options() {
        for verb in VERBS {
            let page = super::verb(verb);
            assert!(page.starts_with(&format!(".TH \"FLINT\\-{}\" 8", verb.name.to_uppercase())), "{page}");
            for flag in verb.flags.iter().filter(|flag| !flag.help.is_empty()) {
                assert!(page.contains(&format!("\\fB\\-\\-{}", escape(flag.long))), "{} --{}", verb.name, flag.long);
            }
            assert!(program().contains(&format!("flint\\-{} (8)", verb.name)));
        }
    }
}
