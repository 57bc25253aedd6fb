//! The one who writes: an fsync for all that waits.
//!
//! ```text
//!  commit ─> the disk is full, or fails ─> told; the next one opens the file again ─> commit
//! ```

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::{Result, anyhow};
use redb::{Database, TableDefinition};
use tokio::sync::oneshot;

use super::Table;

/// Done when what was asked for is on the disk.
pub type Written = std::pin::Pin<Box<dyn Future<Output = Result<()>> + Send>>;

/// Hands writes to the thread.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    queue: Sender<Write>,
}

#[derive(Debug)]
struct Write {
    table: Table,
    key: String,
    /// None: removed.
    value: Option<Vec<u8>>,
    done: oneshot::Sender<Result<(), Arc<anyhow::Error>>>,
}

/// The store's file. None: an operation of it has failed, which is the last one that redb makes on an open file, and it could not be
/// opened again.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) path: PathBuf,
    pub(super) database: RwLock<Option<Database>>,
}

/// So many writes share a transaction at most: a record is a few KB, and redb keeps what is not committed in memory.
const BATCH: usize = 256;

impl Writer {
    pub(super) fn start(store: Arc<Opened>) -> Self {
        let (queue, writes) = channel();
        std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || run(&store, &writes))
            .expect("a thread can be started while the program starts");
        Self { queue }
    }

    /// The write is queued when this returns, and on the disk when the future is done.
    pub(super) fn write(&self, table: Table, key: String, value: Option<Vec<u8>>) -> Written {
        let (done, written) = oneshot::channel();
        let told = format!("write the store's record {} {key}", table.name());
        let sent = self.queue.send(Write { table, key, value, done });
        Box::pin(async move {
            match (sent, written.await) {
                (Ok(()), Ok(result)) => result.map_err(|error| anyhow!("{told}: {error:#}")),
                _ => Err(anyhow!("{told}: the store is closed")),
            }
        })
    }
}

/// Until the last [`Writer`] goes.
fn run(store: &Opened, writes: &Receiver<Write>) {
    let mut has_failed = false;
    while let Ok(first) = writes.recv() {
        let mut batch = vec![first];
        batch.extend(writes.try_iter().take(BATCH - 1));
        let opened = if has_failed { store.open_again() } else { Ok(()) };
        let result = opened.and_then(|()| store.commit(&batch)).map_err(Arc::new);
        has_failed = result.is_err();
        for write in batch {
            // Who asked may have gone.
            let _ = write.done.send(result.clone());
        }
    }
}

impl Opened {
    fn open_again(&self) -> Result<()> {
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        // First of all it lets go of the file, which only one may have.
        *database = None;
        // One that is not there is not made: its disk is gone perhaps.
        std::fs::metadata(&self.path)?;
        *database = Some(super::damage::open_checked(&self.path)?);
        Ok(())
    }

    fn commit(&self, batch: &[Write]) -> Result<()> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        Ok(commit(database.as_ref().ok_or_else(|| anyhow!("it is not open"))?, batch)?)
    }
}

fn commit(database: &Database, batch: &[Write]) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    for write in batch {
        let mut table = transaction.open_table(TableDefinition::<&str, &[u8]>::new(write.table.name()))?;
        match &write.value {
            Some(value) => drop(table.insert(write.key.as_str(), value.as_slice())?),
            None => drop(table.remove(write.key.as_str())?),
        }
    }
    Ok(transaction.commit()?)
}
