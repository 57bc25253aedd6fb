//! Files and folders of the host, as they are.

use std::fs::OpenOptions;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::empty::set_mode;
use super::error::{Error, Result};
use crate::desired::PathKind;

/// Makes what is missing if it is to be made, and looks whether it is what it has to be.
pub(super) fn check(path: &Path, make_folder: bool, make_file: bool, kind: Option<PathKind>) -> Result<()> {
    if !path.is_absolute() || path.components().any(|part| part == std::path::Component::ParentDir) {
        return Err(Error::wrong(format!("{} is not an absolute path without ..", path.display())));
    }
    let doing = |what: &str| format!("{what} {}", path.display());
    let found = match std::fs::metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && (make_folder || make_file) => {
            if make_folder {
                // The mode is set on what was made here alone: parents get what the umask leaves, as in kubelet.
                std::fs::create_dir_all(path).map_err(|error| Error::os(doing("make folder"), error))?;
                set_mode(path, 0o755)?;
            } else {
                let mut options = OpenOptions::new();
                options.write(true).create_new(true).mode(0o644);
                options.open(path).map_err(|error| Error::os(doing("make file"), error))?;
                set_mode(path, 0o644)?;
            }
            std::fs::metadata(path).map_err(|error| Error::os(doing("look at"), error))?
        }
        Err(error) => return Err(Error::os(doing("look at"), error)),
    };
    let file_type = found.file_type();
    let made = if make_folder { Some(PathKind::Folder) } else { make_file.then_some(PathKind::File) };
    let Some(kind) = kind.or(made) else { return Ok(()) };
    let (is_it, name) = match kind {
        PathKind::Folder => (file_type.is_dir(), "folder"),
        PathKind::File => (file_type.is_file(), "regular file"),
        PathKind::Socket => (file_type.is_socket(), "socket"),
        PathKind::CharDevice => (file_type.is_char_device(), "character device"),
        PathKind::BlockDevice => (file_type.is_block_device(), "block device"),
    };
    if is_it { Ok(()) } else { Err(Error::wrong(format!("{} is there, and is no {name}", path.display()))) }
}
