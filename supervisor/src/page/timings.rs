//! How long the steps of a pod's life take, and who was evicted, for the metrics.

use std::sync::OnceLock;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

/// A step of a pod's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Step {
    /// An image was pulled and unpacked, or found.
    Pull,
    /// Volumes, network and sandbox were made.
    Prepare,
    /// A container was made by the shim and the runtime.
    Create,
    /// It was started.
    Start,
    /// It was told to stop.
    Stop,
    /// It was killed.
    Kill,
    /// It was taken away.
    Delete,
    /// Its limits were changed.
    Update,
    /// The pod's sandbox, network and volumes were taken away.
    TearDown,
}

/// The label of a step.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct StepLabel {
    step: Step,
}

/// The label of what was short.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct SignalLabel {
    signal: &'static str,
}

/// Histograms of steps, and what was done to pods.
#[derive(Debug)]
pub struct Timings {
    pub(super) steps: Family<StepLabel, Histogram>,
    pub(super) evictions: Family<SignalLabel, Counter>,
}

impl Timings {
    fn new() -> Self {
        // A start takes some milliseconds, a pull minutes.
        Self {
            steps: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.001, 2.0, 18))),
            evictions: Family::default(),
        }
    }

    /// A pod was evicted, for want of this.
    pub fn evicted(&self, signal: &'static str) {
        self.evictions.get_or_create(&SignalLabel { signal }).inc();
    }

    /// A step has taken so long.
    pub fn observe(&self, step: Step, took: Duration) {
        self.steps.get_or_create(&StepLabel { step }).observe(took.as_secs_f64());
    }
}

/// Those of this process: whoever works on pods tells them, and the metrics show them.
pub fn timings() -> &'static Timings {
    static TIMINGS: OnceLock<Timings> = OnceLock::new();
    TIMINGS.get_or_init(Timings::new)
}
