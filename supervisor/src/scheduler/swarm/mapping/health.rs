//! docker's health check as two probes: until it has said yes once the task is STARTING, from then on it must go on to do so.

use std::time::Duration;

use super::{Unmappable, none};
use crate::desired::{Check, Probe};
use crate::scheduler::swarm::wire::Span;
use crate::scheduler::swarm::wire::container::HealthConfig;

/// docker's own values for what is not given.
const INTERVAL: Duration = Duration::from_secs(30);
const START_INTERVAL: Duration = Duration::from_secs(5);
const RETRIES: u32 = 3;

type Probes = (Option<Probe>, Option<Probe>);

/// The startup and the liveness probe.
pub(super) fn probes(config: Option<&HealthConfig>) -> Result<Probes, Unmappable> {
    let Some(config) = config else { return Ok((None, None)) };
    let Some(check) = check(config)? else { return Ok((None, None)) };
    let given = |span: Option<Span>, default| {
        span.map(|span| span.duration()).filter(|time| !time.is_zero()).unwrap_or(default)
    };
    let interval = given(config.interval, INTERVAL);
    let retries = u32::try_from(config.retries).ok().filter(|retries| *retries > 0).unwrap_or(RETRIES);
    let start_period = given(config.start_period, Duration::ZERO);
    // Within the start period a no does not count, and questions come more often.
    let start_interval = if start_period.is_zero() { interval } else { given(config.start_interval, START_INTERVAL) };
    let start_interval = start_interval.min(interval);
    let spared = start_period.as_nanos().div_ceil(start_interval.as_nanos().max(1));
    let startup = Probe {
        check: check.clone(),
        initial_delay: start_interval,
        period: start_interval,
        timeout: given(config.timeout, INTERVAL),
        success_threshold: 1,
        failure_threshold: u32::try_from(spared).unwrap_or(u32::MAX).saturating_add(retries),
        grace: None,
    };
    let liveness = Probe { initial_delay: interval, period: interval, failure_threshold: retries, ..startup.clone() };
    Ok((Some(startup), Some(liveness)))
}

fn check(config: &HealthConfig) -> Result<Option<Check>, Unmappable> {
    match config.test.split_first() {
        None => {
            let is_empty = *config == HealthConfig::default();
            none(
                is_empty,
                "healthcheck.test",
                "it is empty, and flintd does not read the image's own: give the command",
            )?;
            Ok(None)
        }
        Some((kind, _)) if kind == "NONE" => Ok(None),
        Some((kind, command)) if kind == "CMD" && !command.is_empty() => Ok(Some(Check::Exec(command.to_vec()))),
        Some((kind, [command])) if kind == "CMD-SHELL" => {
            Ok(Some(Check::Exec(vec!["/bin/sh".into(), "-c".into(), command.clone()])))
        }
        Some(_) => {
            Err(Unmappable::new("healthcheck.test", "it is none of NONE, CMD and its words, CMD-SHELL and a line"))
        }
    }
}
