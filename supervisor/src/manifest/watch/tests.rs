use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::watch;
use crate::manifest::{Change, fuzzing::node};

/// Long for a machine that is busy, and none of the periods of the watch: what is told within is told for an event.
const SOON: Duration = Duration::from_secs(15);

fn begin(path: &Path) -> mpsc::Receiver<Change> {
    let (changes, received) = mpsc::channel(16);
    tokio::spawn(watch(path.to_path_buf(), node(), Arc::new(|_, _| Some("uid".to_owned())), changes));
    received
}

async fn next(changes: &mut mpsc::Receiver<Change>) -> Change {
    tokio::time::timeout(SOON, changes.recv()).await.expect("in time").expect("the watch goes on")
}

async fn image(changes: &mut mpsc::Receiver<Change>) -> Option<String> {
    match next(changes).await {
        Change::Pods { pods, .. } => pods.first().map(|pod| pod.containers[0].image.clone()),
        other => panic!("{other:?}"),
    }
}

fn web(image: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nspec: {{containers: [{{name: c, image: \"{image}\"}}]}}\n"
    )
}

#[tokio::test]
async fn renames_writes_and_removals_are_seen() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("a.yaml");
    let mut changes = begin(place.path());
    assert!(matches!(next(&mut changes).await, Change::Files(_)));
    fs::write(place.path().join(".a"), web("i:1")).unwrap();
    fs::rename(place.path().join(".a"), &file).unwrap();
    assert_eq!(image(&mut changes).await.as_deref(), Some("i:1"));
    // In place, in two parts: the half would be a pod without containers.
    let text = web("i:2");
    let mut open = fs::File::create(&file).unwrap();
    open.write_all(&text.as_bytes()[..40]).unwrap();
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(changes.try_recv().is_err(), "what is half written is not looked at");
    open.write_all(&text.as_bytes()[40..]).unwrap();
    drop(open);
    assert_eq!(image(&mut changes).await.as_deref(), Some("i:2"));
    fs::remove_file(&file).unwrap();
    assert_eq!(image(&mut changes).await, None);
}

#[tokio::test]
async fn the_watch_ends_with_its_listener() {
    let place = tempfile::tempdir().unwrap();
    let (changes, received) = mpsc::channel(16);
    let task = tokio::spawn(watch(place.path().to_path_buf(), node(), Arc::new(|_, _| None), changes));
    drop(received);
    tokio::time::timeout(SOON, task).await.expect("in time").unwrap();
}
