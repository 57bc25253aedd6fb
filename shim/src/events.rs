//! Events to containerd: one queue, delivered in its order, each repeated until containerd has taken it.
//!
//! containerd may be away for as long as it likes: the queue grows (some 450 bytes an event), and all arrives in order when it
//! is back. Clients cause events by their calls, and each process ends once; what a container could go on with alone, want of
//! memory, is not told again while it waits to be told.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use containerd_shim_protos::events::task::{
    TaskCheckpointed, TaskCreate, TaskDelete, TaskExecAdded, TaskExecStarted, TaskExit, TaskOOM, TaskPaused,
    TaskResumed, TaskStart,
};
use containerd_shim_protos::shim::event::Envelope;
use containerd_shim_protos::shim::events::ForwardRequest;
use containerd_shim_protos::shim_async::{Client, EventsClient};
use protobuf::well_known_types::any::Any;
use protobuf::{Message, MessageField};
use tokio::net::UnixStream;
use tokio::sync::{Notify, mpsc};
use ttrpc::Code;

use crate::{clock, log};

/// How long containerd may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pauses between attempts: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// A connection that was not used for so long is closed.
const IDLE: Duration = Duration::from_secs(10);

/// Makes `Event` of the messages and their topics.
macro_rules! events {
    ($($name:ident = $topic:literal,)*) => {
        #[derive(Debug)]
        pub(crate) enum Event { $($name($name),)* }

        impl Event {
            /// The topic, and the message with its full name.
            fn encode(&self) -> (&'static str, protobuf::Result<Any>) {
                match self {
                    $(Self::$name(message) => ($topic, any(concat!("containerd.events.", stringify!($name)), message)),)*
                }
            }
        }

        $(impl From<$name> for Event {
            fn from(message: $name) -> Self {
                Self::$name(message)
            }
        })*
    };
}

events! {
    TaskCreate = "/tasks/create",
    TaskStart = "/tasks/start",
    TaskOOM = "/tasks/oom",
    TaskExit = "/tasks/exit",
    TaskDelete = "/tasks/delete",
    TaskExecAdded = "/tasks/exec-added",
    TaskExecStarted = "/tasks/exec-started",
    TaskPaused = "/tasks/paused",
    TaskResumed = "/tasks/resumed",
    TaskCheckpointed = "/tasks/checkpointed",
}

/// A message in an envelope that names its type; containerd's form has no host in front of the name.
pub(crate) fn any(name: &str, message: &impl Message) -> protobuf::Result<Any> {
    Ok(Any { type_url: name.to_owned(), value: message.write_to_bytes()?, ..Any::default() })
}

/// Where events are put.
#[derive(Clone, Debug)]
pub(crate) struct Events {
    namespace: Arc<str>,
    queue: mpsc::UnboundedSender<Envelope>,
    waiting: Arc<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// How many were put, and how many of them were taken.
    published: AtomicU64,
    taken: AtomicU64,
    none: Notify,
    /// Ends a pause between attempts.
    again: Notify,
}

impl Events {
    /// Starts to deliver to containerd's ttrpc socket at `address` (`unix://` may be missing).
    pub(crate) fn deliver_to(address: &str, namespace: &str) -> Self {
        let (queue, envelopes) = mpsc::unbounded_channel();
        let waiting = Arc::<Waiting>::default();
        let path = address.strip_prefix("unix://").unwrap_or(address).to_owned();
        tokio::spawn(deliver_all(path, envelopes, waiting.clone()));
        Self { namespace: namespace.into(), queue, waiting }
    }

    /// Puts an event behind those before it, and never waits; its number.
    pub(crate) fn publish(&self, event: impl Into<Event>) -> u64 {
        let (topic, event) = event.into().encode();
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                log::warn(&format!("encode an event of {topic}: {error}"));
                return 0;
            }
        };
        let envelope = Envelope {
            timestamp: clock::timestamp(SystemTime::now()),
            namespace: self.namespace.to_string(),
            topic: topic.to_owned(),
            event: MessageField::some(event),
            ..Envelope::default()
        };
        // All publish on the executor's one thread: the number is the place in the queue.
        let number = self.waiting.published.fetch_add(1, Ordering::Relaxed) + 1;
        // The other end lives as long as the process.
        let _ = self.queue.send(envelope);
        number
    }

    /// Whether the event with this number has not been taken yet.
    pub(crate) fn waits(&self, number: u64) -> bool {
        self.waiting.taken.load(Ordering::Relaxed) < number
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> u64 {
        self.waiting.count()
    }

    /// Whoever takes them is there again: the next attempt is now.
    pub(crate) fn hurry(&self) {
        self.waiting.again.notify_waiters();
    }

    /// Waits until all were delivered.
    pub(crate) async fn delivered(&self) {
        loop {
            let none = self.waiting.none.notified();
            if self.waiting.count() == 0 {
                return;
            }
            none.await;
        }
    }
}

async fn deliver_all(path: String, mut envelopes: mpsc::UnboundedReceiver<Envelope>, waiting: Arc<Waiting>) {
    let mut client = None;
    loop {
        let Ok(envelope) = tokio::time::timeout(IDLE, envelopes.recv()).await else {
            client = None;
            // Idle: now without a timer.
            match envelopes.recv().await {
                Some(envelope) => {
                    deliver(&path, &mut client, envelope, &waiting).await;
                    waiting.taken();
                    continue;
                }
                None => return,
            }
        };
        let Some(envelope) = envelope else { return };
        deliver(&path, &mut client, envelope, &waiting).await;
        waiting.taken();
    }
}

impl Waiting {
    fn count(&self) -> u64 {
        let taken = self.taken.load(Ordering::Relaxed);
        self.published.load(Ordering::Relaxed).saturating_sub(taken)
    }

    fn taken(&self) {
        self.taken.fetch_add(1, Ordering::Relaxed);
        if self.count() == 0 {
            self.none.notify_waiters();
        }
    }
}

/// Repeats one event until containerd has it.
async fn deliver(path: &str, client: &mut Option<EventsClient>, envelope: Envelope, waiting: &Waiting) {
    let request = ForwardRequest { envelope: MessageField::some(envelope), ..ForwardRequest::default() };
    let mut pause = PAUSES.0;
    loop {
        match attempt(path, client, &request).await {
            Ok(()) => return,
            // It has the event, and will not want it the next time either.
            Err(ttrpc::Error::RpcStatus(status)) if status.code() == Code::INVALID_ARGUMENT => {
                return log::warn(&format!("containerd refuses an event: {}", status.message()));
            }
            Err(error) => {
                *client = None;
                log::debug(|| format!("deliver an event to {path}, again in {pause:?}: {error}"));
                let _ = tokio::time::timeout(pause, waiting.again.notified()).await;
                pause = (pause * 2).min(PAUSES.1);
            }
        }
    }
}

async fn attempt(
    path: &str,
    client: &mut Option<EventsClient>,
    request: &ForwardRequest,
) -> std::result::Result<(), ttrpc::Error> {
    let client = if let Some(client) = client {
        client
    } else {
        // ttrpc's own connecting waits in the system call while nobody takes what is in the socket's backlog: with a containerd
        // that hangs, all of this shim would.
        let connected = UnixStream::connect(path).await.map_err(|error| ttrpc::Error::Socket(error.to_string()))?;
        client.insert(EventsClient::new(Client::new(connected.into())))
    };
    client.forward(ttrpc::context::with_duration(PATIENCE), request).await.map(drop)
}

#[cfg(test)]
mod tests {
    use containerd_shim_protos::events::task::TaskOOM;
    use protobuf::Message as _;

    use super::Event;

    #[test]
    fn types_are_named_as_containerd_names_them() {
        let (topic, event) = Event::from(TaskOOM { container_id: "a".to_owned(), ..TaskOOM::default() }).encode();
        let event = event.unwrap();
        assert_eq!((topic, event.type_url.as_str()), ("/tasks/oom", "containerd.events.TaskOOM"));
        assert_eq!(TaskOOM::parse_from_bytes(&event.value).unwrap().container_id, "a");
    }
}
