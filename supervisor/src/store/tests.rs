use std::os::unix::fs::PermissionsExt as _;
use std::time::SystemTime;

use redb::{Database, TableDefinition};

use super::{PodRecord, Store, Table, version};
use crate::desired::tests::pod;

async fn put(store: &Store, name: &str) {
    let record = PodRecord::new(pod(name).into(), 1, SystemTime::now());
    store.put(Table::Pods, &record.pod.uid, &record).await.unwrap();
}

fn names(store: &Store) -> Vec<String> {
    store
        .load::<PodRecord>(Table::Pods)
        .unwrap()
        .records
        .into_iter()
        .map(|(_, record)| record.pod.key.name.clone())
        .collect()
}

#[tokio::test]
async fn what_was_acknowledged_is_there_for_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    put(&store, "a").await;
    put(&store, "b").await;
    store.remove(Table::Pods, "uid-a").await.unwrap();
    drop(store);
    // The writer's thread lets go of the file a moment later.
    let store = again(&path);
    assert_eq!(names(&store), ["b"]);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "secrets are in it");
}

fn again(path: &std::path::Path) -> Store {
    loop {
        match Store::open(path) {
            Ok(store) => return store,
            Err(error) if format!("{error:#}").contains("already open") => std::thread::yield_now(),
            Err(error) => panic!("{error:#}"),
        }
    }
}

#[tokio::test]
async fn a_damaged_record_is_set_aside_and_told_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    put(&store, "a").await;
    drop(store);
    let database = loop {
        if let Ok(database) = Database::create(&path) {
            break database;
        }
    };
    let write = database.begin_write().unwrap();
    let table: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("pods");
    write.open_table(table).unwrap().insert("broken", b"{\"pod\": 1".as_slice()).unwrap();
    write.commit().unwrap();
    drop(database);
    let store = again(&path);
    let loaded = store.load::<PodRecord>(Table::Pods).unwrap();
    assert_eq!(loaded.records.len(), 1);
    assert!(loaded.damaged[0].contains("pods broken"), "{:?}", loaded.damaged);
    assert!(store.load::<PodRecord>(Table::Pods).unwrap().damaged.is_empty());
    assert_eq!(store.load::<serde_json::Value>(Table::Damaged).unwrap().damaged.len(), 1, "it is kept");
}

#[test]
fn a_newer_store_is_refused_unless_it_says_that_this_version_may_read_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let pretend = |version, readable_by| {
        let database = Database::create(&path).unwrap();
        version::pretend(&database, version, readable_by);
    };
    pretend(version::VERSION + 2, version::VERSION + 1);
    let error = format!("{:#}", Store::open(&path).unwrap_err());
    assert!(error.contains("is of version 3") && error.contains("later one"), "{error}");
    pretend(version::VERSION + 1, version::VERSION);
    Store::open(&path).unwrap();
}
