//! What answers mean: a function of a container's probes, the answers, and given time.
//!
//! ```text
//!  startup: asked until yes ──> Started      too many no ──> Kill
//!  then liveness:               (alive)      too many no ──> Kill
//!  and readiness:   yes ──> Ready(true)      too many no ──> Ready(false)
//! ```
//!
//! The rules are kubelet's: before a container has started only its startup probe is asked; a container is not ready until a
//! readiness probe said so, and alive until a liveness probe denied it; after a Kill nothing is asked any more; an answer that was
//! lost counts for nothing.

use std::time::{Duration, Instant};

use super::Kind;
use crate::desired::Probe;

/// What an answer changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The container has started.
    Started,
    /// It may be sent requests, or no more.
    Ready(bool),
    /// It is to be killed, and its restart policy decides; with this grace period in place of the pod's.
    Kill(Option<Duration>),
}

/// One probe.
#[derive(Debug, Clone)]
struct Track {
    probe: Probe,
    due: Instant,
    is_asked: bool,
    last: bool,
    /// So many answers in a row were like the last.
    run: u32,
}

/// The probes of one container.
#[derive(Debug, Clone)]
pub struct Machine {
    startup: Option<Track>,
    liveness: Option<Track>,
    readiness: Option<Track>,
    started: bool,
    ready: bool,
    is_over: bool,
}

impl Track {
    /// `part` (0 to 1,000) of a period is where one begins that should have been asked long ago: after a restart of flintd all
    /// would be asked at once.
    fn new(probe: &Probe, since: Instant, now: Instant, part: u32) -> Self {
        let first = since + probe.initial_delay;
        let is_late = now.saturating_duration_since(first) > probe.period;
        let due = if is_late { now + probe.period * part.min(1000) / 1000 } else { first };
        Self { probe: probe.clone(), due, is_asked: false, last: false, run: 0 }
    }

    /// Whether so many answers like this one have come in a row that they count.
    fn counts(&mut self, yes: bool) -> bool {
        self.run = if self.run > 0 && self.last == yes { self.run.saturating_add(1) } else { 1 };
        self.last = yes;
        self.run >= if yes { self.probe.success_threshold } else { self.probe.failure_threshold }
    }
}

impl Machine {
    /// A container with these probes that runs `since` then. `started` and `ready` are what is known of it from before.
    /// `part`: see [`super::Scheduler`]; thousandths of a period by which probes that are late are spread.
    #[must_use]
    pub fn new(probes: &super::Watch, since: Instant, now: Instant, part: u32) -> Self {
        let track = |probe: &Option<Probe>| probe.as_ref().map(|probe| Track::new(probe, since, now, part));
        let started = probes.started || probes.startup.is_none();
        let ready = started && (probes.readiness.is_none() || (probes.started && probes.ready));
        let startup = if started { None } else { track(&probes.startup) };
        let (liveness, readiness) = (track(&probes.liveness), track(&probes.readiness));
        Self { startup, liveness, readiness, started, ready, is_over: false }
    }

    /// Whether it has started.
    #[must_use]
    pub fn is_started(&self) -> bool {
        self.started
    }

    /// Whether it may be sent requests.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// The question that is due next, and when; none while all are on their way, or there are none (left).
    #[must_use]
    pub fn next(&self) -> Option<(Instant, Kind)> {
        if self.is_over {
            return None;
        }
        let waiting =
            |track: &Option<Track>, kind| track.as_ref().filter(|track| !track.is_asked).map(|t| (t.due, kind));
        if !self.started {
            return waiting(&self.startup, Kind::Startup);
        }
        let liveness = waiting(&self.liveness, Kind::Liveness);
        liveness.into_iter().chain(waiting(&self.readiness, Kind::Readiness)).min_by_key(|(due, _)| *due)
    }

    /// A question was put.
    pub fn asked(&mut self, kind: Kind) {
        if let Some(track) = self.track(kind) {
            track.is_asked = true;
        }
    }

    /// Its answer came; none: nobody knows it, and it is as if it had not been put.
    pub fn answered(&mut self, kind: Kind, answer: Option<bool>, now: Instant) -> Vec<Change> {
        let is_over = self.is_over;
        let Some(track) = self.track(kind) else { return Vec::new() };
        track.is_asked = false;
        track.due = (track.due + track.probe.period).max(now);
        let Some(yes) = answer.filter(|yes| !is_over && track.counts(*yes)) else { return Vec::new() };
        let grace = track.probe.grace;
        match (kind, yes) {
            (Kind::Startup, true) => self.start(now),
            (Kind::Liveness, true) => Vec::new(),
            (Kind::Readiness, _) if self.ready == yes => Vec::new(),
            (Kind::Readiness, _) => {
                self.ready = yes;
                vec![Change::Ready(yes)]
            }
            (Kind::Startup | Kind::Liveness, false) => {
                self.is_over = true;
                let was_ready = std::mem::replace(&mut self.ready, false);
                let not_ready = was_ready.then_some(Change::Ready(false));
                not_ready.into_iter().chain([Change::Kill(grace)]).collect()
            }
        }
    }

    fn start(&mut self, now: Instant) -> Vec<Change> {
        self.started = true;
        self.startup = None;
        // The others have waited for this: they are asked as soon as their own delays allow.
        for track in [&mut self.liveness, &mut self.readiness].into_iter().flatten() {
            track.due = track.due.max(now);
        }
        if self.readiness.is_some() {
            return vec![Change::Started];
        }
        self.ready = true;
        vec![Change::Started, Change::Ready(true)]
    }

    fn track(&mut self, kind: Kind) -> Option<&mut Track> {
        match kind {
            Kind::Startup => self.startup.as_mut(),
            Kind::Liveness => self.liveness.as_mut(),
            Kind::Readiness => self.readiness.as_mut(),
        }
    }
}

#[cfg(test)]
mod tests;
