//! The runtimes that are compared.

use std::path::{Path, PathBuf};

use crate::{find_program, skip};

/// A runtime with runc's command line.
#[derive(Clone, Debug)]
pub struct Runtime {
    /// `flint` (whatever `FLINT_BIN` names) or `runc`.
    pub name: &'static str,
    /// Its executable.
    pub path: PathBuf,
}

impl Runtime {
    /// Whether this is runc, be it as the peer or because `FLINT_BIN` names it.
    #[must_use]
    pub fn is_runc(&self) -> bool {
        runc().is_some_and(|runc| runc.path.canonicalize().ok() == self.path.canonicalize().ok())
    }
}

/// The runtime under test: `FLINT_BIN`, else `target/dist/flint`, else `target/debug/flint`.
///
/// A missing runtime is a failure, not a reason to skip: nothing would be tested.
#[must_use]
pub fn flint() -> Runtime {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from);
    let candidates = [
        std::env::var_os("FLINT_BIN").map(PathBuf::from),
        Some(target.join("dist/flint")),
        Some(target.join("debug/flint")),
    ];
    let path = candidates
        .into_iter()
        .flatten()
        .find(|path| path.exists())
        .expect("no flint: build it with `cargo xtask dist` or name it in FLINT_BIN");
    let path = path.canonicalize().expect("FLINT_BIN cannot be resolved");
    Runtime { name: "flint", path }
}

/// Debian's runc, if it is installed.
#[must_use]
pub fn runc() -> Option<Runtime> {
    find_program("runc").map(|path| Runtime { name: "runc", path })
}

/// Flint and runc, or a skip when the machine cannot run privileged tests.
#[must_use]
pub fn peers() -> Option<[Runtime; 2]> {
    if !root_and_busybox() {
        return None;
    }
    let Some(runc) = runc() else {
        skip("runc is not installed");
        return None;
    };
    Some([flint(), runc])
}

/// Only flint, for behaviour that runc does not have; skipped when `FLINT_BIN` is runc itself.
#[must_use]
pub fn under_test_only(behaviour: &str) -> Option<[Runtime; 1]> {
    if !root_and_busybox() {
        return None;
    }
    let flint = flint();
    if flint.is_runc() {
        skip(&format!("FLINT_BIN is runc, which does not have this: {behaviour}"));
        return None;
    }
    Some([flint])
}

fn root_and_busybox() -> bool {
    if !rustix::process::geteuid().is_root() {
        skip("needs root");
        return false;
    }
    // busybox-static: the rootfs has no libraries.
    if !Path::new("/bin/busybox").exists() {
        skip("/bin/busybox (busybox-static) is not installed");
        return false;
    }
    true
}
