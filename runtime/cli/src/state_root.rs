//! Where the state is kept when `--root` does not say: /run/flint for root, a folder of their own for everybody else.

use std::ffi::OsString;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, fchmod, fstat};

/// Ours alone; sticky so that no cleaner takes it (XDG base directory specification, `XDG_RUNTIME_DIR`).
const MODE: u32 = 0o1700;

/// Whether the caller is no root of the host: somebody else, or the root of a user namespace.
pub(crate) fn is_rootless() -> bool {
    !nix::unistd::geteuid().is_root() || in_user_namespace()
}

/// Looked at once: a command does not leave its user namespace.
fn in_user_namespace() -> bool {
    static IN_USER_NAMESPACE: OnceLock<bool> = OnceLock::new();
    *IN_USER_NAMESPACE.get_or_init(flint_runtime::in_user_namespace)
}

/// The state root without `--root`.
///
/// # Errors
///
/// A user without a folder for runtime files, or with one that is somebody else's.
pub(crate) fn default() -> Result<PathBuf> {
    let user = nix::unistd::geteuid();
    // As runc has it: `unshare -r` keeps the name of the user, `sudo` in a container of one's own makes it root.
    let named_root = || std::env::var_os("USER").is_some_and(|name| name == "root");
    if user.is_root() && (!in_user_namespace() || named_root()) {
        return Ok(PathBuf::from("/run/flint"));
    }
    let usual = format!("/run/user/{user}");
    let Some(folder) = folder(std::env::var_os("XDG_RUNTIME_DIR"), Path::new(&usual)) else {
        if user.is_root() {
            return Ok(PathBuf::from("/run/flint"));
        }
        bail!(
            "no folder for the containers' state: XDG_RUNTIME_DIR is not set and {usual} does not exist; set it to a \
             folder of yours (mode 0700), or give --root"
        );
    };
    let root = folder.join("flint");
    own(&root).with_context(|| format!("making the state folder {}", root.display()))?;
    Ok(root)
}

fn folder(variable: Option<OsString>, usual: &Path) -> Option<PathBuf> {
    let named = variable.filter(|folder| Path::new(folder).is_absolute()).map(PathBuf::from);
    named.or_else(|| usual.is_dir().then(|| usual.to_owned()))
}

/// Makes the folder, and refuses one that another user has put there: who owns it could fake the state.
fn own(root: &Path) -> Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(root)?;
    let folder = open(root, OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?;
    let stat = fstat(&folder)?;
    if stat.st_uid != nix::unistd::geteuid().as_raw() {
        bail!("it belongs to user {}: remove it, or give --root", stat.st_uid);
    }
    if stat.st_mode & 0o7777 != MODE {
        fchmod(&folder, Mode::from_bits_truncate(MODE))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_is_xdgs_or_the_usual_one() {
        let there = tempfile::tempdir().unwrap();
        let missing = Path::new("/nowhere/at/all");
        assert_eq!(folder(Some("/xdg".into()), missing), Some("/xdg".into()));
        assert_eq!(folder(Some("relative".into()), missing), None, "relative ones are to be ignored");
        assert_eq!(folder(Some("".into()), there.path()), Some(there.path().into()));
        assert_eq!(folder(None, missing), None);
    }

    #[test]
    fn a_link_in_its_place_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (target, link) = (folder.path().join("target"), folder.path().join("flint"));
        std::fs::create_dir(&target).unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        assert!(own(&link).is_err());
        std::fs::remove_file(&link).unwrap();
        own(&link).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&link).unwrap().permissions());
        assert_eq!(mode & 0o7777, MODE);
    }
}
