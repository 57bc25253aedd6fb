//! The folder of manifests: its files' pods come and go with them.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::Node;
use crate::desired::{Pod, Source};
use crate::manifest::{self, Change};
use crate::observed::Reason;

/// Changes that may wait.
const CHANGES: usize = 16;

/// Follows the folder until `stop` is true.
pub async fn follow_manifests(node: Arc<Node>, mut stop: watch::Receiver<bool>) {
    let (sender, mut changes) = mpsc::channel(CHANGES);
    let known = node.clone();
    let known_uid = Arc::new(move |key: &crate::desired::Key, source: &Source| known.uid_of(key, source));
    let watching = tokio::spawn(manifest::watch(node.config().manifests.clone(), node.describe(), known_uid, sender));
    loop {
        let change = tokio::select! {
            change = changes.recv() => change,
            _ = stop.wait_for(|stop| *stop) => None,
        };
        match change {
            Some(change) => take(&node, change).await,
            None => break,
        }
    }
    watching.abort();
}

async fn take(node: &Arc<Node>, change: Change) {
    match change {
        Change::Pods { file, pods } => be_just(node, &file, pods).await,
        Change::Bad { file, problems } => {
            for problem in problems {
                warn(node, format!("{}: {problem}", file.display()));
            }
        }
        Change::Files(files) => remove_others(node, &files).await,
    }
}

fn warn(node: &Node, sentence: String) {
    node.tell(None, None, true, Reason { word: "BadManifest".to_owned(), sentence });
}

/// A file's pods are these.
async fn be_just(node: &Arc<Node>, file: &Path, pods: Vec<Pod>) {
    let is_files = |source: &Source| matches!(source, Source::Manifest(other) if other == file);
    match node.replace(is_files, pods).await {
        Ok(all) => {
            for (_, applied) in all {
                if let Err(refused) = applied {
                    warn(node, format!("{}: {refused}", file.display()));
                }
            }
        }
        Err(refused) => warn(node, format!("{}: {refused}", file.display())),
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
