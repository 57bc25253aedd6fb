//! Every direct dependency has a line with its reason in docs/dependencies.md, and every line has its dependency.

use std::collections::BTreeMap;

use anyhow::Context;

use super::Findings;
use crate::workspace::{self, Metadata};

pub(super) const HELP: &str = "\
usage: cargo xtask check-dependencies

Checks that each direct dependency of a crate of the workspace has a line `| name | ... |` in
docs/dependencies.md, and that no line stands for a dependency that is gone.";

pub(super) fn check() -> anyhow::Result<Findings> {
    let path = workspace::root().join("docs/dependencies.md");
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let metadata = Metadata::load()?;
    let mut used: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in metadata.members() {
        for dependency in package.dependencies.iter().filter(|dependency| dependency.path.is_none()) {
            used.entry(dependency.name.clone()).or_default().push(package.name.clone());
        }
    }
    Ok(Findings {
        looked_at: format!("{} dependencies", used.len()),
        violations: compare(&text, &used),
        ..Findings::default()
    })
}

fn compare(text: &str, used: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    let listed: Vec<&str> = text.lines().filter_map(listed_name).collect();
    let missing = used.iter().filter(|(name, _)| !listed.contains(&name.as_str()));
    let missing = missing.map(|(name, users)| {
        format!("docs/dependencies.md has no line for {name}, which {} uses: say why it is needed", users.join(", "))
    });
    let stale = listed.iter().filter(|name| !used.contains_key(**name));
    let stale = stale.map(|name| format!("docs/dependencies.md has a line for {name}, which nothing uses directly"));
    missing.chain(stale).collect()
}

/// The name in a line of the form "| `name` | reason |".
fn listed_name(line: &str) -> Option<&str> {
    let (name, reason) = line.strip_prefix("| `")?.split_once("` |")?;
    (!reason.trim_matches([' ', '|']).is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_and_stale_lines_are_told() {
        let used = BTreeMap::from([("nix".to_owned(), vec!["flint".to_owned()])]);
        assert!(compare("| crate | why |\n| `nix` | system calls |\n", &used).is_empty());
        assert_eq!(compare("nix is good\n", &used).len(), 1);
        assert_eq!(compare("| `nix` | |\n", &used).len(), 1, "a line without a reason is no line");
        assert_eq!(compare("| `nix` | a |\n| `gone` | b |\n", &used).len(), 1);
    }
}
