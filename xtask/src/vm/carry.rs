//! What is carried into the machine: the checkout's files, the programs, the command; all on one disk, at the host's
//! own paths.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

use super::options::{Init, Options};
use super::program;
use crate::workspace;

const GUEST: &[(&str, &str)] = &[
    ("init", include_str!("guest/init")),
    ("run", include_str!("guest/run")),
    ("flint-vm.service", include_str!("guest/flint-vm.service")),
];

/// What systemd's machine waits for before the command.
const PREPARE: &str = include_str!("guest/prepare-systemd");

/// Makes the disk in `folder` (in the target folder, so that big programs are linked and not copied) and returns it.
///
/// `programs` are carried beside what the options name; the command is `script`.
///
/// # Errors
///
/// When a file is missing or cannot be read, or mkfs.erofs fails.
pub(super) fn disk(options: &Options, programs: &[PathBuf], script: &str, folder: &Path) -> anyhow::Result<PathBuf> {
    let carried = folder.join("carried");
    let mut load = Load { tree: carried.join("tree"), paths: Vec::new() };
    fs::create_dir_all(&load.tree).with_context(|| format!("making {}", load.tree.display()))?;
    load.checkout(programs)?;
    for path in &options.carry {
        let path = path.canonicalize().with_context(|| format!("--carry {}", path.display()))?;
        load.bind(&path)?;
    }
    let mut list = String::new();
    for path in &load.paths {
        let text = path.to_str().filter(|text| !text.contains('\n'));
        list.push_str(text.with_context(|| format!("the path {} cannot be carried in", path.display()))?);
        list.push('\n');
    }
    write(&carried.join("paths"), &list)?;
    let guest = carried.join("guest");
    fs::create_dir(&guest).with_context(|| format!("making {}", guest.display()))?;
    for (name, content) in GUEST {
        write(&guest.join(name), content)?;
    }
    fs::set_permissions(guest.join("init"), fs::Permissions::from_mode(0o755)).context("chmod of the init")?;
    if options.init == Init::Systemd {
        write(&guest.join("prepare"), PREPARE)?;
    }
    write(&guest.join("settings"), &settings(options)?)?;
    write(&guest.join("command"), script)?;
    let disk = folder.join("carried.erofs");
    program::make_disk(&disk, &carried)?;
    fs::remove_dir_all(&carried).with_context(|| format!("removing {}", carried.display()))?;
    Ok(disk)
}

/// The variables that the command finds, in the shell's own writing.
fn settings(options: &Options) -> anyhow::Result<String> {
    let mut text = format!("CGROUP={}\n", options.cgroup.name());
    for (name, value) in &options.environment {
        writeln!(text, "export {name}={}", quote(value)?)?;
    }
    Ok(text)
}

/// A command line for sh.
///
/// # Errors
///
/// For an argument that is not UTF-8.
pub(super) fn command_line<A: AsRef<OsStr>>(arguments: &[A]) -> anyhow::Result<String> {
    let quoted: anyhow::Result<Vec<_>> = arguments.iter().map(|argument| quote(argument.as_ref())).collect();
    Ok(quoted?.join(" "))
}

fn quote(argument: &OsStr) -> anyhow::Result<String> {
    let text = argument.to_str().with_context(|| format!("{} is not UTF-8", argument.display()))?;
    Ok(format!("'{}'", text.replace('\'', r"'\''")))
}

struct Load {
    tree: PathBuf,
    /// What the machine binds to the host's paths.
    paths: Vec<PathBuf>,
}

impl Load {
    /// The repository's files, the programs of `cargo xtask dist`, and `programs`.
    fn checkout(&mut self, programs: &[PathBuf]) -> anyhow::Result<()> {
        let root = workspace::root();
        let root = root.canonicalize().with_context(|| format!("resolving {}", root.display()))?;
        for file in workspace::files()? {
            self.take(&root.join(file))?;
        }
        self.paths.push(root.clone());
        for folder in [workspace::dist_folder(), workspace::dist_folder().join("debug")] {
            let entries = match fs::read_dir(&folder) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                other => other.with_context(|| format!("reading {}", folder.display()))?,
            };
            for entry in entries {
                let path = entry.with_context(|| format!("reading {}", folder.display()))?.path();
                // Programs; not cargo's own notes and folders.
                if path.extension().is_none() && path.is_file() {
                    self.take_program(&path, &root)?;
                }
            }
        }
        for path in programs {
            self.take_program(path, &root)?;
        }
        Ok(())
    }

    fn take_program(&mut self, path: &Path, root: &Path) -> anyhow::Result<()> {
        let path = path.canonicalize().with_context(|| format!("carrying in {}", path.display()))?;
        self.take(&path)?;
        // One that lies outside is bound by itself.
        if !path.starts_with(root) && !self.paths.contains(&path) {
            self.paths.push(path);
        }
        Ok(())
    }

    fn bind(&mut self, path: &Path) -> anyhow::Result<()> {
        if path.is_dir() {
            self.take_folder(path)?;
        } else {
            self.take(path)?;
        }
        // What is in the checkout is bound with it.
        if !self.paths.iter().any(|bound| path.starts_with(bound)) {
            self.paths.push(path.to_path_buf());
        }
        Ok(())
    }

    fn place(&self, path: &Path) -> PathBuf {
        self.tree.join(path.strip_prefix("/").unwrap_or(path))
    }

    fn take_folder(&mut self, folder: &Path) -> anyhow::Result<()> {
        let place = self.place(folder);
        fs::create_dir_all(&place).with_context(|| format!("making {}", place.display()))?;
        let context = || format!("reading {}", folder.display());
        for entry in fs::read_dir(folder).with_context(context)? {
            let entry = entry.with_context(context)?;
            if entry.file_type().with_context(context)?.is_dir() {
                self.take_folder(&entry.path())?;
            } else {
                self.take(&entry.path())?;
            }
        }
        Ok(())
    }

    /// One file: a hard link where that is possible, else a copy. Sockets and the like are left out.
    fn take(&mut self, path: &Path) -> anyhow::Result<()> {
        let context = || format!("carrying in {}", path.display());
        let place = self.place(path);
        if fs::symlink_metadata(&place).is_ok() {
            return Ok(());
        }
        if let Some(parent) = place.parent() {
            fs::create_dir_all(parent).with_context(context)?;
        }
        let kind = fs::symlink_metadata(path).with_context(context)?.file_type();
        if kind.is_symlink() {
            let target = fs::read_link(path).with_context(context)?;
            ensure!(!target.as_os_str().as_bytes().is_empty(), "{} leads nowhere", path.display());
            return std::os::unix::fs::symlink(target, &place).with_context(context);
        }
        if kind.is_file() && fs::hard_link(path, &place).is_err() {
            fs::copy(path, &place).with_context(context)?;
        }
        Ok(())
    }
}

fn write(path: &Path, content: &str) -> anyhow::Result<()> {
    fs::write(path, content).with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_survives_the_shell() {
        let arguments = ["printf", "%s|", "a b", "it's", "$HOME", "", "\\n", "*"];
        let script = command_line(&arguments).unwrap();
        let output = std::process::Command::new("sh").arg("-c").arg(script).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "a b|it's|$HOME||\\n|*|");
    }
}
