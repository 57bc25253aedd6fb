//! What containerd takes of a shim's events.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use containerd_shim_protos::api::Empty;
use containerd_shim_protos::events::task::{TaskExecStarted, TaskExit, TaskOOM};
use containerd_shim_protos::protobuf::{Message as _, MessageField};
use containerd_shim_protos::shim::event::Envelope;
use containerd_shim_protos::shim::events::ForwardRequest;
use containerd_shim_protos::shim_sync::{Events, create_events};
use containerd_shim_protos::ttrpc::{Result as RpcResult, Server, TtrpcContext};

use crate::wait_until;

/// What containerd takes of events: a server that keeps them in their order.
#[derive(Debug)]
pub struct EventServer {
    address: String,
    seen: Arc<Mutex<Seen>>,
}

/// Of each container the topics of its events, in their order: a run of thousands looks only at what is one's own.
type Seen = HashMap<String, Told>;

/// What is told is told again where the answer to it was late; it is the same to the nanosecond then.
#[derive(Debug, Default)]
struct Told {
    topics: Vec<String>,
    last: MessageField<Envelope>,
}

/// The server, while it listens.
pub struct EventListener {
    _server: Server,
}

struct Taker(Arc<Mutex<Seen>>);

impl Events for Taker {
    fn forward(&self, _: &TtrpcContext, request: ForwardRequest) -> RpcResult<Empty> {
        let (topic, event) = (&request.envelope.topic, &request.envelope.event);
        let topic = topic.trim_start_matches("/tasks/").to_owned();
        // The container's id is field 1 of each; what else is looked at depends on the kind.
        let container = TaskOOM::parse_from_bytes(&event.value).map(|event| event.container_id).unwrap_or_default();
        let exec = match topic.as_str() {
            "exit" => TaskExit::parse_from_bytes(&event.value).expect("a TaskExit").id,
            "exec-added" | "exec-started" => {
                TaskExecStarted::parse_from_bytes(&event.value).expect("an exec's event").exec_id
            }
            _ => String::new(),
        };
        // Of the init, an exit's id is the container's.
        let topic = if exec.is_empty() || exec == container { topic } else { format!("{topic}:{exec}") };
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let told = seen.entry(container).or_default();
        if told.last != request.envelope {
            told.topics.push(topic);
        }
        told.last = request.envelope;
        Ok(Empty::default())
    }
}

impl EventServer {
    /// Where it will listen.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self { address: folder.join("events.sock").display().to_string(), seen: Arc::default() }
    }

    /// Where, for `TTRPC_ADDRESS`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Listens from now on, until what is returned is dropped.
    #[must_use]
    pub fn listen(&self) -> EventListener {
        let events = create_events(Arc::new(Taker(self.seen.clone())));
        let address = format!("unix://{}", self.address);
        // One that listened before has left its socket.
        let _ = std::fs::remove_file(&self.address);
        let mut server = Server::new().bind(&address).expect("listen for events").register_service(events);
        server.start().expect("serve events");
        EventListener { _server: server }
    }

    /// Topics of a container, in their order; those of execs as `topic:exec`.
    #[must_use]
    pub fn of(&self, container: &str) -> Vec<String> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(container).map(|told| told.topics.clone()).unwrap_or_default()
    }

    /// Waits until these are the topics of a container.
    #[track_caller]
    pub fn wait_for(&self, container: &str, topics: &[&str]) {
        wait_until(&format!("{topics:?} of {container}"), || self.of(container).len() >= topics.len());
        assert_eq!(self.of(container), topics, "events of {container}");
    }
}
