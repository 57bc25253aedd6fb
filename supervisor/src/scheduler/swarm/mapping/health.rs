//! docker's health check as two probes: until it has said yes once the task is STARTING, from then on it must go on to do so.

use std::time::Duration;

use super::Unmappable;
use crate::desired::{Check, Probe};
use crate::scheduler::HealthCheck;
use crate::scheduler::swarm::wire::Span;
use crate::scheduler::swarm::wire::container::HealthConfig;

/// docker's own values for what is not given.
const INTERVAL: Duration = Duration::from_secs(30);
const START_INTERVAL: Duration = Duration::from_secs(5);
const RETRIES: u32 = 3;

type Probes = (Option<Probe>, Option<Probe>);

/// The startup and the liveness probe of what a task says; what it leaves out is the image's, as in docker.
pub(super) fn probes(config: Option<&HealthConfig>, image: Option<&HealthCheck>) -> Result<Probes, Unmappable> {
    let own = config.cloned().unwrap_or_default();
    let is_images = own.test.is_empty();
    let config = with_image(own, image);
    let check = match check(&config.test) {
        // As in dockerd: who runs an image has not written it.
        Err(unknown) if is_images => {
            tracing::warn!(test = ?config.test, "the image's health check counts as none: {unknown}");
            None
        }
        check => check?,
    };
    let Some(check) = check else { return Ok((None, None)) };
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

/// Field by field, whatever the task has of its own.
fn with_image(mut config: HealthConfig, image: Option<&HealthCheck>) -> HealthConfig {
    let Some(image) = image else { return config };
    if config.test.is_empty() {
        config.test.clone_from(&image.test);
    }
    let or = |own: &mut Option<Span>, theirs: Duration| {
        if own.is_none_or(|span| span.duration().is_zero()) && !theirs.is_zero() {
            let (seconds, nanos) = (i64::try_from(theirs.as_secs()).unwrap_or(i64::MAX), theirs.subsec_nanos());
            *own = Some(Span { seconds, nanos: nanos as i32 });
        }
    };
    or(&mut config.interval, image.interval);
    or(&mut config.timeout, image.timeout);
    or(&mut config.start_period, image.start_period);
    or(&mut config.start_interval, image.start_interval);
    if config.retries == 0 {
        config.retries = i32::try_from(image.retries).unwrap_or(i32::MAX);
    }
    config
}

fn check(test: &[String]) -> Result<Option<Check>, Unmappable> {
    match test.split_first() {
        None => Ok(None),
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
