//! The shim's end: requests are decoded here, and answers encoded.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use prost::Message;
use ttrpc::r#async::{MethodHandler, Service, TtrpcContext};
use ttrpc::proto::{Request, Response};
use ttrpc::{Code, Error, Result, get_status};

use crate::{
    AdoptRequest, AdoptResponse, ConfigureRequest, ConfigureResponse, CreateRequest, CreateResponse, ListRequest,
    ListResponse, MakeSandboxesRequest, MakeSandboxesResponse, RemoveRequest, RemoveResponse, RemoveSandboxesRequest,
    RemoveSandboxesResponse, SERVICE, StatusRequest, StatusResponse,
};

macro_rules! methods {
    ($($(#[$doc:meta])* $name:ident = $method:literal: $request:ty => $response:ty,)*) => {
        /// What a shim does for a node's supervisor.
        #[async_trait]
        pub trait Node: Send + Sync {
            $(
                $(#[$doc])*
                ///
                /// # Errors
                ///
                /// The call as a whole is refused.
                async fn $name(&self, request: $request) -> Result<$response>;
            )*
        }

        /// The service, for ttrpc's server.
        pub fn service<T: Node + 'static>(node: Arc<T>) -> HashMap<String, Service> {
            let mut methods: HashMap<String, Box<dyn MethodHandler + Send + Sync>> = HashMap::new();
            $({
                struct Method<T>(Arc<T>);
                #[async_trait]
                impl<T: Node> MethodHandler for Method<T> {
                    async fn handler(&self, _: TtrpcContext, request: Request) -> Result<Response> {
                        let decoded = <$request>::decode(request.payload.as_slice());
                        let answer = match decoded {
                            Ok(request) => self.0.$name(request).await.map(|response| response.encode_to_vec()),
                            Err(error) => {
                                let message = format!("decode the request of {}: {error}", $method);
                                Err(Error::RpcStatus(get_status(Code::INVALID_ARGUMENT, message)))
                            }
                        };
                        Ok(encode(answer))
                    }
                }
                methods.insert($method.to_owned(), Box::new(Method(node.clone())));
            })*
            HashMap::from([(SERVICE.to_owned(), Service { methods, streams: HashMap::new() })])
        }
    };
}

/// A refusal is an answer, too: with the code of the refusal.
fn encode(answer: Result<Vec<u8>>) -> Response {
    let mut response = Response::default();
    match answer {
        Ok(payload) => {
            response.set_status(get_status(Code::OK, ""));
            response.payload = payload;
        }
        Err(Error::RpcStatus(status)) => response.set_status(status),
        Err(error) => response.set_status(get_status(Code::UNKNOWN, error.to_string())),
    }
    response
}

methods! {
    /// Sets what the shim keeps ready.
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
