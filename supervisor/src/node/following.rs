//! The folder of manifests: its files' pods come and go with them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::Node;
use crate::desired::{Pod, Source};
use crate::manifest::{self, Change};
use crate::observed::Reason;

/// Changes that may wait.
const CHANGES: usize = 16;
/// A pod that was refused (the node is short of something, or full) is tried again so often.
const AGAIN: Duration = Duration::from_secs(10);

/// Pods of files of which some were refused, and what was told of it.
type Refusals = BTreeMap<PathBuf, (Vec<Pod>, Vec<String>)>;

/// Follows the folder until `stop` is true.
pub async fn follow_manifests(node: Arc<Node>, mut stop: watch::Receiver<bool>) {
    let (sender, mut changes) = mpsc::channel(CHANGES);
    let known = node.clone();
    let known_uid = Arc::new(move |key: &crate::desired::Key, source: &Source| known.uid_of(key, source));
    let watching = tokio::spawn(manifest::watch(node.config().manifests.clone(), node.describe(), known_uid, sender));
    let mut refusals = Refusals::new();
    loop {
        // None: it is time to try again.
        let change = tokio::select! {
            change = changes.recv() => Some(change),
            () = tokio::time::sleep(AGAIN), if !refusals.is_empty() => None,
            _ = stop.wait_for(|stop| *stop) => Some(None),
        };
        match change {
            Some(Some(change)) => take(&node, change, &mut refusals).await,
            Some(None) => break,
            None => try_again(&node, &mut refusals).await,
        }
    }
    watching.abort();
}

async fn take(node: &Arc<Node>, change: Change, refusals: &mut Refusals) {
    match change {
        Change::Pods { file, pods } => {
            refusals.remove(&file);
            be_just(node, file, pods, refusals).await;
        }
        Change::Bad { file, problems } => {
            for problem in problems {
                warn(node, format!("{}: {problem}", file.display()));
            }
        }
        Change::Files(files) => {
            refusals.retain(|file, _| files.contains(file));
            remove_others(node, &files).await;
        }
    }
}

async fn try_again(node: &Arc<Node>, refusals: &mut Refusals) {
    let files: Vec<(PathBuf, Vec<Pod>)> =
        refusals.iter().map(|(file, (pods, _))| (file.clone(), pods.clone())).collect();
    for (file, pods) in files {
        be_just(node, file, pods, refusals).await;
    }
}

fn warn(node: &Node, sentence: String) {
    node.tell(None, None, true, Reason { word: "BadManifest".to_owned(), sentence });
}

/// A file's pods are these. What was told before is not told again.
async fn be_just(node: &Arc<Node>, file: PathBuf, pods: Vec<Pod>, refusals: &mut Refusals) {
    let is_files = |source: &Source| matches!(source, Source::Manifest(other) if *other == file);
    let problems: Vec<String> = match node.replace(is_files, pods.clone()).await {
        Ok(all) => all.into_iter().filter_map(|(_, applied)| Some(applied.err()?.to_string())).collect(),
        Err(refused) => vec![refused.to_string()],
    };
    let before = refusals.remove(&file).map(|(_, told)| told).unwrap_or_default();
    for problem in problems.iter().filter(|problem| !before.contains(problem)) {
        warn(node, format!("{}: {problem}", file.display()));
    }
    if !problems.is_empty() {
        refusals.insert(file, (pods, problems));
    }
}

/// Pods of files that are there no more were removed while nobody looked.
async fn remove_others(node: &Arc<Node>, files: &BTreeSet<std::path::PathBuf>) {
    let is_gone = |source: &Source| matches!(source, Source::Manifest(file) if !files.contains(file));
    for view in node.pods_of(is_gone) {
        if let Err(refused) = node.remove(&view.pod.source, &view.pod.key, None).await {
            warn(node, format!("{}: {refused}", view.pod.key));
        }
    }
}
