//! When a signal is on.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{Amount, Reading, Signal, Threshold, Thresholds};

/// A threshold below which a signal may be for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Soft {
    /// What has to be left.
    pub threshold: Threshold,
    /// How long less may be left before something has to go.
    pub grace: Duration,
}

/// Something has to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Short {
    /// What has to be left.
    pub least: u64,
    /// Whether no more than the soft threshold says so: there is time for pods to end.
    pub is_soft: bool,
}

/// Signals over time.
#[derive(Debug)]
pub struct Gauge {
    hard: Thresholds,
    soft: BTreeMap<Signal, Soft>,
    /// Signals below their soft thresholds, and since when.
    below: BTreeMap<Signal, Instant>,
    /// How long enough has to be left before a signal goes off.
    calm: Duration,
    /// Signals that are on, and since when enough is left again.
    on: BTreeMap<Signal, Option<Instant>>,
}

impl Gauge {
    /// With no signal on.
    #[must_use]
    pub const fn new(hard: Thresholds, soft: BTreeMap<Signal, Soft>, calm: Duration) -> Self {
        Self { hard, soft, below: BTreeMap::new(), calm, on: BTreeMap::new() }
    }

    /// Takes a reading; the signals for which something has to go now, which are fewer than are on.
    pub fn update(&mut self, reading: &Reading, now: Instant) -> BTreeMap<Signal, Short> {
        let mut short = self.short(reading);
        let below = self.below(reading);
        self.below.retain(|signal, _| below.contains_key(signal));
        let calm = self.calm;
        self.on.retain(|signal, since| {
            if short.contains_key(signal) || below.contains_key(signal) {
                *since = None;
                return true;
            }
            now.saturating_duration_since(*since.get_or_insert(now)) < calm
        });
        self.on.extend(short.keys().chain(below.keys()).map(|signal| (*signal, None)));
        for (signal, (least, grace)) in below {
            let since = *self.below.entry(signal).or_insert(now);
            if now.saturating_duration_since(since) >= grace {
                short.entry(signal).or_insert(Short { least, is_soft: true });
            }
        }
        short
    }

    /// What is kept of a signal, by the threshold that is reached first.
    #[must_use]
    pub fn least(&self, signal: Signal, amount: Amount) -> u64 {
        let soft = self.soft.get(&signal).map_or(0, |soft| soft.threshold.of(amount.total));
        self.hard.least(signal, amount).max(soft)
    }

    /// Signals below their soft thresholds: what has to be left, and how long less may be.
    fn below(&self, reading: &Reading) -> BTreeMap<Signal, (u64, Duration)> {
        let below = |(signal, soft): (&Signal, &Soft)| {
            let amount = reading.0.get(signal)?;
            let least = soft.threshold.of(amount.total);
            (amount.left < least).then_some((*signal, (least, soft.grace)))
        };
        self.soft.iter().filter_map(below).collect()
    }

    /// Signals that are on: the node takes no new pods that would make it worse.
    pub fn on(&self) -> impl Iterator<Item = Signal> {
        self.on.keys().copied()
    }

    /// Signals below their hard thresholds.
    fn short(&self, reading: &Reading) -> BTreeMap<Signal, Short> {
        let short = |(signal, amount): (&Signal, &Amount)| {
            let least = self.hard.least(*signal, *amount);
            (amount.left < least).then_some((*signal, Short { least, is_soft: false }))
        };
        reading.0.iter().filter_map(short).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pressure::Threshold;

    const GIB: u64 = 1 << 30;

    fn reading(memory: u64, disk: u64, inodes: u64, pids: u64) -> Reading {
        let amount = |total, left| Amount { total, left };
        Reading(BTreeMap::from([
            (Signal::Memory, amount(8 * GIB, memory)),
            (Signal::NodeDisk, amount(1000, disk)),
            (Signal::NodeInodes, amount(1000, inodes)),
            (Signal::Pids, amount(32_768, pids)),
        ]))
    }

    fn short(gauge: &Gauge, reading: &Reading) -> Vec<Signal> {
        gauge.short(reading).into_keys().collect()
    }

    #[test]
    fn each_signal_has_its_threshold() {
        let gauge = Gauge::new(Thresholds::default(), BTreeMap::new(), Duration::ZERO);
        for (reading, signals) in [
            (reading(GIB, 100, 50, 30_000), vec![]),
            (reading((100 << 20) - 1, 500, 500, 30_000), vec![Signal::Memory]),
            (reading(GIB, 99, 500, 30_000), vec![Signal::NodeDisk]),
            (reading(GIB, 500, 49, 30_000), vec![Signal::NodeInodes]),
            (reading(GIB, 500, 500, 3_000), vec![Signal::Pids]),
            (reading(0, 0, 0, 0), vec![Signal::Memory, Signal::NodeDisk, Signal::NodeInodes, Signal::Pids]),
            // A file system that makes inodes as needed has none to count.
            (Reading(BTreeMap::from([(Signal::NodeInodes, Amount::default())])), vec![]),
            // 100 MiB of the 200 that pods may have are half of it, and no want.
            (
                Reading(BTreeMap::from([(Signal::AllocatableMemory, Amount { total: 200 << 20, left: 50 << 20 })])),
                vec![],
            ),
            (
                Reading(BTreeMap::from([(Signal::AllocatableMemory, Amount { total: 200 << 20, left: 19 << 20 })])),
                vec![Signal::AllocatableMemory],
            ),
        ] {
            assert_eq!(short(&gauge, &reading), signals, "{reading:?}");
        }
    }

    #[test]
    fn a_threshold_of_nothing_is_none() {
        let off = Threshold::Share(0);
        let thresholds =
            Thresholds { memory: off, node_disk: off, node_inodes: off, pids: off, ..Thresholds::default() };
        assert_eq!(short(&Gauge::new(thresholds, BTreeMap::new(), Duration::ZERO), &reading(0, 0, 0, 0)), []);
    }

    #[test]
    fn a_signal_stays_until_it_was_calm_for_a_while() {
        let mut gauge = Gauge::new(Thresholds::default(), BTreeMap::new(), Duration::from_secs(300));
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let (short, enough) = (reading(0, 500, 500, 30_000), reading(GIB, 500, 500, 30_000));
        for (second, reading, evicts, on) in [
            (0, &short, 1, 1),
            (10, &enough, 0, 1),
            (200, &short, 1, 1),
            (210, &enough, 0, 1),
            (509, &enough, 0, 1),
            (510, &enough, 0, 0),
        ] {
            assert_eq!(gauge.update(reading, at(second)).len(), evicts, "at {second} s");
            assert_eq!(gauge.on().count(), on, "at {second} s");
        }
    }

    #[test]
    fn a_soft_threshold_evicts_when_its_grace_is_over_and_is_told_at_once() {
        let soft = Soft { threshold: Threshold::Quantity(GIB), grace: Duration::from_secs(90) };
        let soft = BTreeMap::from([(Signal::Memory, soft)]);
        let mut gauge = Gauge::new(Thresholds::default(), soft, Duration::from_secs(60));
        let start = Instant::now();
        let with = |memory| reading(memory, 500, 500, 30_000);
        let by_soft = Some(Short { least: GIB, is_soft: true });
        let by_hard = Some(Short { least: 100 << 20, is_soft: false });
        for (second, memory, evicts, on) in [
            (0, GIB, None, 0),
            (10, GIB - 1, None, 1),
            (99, GIB - 1, None, 1),
            // Enough for a moment: the grace begins anew, and the condition stays.
            (100, GIB, None, 1),
            (110, GIB - 1, None, 1),
            (199, GIB - 1, None, 1),
            (200, GIB - 1, by_soft, 1),
            (201, 0, by_hard, 1),
            (202, GIB - 1, by_soft, 1),
            (210, GIB, None, 1),
            (269, GIB, None, 1),
            (270, GIB, None, 0),
            // The hard one waits for nothing.
            (300, 0, by_hard, 1),
        ] {
            let short = gauge.update(&with(memory), start + Duration::from_secs(second));
            assert_eq!(short.get(&Signal::Memory).copied(), evicts, "at {second} s");
            assert_eq!((short.len(), gauge.on().count()), (usize::from(evicts.is_some()), on), "at {second} s");
        }
        let amount = Amount { total: 8 * GIB, left: 0 };
        assert_eq!(gauge.least(Signal::Memory, amount), GIB, "the one that is reached first");
        assert_eq!(gauge.least(Signal::Pids, Amount { total: 1000, left: 0 }), 100);
    }
}
