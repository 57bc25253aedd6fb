//! What shims tell: exits, and want of memory. Each is repeated until it was taken, and it is taken when it is in the store.

use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use containerd_shim_protos::api::Empty;
use containerd_shim_protos::events::task::{TaskExit, TaskOOM};
use containerd_shim_protos::shim::events::ForwardRequest;
use containerd_shim_protos::shim_async::{Events, create_events};
use protobuf::Message as _;
use protobuf::well_known_types::timestamp::Timestamp;
use tokio::sync::{mpsc, oneshot};
use ttrpc::r#async::{Server, TtrpcContext};

use super::Executor;

/// What happened to a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Occurrence {
    /// Its init has ended.
    Exit {
        /// Its id in the runtime.
        id: String,
        /// None: nobody saw it.
        status: Option<u32>,
        /// When.
        at: SystemTime,
    },
    /// The kernel took it, or one of its processes, for want of memory.
    Oom {
        /// Its id in the runtime.
        id: String,
    },
}

/// Something that a shim has told; it hears that it was taken when `taken` is used.
#[derive(Debug)]
pub struct Told {
    /// What.
    pub occurrence: Occurrence,
    /// Used when it is in the store; dropped, the shim tells it again.
    pub taken: oneshot::Sender<()>,
}

/// The socket of the events, while it is open.
pub struct Listener {
    _server: Server,
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Listener")
    }
}

struct Taker(mpsc::Sender<Told>);

#[async_trait]
impl Events for Taker {
    async fn forward(&self, _: &TtrpcContext, request: ForwardRequest) -> ttrpc::Result<Empty> {
        let Some(occurrence) = decode(&request)? else { return Ok(Empty::default()) };
        let later = || ttrpc::Error::RpcStatus(ttrpc::get_status(ttrpc::Code::UNAVAILABLE, "not taken: tell it again"));
        let (taken, was_taken) = oneshot::channel();
        self.0.send(Told { occurrence, taken }).await.map_err(|_| later())?;
        was_taken.await.map_err(|_| later())?;
        Ok(Empty::default())
    }
}

/// None: an event that says nothing that flintd has not from its own calls.
fn decode(request: &ForwardRequest) -> ttrpc::Result<Option<Occurrence>> {
    let wrong = |error: protobuf::Error| {
        ttrpc::Error::RpcStatus(ttrpc::get_status(ttrpc::Code::INVALID_ARGUMENT, format!("decode an event: {error}")))
    };
    let event = &request.envelope.event.value;
    Ok(match request.envelope.topic.as_str() {
        "/tasks/exit" => {
            let exit = TaskExit::parse_from_bytes(event).map_err(wrong)?;
            // Of an exec, the id is its own.
            (exit.id == exit.container_id || exit.id.is_empty()).then(|| Occurrence::Exit {
                status: known(exit.exit_status),
                at: exit.exited_at.as_ref().map_or_else(SystemTime::now, time),
                id: exit.container_id,
            })
        }
        "/tasks/oom" => Some(Occurrence::Oom { id: TaskOOM::parse_from_bytes(event).map_err(wrong)?.container_id }),
        _ => None,
    })
}

/// A status that somebody saw.
pub(super) fn known(status: u32) -> Option<u32> {
    (status != flint_shim_protocol::STATUS_UNKNOWN).then_some(status)
}

pub(super) fn time(timestamp: &Timestamp) -> SystemTime {
    let seconds = u64::try_from(timestamp.seconds).unwrap_or(0);
    SystemTime::UNIX_EPOCH + Duration::new(seconds, u32::try_from(timestamp.nanos).unwrap_or(0))
}

impl Executor {
    /// Takes events from now on.
    ///
    /// # Errors
    ///
    /// The socket cannot be bound.
    pub async fn listen(&self) -> Result<(Listener, mpsc::Receiver<Told>)> {
        let path = self.place.events();
        let told = || format!("listen for events of shims on {}", path.display());
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error).with_context(told),
            _ => {}
        }
        let (queue, events) = mpsc::channel(64);
        let service = create_events(std::sync::Arc::new(Taker(queue)));
        let mut server =
            Server::new().bind(&format!("unix://{}", path.display())).with_context(told)?.register_service(service);
        server.start().await.with_context(told)?;
        Ok((Listener { _server: server }, events))
    }
}

#[cfg(test)]
mod tests {
    use containerd_shim_protos::events::task::TaskExit;
    use containerd_shim_protos::shim::event::Envelope;
    use containerd_shim_protos::shim::events::ForwardRequest;
    use protobuf::well_known_types::any::Any;
    use protobuf::{Message as _, MessageField};

    use super::{Occurrence, decode};

    fn exit(id: &str, status: u32) -> Option<Occurrence> {
        let exit =
            TaskExit { container_id: "c".to_owned(), id: id.to_owned(), exit_status: status, ..TaskExit::default() };
        let event = Any { value: exit.write_to_bytes().unwrap(), ..Any::default() };
        let envelope =
            Envelope { topic: "/tasks/exit".to_owned(), event: MessageField::some(event), ..Envelope::default() };
        decode(&ForwardRequest { envelope: MessageField::some(envelope), ..ForwardRequest::default() }).unwrap()
    }

    #[test]
    fn the_exit_of_an_exec_is_not_its_containers() {
        assert!(matches!(exit("c", 3), Some(Occurrence::Exit { status: Some(3), .. })));
        assert_eq!(exit("exec", 3), None);
        assert!(matches!(exit("c", u32::MAX), Some(Occurrence::Exit { status: None, .. })));
    }
}
