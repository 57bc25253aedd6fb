//! Ends pods when the node runs out of something, or when they write more than they may.
//!
//! ```text
//!  each interval:  look ─> conditions ─> pods over limits of their own: all of them go
//!                   └─> short of something: unused images (disks) ─> one pod ─> until nothing of it runs, then again
//!                                              └─> pulls go on, and there is time: the next look
//! ```
//!
//! An evicted pod is `Failed` with the reason `Evicted`, and stays so until somebody restarts, changes or removes it.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result};

use super::pressure::CRITICAL;
use super::{Entry, Node};
use crate::desired::Goal;
use crate::observed::{Phase, Reason};
use crate::page::timings;
use crate::pod::blocking;
use crate::pressure::{Amount, Short, Signal, choose, evicted};
use crate::store::{Ending, Sandbox};

/// What an evicted pod's containers have to end (the kubelet's `immediateEvictionGracePeriodSeconds`).
const GRACE: Duration = Duration::from_secs(1);
/// How long after its grace an evicted pod is waited for before the next one is chosen (its `podCleanupTimeout`).
const CLEANUP: Duration = Duration::from_secs(30);

/// Looks until flintd ends.
pub(super) async fn keep(node: Arc<Node>) {
    let mut ticks = tokio::time::interval(node.config.eviction.interval());
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = look(&node).await {
            tracing::error!("look for what the node is short of: {error:#}");
        }
    }
}

async fn look(node: &Arc<Node>) -> Result<()> {
    let short = read(node).await?;
    for (entry, why) in super::storage::over_limits(node).await {
        evict(node, &entry, "localStorage", why, GRACE).await?;
    }
    let Some((signal, short)) = short else { return Ok(()) };
    let freed = if signal.is_disk() { free_images(node, signal).await } else { Freed::Nothing };
    if freed == Freed::Nothing {
        return make_room(node, signal, short).await;
    }
    // What is short now counts.
    let Some((still, short)) = read(node).await? else { return Ok(()) };
    if freed == Freed::Later && still.is_disk() && can_wait(node.pressure.amount(still), short) {
        return Ok(());
    }
    make_room(node, still, short).await
}

/// What came of removing images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Freed {
    Something,
    Nothing,
    /// Pulls go on: images can go when these end.
    Later,
}

impl Freed {
    fn of(collected: &Result<u64>) -> Self {
        match collected {
            Ok(1..) => Self::Something,
            Err(error) if crate::images::is_busy(error) => Self::Later,
            Ok(0) | Err(_) => Self::Nothing,
        }
    }
}

/// Whether pods are spared until pulls end and images can go. The kubelet waits for nothing below a hard threshold, but no pull of its
/// runtime holds up the removal of images: here it waits while half of what is to be left is there.
const fn can_wait(amount: Amount, short: Short) -> bool {
    short.is_soft || amount.left >= short.least / 2
}

/// Looks, tells conditions that have changed, and says what is to be mended first.
async fn read(node: &Arc<Node>) -> Result<Option<(Signal, Short)>> {
    let holder = node.clone();
    let reading = blocking(move || Ok(holder.pressure.read()?)).await?;
    let look = node.pressure.update(reading, Instant::now());
    for (condition, holds, sentence) in look.changed {
        node.tell(None, None, holds, Reason { word: condition.event(holds).to_owned(), sentence });
        // Who waits for the node to take pods, or shows it, looks again.
        node.tell_change();
    }
    Ok(look.short.into_iter().next())
}

/// Removes images that nobody needs.
async fn free_images(node: &Arc<Node>, signal: Signal) -> Freed {
    let is_elsewhere = matches!(signal, Signal::NodeDisk | Signal::NodeInodes) && !node.pressure.images_are_with_data();
    if is_elsewhere {
        return Freed::Nothing;
    }
    let collected = super::images::collect(node, true).await;
    if let Err(error) = &collected {
        let sentence = format!("remove unused images: {error:#}");
        node.tell(None, None, true, Reason { word: "FreeDiskSpaceFailed".to_owned(), sentence });
    }
    Freed::of(&collected)
}

/// Evicts the pod whose turn it is, and waits until nothing of it runs.
async fn make_room(node: &Arc<Node>, signal: Signal, short: Short) -> Result<()> {
    let candidates = super::storage::candidates(node, signal).await;
    let amount = node.pressure.amount(signal);
    let sentence = format!("Attempting to reclaim {}", signal.resource());
    let Some(chosen) = choose(signal, &candidates) else {
        tracing::warn!(signal = signal.name(), "{sentence}: no pod uses any of it that may be evicted");
        return Ok(());
    };
    node.tell(None, None, true, Reason { word: "EvictionThresholdMet".to_owned(), sentence });
    let Some(entry) = node.entry(&chosen.uid) else { return Ok(()) };
    let grace = if short.is_soft {
        let most = Duration::from_secs(node.config.eviction.max_pod_grace_period);
        entry.read(|record| record.pod.grace).min(most)
    } else {
        GRACE
    };
    evict(node, &entry, signal.name(), evicted(signal, amount, short.least, chosen), grace).await
}

/// Whether a pod could be evicted: something of it is there, and nobody ends it already.
pub(super) fn may_go(entry: &Entry) -> bool {
    let view = entry.view();
    let is_over = matches!(view.status.phase, Phase::Succeeded | Phase::Failed);
    let is_there = entry
        .read(|record| record.removal.is_none() && record.ending.is_none() && record.sandbox.state != Sandbox::Absent);
    is_there && !is_over && view.pod.goal != Goal::Stopped && view.pod.priority < CRITICAL
}

async fn evict(
    node: &Arc<Node>,
    entry: &Arc<Entry>,
    signal: &'static str,
    sentence: String,
    grace: Duration,
) -> Result<()> {
    let reason = Reason { word: "Evicted".to_owned(), sentence };
    let why = reason.clone();
    let ended = entry.change(node, |record| {
        let is_new = record.ending.is_none() && record.removal.is_none();
        if is_new {
            record.ending = Some(Ending { at: SystemTime::now(), reason: why, grace: Some(grace.as_secs()) });
        }
        is_new
    });
    if !ended.await.with_context(|| format!("evict {}", entry.key()))? {
        return Ok(());
    }
    timings().evicted(signal);
    node.tell(Some(&entry.key()), None, true, reason);
    let mut changes = node.changes();
    let gone = async {
        while entry.read(|record| record.sandbox.state != Sandbox::Absent) && changes.changed().await.is_ok() {}
    };
    if tokio::time::timeout(grace + CLEANUP, gone).await.is_err() {
        tracing::warn!(pod = %entry.key(), "it was evicted {CLEANUP:?} ago, and something of it is there still");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use flint_bundle::store::{Policy, Store, trim};

    use super::*;

    #[test]
    fn pods_are_spared_while_pulls_hold_up_the_removal_of_images_and_there_is_time() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let _pull = store.lease().unwrap();
        let policy = Policy { patience: Duration::ZERO, ..Policy::default() };
        let busy = trim(&store, &policy).map(|_| 0).map_err(anyhow::Error::from);
        let cases = [(Ok(1), Freed::Something), (Ok(0), Freed::Nothing), (busy, Freed::Later)];
        for (collected, freed) in cases {
            assert_eq!(Freed::of(&collected), freed, "{collected:?}");
        }
        assert_eq!(Freed::of(&Err(flint_bundle::Error::refused("damaged").into())), Freed::Nothing);
        let left = |left| Amount { total: 1000, left };
        let hard = Short { least: 100, is_soft: false };
        assert!(can_wait(left(99), hard) && can_wait(left(50), hard) && !can_wait(left(49), hard));
        assert!(can_wait(left(0), Short { is_soft: true, ..hard }), "it has a grace period as well");
    }
}
