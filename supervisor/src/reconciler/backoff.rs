//! Pauses between tries.

use std::time::Duration;

/// The first pause, and the longest; Kubernetes' own.
const PAUSES: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(300));

fn doubled(times: u32) -> Duration {
    PAUSES.0.saturating_mul(1_u32.checked_shl(times).unwrap_or(u32::MAX)).min(PAUSES.1)
}

/// How long a container that has ended so many times in a row rests before it is started again: not at all after the first
/// time, as with the kubelet, then 10 s, 20 s, ... 5 min.
#[must_use]
pub fn restart_pause(crashes: u32) -> Duration {
    crashes.checked_sub(2).map_or(Duration::ZERO, doubled)
}

/// How long the next try waits after so many failures of a pull, a sandbox or a start.
#[must_use]
pub fn pull_pause(failures: u32) -> Duration {
    failures.checked_sub(1).map_or(Duration::ZERO, doubled)
}
