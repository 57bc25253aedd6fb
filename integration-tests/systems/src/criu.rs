//! CRIU from Debian's unstable distribution: those of stable ones are older than the kernels that they meet, and do not
//! know their vDSO.
//!
//! Its package and the libraries that it needs are unpacked into the cache, once, and not installed. A script runs it by the
//! loader and with the libraries that came with it, so that it works on the host as it is.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::cache::{cache, kept, unpacked};

const NAME: &str = "sid-criu";

/// The folder, for PATH, that [`criu_folder`] makes, be it there by now or not.
#[must_use]
pub fn criu_place() -> PathBuf {
    cache().join(NAME).join("path")
}

/// The folder, for PATH, that holds `criu`, made if it is missing; None after a skip.
#[must_use]
pub fn criu_folder() -> Option<PathBuf> {
    kept(NAME, make).map(|tree| tree.join("path"))
}

fn make(made: &Path) -> Result<(), String> {
    unpacked("sid", &["criu"], made)?;
    let entries = |folder: &Path| -> Result<Vec<fs::DirEntry>, String> {
        Ok(fs::read_dir(folder).map_err(|error| error.to_string())?.flatten().collect())
    };
    let libraries = entries(&made.join("usr/lib"))?;
    let library = libraries
        .iter()
        .find(|entry| entry.file_name().to_string_lossy().ends_with("-linux-gnu"))
        .ok_or("the package has no libraries")?;
    let of_libc = entries(&library.path())?;
    let loader = of_libc
        .iter()
        .find(|entry| entry.file_name().to_string_lossy().starts_with("ld-linux"))
        .ok_or("libc has no loader")?;
    // Where it will be.
    let tree = cache().join(NAME);
    let folder = tree.join("usr/lib").join(library.file_name());
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
        .map_err(|error| error.to_string())
}
