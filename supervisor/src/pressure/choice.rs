//! Which pod goes first.

use std::cmp::Reverse;

use super::Signal;

/// A pod that could go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its uid.
    pub uid: String,
    /// Its priority; lower ones go first.
    pub priority: i32,
    /// What it uses of what is short: bytes, or process ids.
    pub used: u64,
    /// What it asked for of that; 0: nothing.
    pub requested: u64,
    /// Its containers' part of it.
    pub shares: Vec<Share>,
}

/// A container's part of what a pod uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// The container's name.
    pub name: String,
    /// What it uses.
    pub used: u64,
    /// What it asked for.
    pub requested: u64,
}

/// The pod to evict, in the kubelet's order (`rankMemoryPressure`, `rankDiskPressureFunc`, `rankPIDPressure`): pods that use more
/// than they asked for before others, then lower priorities, then those that use most over what they asked for. A class of its
/// own has no say: a BestEffort pod asked for nothing, so it is over that, and a Guaranteed one never is. Process ids and inodes
/// are not asked for: there it is the priority and the use. A pod that uses nothing of what is short would go for nothing and is
/// spared.
#[must_use]
pub fn choose(signal: Signal, candidates: &[Candidate]) -> Option<&Candidate> {
    let is_asked_for =
        matches!(signal, Signal::Memory | Signal::AllocatableMemory | Signal::NodeDisk | Signal::ImageDisk);
    let rank = |candidate: &&Candidate| {
        let requested = if is_asked_for { candidate.requested } else { 0 };
        let over = i128::from(candidate.used) - i128::from(requested);
        (over <= 0, candidate.priority, Reverse(over), candidate.uid.clone())
    };
    candidates.iter().filter(|candidate| candidate.used > 0).min_by_key(rank)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: &str, priority: i32, used: u64, requested: u64) -> Candidate {
        Candidate { uid: uid.to_owned(), priority, used, requested, shares: Vec::new() }
    }

    fn chosen(signal: Signal, pods: &[Candidate]) -> &str {
        choose(signal, pods).map_or("nobody", |pod| pod.uid.as_str())
    }

    #[test]
    fn the_order_is_the_kubelets() {
        let inside = pod("inside", -5, 90, 100);
        let over = pod("over", 10, 150, 100);
        let best_effort = pod("best-effort", 10, 20, 0);
        let low = pod("low", 0, 101, 100);
        let more = pod("more", 10, 300, 100);
        let nearer = pod("nearer", -5, 95, 100);
        for (pods, first) in [
            (vec![], "nobody"),
            // Who keeps to its request goes last, whatever its priority.
            (vec![inside.clone(), over.clone()], "over"),
            (vec![over.clone(), low.clone()], "low"),
            // 50 over the request before 20 over none: the class itself does not count.
            (vec![best_effort.clone(), over.clone()], "over"),
            (vec![best_effort.clone(), inside.clone()], "best-effort"),
            (vec![over.clone(), more.clone()], "more"),
            (vec![inside.clone(), nearer.clone()], "nearer"),
            (vec![inside.clone(), pod("idle", -9, 0, 0)], "inside"),
            (vec![pod("idle", -9, 0, 0)], "nobody"),
        ] {
            for signal in [Signal::Memory, Signal::AllocatableMemory, Signal::NodeDisk] {
                assert_eq!(chosen(signal, &pods), first, "{signal:?}: {pods:?}");
            }
        }
    }

    #[test]
    fn pids_and_inodes_are_not_asked_for() {
        let pods = [pod("many", 0, 5000, 1 << 30), pod("few", 0, 3, 0)];
        for signal in [Signal::Pids, Signal::NodeInodes] {
            assert_eq!(chosen(signal, &pods), "many", "{signal:?}");
        }
        let pods = [pod("many", 1, 5000, 0), pod("low", 0, 3, 0)];
        assert_eq!(chosen(Signal::Pids, &pods), "low");
    }

    #[test]
    fn equals_are_chosen_by_name_so_that_two_looks_agree() {
        let pods = [pod("b", 0, 5, 1), pod("a", 0, 5, 1)];
        assert_eq!(chosen(Signal::Memory, &pods), "a");
    }
}
