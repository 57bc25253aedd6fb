//! When a signal is on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::{Amount, Reading, Signal};

/// What has to be left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    /// Bytes of memory.
    pub memory: u64,
    /// Hundredths of the file system's bytes.
    pub disk: u8,
    /// Hundredths of its inodes.
    pub inodes: u8,
    /// Hundredths of the process ids.
    pub pids: u8,
    /// How long enough has to be left before a signal goes off.
    pub calm: Duration,
}

impl Default for Thresholds {
    /// kubelet's, by which manifests and people's expectations are made.
    fn default() -> Self {
        Self { memory: 100 << 20, disk: 10, inodes: 5, pids: 10, calm: Duration::from_secs(300) }
    }
}

/// Signals over time.
#[derive(Debug)]
pub struct Gauge {
    thresholds: Thresholds,
    /// Signals that are on, and since when enough is left again.
    on: BTreeMap<Signal, Option<Instant>>,
}

impl Gauge {
    /// With no signal on.
    #[must_use]
    pub const fn new(thresholds: Thresholds) -> Self {
        Self { thresholds, on: BTreeMap::new() }
    }

    /// Takes a reading; the signals for which something has to go now, which is fewer than are on.
    pub fn update(&mut self, reading: &Reading, now: Instant) -> BTreeSet<Signal> {
        let short: BTreeSet<Signal> = self.thresholds.short(reading).collect();
        let calm = self.thresholds.calm;
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
}

impl Thresholds {
    fn short(&self, reading: &Reading) -> impl Iterator<Item = Signal> + use<> {
        let below = |amount: Amount, hundredths: u8| amount.left < amount.total / 100 * u64::from(hundredths);
        // A host with little memory is not short of it all the time.
        let memory = reading.memory.left < self.memory.min(reading.memory.total / 10);
        let disk = below(reading.disk, self.disk) || below(reading.inodes, self.inodes);
        let pids = below(reading.pids, self.pids);
        [(Signal::Memory, memory), (Signal::Disk, disk), (Signal::Pids, pids)]
            .into_iter()
            .filter_map(|(signal, short)| short.then_some(signal))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn reading(memory: u64, disk: u64, inodes: u64, pids: u64) -> Reading {
        Reading {
            memory: Amount { total: 8 * GIB, left: memory },
            disk: Amount { total: 1000, left: disk },
            inodes: Amount { total: 1000, left: inodes },
            pids: Amount { total: 32_768, left: pids },
        }
    }

    #[test]
    fn each_signal_has_its_threshold() {
        for (reading, signals) in [
            (reading(GIB, 100, 50, 30_000), vec![]),
            (reading((100 << 20) - 1, 500, 500, 30_000), vec![Signal::Memory]),
            (reading(GIB, 99, 500, 30_000), vec![Signal::Disk]),
            (reading(GIB, 500, 49, 30_000), vec![Signal::Disk]),
            (reading(GIB, 500, 500, 3_000), vec![Signal::Pids]),
            (reading(0, 0, 0, 0), vec![Signal::Memory, Signal::Disk, Signal::Pids]),
        ] {
            let mut gauge = Gauge::new(Thresholds::default());
            assert_eq!(gauge.update(&reading, Instant::now()).into_iter().collect::<Vec<_>>(), signals, "{reading:?}");
        }
        let none = Reading { inodes: Amount::default(), ..reading(GIB, 500, 500, 30_000) };
        assert!(
            Gauge::new(Thresholds::default()).update(&none, Instant::now()).is_empty(),
            "a file system without inodes"
        );
    }

    #[test]
    fn a_signal_stays_until_it_was_calm_for_a_while() {
        let mut gauge = Gauge::new(Thresholds::default());
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let (short, enough) = (reading(0, 500, 500, 30_000), reading(GIB, 500, 500, 30_000));
        for (second, reading, evicts, on) in [
            (0, short, 1, 1),
            (10, enough, 0, 1),
            (200, short, 1, 1),
            (210, enough, 0, 1),
            (509, enough, 0, 1),
            (510, enough, 0, 0),
        ] {
            assert_eq!(gauge.update(&reading, at(second)).len(), evicts, "at {second} s");
            assert_eq!(gauge.on().count(), on, "at {second} s");
        }
    }
}
