//! Tasks and their statuses on disk: what a restart of flintd needs to report nothing false and to start nothing twice.
//!
//! One file of redb, 0600 (a task has its registry's password). Secrets and configs are never in it.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use prost::Message as _;
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};

use super::wire::task::{Task, TaskStatus};
use crate::store::{is_damage, open_checked, set_aside};

const TASKS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("tasks");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const VERSION: u64 = 1;

/// A task and where it is.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Record {
    /// As it was assigned.
    #[prost(message, optional, tag = "1")]
    pub task: Option<Task>,
    /// As it was reported, or is going to be.
    #[prost(message, optional, tag = "2")]
    pub status: Option<TaskStatus>,
}

/// The file.
#[derive(Debug, Clone)]
pub(super) struct Store {
    database: Arc<Database>,
}

impl Store {
    /// Opens or makes the file in a folder. One that is damaged is set aside: the managers and the node's own pods say the rest.
    ///
    /// # Errors
    ///
    /// When it cannot be, or is of a later flintd.
    pub(super) fn open(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join("tasks.redb");
        let told = || format!("open {}", path.display());
        match Self::open_whole(&path) {
            Err(error) if is_damage(&error) => {
                let aside = set_aside(&path).with_context(told)?;
                tracing::error!("{} is damaged: it is set aside as {}: {error:#}", path.display(), aside.display());
                Self::open_whole(&path).with_context(told)
            }
            opened => opened.with_context(told),
        }
    }

    fn open_whole(path: &Path) -> anyhow::Result<Self> {
        let database = open_checked(path)?;
        let transaction = database.begin_write()?;
        {
            let mut meta = transaction.open_table(META)?;
            let found = meta.get("version")?.map(|version| version.value());
            ensure!(found.is_none_or(|found| found <= VERSION), "it is of a later flintd");
            meta.insert("version", VERSION)?;
            transaction.open_table(TASKS)?;
        }
        transaction.commit()?;
        Ok(Self { database: Arc::new(database) })
    }

    /// All tasks.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    pub(super) fn records(&self) -> anyhow::Result<Vec<Record>> {
        let table = self.database.begin_read()?.open_table(TASKS)?;
        let mut records = Vec::new();
        for entry in table.iter()? {
            let (id, bytes) = entry?;
            let record = Record::decode(bytes.value());
            records.push(record.with_context(|| format!("read the task {}", id.value()))?);
        }
        Ok(records)
    }

    /// Writes some and removes others, all or nothing; on disk when this returns.
    ///
    /// # Errors
    ///
    /// Those of the disk.
    pub(super) async fn write(&self, put: Vec<Record>, remove: Vec<String>) -> anyhow::Result<()> {
        if put.is_empty() && remove.is_empty() {
            return Ok(());
        }
        let database = Arc::clone(&self.database);
        let write = move || -> anyhow::Result<()> {
            let transaction = database.begin_write()?;
            {
                let mut table = transaction.open_table(TASKS)?;
                for record in &put {
                    let id = record.task.as_ref().map_or("", |task| task.id.as_str());
                    table.insert(id, record.encode_to_vec().as_slice())?;
                }
                for id in &remove {
                    table.remove(id.as_str())?;
                }
            }
            transaction.commit()?;
            Ok(())
        };
        tokio::task::spawn_blocking(write).await?.context("write the tasks of the swarm")
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[tokio::test]
    async fn what_was_written_is_read_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let record = |id: &str| Record { task: Some(Task { id: id.into(), ..Task::default() }), status: None };
        {
            let store = Store::open(folder.path()).unwrap();
            store.write(vec![record("a"), record("b")], Vec::new()).await.unwrap();
            store.write(vec![record("c")], vec!["a".into()]).await.unwrap();
        }
        let store = Store::open(folder.path()).unwrap();
        assert_eq!(store.records().unwrap(), [record("b"), record("c")]);
        let mode = std::fs::metadata(folder.path().join("tasks.redb")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_file_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        drop(Store::open(folder.path()).unwrap());
        let path = folder.path().join("tasks.redb");
        // As a host that loses its power, or a kill while it is made, may leave it.
        for content in [vec![0; 1 << 20], b"rubbish".to_vec()] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(Store::open(folder.path()).unwrap().records().unwrap(), []);
        }
        let names = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let aside = names.filter(|name| name.to_string_lossy().starts_with("tasks.redb.damaged-")).count();
        assert_eq!(aside, 2);
    }
}
