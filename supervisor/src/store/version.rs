//! The version of what is in the file.

use anyhow::{Result, bail};
use redb::{Database, ReadableTable as _, TableDefinition};

/// What this program writes. A record that gets a field with a serde default is no new version; a change of meaning is.
pub const VERSION: u64 = 1;
/// The oldest version that can read what this program writes: it is written beside, so that one step back is possible.
const READABLE_BY: u64 = 1;

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// Raises an older file; writes the version into a new one.
///
/// # Errors
///
/// A file of a newer flintd that this one cannot read.
pub(super) fn raise(database: &Database) -> Result<()> {
    let write = database.begin_write()?;
    {
        let mut meta = write.open_table(META)?;
        let found = meta.get("version")?.map(|value| value.value());
        let readable_by = meta.get("readable-by")?.map(|value| value.value());
        if let Some(found) = found
            && found > VERSION
        {
            if readable_by.is_none_or(|oldest| oldest > VERSION) {
                bail!(
                    "it is of version {found} and this flintd knows {VERSION} at most: start the flintd that wrote it, or a later one"
                );
            }
            // One step back: what this program does not know it leaves out when it writes a record again.
            return Ok(());
        }
        meta.insert("version", VERSION)?;
        meta.insert("readable-by", READABLE_BY)?;
    }
    Ok(write.commit()?)
}

#[cfg(test)]
pub(super) fn found(database: &Database) -> Option<u64> {
    use redb::ReadableDatabase as _;
    let meta = database.begin_read().unwrap().open_table(META).unwrap();
    meta.get("version").unwrap().map(|value| value.value())
}

#[cfg(test)]
pub(super) fn pretend(database: &Database, version: u64, readable_by: u64) {
    let write = database.begin_write().unwrap();
    {
        let mut meta = write.open_table(META).unwrap();
        meta.insert("version", version).unwrap();
        meta.insert("readable-by", readable_by).unwrap();
    }
    write.commit().unwrap();
}
