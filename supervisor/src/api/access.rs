//! Who may use the socket: root, who flintd runs as, and a group. Whoever may has root's power over the host.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream as StdStream;
use std::path::Path;

use nix::unistd::{Gid, Group, Uid, User, chown, geteuid, getgrouplist};
use tokio::net::UnixListener;
use tokio::net::unix::UCred;

/// Who may connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    group: Option<Gid>,
}

impl Access {
    /// Root alone, and the members of a group.
    ///
    /// # Errors
    ///
    /// There is no such group.
    pub fn of_group(name: Option<&str>) -> io::Result<Self> {
        let Some(name) = name else { return Ok(Self { group: None }) };
        let group = Group::from_name(name)?.ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, format!("there is no group {name:?} for the API's socket"))
        })?;
        Ok(Self { group: Some(group.gid) })
    }

    /// Binds the socket: its folder 0750 and itself 0660, root's and the group's. A socket that nobody serves any more is replaced.
    ///
    /// # Errors
    ///
    /// Another flintd serves it, something else is at its path, or the system refuses.
    pub fn bind(&self, path: &Path) -> io::Result<UnixListener> {
        let told =
            |step: &str, error: io::Error| io::Error::new(error.kind(), format!("{step} {}: {error}", path.display()));
        if let Some(folder) = path.parent().filter(|folder| !folder.exists()) {
            fs::create_dir_all(folder).map_err(|error| told("make the folder of", error))?;
            fs::set_permissions(folder, fs::Permissions::from_mode(0o750))
                .map_err(|error| told("the folder of", error))?;
            if self.group.is_some() {
                chown(folder, None, self.group).map_err(|error| told("give the group the folder of", error.into()))?;
            }
        }
        make_way(path).map_err(|error| told("bind", error))?;
        // Nobody gets at it between its making and its rights: it is made under another name.
        let new = path.with_extension(format!("new-{}", std::process::id()));
        let _ = fs::remove_file(&new);
        let listener = UnixListener::bind(&new).map_err(|error| told("bind", error))?;
        let finish = || -> io::Result<()> {
            chown(&new, None, self.group)?;
            fs::set_permissions(&new, fs::Permissions::from_mode(0o660))?;
            fs::rename(&new, path)
        };
        finish().map_err(|error| {
            let _ = fs::remove_file(&new);
            told("give its rights to", error)
        })?;
        Ok(listener)
    }

    /// Whether a peer may go on. The socket's mode keeps most others out already; this also counts where somebody has changed it.
    pub(super) fn allows(&self, peer: &UCred) -> bool {
        let uid = Uid::from_raw(peer.uid());
        if uid.is_root() || uid == geteuid() {
            return true;
        }
        let Some(group) = self.group else { return false };
        peer.gid() == group.as_raw() || is_member(uid, group)
    }
}

/// Whether a user is in a group by the system's database.
fn is_member(uid: Uid, group: Gid) -> bool {
    let Ok(Some(user)) = User::from_uid(uid) else { return false };
    let Ok(name) = CString::new(user.name) else { return false };
    getgrouplist(&name, user.gid).is_ok_and(|groups| groups.contains(&group))
}

/// Takes a dead socket away.
fn make_way(path: &Path) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "something else than a socket is there"));
    }
    match StdStream::connect(path) {
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another flintd answers there")),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            // Not one that another flintd has just put there.
            if fs::symlink_metadata(path)?.ino() == metadata.ino() { fs::remove_file(path) } else { Ok(()) }
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_socket_is_the_groups_and_replaced_only_when_dead() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/flintd.sock");
        let access = Access::of_group(None).unwrap();
        let first = access.bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o660);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o7777, 0o750);
        let error = access.bind(&path).unwrap_err();
        assert!(error.to_string().contains("another flintd answers"), "{error}");
        drop(first);
        let _second = access.bind(&path).unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(access.bind(&file).is_err());
        assert!(file.exists());
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing is left beside it");
        let error = Access::of_group(Some("no-such-group-here")).unwrap_err();
        assert!(error.to_string().contains("no-such-group-here"), "{error}");
    }

    #[test]
    fn members_are_those_of_the_database() {
        assert!(is_member(Uid::from_raw(0), Gid::from_raw(0)));
        assert!(!is_member(Uid::from_raw(65534), Gid::from_raw(0)));
        assert!(!is_member(Uid::from_raw(4_000_000_000), Gid::from_raw(0)));
    }
}
