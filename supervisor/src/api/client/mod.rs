//! The client's end: what `flintctl` and tests call.

mod streams;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use prost::Message as _;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use ttrpc::r#async::transport::Socket;
use ttrpc::proto::Request;

pub use streams::{Attached, Events, Lines, Outcome, Output, Pods, PodsChange, Pull, PullEvent, Typist};

use super::messages::{ApplyRequest, Document, ImageRequest, MAX_MESSAGE, PodRequest, Reply, SERVICE};
use super::{Change, ImageView, Inspection, Manifest, NodeFacts, PodUsage};
use crate::desired::Key;

/// What goes wrong between a client and the node.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody serves the socket.
    #[error("no flintd answers at {}: {error}{}", .path.display(), advice(.error))]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// There is no such thing.
    #[error("{0}")]
    Missing(String),
    /// The node refuses.
    #[error("{0}")]
    Refused(String),
    /// It cannot be now.
    #[error("{0}")]
    NotNow(String),
    /// The node has failed.
    #[error("{0}")]
    Broken(String),
    /// The connection broke.
    #[error("flintd has closed the connection: {0}; it may have ended, or refused this user")]
    Gone(String),
    /// The other side speaks another language.
    #[error("flintd does not answer as it should: {0}")]
    Protocol(String),
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            "; is it running (systemctl status flintd), or is its socket elsewhere (--socket, FLINT_SOCKET)?"
        }
        io::ErrorKind::PermissionDenied => {
            "; root and the members of the socket's group may use it (ls -l shows the group; usermod -aG GROUP USER, then log in again)"
        }
        _ => "",
    }
}

impl From<ttrpc::Error> for Error {
    fn from(error: ttrpc::Error) -> Self {
        let ttrpc::Error::RpcStatus(status) = error else {
            return Self::Gone(error.to_string());
        };
        let message = status.message.clone();
        match status.code() {
            ttrpc::Code::NOT_FOUND => Self::Missing(message),
            ttrpc::Code::INVALID_ARGUMENT => Self::Refused(message),
            ttrpc::Code::FAILED_PRECONDITION => Self::NotNow(message),
            ttrpc::Code::UNIMPLEMENTED => Self::Protocol(format!("{message}: is flintd older than this flintctl?")),
            _ => Self::Broken(message),
        }
    }
}

/// A connection to a node.
#[derive(Clone)]
pub struct Client {
    connection: ttrpc::r#async::Client,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Client")
    }
}

/// A container, or the pod's first if it has no name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The pod.
    pub pod: Key,
    /// The container.
    pub container: Option<String>,
}

impl Target {
    fn request(&self) -> PodRequest {
        PodRequest { container: self.container.clone().unwrap_or_default(), ..of(&self.pod) }
    }
}

fn of(key: &Key) -> PodRequest {
    PodRequest { namespace: key.namespace.clone(), name: key.name.clone(), ..PodRequest::default() }
}

impl Client {
    /// Connects to a node's socket.
    ///
    /// # Errors
    ///
    /// Nobody answers there, or it may not be used.
    pub async fn connect(path: &Path) -> Result<Self, Error> {
        let stream = UnixStream::connect(path).await;
        let stream = stream.map_err(|error| Error::Connect { path: path.to_owned(), error })?;
        Ok(Self { connection: ttrpc::r#async::Client::new(Socket::new(stream)) })
    }

    async fn call<T: DeserializeOwned>(&self, method: &str, request: &impl prost::Message) -> Result<T, Error> {
        let payload = request.encode_to_vec();
        if payload.len() > MAX_MESSAGE - 1024 {
            return Err(Error::Refused(format!(
                "this is {} bytes at once, and the node takes {MAX_MESSAGE}: send it in parts",
                payload.len()
            )));
        }
        let request = Request { service: SERVICE.to_owned(), method: method.to_owned(), payload, ..Request::default() };
        let response = self.connection.request(request).await?;
        let reply = Reply::decode(response.payload.as_slice()).map_err(|error| Error::Protocol(error.to_string()))?;
        serde_json::from_slice(&reply.json).map_err(|error| Error::Protocol(error.to_string()))
    }

    /// See [`Backend::apply`](super::Backend::apply).
    ///
    /// # Errors
    ///
    /// No document could be looked at.
    pub async fn apply(&self, manifests: Vec<Manifest>, dry_run: bool) -> Result<Vec<Change>, Error> {
        let documents =
            manifests.into_iter().map(|manifest| Document { name: manifest.name, text: manifest.text }).collect();
        self.call("Apply", &ApplyRequest { documents, dry_run }).await
    }

    /// Takes a pod away.
    ///
    /// # Errors
    ///
    /// There is none, or another source wants it.
    pub async fn remove(&self, key: &Key, grace: Option<Duration>) -> Result<(), Error> {
        self.call("Remove", &graced(key, grace)).await
    }

    /// Stops a pod and keeps it.
    ///
    /// # Errors
    ///
    /// There is none.
    pub async fn stop(&self, key: &Key, grace: Option<Duration>) -> Result<(), Error> {
        self.call("Stop", &graced(key, grace)).await
    }

    /// Stops and starts a pod, or one of its containers.
    ///
    /// # Errors
    ///
    /// There is none.
    pub async fn restart(&self, target: &Target) -> Result<(), Error> {
        self.call("Restart", &target.request()).await
    }

    /// All of a pod.
    ///
    /// # Errors
    ///
    /// There is none.
    pub async fn inspect(&self, key: &Key) -> Result<Inspection, Error> {
        self.call("Inspect", &of(key)).await
    }

    /// What pods use.
    ///
    /// # Errors
    ///
    /// The node does not answer.
    pub async fn usage(&self) -> Result<Vec<PodUsage>, Error> {
        self.call("Usage", &PodRequest::default()).await
    }

    /// The node's images.
    ///
    /// # Errors
    ///
    /// Its store cannot be read.
    pub async fn images(&self) -> Result<Vec<ImageView>, Error> {
        self.call("Images", &PodRequest::default()).await
    }

    /// Forgets an image's name.
    ///
    /// # Errors
    ///
    /// There is none, or pods are made of it.
    pub async fn remove_image(&self, name: &str) -> Result<(), Error> {
        self.call("RemoveImage", &ImageRequest { name: name.to_owned() }).await
    }

    /// What the node is.
    ///
    /// # Errors
    ///
    /// It does not answer.
    pub async fn node(&self) -> Result<NodeFacts, Error> {
        self.call("Node", &PodRequest::default()).await
    }
}

fn graced(key: &Key, grace: Option<Duration>) -> PodRequest {
    PodRequest { grace_millis: grace.map(|grace| grace.as_millis() as u64), ..of(key) }
}
