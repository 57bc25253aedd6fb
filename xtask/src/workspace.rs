//! The workspace as cargo sees it: its root, its packages, what depends on what, its files.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use serde::Deserialize;

/// What `cargo metadata` says, as far as the checks need it.
#[derive(Deserialize)]
pub(crate) struct Metadata {
    pub(crate) packages: Vec<Package>,
    pub(crate) workspace_members: Vec<String>,
    pub(crate) workspace_root: PathBuf,
    pub(crate) resolve: Resolve,
}

#[derive(Clone, Deserialize)]
pub(crate) struct Package {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) license: Option<String>,
    #[serde(default)]
    pub(crate) dependencies: Vec<Dependency>,
    #[serde(default)]
    pub(crate) targets: Vec<Target>,
}

/// A dependency as the manifest declares it.
#[derive(Clone, Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// None for a normal one, `dev`, `build`.
    pub(crate) kind: Option<String>,
    /// Set for the workspace's own crates.
    pub(crate) path: Option<PathBuf>,
}

#[derive(Clone, Deserialize)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) kind: Vec<String>,
    pub(crate) src_path: PathBuf,
}

#[derive(Deserialize)]
pub(crate) struct Resolve {
    pub(crate) nodes: Vec<Node>,
}

#[derive(Deserialize)]
pub(crate) struct Node {
    pub(crate) id: String,
    pub(crate) deps: Vec<Edge>,
}

#[derive(Deserialize)]
pub(crate) struct Edge {
    pub(crate) pkg: String,
    pub(crate) dep_kinds: Vec<EdgeKind>,
}

#[derive(Deserialize)]
pub(crate) struct EdgeKind {
    pub(crate) kind: Option<String>,
}

impl Metadata {
    /// Asks cargo, for the platforms that flint runs on.
    pub(crate) fn load() -> anyhow::Result<Self> {
        let arch = std::env::consts::ARCH;
        let output = cargo()
            .args(["metadata", "--format-version", "1", "--locked", "--filter-platform"])
            .args([format!("{arch}-unknown-linux-gnu"), "--filter-platform".into(), musl_target()])
            .current_dir(root())
            .stderr(std::process::Stdio::inherit())
            .output()
            .context("cargo metadata")?;
        if !output.status.success() {
            bail!("cargo metadata failed ({}); its message stands above", output.status);
        }
        serde_json::from_slice(&output.stdout).context("the output of cargo metadata")
    }

    pub(crate) fn is_member(&self, package: &Package) -> bool {
        self.workspace_members.contains(&package.id)
    }

    pub(crate) fn members(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| self.is_member(package))
    }

    /// All that `member` depends on by normal dependencies, at any depth, each with the first path found to it
    /// (`member > a > b`), in a stable order. `build` adds build dependencies of what is below.
    pub(crate) fn reachable<'m>(&'m self, member: &'m Package, build: bool) -> Vec<(&'m Package, String)> {
        self.walk(member, build, |_| true)
    }

    /// The same without build dependencies and without what is behind procedural macros: those run in the compiler, and
    /// nothing that they depend on is linked into the program. The macros themselves are told.
    pub(crate) fn linked<'m>(&'m self, member: &'m Package) -> Vec<(&'m Package, String)> {
        let is_macro = |target: &Target| target.kind.iter().any(|kind| kind == "proc-macro");
        self.walk(member, false, |package| !package.targets.iter().any(is_macro))
    }

    /// `enter` tells whose dependencies are followed.
    fn walk<'m>(
        &'m self,
        member: &'m Package,
        build: bool,
        enter: impl Fn(&Package) -> bool,
    ) -> Vec<(&'m Package, String)> {
        let mut found: Vec<(&Package, String)> = vec![(member, member.name.clone())];
        let mut next = 0;
        while let Some((package, path)) = found.get(next).map(|(package, path)| (*package, path.clone())) {
            next += 1;
            if !enter(package) {
                continue;
            }
            let node = self.resolve.nodes.iter().find(|node| node.id == package.id);
            for edge in node.map(|node| &node.deps).into_iter().flatten() {
                let wanted = |kind: &EdgeKind| match kind.kind.as_deref() {
                    None => true,
                    Some(other) => build && other == "build",
                };
                let dependency = self.packages.iter().find(|other| other.id == edge.pkg);
                if let Some(dependency) = dependency.filter(|_| edge.dep_kinds.iter().any(wanted))
                    && !found.iter().any(|(known, _)| known.id == dependency.id)
                {
                    found.push((dependency, format!("{path} > {}", dependency.name)));
                }
            }
        }
        found.remove(0);
        found
    }
}

/// The root of the checkout.
///
/// Taken from cargo's environment when there is one, since a checkout may be moved after xtask was built.
pub(crate) fn root() -> PathBuf {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let manifest = PathBuf::from(manifest);
    manifest.parent().map(Path::to_path_buf).unwrap_or(manifest)
}

/// cargo, the same that started xtask.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    // What cargo told xtask about xtask's own package must not reach the build scripts of others.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
            command.env_remove(name);
        }
    }
    command
}

/// The target triple of a static program for this machine.
pub(crate) fn musl_target() -> String {
    format!("{}-unknown-linux-musl", std::env::consts::ARCH)
}

/// The target triple of a program of this machine's own C library, which xtask is one of.
pub(crate) fn host_target() -> String {
    format!("{}-unknown-linux-{}", std::env::consts::ARCH, if cfg!(target_env = "musl") { "musl" } else { "gnu" })
}

/// Where `cargo xtask dist` puts the programs.
pub(crate) fn dist_folder() -> PathBuf {
    target_folder().join("dist")
}

/// cargo's target folder.
pub(crate) fn target_folder() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => root().join(folder),
        None => root().join("target"),
    }
}

/// The files of the repository that git knows or would add, relative to the root.
pub(crate) fn files() -> anyhow::Result<Vec<PathBuf>> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .context("git ls-files: git is needed to know which files belong to the repository")?;
    if !output.status.success() {
        bail!("git ls-files failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    let names = String::from_utf8(output.stdout).context("a file's name is not UTF-8")?;
    let mut files: Vec<PathBuf> = names.split('\0').filter(|name| !name.is_empty()).map(PathBuf::from).collect();
    files.sort();
    files.dedup();
    // A file that was deleted and not yet committed so is still listed.
    files.retain(|file| root().join(file).is_file());
    Ok(files)
}

/// The commit that is checked out, with `-dirty` where files differ from it; None outside of git.
pub(crate) fn commit() -> Option<String> {
    let mut git = Command::new("git");
    git.args(["describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]).current_dir(root());
    let output = git.stderr(std::process::Stdio::null()).output().ok()?;
    let commit = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !commit.trim().is_empty()).then(|| commit.trim().to_owned())
}

/// Where a program lies in `PATH`.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    // Where Debian keeps runc, and what a root shell without a login may lack.
    let more = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    let mut folders = std::env::split_paths(&path).chain(more);
    folders.find_map(|folder| Some(folder.join(name)).filter(|file| file.is_file()))
}
