//! What flintd has written down: it outlives flintd, and is written before the world is changed.
//!
//! ```text
//!  put ──> queue ──> writer (a thread): all that waits, in one transaction ──> fsync ──> each put returns
//! ```
//!
//! A redb file of JSON documents in tables, by their keys. Writes of many pods at a time share an fsync. What cannot be
//! read is moved to the table `damaged`, told once, and the rest is kept; a file that is damaged as a whole is renamed. The file
//! carries the version of what is in it: an older one is raised, a newer one refused.

mod damage;
mod record;
mod table;
mod version;
mod writer;

pub(crate) use damage::{is_damage, open_checked, set_aside};
pub use record::{
    ContainerPhase, ContainerRecord, Ending, PodRecord, Removal, Retry, Rollout, Sandbox, SandboxRecord, ShimRecord,
    Stopping,
};
pub use table::Table;
pub use version::VERSION;

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::{Context as _, Result};
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use serde::de::DeserializeOwned;

pub use writer::Written;
use writer::{Opened, Writer};

/// An open store.
#[derive(Debug, Clone)]
pub struct Store {
    opened: Arc<Opened>,
    writer: Writer,
}

/// What a table held.
#[derive(Debug)]
pub struct Loaded<T> {
    /// What could be read, by key.
    pub records: Vec<(String, T)>,
    /// What could not: a sentence each. They are in the table `damaged` now.
    pub damaged: Vec<String>,
}

impl Store {
    /// Opens the store in a file, which is made (0600) where it is missing. Another flintd's is refused. A file that is damaged
    /// as a whole is set aside, and a sentence says so; the store is empty then.
    ///
    /// # Errors
    ///
    /// A file that cannot be opened or set aside, is used by another process, or is of a newer version.
    pub fn open(path: &Path) -> Result<(Self, Option<String>)> {
        let told = || format!("open the store {}", path.display());
        let (database, damage) = match damage::open_whole(path) {
            Ok(database) => (database, None),
            Err(error) if damage::is_damage(&error) => {
                let aside = damage::set_aside(path).with_context(told)?;
                let sentence = format!(
                    "the store {} is damaged ({error:#}): it is set aside as {}. What ran is ended; pods of manifests and \
                     schedulers are made anew, those of flintctl have to be applied again",
                    path.display(),
                    aside.display()
                );
                (damage::open_whole(path).with_context(told)?, Some(sentence))
            }
            Err(error) => return Err(error.context(told())),
        };
        let opened = Arc::new(Opened { path: path.to_owned(), database: RwLock::new(Some(database)) });
        Ok((Self { writer: Writer::start(opened.clone()), opened }, damage))
    }

    /// Reads a whole table; sets aside what is damaged.
    ///
    /// # Errors
    ///
    /// A file that cannot be read.
    pub fn load<T: DeserializeOwned>(&self, table: Table) -> Result<Loaded<T>> {
        let mut loaded = Loaded { records: Vec::new(), damaged: Vec::new() };
        let mut aside = Vec::new();
        let opened = self.opened.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = opened.as_ref().context("the store is not open: its disk is full, or fails")?;
        {
            let read = database.begin_read()?;
            let definition: TableDefinition<'_, &str, &[u8]> = TableDefinition::new(table.name());
            let opened = match read.open_table(definition) {
                Err(redb::TableError::TableDoesNotExist(_)) => return Ok(loaded),
                opened => opened?,
            };
            for entry in opened.iter()? {
                let (key, value) = entry?;
                match serde_json::from_slice(value.value()) {
                    Ok(record) => loaded.records.push((key.value().to_owned(), record)),
                    Err(error) => {
                        loaded.damaged.push(format!(
                            "the store's record {} {} is damaged ({error}); it is set aside in the table damaged",
                            table.name(),
                            key.value()
                        ));
                        aside.push((key.value().to_owned(), value.value().to_vec()));
                    }
                }
            }
        }
        set_records_aside(database, table, &aside)?;
        Ok(loaded)
    }

    /// Writes a record; it is on the disk when the future is done. The order of calls is the order of what is written.
    ///
    /// # Errors
    ///
    /// A disk that is full or fails. Nothing was written then, as far as is known; the next write tries again.
    #[must_use = "it is on the disk when this is done"]
    pub fn put(&self, table: Table, key: &str, record: &impl serde::Serialize) -> Written {
        // Only maps with keys that are no strings fail, and no record has such.
        let json = serde_json::to_vec(record).unwrap_or_default();
        self.writer.write(table, key.to_owned(), Some(json))
    }

    /// Removes a record; it is gone from the disk when the future is done.
    ///
    /// # Errors
    ///
    /// As [`Store::put`].
    #[must_use = "it is gone from the disk when this is done"]
    pub fn remove(&self, table: Table, key: &str) -> Written {
        self.writer.write(table, key.to_owned(), None)
    }
}

fn set_records_aside(database: &Database, table: Table, records: &[(String, Vec<u8>)]) -> Result<()> {
    if records.is_empty() || table == Table::Damaged {
        return Ok(());
    }
    let write = database.begin_write()?;
    {
        let mut from = write.open_table(TableDefinition::<&str, &[u8]>::new(table.name()))?;
        let mut to = write.open_table(TableDefinition::<&str, &[u8]>::new(Table::Damaged.name()))?;
        for (key, value) in records {
            to.insert(format!("{}/{key}", table.name()).as_str(), value.as_slice())?;
            from.remove(key.as_str())?;
        }
    }
    Ok(write.commit()?)
}

#[cfg(test)]
mod tests;
