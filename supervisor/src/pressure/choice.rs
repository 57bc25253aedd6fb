//! Which pod goes first.

use std::cmp::Reverse;

use super::Signal;
use crate::desired::Quality;

/// A pod that could go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its uid.
    pub uid: String,
    /// Its class ([`crate::desired::Pod::quality`]).
    pub quality: Quality,
    /// Its priority; lower ones go first.
    pub priority: i32,
    /// What it uses of what is short: bytes, or process ids.
    pub used: u64,
    /// What it asked for of that; 0: nothing.
    pub requested: u64,
}

/// The pod to evict, in Kubernetes' order: pods that use more than they asked for before others, then lower priorities, then
/// the lower class, then those that use most over what they asked for. Process ids are not asked for, so there it is the
/// priority, the class and the use. A pod that uses nothing of what is short would go for nothing and is spared.
#[must_use]
pub fn choose(signal: Signal, candidates: &[Candidate]) -> Option<&Candidate> {
    let rank = |candidate: &&Candidate| {
        let requested = if signal == Signal::Pids { 0 } else { candidate.requested };
        let over = candidate.used.saturating_sub(requested);
        (
            over == 0,
            candidate.priority,
            candidate.quality,
            Reverse(over),
            Reverse(candidate.used),
            candidate.uid.clone(),
        )
    };
    candidates.iter().filter(|candidate| candidate.used > 0).min_by_key(rank)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Quality::{BestEffort, Burstable, Guaranteed};

    fn pod(uid: &str, quality: Quality, priority: i32, used: u64, requested: u64) -> Candidate {
        Candidate { uid: uid.to_owned(), quality, priority, used, requested }
    }

    fn chosen(signal: Signal, pods: &[Candidate]) -> &str {
        choose(signal, pods).map_or("nobody", |pod| pod.uid.as_str())
    }

    #[test]
    fn the_order_is_kubernetes() {
        let inside = pod("inside", Guaranteed, -5, 90, 100);
        let over = pod("over", Burstable, 10, 150, 100);
        let best = pod("best", BestEffort, 10, 20, 0);
        let low = pod("low", Burstable, 0, 101, 100);
        let more = pod("more", Burstable, 10, 300, 100);
        for (pods, first) in [
            (vec![], "nobody"),
            // Who keeps to its request goes last, whatever its priority.
            (vec![inside.clone(), over.clone()], "over"),
            (vec![over.clone(), low.clone()], "low"),
            (vec![over.clone(), best.clone()], "best"),
            (vec![over.clone(), more.clone()], "more"),
            (vec![inside.clone(), pod("idle", BestEffort, -9, 0, 0)], "inside"),
        ] {
            assert_eq!(chosen(Signal::Memory, &pods), first, "{pods:?}");
            assert_eq!(chosen(Signal::Disk, &pods), first, "{pods:?}");
        }
    }

    #[test]
    fn pids_are_not_asked_for() {
        let pods = [pod("many", Burstable, 0, 5000, 1 << 30), pod("few", Burstable, 0, 3, 0)];
        assert_eq!(chosen(Signal::Pids, &pods), "many");
    }

    #[test]
    fn equals_are_chosen_by_name_so_that_two_looks_agree() {
        let pods = [pod("b", Burstable, 0, 5, 1), pod("a", Burstable, 0, 5, 1)];
        assert_eq!(chosen(Signal::Memory, &pods), "a");
    }
}
