//! Kubernetes' container runtime interface: a client of containerd's CRI plugin, and the plugin on a containerd of our own.
//!
//! ```text
//! Node (containerd with CRI, images, CNI) ─▶ Pod (RunPodSandbox) ─▶ containers ─▶ Pod::remove: nothing may be left
//! ```

mod messages;
mod node;
mod pod;
pub mod tasks;

use std::time::Duration;

pub use messages::*;
pub use node::Node;
pub use pod::Pod;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
pub use tonic::{Code, Status};
use tonic_prost::ProstCodec;

/// No call takes so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// A client, for one thread at a time.
#[derive(Debug)]
pub struct Cri {
    executor: tokio::runtime::Runtime,
    channel: Channel,
    /// containerd's; its CRI plugin has one of its own.
    namespace: Option<String>,
}

impl Cri {
    /// Connects at the first call, and again when the connection is lost.
    #[must_use]
    pub fn new(socket: &str) -> Self {
        let executor = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("start an executor");
        let endpoint = Endpoint::from_shared(format!("unix://{socket}")).expect("an address").timeout(PATIENCE);
        let channel = {
            let _inside = executor.enter();
            endpoint.connect_lazy()
        };
        Self { executor, channel, namespace: None }
    }

    /// A client of containerd's own services, in this namespace.
    #[must_use]
    pub fn of_containerd(socket: &str, namespace: &str) -> Self {
        Self { namespace: Some(namespace.to_owned()), ..Self::new(socket) }
    }

    /// One call.
    ///
    /// # Errors
    ///
    /// The plugin's, or those of a connection.
    pub fn call<Request: Call>(&self, request: Request) -> Result<Request::Response, Status> {
        let codec = ProstCodec::<Request, Request::Response>::default();
        let method = PathAndQuery::from_static(Request::METHOD);
        let mut client = Grpc::new(self.channel.clone());
        let mut request = tonic::Request::new(request);
        if let Some(namespace) = &self.namespace {
            let namespace = namespace.parse().map_err(|_| Status::invalid_argument("a namespace"))?;
            request.metadata_mut().insert("containerd-namespace", namespace);
        }
        self.executor.block_on(async {
            client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
            client.unary(request, method, codec).await.map(tonic::Response::into_inner)
        })
    }

    /// The same, for a call that must succeed.
    #[track_caller]
    pub fn get<Request: Call>(&self, request: Request) -> Request::Response {
        match self.call(request) {
            Ok(response) => response,
            Err(status) => panic!("{}: {status}", Request::METHOD),
        }
    }
}
