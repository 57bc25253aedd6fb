//! The node's end of the socket: who is it, what do they ask, and who answers.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt as _, stream};
use prost::Message as _;
use serde::Serialize;
use tokio::net::{UnixListener, UnixStream};
use ttrpc::r#async::transport::Listener;
use ttrpc::r#async::{MethodHandler, Service, StreamHandler, StreamInner, TtrpcContext};
use ttrpc::proto::{Request, Response};
use ttrpc::{Code, get_status};

use super::backend::FailureKind;
use super::connection::{Connection, Gone};
use super::messages::{ApplyRequest, ImageRequest, MAX_MESSAGE, PodRequest, Reply, SERVICE};
use super::{Access, Backend, Failure, Inspection, Manifest, redact, session, stream as streams, tell};
use crate::desired::Key;
use crate::logs::Logs;

/// Connections at a time: each has a task and a buffer.
const MAX_CONNECTIONS: usize = 512;

/// Answers clients.
pub struct Server {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) logs: Arc<Logs>,
    connections: Arc<tokio::sync::Semaphore>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Server({} connections)", MAX_CONNECTIONS - self.connections.available_permits())
    }
}

impl Server {
    /// A server for a node.
    #[must_use]
    pub fn new(backend: Arc<dyn Backend>, logs: Arc<Logs>) -> Self {
        Self { backend, logs, connections: Arc::new(tokio::sync::Semaphore::new(MAX_CONNECTIONS)) }
    }

    /// Serves a socket until `stop` is done. What is under way in a call goes on to its end; streams end.
    pub async fn serve(self: Arc<Self>, listener: UnixListener, access: Access, stop: impl Future<Output = ()>) {
        let (stopped, is_stopped) = tokio::sync::watch::channel(false);
        tokio::pin!(stop);
        loop {
            let stream = tokio::select! {
                accepted = listener.accept() => accepted,
                () = &mut stop => break,
            };
            match stream {
                Ok((stream, _)) => self.admit(stream, &access, is_stopped.clone()),
                Err(error) => {
                    // Out of descriptors, most likely: the next try is not going to be better at once.
                    tracing::warn!(%error, "cannot take a connection of the API");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        stopped.send_replace(true);
    }

    /// Looks at who has connected, and serves them.
    fn admit(self: &Arc<Self>, stream: UnixStream, access: &Access, mut stopped: tokio::sync::watch::Receiver<bool>) {
        let peer = match stream.peer_cred() {
            Ok(peer) if access.allows(&peer) => Peer { uid: peer.uid(), pid: peer.pid().unwrap_or(0) },
            Ok(peer) => {
                tracing::warn!(
                    uid = peer.uid(),
                    gid = peer.gid(),
                    pid = peer.pid(),
                    "a foreign user is refused at the API"
                );
                return;
            }
            Err(error) => {
                tracing::warn!(%error, "who is it that connects to the API");
                return;
            }
        };
        let Ok(permit) = self.connections.clone().try_acquire_owned() else {
            tracing::warn!(
                uid = peer.uid,
                pid = peer.pid,
                "the API has {MAX_CONNECTIONS} connections: one more is refused"
            );
            return;
        };
        let (connection, mut gone) = Connection::new(stream);
        let caller = Arc::new(Caller { server: self.clone(), peer, gone: gone.clone() });
        // A server for each connection: its handlers know whose they are. It is a table of names and a task.
        let incoming = stream::once(async { Ok(connection) }).chain(stream::pending());
        let mut server =
            ttrpc::r#async::Server::new().add_listener(Listener::new(incoming)).register_service(service(&caller));
        tokio::spawn(async move {
            let _permit = permit;
            if let Err(error) = server.start().await {
                tracing::warn!(%error, "cannot serve a connection of the API");
                return;
            }
            tokio::select! {
                () = gone.wait() => {}
                _ = stopped.wait_for(|stopped| *stopped) => {}
            }
        });
    }
}

/// Who is at the other end.
#[derive(Debug, Clone, Copy)]
struct Peer {
    uid: u32,
    pid: i32,
}

/// A connection's view of the server.
pub(super) struct Caller {
    pub(super) server: Arc<Server>,
    peer: Peer,
    gone: Gone,
}

/// Calls with one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Apply,
    Remove,
    Stop,
    Restart,
    Inspect,
    Usage,
    Images,
    RemoveImage,
    Node,
}

/// Calls that are streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Channel {
    Pods,
    Logs,
    Events,
    Exec,
    Attach,
    Pull,
}

struct Answers(Call, Arc<Caller>);

struct Carries(Channel, Arc<Caller>);

fn service(caller: &Arc<Caller>) -> HashMap<String, Service> {
    let calls = [
        ("Apply", Call::Apply),
        ("Remove", Call::Remove),
        ("Stop", Call::Stop),
        ("Restart", Call::Restart),
        ("Inspect", Call::Inspect),
        ("Usage", Call::Usage),
        ("Images", Call::Images),
        ("RemoveImage", Call::RemoveImage),
        ("Node", Call::Node),
    ];
    let channels = [
        ("Pods", Channel::Pods),
        ("Logs", Channel::Logs),
        ("Events", Channel::Events),
        ("Exec", Channel::Exec),
        ("Attach", Channel::Attach),
        ("Pull", Channel::Pull),
    ];
    let mut service = Service { methods: HashMap::new(), streams: HashMap::new() };
    for (name, call) in calls {
        service.methods.insert(name.to_owned(), Box::new(Answers(call, caller.clone())));
    }
    for (name, channel) in channels {
        service.streams.insert(name.to_owned(), Arc::new(Carries(channel, caller.clone())));
    }
    HashMap::from([(SERVICE.to_owned(), service)])
}

#[async_trait]
impl MethodHandler for Answers {
    async fn handler(&self, _: TtrpcContext, request: Request) -> ttrpc::Result<Response> {
        let (call, caller) = (self.0, self.1.clone());
        // In a task: a client that goes does not stop a change in its middle.
        let task = tokio::spawn(async move { caller.answer(call, &request.payload).await });
        let answer =
            task.await.unwrap_or_else(|error| Err(Failure::broken(format!("{call:?} was not finished: {error}"))));
        Ok(match answer {
            Ok(json) if json.len() > MAX_MESSAGE - 1024 => {
                failed(&Failure::broken(format!("the answer has {} bytes, more than a message may have", json.len())))
            }
            Ok(json) => {
                let mut response = Response::default();
                response.set_status(get_status(Code::OK, ""));
                response.payload = Reply { json }.encode_to_vec();
                response
            }
            Err(failure) => failed(&failure),
        })
    }
}

#[async_trait]
impl StreamHandler for Carries {
    async fn handler(&self, _: TtrpcContext, stream: StreamInner) -> ttrpc::Result<Option<Response>> {
        let Self(channel, caller) = self;
        let opened = streams::open(stream, caller.gone.clone()).await;
        let done = match opened {
            Ok((request, outlet, inlet)) => match channel {
                Channel::Pods => tell::pods(caller, &request, &outlet, inlet).await,
                Channel::Logs => tell::logs(caller, &request, &outlet, inlet).await,
                Channel::Events => tell::events(caller, &request, &outlet, inlet).await,
                Channel::Pull => tell::pull(caller, &request, &outlet).await,
                Channel::Exec => session::exec(caller, &request, outlet, inlet).await,
                Channel::Attach => session::attach(caller, &request, outlet, inlet).await,
            },
            Err(failure) => Err(failure),
        };
        Ok(done.err().map(|failure| failed(&failure)))
    }
}

fn failed(failure: &Failure) -> Response {
    let code = match failure.kind {
        FailureKind::Missing => Code::NOT_FOUND,
        FailureKind::Refused => Code::INVALID_ARGUMENT,
        FailureKind::NotNow => Code::FAILED_PRECONDITION,
        FailureKind::Broken => Code::INTERNAL,
    };
    let mut response = Response::default();
    response.set_status(get_status(code, failure.sentence.clone()));
    response
}

/// Reads a request.
pub(super) fn decode<T: prost::Message + Default>(payload: &[u8]) -> Result<T, Failure> {
    T::decode(payload).map_err(|error| Failure::refused(format!("read the request: {error}")))
}

/// The pod that a request is about, and the container, if it names one.
pub(super) fn named(request: &PodRequest) -> (Key, Option<&str>) {
    let container = Some(request.container.as_str()).filter(|name| !name.is_empty());
    (Key::new(&request.namespace, &request.name), container)
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec(value).map_err(|error| Failure::broken(format!("write the answer: {error}")))
}

impl Caller {
    async fn answer(&self, call: Call, payload: &[u8]) -> Result<Vec<u8>, Failure> {
        let backend = &self.server.backend;
        match call {
            Call::Apply => json(&self.apply(decode(payload)?).await?),
            Call::Remove | Call::Stop | Call::Restart => {
                self.change(call, &decode(payload)?).await?;
                Ok(b"null".to_vec())
            }
            Call::Inspect => {
                let (key, _) = named(&decode(payload)?);
                let view = backend.pod(&key).ok_or_else(|| Failure::missing(format!("there is no pod {key}")))?;
                json(&Inspection { desired: backend.desired(&key).map(redact), status: view.status })
            }
            Call::Usage => json(&backend.usage().await),
            Call::Images => json(&backend.images().await?),
            Call::RemoveImage => {
                let request: ImageRequest = decode(payload)?;
                self.note("remove-image", &request.name);
                backend.remove_image(&request.name).await?;
                Ok(b"null".to_vec())
            }
            Call::Node => json(&backend.node()),
        }
    }

    async fn apply(&self, request: ApplyRequest) -> Result<Vec<super::Change>, Failure> {
        if !request.dry_run {
            let names: Vec<&str> = request.documents.iter().map(|document| document.name.as_str()).collect();
            self.note("apply", &names.join(" "));
        }
        let manifests = request.documents.into_iter();
        let manifests = manifests.map(|document| Manifest { name: document.name, text: document.text }).collect();
        self.server.backend.apply(manifests, request.dry_run).await
    }

    async fn change(&self, call: Call, request: &PodRequest) -> Result<(), Failure> {
        let (key, container) = named(request);
        let grace = request.grace_millis.map(Duration::from_millis);
        let backend = &self.server.backend;
        match call {
            Call::Remove => {
                self.note("remove", &key);
                backend.remove(&key, grace).await
            }
            Call::Stop => {
                self.note("stop", &key);
                backend.stop(&key, grace).await
            }
            _ => {
                self.note("restart", &key);
                backend.restart(&key, container).await
            }
        }
    }

    /// Who changes what.
    pub(super) fn note(&self, what: &str, whose: &dyn std::fmt::Display) {
        tracing::info!(uid = self.peer.uid, pid = self.peer.pid, "API: {what} {whose}");
    }
}
