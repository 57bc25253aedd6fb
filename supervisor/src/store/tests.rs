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
    let (store, _) = Store::open(&path).unwrap();
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
            Ok((store, damage)) => {
                assert_eq!(damage, None);
                return store;
            }
            Err(error) if format!("{error:#}").contains("already open") => std::thread::yield_now(),
            Err(error) => panic!("{error:#}"),
        }
    }
}

#[tokio::test]
async fn a_damaged_record_is_set_aside_and_told_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let (store, _) = Store::open(&path).unwrap();
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
    let _ = Store::open(&path).unwrap();
}

/// What a store says of itself.
fn version_of(path: &std::path::Path) -> u64 {
    let database = loop {
        if let Ok(database) = Database::create(path) {
            break database;
        }
        std::thread::yield_now();
    };
    version::found(&database).unwrap()
}

/// Writes records as another flintd has them.
fn write_raw(path: &std::path::Path, version: u64, readable_by: u64, records: &[(&str, &str)]) {
    let database = Database::create(path).unwrap();
    version::pretend(&database, version, readable_by);
    let write = database.begin_write().unwrap();
    {
        let mut table = write.open_table(TableDefinition::<&str, &[u8]>::new("pods")).unwrap();
        for (key, record) in records {
            table.insert(*key, record.as_bytes()).unwrap();
        }
    }
    write.commit().unwrap();
}

/// As flintd 0.1 wrote it in November 2026: a pod that runs, and one that is on its way out. They stay as they are.
const FIRST: [(&str, &str); 2] =
    [("uid-runs", include_str!("samples/runs-1.json")), ("uid-leaves", include_str!("samples/leaves-1.json"))];

#[test]
fn a_store_of_the_first_flintd_is_raised_and_nothing_of_it_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    write_raw(&path, 0, 0, &FIRST);
    let store = again(&path);
    let loaded = store.load::<PodRecord>(Table::Pods).unwrap();
    assert_eq!(loaded.damaged, Vec::<String>::new());
    assert_eq!(loaded.records.len(), FIRST.len());
    let record = |uid: &str| &loaded.records.iter().find(|(key, _)| key == uid).unwrap().1;
    let runs = record("uid-runs");
    assert!(matches!(runs.containers["main"].phase, super::ContainerPhase::Running { .. }));
    assert_eq!(runs.runtime_id("main").as_deref(), Some("uid-runs.main.3"));
    assert_eq!(runs.sandbox.shim.as_deref(), Some("node-1"));
    // The container is not made anew for the upgrade: what it was made from is what is wanted.
    assert_eq!(runs.containers["main"].spec.as_ref(), Some(&runs.pod.containers[0].spec_hash()));
    assert_eq!(runs.sandbox.spec.as_ref(), Some(&runs.pod.sandbox_hash()));
    assert_eq!(record("uid-leaves").removal.as_ref().unwrap().grace, Some(5));
    drop(store);
    assert_eq!(version_of(&path), version::VERSION);
}

#[test]
fn a_store_of_the_next_flintd_is_read_and_stays_the_next_ones() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    // A version with fields that this one does not know, in each struct.
    let with_more = |text: &str| {
        let mut record: serde_json::Value = serde_json::from_str(text).unwrap();
        for place in [
            "",
            "/pod",
            "/pod/dns",
            "/pod/containers/0",
            "/pod/containers/0/resources",
            "/pod/containers/0/security",
            "/sandbox",
            "/sandbox/retry",
            "/containers/main",
            "/containers/main/last_exit",
        ] {
            record.pointer_mut(place).unwrap()["of-the-next"] = serde_json::json!([1]);
        }
        record.to_string()
    };
    let next: Vec<(&str, String)> = FIRST.iter().map(|(key, text)| (*key, with_more(text))).collect();
    let next: Vec<(&str, &str)> = next.iter().map(|(key, text)| (*key, text.as_str())).collect();
    write_raw(&path, version::VERSION + 1, version::VERSION, &next);
    let store = again(&path);
    let loaded = store.load::<PodRecord>(Table::Pods).unwrap();
    assert_eq!(loaded.damaged, Vec::<String>::new());
    let first: Vec<PodRecord> = FIRST.iter().map(|(_, text)| serde_json::from_str(text).unwrap()).collect();
    for record in &first {
        assert!(loaded.records.iter().any(|(_, other)| other == record), "{}", record.pod.key);
    }
    drop(store);
    assert_eq!(version_of(&path), version::VERSION + 1, "it is the next one's still");
}

#[tokio::test]
async fn a_file_that_is_damaged_as_a_whole_is_set_aside_with_a_sentence() {
    type Damage = fn(&mut Vec<u8>);
    let damages: [(&str, Damage); 4] = [
        ("another file", |bytes| *bytes = b"no database".repeat(1000)),
        ("a shorter one", |bytes| bytes.truncate(bytes.len() / 3)),
        ("another beginning", |bytes| bytes[..64].fill(0xff)),
        ("other pages", |bytes| {
            let length = bytes.len();
            bytes[8192..length].fill(0x5a);
        }),
    ];
    for (what, damage) in damages {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        // As a flintd that is killed leaves it.
        let before = folder.path().join("before");
        let (store, none) = Store::open(&before).unwrap();
        assert_eq!(none, None);
        put(&store, "a").await;
        let mut bytes = std::fs::read(&before).unwrap();
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(names(&again(&path)), ["a"], "{what}: whole, it can be read");
        damage(&mut bytes);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, &bytes).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let (store, told) = Store::open(&path).unwrap_or_else(|error| panic!("{what}: {error:#}"));
        let told = told.unwrap_or_else(|| panic!("{what} is not seen"));
        assert!(told.contains("is damaged (") && told.contains("set aside as"), "{what}: {told}");
        assert!(names(&store).is_empty(), "{what}");
        put(&store, "b").await;
        assert_eq!(names(&store), ["b"], "{what}: it can be used");
        let aside: Vec<_> = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap())
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("store.damaged-"))
            .collect();
        assert_eq!(aside.len(), 1, "{what}");
        assert!(
            aside[0].metadata().unwrap().len() > 0,
            "{what}: it is kept, but for what a try to mend it has changed"
        );
        assert_eq!(aside[0].metadata().unwrap().permissions().mode() & 0o777, 0o600, "{what}");
    }
}
