//! One session with one manager: all its streams live and end together.
//!
//! ```text
//!  Session ─ first message ─┬─ messages: managers, root certificate, ROTATE
//!                           ├─ Heartbeat, at once and then each period
//!                           ├─ Assignments ─> worker      (a gap: this stream alone is opened again)
//!                           ├─ UpdateTaskStatus, after the first complete assignments: before, a task that is no longer ours
//!                           │  could spoil the call
//!                           └─ logs
//! ```

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use tonic::{Code, Status, Streaming};

use super::assignments::Sequence;
use super::logs;
use super::reports::Reports;
use super::roster::RosterReceiver;
use super::rpc::{Connection, PATIENCE};
use super::wire::Empty;
use super::wire::dispatcher::{
    AssignmentsMessage, AssignmentsRequest, HeartbeatRequest, HeartbeatResponse, SessionMessage, SessionRequest,
    TaskStatusUpdate, UpdateTaskStatusRequest,
};
use super::wire::node::NodeDescription;
use super::worker::Command;
use crate::scheduler::Host;

const SESSION: &str = "/docker.swarmkit.v1.Dispatcher/Session";
const HEARTBEAT: &str = "/docker.swarmkit.v1.Dispatcher/Heartbeat";
const ASSIGNMENTS: &str = "/docker.swarmkit.v1.Dispatcher/Assignments";
const UPDATE: &str = "/docker.swarmkit.v1.Dispatcher/UpdateTaskStatus";

/// Statuses in one call.
const UPDATES: usize = 500;

/// Between openings of a stream of assignments that had a gap.
const PAUSE: Duration = Duration::from_millis(500);

/// How a session ended.
#[derive(Debug)]
pub(super) enum End {
    /// The manager says that this node is none of the swarm's.
    Removed(String),
    /// It broke, and another one may do.
    Broken(anyhow::Error),
}

impl From<anyhow::Error> for End {
    fn from(error: anyhow::Error) -> Self {
        Self::Broken(error)
    }
}

/// What sessions share with the rest of the scheduler.
#[derive(Clone)]
pub(super) struct Links {
    /// The node.
    pub host: Arc<dyn Host>,
    /// The worker's ear.
    pub commands: mpsc::Sender<Command>,
    /// What is to be told.
    pub reports: Reports,
    /// Whose logs there are.
    pub roster: RosterReceiver,
}

/// An open session.
#[derive(Debug)]
pub(super) struct Session {
    connection: Connection,
    id: String,
    messages: Streaming<SessionMessage>,
}

impl Session {
    /// Registers the node; the session and its first message.
    ///
    /// # Errors
    ///
    /// Why the manager does not take it.
    pub(super) async fn open(
        connection: Connection,
        description: NodeDescription,
        last_id: &str,
    ) -> Result<(Self, SessionMessage), End> {
        let request = SessionRequest { description: Some(description), session_id: last_id.to_owned() };
        let register = async {
            let mut messages = connection.stream::<_, SessionMessage>(SESSION, request).await?;
            let first = messages.message().await?;
            Ok::<_, Status>((messages, first))
        };
        let (messages, first) = timeout(PATIENCE, register)
            .await
            .map_err(|_| anyhow::anyhow!("the manager sent no first message in {PATIENCE:?}"))?
            .map_err(|status| of_node("register", status))?;
        let first = first.context("the manager ended the session at once")?;
        Ok((Self { connection, id: first.session_id.clone(), messages }, first))
    }

    /// The id, to be shown to the next manager.
    #[must_use]
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Works until something breaks. What the manager says of the node itself goes to `notices`.
    pub(super) async fn run(self, links: Links, notices: mpsc::Sender<SessionMessage>) -> End {
        let Self { connection, id, mut messages } = self;
        let (is_assigned, assigned) = watch::channel(false);
        let listen = async {
            loop {
                match messages.message().await {
                    Ok(Some(message)) => {
                        let _ = notices.send(message).await;
                    }
                    Ok(None) => return End::Broken(anyhow::anyhow!("the manager ended the session")),
                    Err(status) => return of_node("the session", status),
                }
            }
        };
        links.reports.begin();
        tokio::select! {
            end = listen => end,
            end = heartbeat(&connection, &id) => end,
            error = assignments(&connection, &id, &links.commands, &is_assigned) => broken(error),
            error = report(&connection, &id, &links.reports, assigned) => broken(error),
            error = logs::serve(connection.clone(), Arc::clone(&links.host), links.roster.clone()) => broken(error),
        }
    }
}

fn broken(result: anyhow::Result<Infallible>) -> End {
    match result {
        Ok(never) => match never {},
        Err(error) => End::Broken(error),
    }
}

/// In what concerns the node itself PermissionDenied means that it was removed.
fn of_node(what: &str, status: Status) -> End {
    match status.code() {
        Code::PermissionDenied => End::Removed(status.message().to_owned()),
        _ => End::Broken(anyhow::Error::from(status).context(what.to_owned())),
    }
}

async fn heartbeat(connection: &Connection, id: &str) -> End {
    loop {
        let request = HeartbeatRequest { session_id: id.to_owned() };
        let answer: Result<HeartbeatResponse, Status> = connection.unary(HEARTBEAT, request).await;
        let period = match answer {
            Ok(answer) => answer.period.map_or(PATIENCE, |period| period.duration()),
            Err(status) => return of_node("heartbeat", status),
        };
        // No manager asks for less; a broken one shall not make us spin.
        tokio::time::sleep(period.max(Duration::from_millis(100))).await;
    }
}

async fn assignments(
    connection: &Connection,
    id: &str,
    commands: &mpsc::Sender<Command>,
    is_assigned: &watch::Sender<bool>,
) -> anyhow::Result<Infallible> {
    loop {
        let request = AssignmentsRequest { session_id: id.to_owned() };
        let mut stream = connection.stream::<_, AssignmentsMessage>(ASSIGNMENTS, request).await?;
        let mut sequence = Sequence::default();
        loop {
            let message = stream.message().await.context("assignments")?;
            let Some(message) = message else { bail!("the manager ended the stream of assignments") };
            let extent = match sequence.accept(&message) {
                Ok(extent) => extent,
                Err(error) => {
                    tracing::warn!("{error:#}: the stream is opened again");
                    tokio::time::sleep(PAUSE).await;
                    break;
                }
            };
            let (done, applied) = oneshot::channel();
            commands.send(Command::Assign(extent, message, done)).await.context("the worker has ended")?;
            applied.await.context("the worker has ended")?;
            is_assigned.send_replace(true);
        }
    }
}

async fn report(
    connection: &Connection,
    id: &str,
    reports: &Reports,
    mut assigned: watch::Receiver<bool>,
) -> anyhow::Result<Infallible> {
    assigned.wait_for(|is_assigned| *is_assigned).await?;
    loop {
        let mut pending = reports.next().await;
        if let Some(rest) = pending.keys().nth(UPDATES).cloned() {
            pending.split_off(&rest);
        }
        let update =
            |(id, status): (&String, &_)| TaskStatusUpdate { task_id: id.clone(), status: Some(Clone::clone(status)) };
        let updates = pending.iter().map(update).collect();
        let request = UpdateTaskStatusRequest { session_id: id.to_owned(), updates };
        let _: Empty = connection.unary(UPDATE, request).await.context("report tasks")?;
        reports.taken(&pending);
    }
}
