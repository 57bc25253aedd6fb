//! Every dependency's licence must be in the list of deny.toml, and no dependency in its list of bans.
//!
//! The same file serves cargo-deny, which knows more (advisories, sources); this needs nothing installed.

use anyhow::{Context, bail};
use spdx::{Expression, LicenseReq, ParseMode};
use toml_edit::{Document, Item};

use super::Findings;
use crate::workspace::{self, Metadata, Package};

pub(super) const HELP: &str = "\
usage: cargo xtask check-licences

Checks the licence of every dependency, as an SPDX expression, against [licenses] of deny.toml, and its
name against [bans] deny. Where cargo-deny is installed, `cargo xtask test` calls that, too.";

/// What deny.toml says, as far as this check goes.
struct Policy {
    allow: Vec<LicenseReq>,
    exceptions: Vec<(String, Vec<LicenseReq>)>,
    banned: Vec<Ban>,
}

struct Ban {
    name: String,
    reason: String,
    /// Crates that may use it nevertheless, directly.
    wrappers: Vec<String>,
}

pub(super) fn check() -> anyhow::Result<Findings> {
    let path = workspace::root().join("deny.toml");
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let policy = Policy::parse(&text).context("deny.toml")?;
    let metadata = Metadata::load()?;
    let mut violations = Vec::new();
    for package in &metadata.packages {
        if let Err(error) = policy.licence(package) {
            violations.push(format!("{} {}: {error:#}", package.name, package.version));
        }
        violations.extend(policy.ban(package, &metadata));
    }
    Ok(Findings { looked_at: format!("{} packages", metadata.packages.len()), violations, ..Findings::default() })
}

impl Policy {
    fn parse(text: &str) -> anyhow::Result<Self> {
        let document = Document::parse(text)?;
        let licenses = document.get("licenses").context("no [licenses]")?;
        let exceptions = tables(licenses.get("exceptions")).into_iter().map(|exception| {
            let name = exception.get("crate").or_else(|| exception.get("name"));
            let name = name.and_then(Item::as_str).context("an exception without a crate")?;
            Ok((name.to_owned(), requirements(exception.get("allow"))?))
        });
        let banned = tables(document.get("bans").and_then(|bans| bans.get("deny"))).into_iter().map(|ban| {
            let name = ban.get("crate").or_else(|| ban.get("name"));
            Ok(Ban {
                name: name.and_then(Item::as_str).context("a ban without a crate")?.to_owned(),
                reason: ban.get("reason").and_then(Item::as_str).context("a ban without a reason")?.to_owned(),
                wrappers: strings(ban.get("wrappers"))?,
            })
        });
        Ok(Self {
            allow: requirements(licenses.get("allow"))?,
            exceptions: exceptions.collect::<anyhow::Result<_>>()?,
            banned: banned.collect::<anyhow::Result<_>>()?,
        })
    }

    fn licence(&self, package: &Package) -> anyhow::Result<()> {
        let text = package.license.as_deref().context("its manifest names no licence")?;
        // LAX: crates of old write "MIT/Apache-2.0".
        let expression = Expression::parse_mode(text, ParseMode::LAX)
            .map_err(|error| anyhow::anyhow!("its licence {text:?} is no SPDX expression: {}", error.reason))?;
        let own = self.exceptions.iter().find(|(name, _)| *name == package.name);
        let own = own.map(|(_, allowed)| allowed.as_slice()).unwrap_or_default();
        if !expression.evaluate(|wanted| self.allow.iter().chain(own).any(|allowed| allowed == wanted)) {
            bail!("its licence {text} is not allowed by deny.toml");
        }
        Ok(())
    }

    fn ban(&self, package: &Package, metadata: &Metadata) -> Option<String> {
        let ban = self.banned.iter().find(|ban| ban.name == package.name)?;
        let users: Vec<&str> = metadata
            .packages
            .iter()
            .filter(|user| {
                let node = metadata.resolve.nodes.iter().find(|node| node.id == user.id);
                node.is_some_and(|node| node.deps.iter().any(|edge| edge.pkg == package.id))
            })
            .map(|user| user.name.as_str())
            .collect();
        let strangers: Vec<&str> =
            users.iter().copied().filter(|user| !ban.wrappers.iter().any(|wrapper| wrapper == user)).collect();
        if !ban.wrappers.is_empty() && strangers.is_empty() {
            return None;
        }
        Some(format!("{} is banned ({}) and used by {}", ban.name, ban.reason, strangers.join(", ")))
    }
}

/// The tables of an array, written as `[[a.b]]` or inline.
fn tables(item: Option<&Item>) -> Vec<toml_edit::Table> {
    match item {
        Some(Item::ArrayOfTables(tables)) => tables.iter().cloned().collect(),
        Some(item) => {
            let entries = item.as_array().into_iter().flatten();
            entries.filter_map(|entry| Some(entry.as_inline_table()?.clone().into_table())).collect()
        }
        None => Vec::new(),
    }
}

fn strings(item: Option<&Item>) -> anyhow::Result<Vec<String>> {
    let entries = item.and_then(Item::as_array).into_iter().flatten();
    entries.map(|entry| entry.as_str().map(str::to_owned).context("an entry that is no string")).collect()
}

fn requirements(item: Option<&Item>) -> anyhow::Result<Vec<LicenseReq>> {
    let parse = |name: &String| {
        let expression = Expression::parse(name).with_context(|| format!("the licence {name:?}"))?;
        let mut parts = expression.requirements();
        match (parts.next(), parts.next()) {
            (Some(part), None) => Ok(part.req.clone()),
            _ => bail!("{name:?} must be one licence, not an expression"),
        }
    };
    strings(item)?.iter().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = r#"
        [licenses]
        allow = ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception"]
        exceptions = [{ allow = ["Unicode-3.0"], crate = "unicode-ident" }]
        [bans]
        deny = [{ crate = "openssl", reason = "C code" }, { crate = "libc", wrappers = ["nix"], reason = "use nix" }]
    "#;

    fn allowed(name: &str, license: Option<&str>) -> bool {
        let package = serde_json::json!({"id": name, "name": name, "version": "1.0.0", "license": license});
        Policy::parse(POLICY).unwrap().licence(&serde_json::from_value(package).unwrap()).is_ok()
    }

    #[test]
    fn or_needs_one_side_and_and_needs_both() {
        assert!(allowed("a", Some("MIT")));
        assert!(allowed("a", Some("MIT/Apache-2.0")));
        assert!(allowed("a", Some("GPL-3.0-only OR MIT")));
        assert!(!allowed("a", Some("GPL-3.0-only AND MIT")));
        assert!(allowed("a", Some("(MIT OR GPL-2.0-only) AND Apache-2.0")));
        assert!(!allowed("a", Some("GPL-3.0-only")));
        assert!(allowed("a", Some("Apache-2.0 WITH LLVM-exception")));
        assert!(!allowed("a", Some("MIT WITH LLVM-exception")));
    }

    #[test]
    fn an_exception_counts_for_its_crate_alone() {
        assert!(allowed("unicode-ident", Some("(MIT OR Apache-2.0) AND Unicode-3.0")));
        assert!(!allowed("other", Some("(MIT OR Apache-2.0) AND Unicode-3.0")));
    }

    #[test]
    fn no_licence_and_no_expression_are_refused() {
        assert!(!allowed("a", None));
        assert!(!allowed("a", Some("whatever you like")));
    }

    #[test]
    fn bans_are_found_unless_a_wrapper_is_the_only_user() {
        let package = |name: &str| serde_json::json!({"id": name, "name": name, "version": "1.0.0", "license": "MIT"});
        let node = |name: &str, to: &[&str]| {
            let deps: Vec<_> = to.iter().map(|to| serde_json::json!({"pkg": to, "dep_kinds": []})).collect();
            serde_json::json!({"id": name, "deps": deps})
        };
        let found = |users: &[(&str, &[&str])]| {
            let mut packages = vec![package("libc"), package("openssl")];
            packages.extend(users.iter().map(|(name, _)| package(name)));
            let nodes: Vec<_> = users.iter().map(|(name, to)| node(name, to)).collect();
            let metadata = serde_json::json!({"workspace_root": "/", "workspace_members": [],
                "packages": packages, "resolve": {"nodes": nodes}});
            let metadata: Metadata = serde_json::from_value(metadata).unwrap();
            let policy = Policy::parse(POLICY).unwrap();
            let banned = metadata.packages.iter().filter_map(|package| policy.ban(package, &metadata));
            banned.filter(|told| !told.ends_with("used by ")).collect::<Vec<_>>()
        };
        assert_eq!(found(&[("nix", &["libc"])]), Vec::<String>::new());
        assert_eq!(found(&[("nix", &["libc"]), ("a", &["libc"])]), ["libc is banned (use nix) and used by a"]);
        assert_eq!(found(&[("a", &["openssl"])]), ["openssl is banned (C code) and used by a"]);
    }
}
