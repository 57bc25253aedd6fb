//! Containers that have ended: by events, by what a shim says, by a start that failed.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;

use super::Node;
use crate::executor::{Occurrence, Told};
use crate::observed::{Exit, Reason};
use crate::store::{ContainerPhase, ContainerRecord};

/// A container that ran for so long before it ended begins its back-off anew.
const STEADY: Duration = Duration::from_secs(600);
/// The word of a container that is stopped because its probe says no.
pub(super) const UNHEALTHY: &str = "Unhealthy";
/// 128 and SIGKILL.
const KILLED: u32 = 137;

/// Takes what shims tell, until they are listened to no more.
pub(super) async fn take(node: Arc<Node>, mut events: mpsc::Receiver<Told>) {
    while let Some(Told { occurrence, taken }) = events.recv().await {
        let node = node.clone();
        // Of each shim one at a time comes; those of others do not wait for it.
        tokio::spawn(async move {
            match node.record(occurrence).await {
                Ok(()) => drop(taken.send(())),
                // It is not taken, and told again.
                Err(error) => tracing::error!("write down what a shim has told: {error:#}"),
            }
        });
    }
}

/// `UID.NAME.ATTEMPT`.
pub(super) fn parse_id(id: &str) -> Option<(&str, &str, u32)> {
    let (rest, attempt) = id.rsplit_once('.')?;
    let (uid, name) = rest.split_once('.')?;
    Some((uid, name, attempt.parse().ok()?))
}

impl Node {
    /// Writes down what happened to a container; nothing, if it is of another attempt or known already.
    async fn record(&self, occurrence: Occurrence) -> anyhow::Result<()> {
        let id = match &occurrence {
            Occurrence::Exit { id, .. } | Occurrence::Oom { id } => id.clone(),
        };
        let Some((uid, name, attempt)) = parse_id(&id) else { return Ok(()) };
        let Some(entry) = self.entry(uid) else { return Ok(()) };
        let message = match occurrence {
            Occurrence::Exit { .. } => message(&self.config.messages(uid, name)),
            Occurrence::Oom { .. } => String::new(),
        };
        let told = entry.change(self, |record| {
            let there = record.containers.get_mut(name).filter(|there| there.attempt == attempt)?;
            match occurrence {
                Occurrence::Oom { .. } => {
                    there.oom = true;
                    None
                }
                Occurrence::Exit { status, at, .. } => {
                    super::probing::forget(self, &id);
                    saw_exit(there, status, at, message)
                }
            }
        });
        if let Some(exit) = told.await? {
            let is_warning = exit.reason.word != "Completed";
            self.tell(Some(&entry.key()), Some(name), is_warning, exit.reason);
        }
        Ok(())
    }
}

/// What a container has left in the file that is mounted where its message is read: the container chooses its content alone.
pub(super) fn message(folder: &Path) -> String {
    let mut bytes = Vec::new();
    // There is none of a container without such a place.
    let _ = File::open(folder.join("message")).and_then(|file| file.take(Exit::MESSAGE).read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A container's init has ended; what is told of it, unless it was known.
pub(super) fn saw_exit(
    there: &mut ContainerRecord,
    status: Option<u32>,
    at: SystemTime,
    message: String,
) -> Option<Exit> {
    let started = match there.phase {
        ContainerPhase::Running { started } => started,
        // It was faster than the answer to its start.
        ContainerPhase::Creating | ContainerPhase::Created => at,
        ContainerPhase::Absent | ContainerPhase::Exited(_) => return None,
    };
    let oom = there.oom && status == Some(KILLED);
    let (word, sentence) = match status {
        Some(0) => ("Completed", "it has ended with status 0".to_owned()),
        Some(status) if oom => {
            ("OOMKilled", format!("it was killed for want of memory (status {status}): its limit, or the host's"))
        }
        Some(status) if status > 128 && status < 128 + 65 => {
            ("Error", format!("it was ended by signal {} (status {status})", status - 128))
        }
        Some(status) => ("Error", format!("it has ended with status {status}")),
        None => ("ContainerStatusUnknown", "it has ended while nobody who could see its status was there".to_owned()),
    };
    let reason = Reason { word: word.to_owned(), sentence };
    // A program that obeys may end with 0: that is no success.
    let sick = there.stopping.as_ref().map(|stopping| stopping.reason.clone()).filter(|why| why.word == UNHEALTHY);
    let reason = sick.unwrap_or(reason);
    let exit = Exit { status, oom, started: Some(started), finished: at, reason, message };
    ended(there, exit.clone());
    Some(exit)
}

/// A container has ended so.
pub(crate) fn ended(there: &mut ContainerRecord, exit: Exit) {
    let ran = exit.started.and_then(|started| exit.finished.duration_since(started).ok()).unwrap_or_default();
    there.crashes = if ran >= STEADY { 1 } else { there.crashes + 1 };
    there.phase = ContainerPhase::Exited(exit);
    there.pid = 0;
    there.set_ready(false);
    there.stopping = None;
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::{UNHEALTHY, message, parse_id, saw_exit};
    use crate::observed::Reason;
    use crate::store::{ContainerPhase, ContainerRecord, Stopping};

    fn running(since: SystemTime) -> ContainerRecord {
        ContainerRecord { phase: ContainerPhase::Running { started: since }, ..ContainerRecord::default() }
    }

    #[test]
    fn ids_are_taken_apart() {
        assert_eq!(parse_id("0a-1.my-app_1.12"), Some(("0a-1", "my-app_1", 12)));
        for id in ["", "a.b", "a.b.c", "a"] {
            assert_eq!(parse_id(id), None, "{id}");
        }
    }

    #[test]
    fn an_exit_is_told_once_and_its_reason_with_it() {
        let now = SystemTime::now();
        let mut there = running(now);
        there.oom = true;
        let exit = saw_exit(&mut there, Some(137), now, String::new()).unwrap();
        assert_eq!((exit.oom, exit.reason.word.as_str()), (true, "OOMKilled"));
        assert_eq!(saw_exit(&mut there, Some(0), now, String::new()), None, "its status stays");
        // A child was killed for want of memory, and the program ended well.
        let mut there = running(now);
        there.oom = true;
        assert!(!saw_exit(&mut there, Some(0), now, String::new()).unwrap().oom);
        assert_eq!(
            saw_exit(&mut running(now), None, now, String::new()).unwrap().reason.word,
            "ContainerStatusUnknown"
        );
    }

    #[test]
    fn a_message_has_an_end() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(message(folder.path()), "");
        std::fs::write(folder.path().join("message"), [b'm'; 5000]).unwrap();
        let said = message(folder.path());
        let exit = saw_exit(&mut running(SystemTime::now()), Some(1), SystemTime::now(), said).unwrap();
        assert_eq!(exit.message, "m".repeat(4096));
    }

    #[test]
    fn who_was_stopped_for_its_health_did_not_complete() {
        let now = SystemTime::now();
        let why = Reason { word: UNHEALTHY.to_owned(), sentence: "its liveness probe failed".to_owned() };
        let stopping = Some(Stopping { until: now, killed: false, reason: why.clone() });
        let mut there = ContainerRecord { stopping, ..running(now) };
        assert_eq!(saw_exit(&mut there, Some(0), now, String::new()).unwrap().reason, why);
    }

    #[test]
    fn ends_are_counted_until_it_has_run_for_ten_minutes() {
        let now = SystemTime::now();
        let mut there = ContainerRecord { crashes: 3, ..running(now) };
        saw_exit(&mut there, Some(1), now + Duration::from_secs(599), String::new());
        assert_eq!(there.crashes, 4);
        there.phase = ContainerPhase::Running { started: now };
        saw_exit(&mut there, Some(1), now + Duration::from_secs(600), String::new());
        assert_eq!(there.crashes, 1);
    }
}
