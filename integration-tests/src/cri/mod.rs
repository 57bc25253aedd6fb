//! Kubernetes' container runtime interface: a client of containerd's CRI plugin, and the plugin on a containerd of our own.
//!
//! ```text
//! Node (containerd with CRI, images, CNI) ─▶ Pod (RunPodSandbox) ─▶ containers ─▶ Pod::remove: nothing may be left
//! ```

mod messages;
mod node;
mod pod;

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
        Self { executor, channel }
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
        self.executor.block_on(async {
            client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
            client.unary(tonic::Request::new(request), method, codec).await.map(tonic::Response::into_inner)
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
