//! A file that is damaged as a whole: found before anything is read of it, and renamed.

use std::fs::{File, rename};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use redb::{Database, DatabaseError, StorageError, TableError, TransactionError};

use super::version;

/// redb's cache; its default of a gigabyte is not for a supervisor.
const CACHE: usize = 2 << 20;

/// Opens or makes a file, and looks at all of it: each page has a checksum.
pub(super) fn open_whole(path: &Path) -> Result<Database> {
    let database = open_checked(path)?;
    version::raise(&database)?;
    Ok(database)
}

/// The same of any file of redb, whatever is in it.
pub(crate) fn open_checked(path: &Path) -> Result<Database> {
    use std::os::unix::fs::OpenOptionsExt as _;
    // Secrets are in it. redb keeps the mode of a file that is there.
    File::options().create(true).truncate(false).read(true).write(true).mode(0o600).open(path)?;
    let mut database = Database::builder().set_cache_size(CACHE).create(path)?;
    // What it can mend it has mended when it says so.
    database.check_integrity()?;
    Ok(database)
}

/// Whether an error says that the file is none, or has what nobody wrote. A disk that fails to read is no such thing: its file may be
/// whole.
pub(crate) fn is_damage(error: &anyhow::Error) -> bool {
    let of_storage = |error: &StorageError| match error {
        StorageError::Corrupted(_) => true,
        StorageError::Io(error) => {
            matches!(error.kind(), std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof)
        }
        _ => false,
    };
    let is_it = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref().is_some_and(of_storage)
            || matches!(cause.downcast_ref(), Some(DatabaseError::Storage(error)) if of_storage(error))
            || matches!(cause.downcast_ref(), Some(TransactionError::Storage(error)) if of_storage(error))
            || matches!(cause.downcast_ref(), Some(TableError::Storage(error)) if of_storage(error))
    };
    error.chain().any(is_it)
}

/// Renames it; its new name.
pub(crate) fn set_aside(path: &Path) -> Result<PathBuf> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let name = |number: u64| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".damaged-{}", now + number));
        PathBuf::from(name)
    };
    let mut number = 0;
    let mut aside = name(number);
    while aside.exists() {
        number += 1;
        aside = name(number);
    }
    rename(path, &aside).with_context(|| format!("set it aside as {}", aside.display()))?;
    Ok(aside)
}
