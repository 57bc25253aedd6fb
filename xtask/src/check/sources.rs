//! Rules on the files themselves: their length, and no path of the machine they were written on.

use std::path::Path;

use anyhow::Context;

use super::Findings;
use crate::workspace;

pub(super) const HELP: &str = "\
usage: cargo xtask check-sources

Checks the files that git knows or would add: Rust files of more than 400 lines are told, of more than 500
refused; a file that holds the path of this checkout or of a package cache is refused.";

const LONG: usize = 400;
const TOO_LONG: usize = 500;

pub(super) fn check() -> anyhow::Result<Findings> {
    let root = workspace::root();
    let files = workspace::files()?;
    let mut found = Findings { looked_at: format!("{} files", files.len()), ..Findings::default() };
    let machine = machine_paths(&root);
    for file in &files {
        let content = std::fs::read(root.join(file)).with_context(|| format!("reading {}", file.display()))?;
        let text = String::from_utf8_lossy(&content);
        length(file, &text, &mut found);
        paths(file, &text, &machine, &mut found);
    }
    Ok(found)
}

fn length(file: &Path, text: &str, found: &mut Findings) {
    if file.extension().is_none_or(|extension| extension != "rs") {
        return;
    }
    let lines = text.lines().count();
    if lines > TOO_LONG {
        found.violations.push(format!("{} has {lines} lines; {TOO_LONG} are the most: split it", file.display()));
    } else if lines > LONG {
        found.warnings.push(format!("{} has {lines} lines; about {LONG} are the rule", file.display()));
    }
}

/// Paths that say on which machine a file was written.
fn machine_paths(root: &Path) -> Vec<String> {
    let mut paths = vec![[".cargo", "registry", "src"].join("/")];
    // The folder that holds the checkout. One right below / has a name that others have, too (an overlay's `/work`).
    let parent = root.parent().and_then(Path::to_str).filter(|parent| parent.matches('/').count() > 1);
    let ordinary = ["/usr/src", "/var/tmp"];
    match parent {
        Some(parent) if !ordinary.contains(&parent) => paths.push(format!("{parent}/")),
        _ => paths.extend(root.to_str().map(|root| format!("{root}/"))),
    }
    paths
}

fn paths(file: &Path, text: &str, machine: &[String], found: &mut Findings) {
    for (number, line) in text.lines().enumerate() {
        for path in machine.iter().filter(|path| line.contains(path.as_str())) {
            let place = format!("{}:{}", file.display(), number + 1);
            found.violations.push(format!("{place} holds a path of this machine ({path}...): name it relative"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_lines(name: &str, lines: usize) -> (usize, usize) {
        let mut found = Findings::default();
        length(Path::new(name), &"x\n".repeat(lines), &mut found);
        (found.warnings.len(), found.violations.len())
    }

    #[test]
    fn long_files_are_told_and_longer_ones_refused() {
        assert_eq!(of_lines("a.rs", LONG), (0, 0));
        assert_eq!(of_lines("a.rs", LONG + 1), (1, 0));
        assert_eq!(of_lines("a.rs", TOO_LONG + 1), (0, 1));
        assert_eq!(of_lines("Cargo.lock", 10_000), (0, 0));
    }

    #[test]
    fn the_folder_around_the_checkout_is_a_machine_path_and_an_ordinary_one_is_not() {
        let told = |root: &str, line: &str| {
            let mut found = Findings::default();
            paths(Path::new("a.md"), line, &machine_paths(Path::new(root)), &mut found);
            found.violations.len()
        };
        assert_eq!(told("/builds/42/flint", "see /builds/42/flint/README.md"), 1);
        assert_eq!(told("/builds/42/flint", "see /builds/42/other"), 1);
        assert_eq!(told("/home/flint", "HOME=/home/someone"), 0);
        assert_eq!(told("/home/flint", "cd /home/flint/xtask"), 1);
        assert_eq!(told("/flint", "bin/true /etc/passwd"), 0);
    }
}
