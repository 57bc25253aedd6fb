//! A container's own streams, as the local API has them.
//!
//! ```text
//!  container ──> fifo ──> shim ──> log ──┬─> a reader for each client      (what a slow one has not read waits in the log)
//!            <── stdin.fifo in the bundle <── whoever types
//! ```
//!
//! flintd is not between a container and its output, so its death loses nothing of it, and who comes late finds what was written
//! before. Terminals, and who talks with somebody, have a log whose unfinished lines do not wait ([`container_of`]).
//!
//! [`container_of`]: crate::pod::container_of

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::io::{AsyncWrite, AsyncWriteExt as _, DuplexStream};
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, watch};

use super::session::Input;
use super::{Entry, Node};
use crate::api::{Attach, Failure, Session, SessionControl};
use crate::desired::Key;
use crate::pod::input_of;
use crate::scheduler::{LogLine, Stream};
use crate::store::{ContainerPhase, PodRecord};

/// Bytes of each output between the log and a client.
const BETWEEN: usize = 32 << 10;

/// One run of a container.
#[derive(Debug, Clone)]
struct Run {
    node: Arc<Node>,
    entry: Arc<Entry>,
    name: String,
    attempt: u32,
    shim: String,
    /// Its id in the runtime.
    id: String,
}

/// The way into a container.
#[derive(Debug, Clone)]
struct Way {
    run: Run,
    fifo: PathBuf,
    /// Whether it ends with the first client that used it. A terminal goes on: its end is typed.
    is_for_one: bool,
}

/// What is not a stream.
struct AttachControl {
    run: Run,
    input: Option<Way>,
    /// Closed once all of the log was handed on.
    handed_on: watch::Receiver<()>,
}

impl Node {
    /// Connects to a container's streams.
    ///
    /// # Errors
    ///
    /// There is none, it does not run, or its log cannot be read.
    pub(super) fn attach(self: &Arc<Self>, key: &Key, container: &str, request: Attach) -> Result<Session, Failure> {
        let entry = self.find(key).ok_or_else(|| Failure::missing(format!("there is no pod {key}")))?;
        let found = entry.read(|record| of_interest(record, container, request.from_start));
        let not_now = || Failure::not_now(format!("the container {container} of {key} does not run"));
        let (attempt, shim, id) = found.ok_or_else(not_now)?;
        let run = Run { node: self.clone(), entry, name: container.to_owned(), attempt, shim, id };
        let over = run.clone();
        let lines = self.logs.follow_attempt(
            &self.config.logs(&run.entry.uid(), container),
            attempt,
            request.from_start,
            async move {
                let _ = over.ended().await;
            },
        );
        let lines = lines.map_err(|error| Failure::broken(format!("read the log of {container} in {key}: {error}")))?;
        let (sink, stdout) = tokio::io::duplex(BETWEEN);
        let (error_sink, stderr) = tokio::io::duplex(BETWEEN);
        let (done, handed_on) = watch::channel(());
        tokio::spawn(hand_on(lines, sink, error_sink, done));
        let (sender, input) = request.stdin.then(|| run.input()).flatten().unzip();
        let stdin = sender.zip(input.clone()).map(|(sender, way)| {
            let end = move || Way::close(&way);
            Box::new(Input { sender, end }) as Box<dyn AsyncWrite + Send + Unpin>
        });
        Ok(Session {
            stdout: Some(Box::new(stdout)),
            stderr: Some(Box::new(stderr)),
            stdin,
            control: Box::new(AttachControl { run, input, handed_on }),
        })
    }
}

/// Of the last run: which one it is, its shim and its id; none if there is nothing to be seen.
fn of_interest(record: &PodRecord, container: &str, is_ended_too: bool) -> Option<(u32, String, String)> {
    let there = record.containers.get(container)?;
    let is_there = match there.phase {
        ContainerPhase::Running { .. } => true,
        ContainerPhase::Absent => false,
        _ => is_ended_too,
    };
    let shim = record.sandbox.shim.clone().unwrap_or_default();
    Some((there.attempt, shim, record.runtime_id(container)?)).filter(|_| is_there)
}

async fn hand_on(
    mut lines: mpsc::Receiver<LogLine>,
    mut stdout: DuplexStream,
    mut stderr: DuplexStream,
    done: watch::Sender<()>,
) {
    while let Some(line) = lines.recv().await {
        let sink = match line.stream {
            Stream::Stdout => &mut stdout,
            Stream::Stderr => &mut stderr,
        };
        // The client has gone.
        if sink.write_all(&line.bytes).await.is_err() {
            break;
        }
    }
    drop(done);
}

impl Run {
    /// Its exit status once it has ended; none: nobody knows it.
    async fn ended(&self) -> Option<u32> {
        let mut changes = self.node.changes();
        loop {
            changes.mark_unchanged();
            if let Outcome::Ended(status) = self.entry.read(|record| outcome(record, &self.name, self.attempt)) {
                return status;
            }
            if changes.changed().await.is_err() {
                return None;
            }
        }
    }

    /// The container's input; none if it has none, or reads it no more.
    fn input(&self) -> Option<(pipe::Sender, Way)> {
        let (fifo, is_for_one) = self.entry.read(|record| {
            let wanted = record.pod.all_containers().find(|wanted| wanted.name == self.name)?;
            let fifo = input_of(&self.node, &record.pod.uid, &self.id);
            wanted.stdin.then_some((fifo, wanted.stdin_once && !wanted.tty))
        })?;
        // Without a reader: ENXIO.
        let sender = pipe::OpenOptions::new().open_sender(&fifo).ok()?;
        Some((sender, Way { run: self.clone(), fifo, is_for_one }))
    }
}

/// What has become of an attempt.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// Nothing yet.
    Open,
    /// It has ended, with this status if anybody knows it.
    Ended(Option<u32>),
}

fn outcome(record: &PodRecord, name: &str, attempt: u32) -> Outcome {
    // It was taken out of its pod.
    let Some(there) = record.containers.get(name) else { return Outcome::Ended(None) };
    match &there.phase {
        ContainerPhase::Exited(exit) if there.attempt == attempt => Outcome::Ended(exit.status),
        ContainerPhase::Absent if there.attempt == attempt => Outcome::Ended(None),
        _ if there.attempt == attempt => Outcome::Open,
        _ if there.attempt == attempt + 1 => Outcome::Ended(there.last_exit.as_ref().and_then(|exit| exit.status)),
        _ => Outcome::Ended(None),
    }
}

impl Way {
    /// The container reads the end of its input, and nobody gets at it again until its restart.
    fn close(&self) {
        if !self.is_for_one {
            return;
        }
        let way = self.clone();
        tokio::spawn(async move {
            // First: a shim that takes the container over holds what it finds there.
            let _ = tokio::fs::remove_file(&way.fifo).await;
            let Run { node, shim, id, .. } = &way.run;
            // One that has ended has no input.
            if let Err(error) = node.executor.close_stdin(shim, id, "").await {
                tracing::debug!(container = id, "end its input: {error:#}");
            }
        });
    }
}

#[async_trait]
impl SessionControl for AttachControl {
    async fn resize(&self, rows: u16, columns: u16) {
        let Run { node, shim, id, .. } = &self.run;
        // One that has ended has no size.
        let _ = node.executor.resize(shim, id, "", rows, columns).await;
    }

    async fn wait(&self) -> Result<u32, Failure> {
        let status = self.run.ended().await;
        // Its last words come first. An error is what is waited for: the other end was dropped.
        let _ = self.handed_on.clone().changed().await;
        status.ok_or_else(|| Failure::broken(format!("nobody saw how the container {} ended", self.run.name)))
    }

    async fn abandon(&self) {
        if let Some(input) = &self.input {
            input.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::SystemTime;

    use super::Outcome::{Ended, Open};
    use super::{of_interest, outcome};
    use crate::desired::tests::pod;
    use crate::observed::{Exit, Reason};
    use crate::store::{ContainerPhase, ContainerRecord, PodRecord};

    fn exit(status: Option<u32>) -> Exit {
        Exit {
            status,
            oom: false,
            started: None,
            finished: SystemTime::UNIX_EPOCH,
            reason: Reason::default(),
            message: String::new(),
        }
    }

    fn record(attempt: u32, phase: ContainerPhase) -> PodRecord {
        let mut record = PodRecord::new(Arc::new(pod("web")), 1, SystemTime::UNIX_EPOCH);
        let there = ContainerRecord { attempt, phase, last_exit: Some(exit(Some(9))), ..ContainerRecord::default() };
        record.containers.insert("main".to_owned(), there);
        record
    }

    #[test]
    fn a_run_ends_once_and_with_its_own_status() {
        let started = SystemTime::UNIX_EPOCH;
        assert_eq!(outcome(&record(2, ContainerPhase::Running { started }), "main", 2), Open);
        assert_eq!(outcome(&record(2, ContainerPhase::Exited(exit(Some(3)))), "main", 2), Ended(Some(3)));
        assert_eq!(outcome(&record(2, ContainerPhase::Exited(exit(None))), "main", 2), Ended(None));
        assert_eq!(outcome(&record(3, ContainerPhase::Creating), "main", 2), Ended(Some(9)), "it was started again");
        assert_eq!(outcome(&record(4, ContainerPhase::Creating), "main", 2), Ended(None), "more than once");
        assert_eq!(outcome(&record(2, ContainerPhase::Running { started }), "other", 2), Ended(None));
    }

    #[test]
    fn who_wants_all_of_a_run_may_come_late() {
        let ended = record(1, ContainerPhase::Exited(exit(Some(0))));
        assert!(of_interest(&ended, "main", false).is_none());
        assert_eq!(of_interest(&ended, "main", true).unwrap().0, 1);
        assert!(of_interest(&record(0, ContainerPhase::Absent), "main", true).is_none());
    }
}
