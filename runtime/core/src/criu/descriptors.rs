//! Init's standard descriptors, which lead out of the container: what they were is kept beside CRIU's images, and at
//! `restore` other ones take their place.
//!
//! `descriptors.json` is an array of three names, as runc's: `pipe:[INODE]` for a pipe. What else lies outside of the
//! container's mounts (a fifo of containerd, a log file) is called as CRIU calls it, `file[MOUNT:INODE]` in hexadecimal
//! (criu(8), `--external`).

use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use super::rpc::InheritFd;
use crate::container::Stdio;
use crate::{Error, Result, procfs};

/// The file's name, beside the images.
const FILE: &str = "descriptors.json";

/// The names of a running init's descriptors. `recorded` is what they were when it was made: its program may have
/// opened others since.
///
/// # Errors
///
/// procfs cannot be read.
pub(crate) fn of_running(recorded: &[String], pid: i32) -> Result<Vec<String>> {
    let name = |(name, fd): (&String, usize)| Ok(external_file(name, fd, pid)?.unwrap_or_else(|| name.clone()));
    recorded.iter().zip(0..).map(name).collect()
}

/// What CRIU has to be told of at a dump.
pub(crate) fn external(names: &[String]) -> Vec<String> {
    names.iter().filter(|name| name.starts_with("file[")).cloned().collect()
}

fn external_file(name: &str, fd: usize, pid: i32) -> Result<Option<String>> {
    let path = format!("/proc/{pid}/fd/{fd}");
    if !name.starts_with('/') || std::fs::read_link(&path).ok().as_deref() != Some(Path::new(name)) {
        return Ok(None);
    }
    let failure = |error| Error::os(format!("look at the descriptor {path}"), error);
    let metadata = std::fs::metadata(&path).map_err(failure)?;
    if !metadata.is_file() && !metadata.file_type().is_fifo() {
        // Devices are the same everywhere.
        return Ok(None);
    }
    let info = procfs::read(&format!("/proc/{pid}/fdinfo/{fd}")).map_err(failure)?;
    let info = String::from_utf8_lossy(&info);
    let mount = info.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse::<u32>().ok());
    let seen = procfs::mount_ids(&pid.to_string()).map_err(failure)?;
    let outside = mount.filter(|mount| !seen.contains(mount));
    Ok(outside.map(|mount| format!("file[{mount:x}:{:x}]", metadata.ino())))
}

/// Keeps the names beside the images.
///
/// # Errors
///
/// The file cannot be written.
pub(crate) fn save(images: &Path, names: &[String]) -> Result<()> {
    let path = images.join(FILE);
    let json = serde_json::to_vec(names).map_err(|error| Error::invalid(format!("encode {FILE}: {error}")))?;
    std::fs::write(&path, json).map_err(|error| Error::os(format!("write {}", path.display()), error))
}

/// Which of CRIU's own standard descriptors replace those of the images.
///
/// # Errors
///
/// The file is missing, or no array of names.
pub(crate) fn replaced(images: &Path) -> Result<Vec<InheritFd>> {
    let path = images.join(FILE);
    let json = std::fs::read(&path).map_err(|error| Error::os(format!("read {}", path.display()), error))?;
    let names: Vec<String> =
        serde_json::from_slice(&json).map_err(|error| Error::invalid(format!("{}: {error}", path.display())))?;
    let outside = |(name, _): &(String, i32)| name.starts_with("pipe:") || name.starts_with("file[");
    Ok(names.into_iter().zip(0..).filter(outside).map(|(key, fd)| InheritFd { key, fd }).collect())
}

/// What a process's standard descriptors are open on; empty for one that is closed. `process` is a pid or `self`.
pub(crate) fn of_process(process: &str) -> Vec<String> {
    names_of(process, [0, 1, 2])
}

/// What the descriptors of this program, or those that it gives, are open on.
pub(crate) fn of_caller(given: Option<&Stdio>) -> Vec<String> {
    let fds = given.map_or([0, 1, 2], |stdio| [&stdio.stdin, &stdio.stdout, &stdio.stderr].map(AsRawFd::as_raw_fd));
    names_of("self", fds)
}

fn names_of(process: &str, fds: [i32; 3]) -> Vec<String> {
    let name = |fd: i32| std::fs::read_link(format!("/proc/{process}/fd/{fd}")).unwrap_or_default();
    fds.iter().map(|fd| name(*fd).to_string_lossy().into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::{external, of_running, replaced, save};

    /// This program is its own container: none of its files lies outside of its mounts, but a name may be stale.
    #[test]
    fn only_what_is_outside_is_renamed() {
        let pid = std::process::id() as i32;
        let names = ["pipe:[7]", "/no/such/file", "/dev/null"].map(str::to_owned);
        assert_eq!(of_running(&names, pid).unwrap(), names);
        assert!(external(&names).is_empty());
        assert_eq!(external(&["file[1a:2]".to_owned()]), ["file[1a:2]"]);
    }

    #[test]
    fn names_are_found_again() {
        let folder = tempfile::tempdir().unwrap();
        assert!(replaced(folder.path()).unwrap_err().to_string().contains("descriptors.json"));
        save(folder.path(), &["/dev/null", "pipe:[7]", "file[1a:2]"].map(str::to_owned)).unwrap();
        let found: Vec<_> = replaced(folder.path()).unwrap().into_iter().map(|fd| (fd.key, fd.fd)).collect();
        assert_eq!(found, [("pipe:[7]".to_owned(), 1), ("file[1a:2]".to_owned(), 2)]);
        std::fs::write(folder.path().join("descriptors.json"), "{}").unwrap();
        assert!(replaced(folder.path()).is_err());
    }
}
