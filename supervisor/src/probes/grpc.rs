//! grpc.health.v1: one unary call, whose two messages have a field each.

use hyper::http::uri::PathAndQuery;
use tonic::client::Grpc;
use tonic::transport::Endpoint;
use tonic_prost::ProstCodec;

use super::ask::in_url;

const METHOD: &str = "/grpc.health.v1.Health/Check";

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    #[prost(enumeration = "ServingStatus", tag = "1")]
    status: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
enum ServingStatus {
    Unknown = 0,
    Serving = 1,
    NotServing = 2,
    ServiceUnknown = 3,
}

/// Asks; `SERVING` is a yes.
pub(super) async fn check(host: &str, port: u16, service: &str) -> Result<(), String> {
    let telling = |what: &dyn std::fmt::Display| format!("gRPC health check at {host} port {port}: {what}");
    let place = format!("http://{}:{port}", in_url(host));
    let endpoint = Endpoint::from_shared(place).map_err(|error| telling(&error))?;
    let channel = endpoint.connect().await.map_err(|error| telling(&chain(&error)))?;
    let mut client = Grpc::new(channel);
    client.ready().await.map_err(|error| telling(&chain(&error)))?;
    let codec = ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
    let request = tonic::Request::new(HealthCheckRequest { service: service.to_owned() });
    let answer = client.unary(request, PathAndQuery::from_static(METHOD), codec).await;
    let answer = answer.map_err(|status| telling(&format!("{:?}: {}", status.code(), status.message())))?;
    match answer.into_inner().status() {
        ServingStatus::Serving => Ok(()),
        other => Err(telling(&format!("service {service:?} is {other:?}"))),
    }
}

/// tonic says `transport error` and keeps the reason behind it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}
