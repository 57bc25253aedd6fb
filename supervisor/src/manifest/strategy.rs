//! How a changed pod takes the place of the one before: annotations, because a Pod has no field for it. Their words are those of
//! a Deployment's `spec.strategy.type`, `spec.minReadySeconds` and `spec.progressDeadlineSeconds`.

use std::time::Duration;

use super::metadata::Metadata;
use super::reading::{At, shortened};
use crate::desired::{Network, Pod, RestartPolicy, RollingUpdate, VolumeSource};

/// Annotations that mean something to flintd; others with this beginning are mistakes.
const OWN: &str = "org.flint.";
const STRATEGY: &str = "org.flint.strategy";
const MIN_READY: &str = "org.flint.min-ready-seconds";
const PROGRESS_DEADLINE: &str = "org.flint.progress-deadline-seconds";
/// The only strategy that has a name: without one containers are stopped and made anew.
const ROLLING_UPDATE: &str = "RollingUpdate";

/// The strategy of a pod that is else read.
pub(super) fn read(document: &At<'_>, metadata: &Metadata, pod: &Pod) -> Option<RollingUpdate> {
    let annotations = document.below("metadata.annotations");
    let own = metadata.annotations.keys().filter(|name| name.starts_with(OWN));
    for name in own.filter(|name| ![STRATEGY, MIN_READY, PROGRESS_DEADLINE].contains(&name.as_str())) {
        annotations.refuse(format!("{}: flintd knows no such annotation", shortened(name)));
    }
    let Some(strategy) = metadata.annotations.get(STRATEGY) else {
        for name in [MIN_READY, PROGRESS_DEADLINE].iter().filter(|name| metadata.annotations.contains_key(**name)) {
            annotations.refuse(format!("{name}: is for pods with {STRATEGY}: {ROLLING_UPDATE}"));
        }
        return None;
    };
    if strategy != ROLLING_UPDATE {
        annotations.refuse(format!("{STRATEGY}: {:?} is not {ROLLING_UPDATE}", shortened(strategy)));
        return None;
    }
    check(document, metadata, pod);
    let seconds = |name: &str| {
        let text = metadata.annotations.get(name)?;
        let seconds = text.parse::<u32>().ok();
        if seconds.is_none() {
            annotations.refuse(format!("{name}: {:?} is no number of seconds", shortened(text)));
        }
        Some(Duration::from_secs(u64::from(seconds?)))
    };
    let (default, min_ready, deadline) = (RollingUpdate::default(), seconds(MIN_READY), seconds(PROGRESS_DEADLINE));
    let strategy = RollingUpdate {
        min_ready: min_ready.unwrap_or(default.min_ready),
        progress_deadline: deadline.unwrap_or(default.progress_deadline),
    };
    if strategy.progress_deadline <= strategy.min_ready {
        annotations.refuse(format!("{PROGRESS_DEADLINE}: is not more than {MIN_READY}"));
    }
    Some(strategy)
}

/// Two of the pod are there at a time: what has to be of one alone is refused.
fn check(document: &At<'_>, metadata: &Metadata, pod: &Pod) {
    if metadata.uid.is_some() {
        document.below("metadata.uid").refuse(format!("leave it out: by {ROLLING_UPDATE} each pod has another one"));
    }
    if pod.network == Network::Host {
        let why = format!("by {ROLLING_UPDATE} two pods run at a time, and on the host's network their ports meet");
        document.below("spec.hostNetwork").refuse(why);
    }
    if pod.restart != RestartPolicy::Always {
        document.below("spec.restartPolicy").refuse(format!("a pod that is replaced by {ROLLING_UPDATE} has Always"));
    }
    let writes = |volume: &str| {
        pod.all_containers()
            .flat_map(|container| &container.mounts)
            .any(|mount| mount.volume == volume && !mount.read_only)
    };
    for (index, volume) in pod.volumes.iter().enumerate() {
        if matches!(volume.source, VolumeSource::Named(_)) && writes(&volume.name) {
            let why = format!(
                "by {ROLLING_UPDATE} two pods run at a time, and both would write to this claim: mount it with readOnly"
            );
            document.below("spec.volumes").item(index).below("persistentVolumeClaim").refuse(why);
        }
    }
}
