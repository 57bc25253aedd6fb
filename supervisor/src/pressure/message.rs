//! What a pod that goes is told: the kubelet's sentences, which people's tools look for.

use std::fmt::Write as _;

use super::{Amount, Candidate, Signal};

/// Why a pod was evicted, with the containers that use more than they asked for.
#[must_use]
pub fn evicted(signal: Signal, amount: Amount, least: u64, chosen: &Candidate) -> String {
    let resource = signal.resource();
    let is_bytes = !matches!(resource, "inodes" | "pids");
    let shown = |value: u64| if is_bytes { quantity(value) } else { value.to_string() };
    let mut sentence = format!(
        "The node was low on resource: {resource}. Threshold quantity: {}, available: {}.",
        shown(least),
        shown(amount.left)
    );
    for share in chosen.shares.iter().filter(|share| is_bytes && share.used > share.requested) {
        // A String takes all that is written to it.
        let _ = write!(
            sentence,
            " Container {} was using {}, request is {}, has larger consumption of {resource}.",
            share.name,
            shown(share.used),
            shown(share.requested)
        );
    }
    sentence
}

/// Bytes as Kubernetes writes them: the largest of Ki, Mi, Gi, Ti, Pi, Ei that divides them.
#[must_use]
pub fn quantity(bytes: u64) -> String {
    const SUFFIXES: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let times = if bytes == 0 { 0 } else { (bytes.trailing_zeros() / 10) as usize };
    format!("{}{}", bytes >> (10 * times), SUFFIXES[times])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pressure::Share;

    #[test]
    fn quantities_are_kubernetes() {
        for (bytes, text) in
            [(0, "0"), (1000, "1000"), (1024, "1Ki"), (100 << 20, "100Mi"), (1536 << 20, "1536Mi"), (1 << 60, "1Ei")]
        {
            assert_eq!(quantity(bytes), text);
        }
    }

    #[test]
    fn the_sentence_says_what_was_short_and_who_had_too_much() {
        let share = |name: &str, used, requested| Share { name: name.to_owned(), used, requested };
        let shares = vec![share("main", 160 << 20, 0), share("side", 1 << 20, 2 << 20)];
        let chosen = Candidate { uid: "u".to_owned(), priority: 0, used: 161 << 20, requested: 2 << 20, shares };
        let amount = Amount { total: 1 << 30, left: 50 << 20 };
        assert_eq!(
            evicted(Signal::Memory, amount, 100 << 20, &chosen),
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. \
             Container main was using 160Mi, request is 0, has larger consumption of memory."
        );
        assert_eq!(
            evicted(Signal::Pids, Amount { total: 32_768, left: 1024 }, 3276, &chosen),
            "The node was low on resource: pids. Threshold quantity: 3276, available: 1024."
        );
    }
}
