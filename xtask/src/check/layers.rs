//! Which crate may depend on which: the arrows of docs/architecture.md, and no others.

use std::path::Path;

use anyhow::Context;

use super::Findings;
use crate::workspace::{Metadata, Package, Target};

pub(super) const HELP: &str = "\
usage: cargo xtask check-layers

Checks that the crates of the workspace depend on each other only downwards, that what runs between clone
and exec is no_std and reaches libc's constants alone, that no crate but flint-sys may hold unsafe code, and
that nothing in the static programs compiles C.";

/// What a crate of the workspace may depend on, and why no more.
struct Layer {
    package: &'static str,
    /// Crates of the workspace.
    workspace: &'static [&'static str],
    /// The only crates of others that it may reach, at any depth; None: see `never`.
    only: Option<&'static [&'static str]>,
    /// Crates of others that it may not reach, at any depth.
    never: &'static [&'static str],
    reason: &'static str,
}

const LAYERS: &[Layer] = &[
    Layer {
        package: "flint-sys",
        workspace: &[],
        only: Some(&["libc"]),
        never: &[],
        reason: "it runs between clone and exec, where an allocator's or std's locks may be held for ever",
    },
    Layer {
        package: "flint-init",
        workspace: &["flint-sys"],
        only: Some(&["libc"]),
        never: &[],
        reason: "it runs between clone and exec, where an allocator's or std's locks may be held for ever",
    },
    Layer {
        package: "flint-runtime",
        workspace: &["flint-init", "flint-sys"],
        only: None,
        never: &["tokio", "ttrpc", "clap", "lexopt", "anyhow", "tracing-subscriber"],
        reason: "the library is synchronous, has typed errors, and neither serves nor parses a command line",
    },
    Layer {
        package: "flint",
        workspace: &["flint-runtime"],
        only: None,
        never: &["tokio", "ttrpc", "clap"],
        reason: "it starts for every verb: no executor, no server, no large parser; init is core's business",
    },
    Layer {
        package: "flint-shim-protocol",
        workspace: &[],
        only: None,
        never: &["clap", "prost-build", "serde_json"],
        reason: "it is messages and the two ends of a wire, which the supervisor links without the runtime behind it",
    },
    Layer {
        package: "containerd-shim-flint-v1",
        workspace: &["flint-runtime", "flint-shim-protocol"],
        only: None,
        never: &["clap"],
        reason: "it calls the runtime as a library and makes no raw system calls of its own",
    },
    Layer {
        package: "flint-bundle",
        workspace: &[],
        only: None,
        never: &["ttrpc"],
        reason: "it makes bundles from images and knows of no runtime",
    },
    Layer {
        package: "flintd",
        workspace: &["flint-bundle", "flint-shim-protocol"],
        only: None,
        never: &[],
        reason: "it talks to the shim by the shim's protocol, so that its death ends no container",
    },
    Layer {
        package: "payload",
        workspace: &[],
        only: Some(&[]),
        never: &[],
        reason: "it is what containers run in examples and measurements: its size and start-up count as theirs",
    },
    Layer {
        package: "xtask",
        workspace: &[],
        only: None,
        never: &[],
        reason: "it has to work when the workspace does not build",
    },
];

/// They look at all layers from outside.
const UNLAYERED: &[&str] =
    &["integration-tests", "init-object", "init-object-fixtures", "benches", "shim-bench", "swarm-bench", "systems"];

/// Crates that init's side must be without std for.
const NO_STD: &[&str] = &["flint-sys", "flint-init"];

/// The one crate that may hold unsafe code.
const UNSAFE: &str = "flint-sys";

/// Programs that must be static without a C compiler for musl.
const WITHOUT_C: &[&str] = &["flint", "containerd-shim-flint-v1"];

/// Build dependencies that compile or look for C code.
const C_BUILDERS: &[&str] = &["cc", "cmake", "bindgen", "pkg-config", "vcpkg", "system-deps"];

pub(super) fn check() -> anyhow::Result<Findings> {
    let metadata = Metadata::load()?;
    let mut found = Findings::default();
    let mut crates = 0;
    for package in metadata.members() {
        crates += 1;
        match LAYERS.iter().find(|layer| layer.package == package.name) {
            Some(layer) => arrows(&metadata, package, layer, &mut found.violations),
            None if UNLAYERED.contains(&package.name.as_str()) => {}
            None => found.violations.push(format!("the crate {} has no layer in xtask's check", package.name)),
        }
        if WITHOUT_C.contains(&package.name.as_str()) {
            c_code(&metadata, package, &mut found.violations);
        }
        for target in &package.targets {
            let source = std::fs::read_to_string(&target.src_path)
                .with_context(|| format!("reading {}", target.src_path.display()))?;
            attributes(package, target, &source, &metadata.workspace_root, &mut found.violations);
        }
    }
    found.looked_at = format!("{crates} crates");
    Ok(found)
}

fn arrows(metadata: &Metadata, package: &Package, layer: &Layer, violations: &mut Vec<String>) {
    // Development dependencies do not ship, so they are not arrows.
    for dependency in package.dependencies.iter().filter(|dependency| dependency.kind.as_deref() != Some("dev")) {
        if dependency.path.is_some() && !layer.workspace.contains(&dependency.name.as_str()) {
            violations.push(format!("{} must not depend on {}: {}", layer.package, dependency.name, layer.reason));
        }
    }
    for (reached, path) in metadata.linked(package) {
        if metadata.is_member(reached) {
            continue;
        }
        let name = reached.name.as_str();
        if layer.never.contains(&name) || layer.only.is_some_and(|only| !only.contains(&name)) {
            violations.push(format!("{} must not reach {name} ({path}): {}", layer.package, layer.reason));
        }
    }
}

fn c_code(metadata: &Metadata, package: &Package, violations: &mut Vec<String>) {
    for (reached, path) in metadata.reachable(package, true) {
        if C_BUILDERS.contains(&reached.name.as_str()) {
            violations.push(format!(
                "{} must not need {} ({path}): static programs are linked without a C compiler for musl",
                package.name, reached.name
            ));
        }
    }
}

/// What the root file of a target must say at its top.
fn attributes(package: &Package, target: &Target, source: &str, root: &Path, violations: &mut Vec<String>) {
    let file = target.src_path.strip_prefix(root).unwrap_or(&target.src_path).display();
    let says = |attribute: &str| source.lines().any(|line| line.trim_end() == attribute);
    if package.name != UNSAFE && !says("#![forbid(unsafe_code)]") {
        violations.push(format!("{file} must say #![forbid(unsafe_code)]: unsafe code lives in {UNSAFE} alone"));
    }
    let is_library = target.kind.iter().any(|kind| kind == "lib");
    if is_library && NO_STD.contains(&package.name.as_str()) {
        if !says("#![no_std]") {
            violations.push(format!("{file} must say #![no_std]: it runs between clone and exec"));
        }
        if source.lines().any(|line| line.trim_start().starts_with("extern crate alloc")) {
            violations.push(format!("{file} must not use alloc: its locks may be held for ever after clone"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(json: serde_json::Value) -> Metadata {
        serde_json::from_value(json).unwrap()
    }

    /// A workspace of `flint-runtime` that depends on `flint-init` (allowed) and on `a`, which depends on `bad`.
    fn runtime_reaching(bad: &str) -> Metadata {
        let edge = |to: &str, kind: Option<&str>| serde_json::json!({"pkg": to, "dep_kinds": [{"kind": kind}]});
        metadata(serde_json::json!({
            "workspace_root": "/w",
            "workspace_members": ["core", "init"],
            "packages": [
                {"id": "core", "name": "flint-runtime", "version": "1.0.0", "license": null,
                 "dependencies": [{"name": "flint-init", "kind": null, "path": "/w/init"},
                                  {"name": "a", "kind": null, "path": null}]},
                {"id": "init", "name": "flint-init", "version": "1.0.0", "license": null},
                {"id": "a", "name": "a", "version": "1.0.0", "license": null},
                {"id": "bad", "name": bad, "version": "1.0.0", "license": null},
            ],
            "resolve": {"nodes": [
                {"id": "core", "deps": [edge("init", None), edge("a", None)]},
                {"id": "init", "deps": []},
                {"id": "a", "deps": [edge("bad", None)]},
                {"id": "bad", "deps": []},
            ]},
        }))
    }

    fn violations(metadata: &Metadata, name: &str) -> Vec<String> {
        let package = metadata.members().find(|package| package.name == name).unwrap();
        let layer = LAYERS.iter().find(|layer| layer.package == name).unwrap();
        let mut violations = Vec::new();
        arrows(metadata, package, layer, &mut violations);
        violations
    }

    #[test]
    fn a_forbidden_crate_is_found_at_depth_and_told_with_its_path() {
        assert!(violations(&runtime_reaching("harmless"), "flint-runtime").is_empty());
        let found = violations(&runtime_reaching("tokio"), "flint-runtime");
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("flint-runtime > a > tokio"), "{found:?}");
    }

    #[test]
    fn what_only_a_macro_uses_is_not_reached_but_the_macro_is() {
        let kind = |kind: &str| Target { name: "a".into(), kind: vec![kind.into()], src_path: "/a/lib.rs".into() };
        let mut metadata = runtime_reaching("tokio");
        metadata.packages[2].targets = vec![kind("lib")];
        assert_eq!(violations(&metadata, "flint-runtime").len(), 1);
        metadata.packages[2].targets = vec![kind("proc-macro")];
        assert!(violations(&metadata, "flint-runtime").is_empty());
        metadata.packages[2].name = "tokio".into();
        assert_eq!(violations(&metadata, "flint-runtime").len(), 1);
    }

    #[test]
    fn an_upward_arrow_is_found() {
        let mut upward = runtime_reaching("harmless");
        let arrow = crate::workspace::Dependency { name: "flint-runtime".into(), kind: None, path: Some("/w".into()) };
        let init = upward.packages.iter_mut().find(|package| package.name == "flint-init").unwrap();
        init.dependencies.push(arrow.clone());
        assert_eq!(violations(&upward, "flint-init").len(), 1);
        let init = upward.packages.iter_mut().find(|package| package.name == "flint-init").unwrap();
        init.dependencies = vec![crate::workspace::Dependency { kind: Some("dev".into()), ..arrow }];
        assert!(violations(&upward, "flint-init").is_empty(), "development dependencies are no arrows");
    }

    #[test]
    fn c_code_is_found_behind_a_build_dependency() {
        let mut metadata = runtime_reaching("cc");
        metadata.resolve.nodes[2].deps[0].dep_kinds[0].kind = Some("build".into());
        let package = metadata.members().next().unwrap();
        let mut violations = Vec::new();
        c_code(&metadata, package, &mut violations);
        assert_eq!(violations.len(), 1, "{violations:?}");
    }

    #[test]
    fn missing_attributes_are_told() {
        let metadata = runtime_reaching("harmless");
        let init = metadata.members().find(|package| package.name == "flint-init").unwrap();
        let target = Target { name: "x".into(), kind: vec!["lib".into()], src_path: "/w/init/src/lib.rs".into() };
        let told = |source: &str| {
            let mut violations = Vec::new();
            attributes(init, &target, source, Path::new("/w"), &mut violations);
            violations.len()
        };
        assert_eq!(told("//! text\n#![no_std]\n#![forbid(unsafe_code)]\n"), 0);
        assert_eq!(told("//! #![no_std]\n// #![forbid(unsafe_code)]\n"), 2);
        assert_eq!(told("#![no_std]\n#![forbid(unsafe_code)]\nextern crate alloc;\n"), 1);
    }
}
