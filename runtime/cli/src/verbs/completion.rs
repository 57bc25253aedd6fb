//! `flint completion`

use std::fmt::Write as _;

use anyhow::{Result, bail};

use super::{CONTAINER, VERBS, Verb};
use crate::arguments::{Arguments, Flag};
use crate::{GLOBAL_FLAGS, Session, print};

pub(super) const VERB: Verb = Verb {
    name: "completion",
    summary: "print the completion script of a shell",
    operands: "bash|zsh|fish",
    description: "For bash:  source <(flint completion bash)
For zsh:   source <(flint completion zsh)
For fish:  flint completion fish | source",
    run,
    ..CONTAINER
};

fn run(_: &Session, arguments: &Arguments) -> Result<u8> {
    print(&match arguments.operand(0)? {
        "bash" => bash(),
        "zsh" => "autoload -U +X bashcompinit && bashcompinit\n".to_owned() + &bash(),
        "fish" => fish(),
        other => bail!("there are no completions for {other:?}: choose bash, zsh or fish"),
    })?;
    Ok(0)
}

fn names(flags: &[Flag]) -> String {
    let shown = flags.iter().filter(|flag| !flag.help.is_empty());
    shown.fold(String::from("--help"), |names, flag| names + " --" + flag.long)
}

/// Whether the verb's operand is a container that exists.
fn takes_existing(verb: &Verb) -> bool {
    verb.operands.starts_with("<container-id>") && !["create", "run", "restore"].contains(&verb.name)
}

fn bash() -> String {
    let verbs: Vec<&str> = VERBS.iter().map(|verb| verb.name).collect();
    let with_value: Vec<String> =
        GLOBAL_FLAGS.iter().filter(|flag| flag.value.is_some()).map(|flag| format!("--{}", flag.long)).collect();
    let mut cases = String::new();
    for verb in VERBS {
        let words = names(verb.flags);
        let ids = if takes_existing(verb) { " $(flint list -q 2>/dev/null)" } else { "" };
        let _ = writeln!(cases, "        {}) words=\"{words}{ids}\" ;;", verb.name);
    }
    format!(
        "_flint() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} verb= words= i
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${{COMP_WORDS[i]}} in
        {with_value}) ((i++)) ;;
        -*) ;;
        *) verb=${{COMP_WORDS[i]}}; break ;;
        esac
    done
    case $verb in
        '') words=\"{globals} {verbs} help\" ;;
{cases}    esac
    COMPREPLY=($(compgen -W \"$words\" -- \"$word\"))
}}
complete -o default -F _flint flint
",
        with_value = with_value.join("|"),
        globals = names(GLOBAL_FLAGS),
        verbs = verbs.join(" "),
    )
}

fn fish() -> String {
    let mut text = String::new();
    let mut flag_lines = |condition: &str, flags: &[Flag]| {
        for flag in flags.iter().filter(|flag| !flag.help.is_empty()) {
            let short = flag.short.map_or(String::new(), |short| format!(" -s {short}"));
            let value = if flag.value.is_some() { " -r" } else { "" };
            let help = flag.help.replace('\'', "\\'");
            let _ = writeln!(text, "complete -c flint -n {condition} -l {}{short}{value} -d '{help}'", flag.long);
        }
    };
    flag_lines("__fish_use_subcommand", GLOBAL_FLAGS);
    for verb in VERBS {
        flag_lines(&format!("'__fish_seen_subcommand_from {}'", verb.name), verb.flags);
    }
    for verb in VERBS {
        let summary = verb.summary.replace('\'', "\\'");
        let _ = writeln!(text, "complete -c flint -n __fish_use_subcommand -a {} -d '{summary}'", verb.name);
        if takes_existing(verb) {
            let condition = format!("'__fish_seen_subcommand_from {}'", verb.name);
            let _ = writeln!(text, "complete -c flint -n {condition} -a '(flint list -q 2>/dev/null)'");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    /// Runs the completion of `words` in a real bash.
    fn complete(words: &str) -> Option<String> {
        let script = format!(
            "{}\nCOMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _flint; echo \"${{COMPREPLY[@]}}\"",
            super::bash()
        );
        let output = Command::new("bash").args(["--norc", "-c", &script]).output().ok()?;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    #[test]
    fn bash_completes() {
        for (words, completed) in [
            ("flint cre", "create"),
            ("flint --root /x sta", "start state"),
            ("flint --root /x run --no", "--no-subreaper --no-pivot --no-new-keyring"),
        ] {
            let Some(found) = complete(words) else {
                eprintln!("skipped: bash is not installed");
                return;
            };
            assert_eq!(found, completed, "{words}");
        }
    }
}
