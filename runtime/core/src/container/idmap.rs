//! The id maps of init's new user namespace (user_namespaces(7)), by the kernel's files or by newuidmap(1).
//!
//! The kernel takes any map from a process with CAP_SETUID (CAP_SETGID) in the parent namespace, and from another one
//! only its own id in one line. The ranges that /etc/subuid and /etc/subgid give to a user are written for them by
//! newuidmap and newgidmap, which are setuid root.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::container::create::write_proc;
use crate::container::user_namespace::lines;
use crate::plan::Plan;
use crate::{Error, Kind, Result};

/// One of the two maps: its file, its field, its tool, and who grants ranges of it.
struct Map {
    file: &'static str,
    field: &'static str,
    tool: &'static str,
    grants: &'static str,
}

const UIDS: Map = Map { file: "uid_map", field: "linux.uidMappings", tool: "newuidmap", grants: "/etc/subuid" };
const GIDS: Map = Map { file: "gid_map", field: "linux.gidMappings", tool: "newgidmap", grants: "/etc/subgid" };

/// Writes both maps of a process that has made its user namespace.
///
/// # Errors
///
/// A map that the caller may not have; the tool's own words where it was asked.
pub(super) fn write(pid: i32, plan: &Plan) -> Result<()> {
    UIDS.write(pid, &plan.uid_map)?;
    if plan.deny_setgroups {
        // Once said it holds for good; before Linux 3.19 there is no such file and no need.
        match write_proc(pid, "setgroups", "deny") {
            Err(error) if error.kind() == Kind::NotFound => {}
            result => result?,
        }
    }
    GIDS.write(pid, &plan.gid_map)
}

impl Map {
    fn write(&self, pid: i32, map: &[(u32, u32, u32)]) -> Result<()> {
        match write_proc(pid, self.file, &lines(map)) {
            Err(error) if error.kind() == Kind::Permission => self.write_by_tool(pid, map, &error),
            result => result,
        }
    }

    fn write_by_tool(&self, pid: i32, map: &[(u32, u32, u32)], refused: &Error) -> Result<()> {
        let Map { field, tool, grants, .. } = self;
        // Root's maps are the kernel's business alone.
        if nix::unistd::geteuid().is_root() {
            return Err(Error::new(
                Kind::Permission,
                format!("{field}: {refused} (ids that this user namespace does not map cannot be mapped on)"),
            ));
        }
        let Some(path) = find(tool, std::env::var_os("PATH").as_deref()) else {
            return Err(Error::new(
                Kind::Permission,
                format!(
                    "{field}: {refused}; {tool}, which could, is not in PATH (package uidmap): install it, or map \
                         only your own id"
                ),
            ));
        };
        let numbers = map.iter().flat_map(|&(inside, outside, count)| [inside, outside, count]);
        let output = Command::new(&path)
            .arg(pid.to_string())
            .args(numbers.map(|number| number.to_string()))
            .stdin(Stdio::null())
            .output()
            .map_err(|error| Error::os(format!("{field}: execute {}", path.display()), error))?;
        if output.status.success() {
            return Ok(());
        }
        let words = String::from_utf8_lossy(&output.stderr);
        let words = words.trim().replace('\n', "; ");
        Err(Error::new(
            Kind::Permission,
            format!("{field}: {}: {} ({}): {grants} must give you these ids", path.display(), words, output.status),
        ))
    }
}

/// The first executable file of that name in the folders of PATH; relative ones do not count.
fn find(name: &str, path: Option<&std::ffi::OsStr>) -> Option<PathBuf> {
    let folders = path?.as_bytes().split(|&byte| byte == b':');
    let folders = folders.map(|folder| Path::new(std::ffi::OsStr::from_bytes(folder))).filter(|f| f.is_absolute());
    folders
        .map(|folder| folder.join(name))
        .find(|file| file.is_file() && nix::unistd::access(file, nix::unistd::AccessFlags::X_OK).is_ok())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::find;

    #[test]
    fn tools_are_found_by_absolute_folders_of_path() {
        let folder = tempfile::tempdir().unwrap();
        let tool = folder.path().join("newuidmap");
        std::fs::write(&tool, "").unwrap();
        let path = std::ffi::OsString::from(format!(".::/nowhere:{}", folder.path().display()));
        assert_eq!(find("newuidmap", Some(&path)), None, "it may not be executed");
        std::fs::set_permissions(&tool, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(find("newuidmap", Some(&path)), Some(tool));
        assert_eq!(find("newgidmap", Some(&path)), None);
        assert_eq!(find("newuidmap", None), None);
    }
}
