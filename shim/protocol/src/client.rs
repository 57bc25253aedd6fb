//! The caller's end.

use std::time::Duration;

use prost::Message;
use ttrpc::proto::Request;
use ttrpc::{Error, Result};

use crate::{
    AdoptRequest, AdoptResponse, ConfigureRequest, ConfigureResponse, CreateRequest, CreateResponse, ListRequest,
    ListResponse, MakeSandboxesRequest, MakeSandboxesResponse, RemoveRequest, RemoveResponse, RemoveSandboxesRequest,
    RemoveSandboxesResponse, SERVICE, StatusRequest, StatusResponse,
};

/// How long a call may take without another word.
const PATIENCE: Duration = Duration::from_secs(120);

/// Calls a shim's node service. Clones share the connection, on which calls run beside each other; the task API's generated
/// clients take the same connection.
#[derive(Clone)]
pub struct Client {
    connection: ttrpc::r#async::Client,
    patience: Duration,
}

macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident = $method:literal: $request:ty => $response:ty,)*) => {
        impl Client {
            $(
                $(#[$doc])*
                ///
                /// # Errors
                ///
                /// The shim does not answer, or refuses the call as a whole; what becomes of an item is in the answer.
                pub async fn $name(&self, request: &$request) -> Result<$response> {
                    self.call($method, request).await
                }
            )*
        }
    };
}

impl Client {
    /// Over a connection to a shim's socket.
    #[must_use]
    pub fn new(connection: ttrpc::r#async::Client) -> Self {
        Self { connection, patience: PATIENCE }
    }

    /// Connects to a shim by what its `start` has answered (`unix://PATH`).
    ///
    /// # Errors
    ///
    /// Nobody listens there.
    pub async fn connect(address: &str) -> Result<Self> {
        ttrpc::r#async::Client::connect(address).await.map(Self::new)
    }

    /// The same with another time that a call may take (2 minutes without).
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The connection, for the clients of other services on it.
    #[must_use]
    pub fn connection(&self) -> &ttrpc::r#async::Client {
        &self.connection
    }

    async fn call<Response: Message + Default>(&self, method: &str, request: &impl Message) -> Result<Response> {
        let request = Request {
            service: SERVICE.to_owned(),
            method: method.to_owned(),
            timeout_nano: i64::try_from(self.patience.as_nanos()).unwrap_or(i64::MAX),
            payload: request.encode_to_vec(),
            ..Request::default()
        };
        let response = self.connection.request(request).await?;
        Response::decode(response.payload.as_slice())
            .map_err(|error| Error::Others(format!("decode the answer to {method}: {error}")))
    }
}

calls! {
    /// Sets what the shim keeps ready. It also repeats events at once that wait for their taker.
    configure = "Configure": ConfigureRequest => ConfigureResponse,
    /// Numbers of the shim.
    status = "Status": StatusRequest => StatusResponse,
    /// All that the shim has.
    list = "List": ListRequest => ListResponse,
    /// Makes sandboxes, or takes over those that are there.
    make_sandboxes = "MakeSandboxes": MakeSandboxesRequest => MakeSandboxesResponse,
    /// Takes sandboxes away.
    remove_sandboxes = "RemoveSandboxes": RemoveSandboxesRequest => RemoveSandboxesResponse,
    /// Makes containers, and starts them if that is asked for.
    create = "Create": CreateRequest => CreateResponse,
    /// Takes over containers whose shim has died.
    adopt = "Adopt": AdoptRequest => AdoptResponse,
    /// Kills and deletes containers.
    remove = "Remove": RemoveRequest => RemoveResponse,
}
