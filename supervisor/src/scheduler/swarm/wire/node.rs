//! What a node is: the parts of types.proto and objects.proto that describe one.

use std::collections::BTreeMap;

use super::ca::Certificate;

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Platform {
    #[prost(string, tag = "1")]
    pub architecture: String,
    #[prost(string, tag = "2")]
    pub os: String,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Resources {
    #[prost(int64, tag = "1")]
    pub nano_cpus: i64,
    #[prost(int64, tag = "2")]
    pub memory_bytes: i64,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PluginDescription {
    #[prost(string, tag = "1")]
    pub kind: String,
    #[prost(string, tag = "2")]
    pub name: String,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct EngineDescription {
    #[prost(string, tag = "1")]
    pub engine_version: String,
    #[prost(btree_map = "string, string", tag = "2")]
    pub labels: BTreeMap<String, String>,
    #[prost(message, repeated, tag = "3")]
    pub plugins: Vec<PluginDescription>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct TlsInfo {
    #[prost(bytes = "vec", tag = "1")]
    pub trust_root: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub cert_issuer_subject: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    pub cert_issuer_public_key: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NodeDescription {
    #[prost(string, tag = "1")]
    pub hostname: String,
    #[prost(message, optional, tag = "2")]
    pub platform: Option<Platform>,
    #[prost(message, optional, tag = "3")]
    pub resources: Option<Resources>,
    #[prost(message, optional, tag = "4")]
    pub engine: Option<EngineDescription>,
    #[prost(message, optional, tag = "5")]
    pub tls_info: Option<TlsInfo>,
}

/// Of an object `Node`, what concerns the node itself.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Node {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(message, optional, tag = "8")]
    pub certificate: Option<Certificate>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Peer {
    #[prost(string, tag = "1")]
    pub node_id: String,
    #[prost(string, tag = "2")]
    pub addr: String,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct WeightedPeer {
    #[prost(message, optional, tag = "1")]
    pub peer: Option<Peer>,
    #[prost(int64, tag = "2")]
    pub weight: i64,
}
