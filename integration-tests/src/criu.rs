//! CRIU from Debian's unstable distribution: those of stable ones are older than the kernels that they meet, and do not
//! know their vDSO.
//!
//! Its package and the libraries that it needs are unpacked into a cache, once, and not installed. A script runs it by the
//! loader and with the libraries that came with it, so that it works on the host as it is.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::{Command, find_program, skip};

fn cache() -> PathBuf {
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
    cache.unwrap_or_else(|| "/var/cache".into()).join("flint-tests")
}

/// Where [`criu`] puts it, be it there by now or not.
pub(crate) fn criu_folder() -> PathBuf {
    cache().join("sid-criu/path")
}

/// The folder, for PATH, that holds `criu`; None after a skip.
#[must_use]
pub fn criu() -> Option<PathBuf> {
    let cache = cache();
    let tree = cache.join("sid-criu");
    let program = tree.join("path/criu");
    if !program.exists()
        && let Err(reason) = unpack(&cache, &tree)
    {
        skip(&format!("no CRIU: {reason}"));
        return None;
    }
    let check = Command::new(&program).args(["check"]).output();
    if check.code != 0 {
        skip(&format!("criu check: {}", check.stderr.lines().last().unwrap_or("it printed nothing")));
        return None;
    }
    program.parent().map(Path::to_owned)
}

/// Whether CRIU and the kernel have a feature of `criu check --feature`.
#[must_use]
pub fn criu_has(path: &Path, feature: &str) -> bool {
    Command::new(path.join("criu")).args(["check", "--feature", feature]).output().code == 0
}

fn unpack(cache: &Path, tree: &Path) -> Result<(), String> {
    let mmdebstrap = find_program("mmdebstrap").ok_or("mmdebstrap is not installed")?;
    fs::create_dir_all(cache).map_err(|error| error.to_string())?;
    // Beside its place and then renamed: a half-made one is never used, and two test runs do not meet.
    let work = tempfile::Builder::new().prefix("making-").tempdir_in(cache).map_err(|error| error.to_string())?;
    let made = work.path().join("tree");
    let output = std::process::Command::new("timeout")
        .args(["600".as_ref(), mmdebstrap.as_os_str()])
        .args(["--quiet", "--variant=extract", "--include=criu"])
        // An unpacked package, and no system that would have to be up to date.
        .args(["--aptopt=Acquire::Check-Valid-Until \"false\"", "--aptopt=Apt::Install-Recommends \"false\"", "sid"])
        .arg(&made)
        .args(crate::debian::mirror())
        .output()
        .map_err(|error| error.to_string())?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let line = text.lines().rfind(|line| line.starts_with("E:")).unwrap_or("it printed nothing");
        return Err(format!("mmdebstrap failed, no mirror can be reached? {line}"));
    }
    let library = fs::read_dir(made.join("usr/lib"))
        .map_err(|error| error.to_string())?
        .flatten()
        .find(|entry| entry.file_name().to_string_lossy().ends_with("-linux-gnu"))
        .ok_or("the package has no libraries")?;
    let folder = tree.join("usr/lib").join(library.file_name());
    let loader = fs::read_dir(library.path())
        .map_err(|error| error.to_string())?
        .flatten()
        .find(|entry| entry.file_name().to_string_lossy().starts_with("ld-linux"))
        .ok_or("libc has no loader")?;
    let script = format!(
        "#!/bin/sh\nexec '{}' --library-path '{}' '{}' \"$@\"\n",
        folder.join(loader.file_name()).display(),
        folder.display(),
        tree.join("usr/sbin/criu").display()
    );
    let path = made.join("path");
    fs::create_dir(&path)
        .and_then(|()| fs::write(path.join("criu"), script))
        .and_then(|()| fs::set_permissions(path.join("criu"), fs::Permissions::from_mode(0o755)))
        .map_err(|error| error.to_string())?;
    match fs::rename(&made, tree) {
        Err(error) if !tree.join("path/criu").exists() => Err(error.to_string()),
        _ => Ok(()),
    }
}
