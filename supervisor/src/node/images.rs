//! Images go when there are too many for their disk, and nobody needs them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use super::Node;
use crate::observed::{Phase, Reason};

/// Looks until flintd ends.
pub(super) async fn keep(node: Arc<Node>) {
    if node.config.images.gc_high_threshold >= 100 {
        return;
    }
    let mut ticks = tokio::time::interval(Duration::from_secs(node.config.images.gc_period.max(1)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = collect(&node, false).await {
            let sentence = format!("remove unused images: {error:#}");
            node.tell(None, None, true, Reason { word: "ImageGCFailed".to_owned(), sentence });
        }
    }
}

/// Removes images that no pod needs: down to the threshold, or all of them. The bytes that were freed.
///
/// # Errors
///
/// The store of images cannot be read or written, or is in use for too long.
pub(super) async fn collect(node: &Arc<Node>, all: bool) -> Result<u64> {
    let collected = node.images.collect(needed(node), all).await?;
    let freed = collected.blob_bytes + collected.layer_bytes;
    if !collected.images.is_empty() {
        let sentence = format!("{freed} bytes are free: {} are removed", collected.images.join(", "));
        node.tell(None, None, false, Reason { word: "ImagesRemoved".to_owned(), sentence });
    }
    Ok(freed)
}

/// Names of the images of all pods that may start a container still.
fn needed(node: &Node) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for view in node.pods() {
        if matches!(view.status.phase, Phase::Succeeded | Phase::Failed) {
            continue;
        }
        for container in view.pod.all_containers() {
            names.extend(container.image.parse::<flint_bundle::Reference>().map(|name| name.to_string()));
        }
    }
    names
}
