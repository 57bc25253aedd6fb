//! When a signal is on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::{Amount, Reading, Signal, Thresholds};

/// Signals over time.
#[derive(Debug)]
pub struct Gauge {
    thresholds: Thresholds,
    /// How long enough has to be left before a signal goes off.
    calm: Duration,
    /// Signals that are on, and since when enough is left again.
    on: BTreeMap<Signal, Option<Instant>>,
}

impl Gauge {
    /// With no signal on.
    #[must_use]
    pub const fn new(thresholds: Thresholds, calm: Duration) -> Self {
        Self { thresholds, calm, on: BTreeMap::new() }
    }

    /// Takes a reading; the signals for which something has to go now, which are fewer than are on.
    pub fn update(&mut self, reading: &Reading, now: Instant) -> BTreeSet<Signal> {
        let short = self.short(reading);
        let calm = self.calm;
        self.on.retain(|signal, since| {
            if short.contains(signal) {
                *since = None;
                return true;
            }
            now.saturating_duration_since(*since.get_or_insert(now)) < calm
        });
        for signal in &short {
            self.on.insert(*signal, None);
        }
        short
    }

    /// Signals that are on: the node takes no new pods that would make it worse.
    pub fn on(&self) -> impl Iterator<Item = Signal> {
        self.on.keys().copied()
    }

    /// Signals of which less is left than has to be.
    #[must_use]
    pub fn short(&self, reading: &Reading) -> BTreeSet<Signal> {
        let is_short = |signal: Signal, amount: Amount| amount.left < self.thresholds.least(signal, amount);
        reading.0.iter().filter(|(signal, amount)| is_short(**signal, **amount)).map(|(signal, _)| *signal).collect()
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
        gauge.short(reading).into_iter().collect()
    }

    #[test]
    fn each_signal_has_its_threshold() {
        let gauge = Gauge::new(Thresholds::default(), Duration::ZERO);
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
        assert_eq!(short(&Gauge::new(thresholds, Duration::ZERO), &reading(0, 0, 0, 0)), []);
    }

    #[test]
    fn a_signal_stays_until_it_was_calm_for_a_while() {
        let mut gauge = Gauge::new(Thresholds::default(), Duration::from_secs(300));
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
}
