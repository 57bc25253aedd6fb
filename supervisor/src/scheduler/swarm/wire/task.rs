//! A task, its status, and the secrets and configs that come with it.

use std::collections::BTreeMap;

use super::container::ContainerSpec;
use super::node::Resources;
use super::{Empty, Int64Value, Timestamp};

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Annotations {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(btree_map = "string, string", tag = "2")]
    pub labels: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Driver {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(btree_map = "string, string", tag = "2")]
    pub options: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ResourceRequirements {
    #[prost(message, optional, tag = "1")]
    pub limits: Option<Resources>,
    #[prost(message, optional, tag = "2")]
    pub reservations: Option<Resources>,
    #[prost(message, optional, tag = "3")]
    pub swap_bytes: Option<Int64Value>,
    #[prost(message, optional, tag = "4")]
    pub memory_swappiness: Option<Int64Value>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct TaskSpec {
    #[prost(message, optional, tag = "1")]
    pub container: Option<ContainerSpec>,
    #[prost(message, optional, tag = "2")]
    pub resources: Option<ResourceRequirements>,
    #[prost(message, optional, tag = "6")]
    pub log_driver: Option<Driver>,
    #[prost(message, optional, tag = "8")]
    pub attachment: Option<Empty>,
    #[prost(message, optional, tag = "10")]
    pub generic: Option<Empty>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NetworkSpec {
    #[prost(message, optional, tag = "1")]
    pub annotations: Option<Annotations>,
    #[prost(message, optional, tag = "2")]
    pub driver_config: Option<Driver>,
    #[prost(bool, tag = "7")]
    pub ingress: bool,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Network {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(message, optional, tag = "3")]
    pub spec: Option<NetworkSpec>,
    #[prost(message, optional, tag = "4")]
    pub driver_state: Option<Driver>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NetworkAttachment {
    #[prost(message, optional, tag = "1")]
    pub network: Option<Network>,
    #[prost(btree_map = "string, string", tag = "4")]
    pub driver_attachment_opts: BTreeMap<String, String>,
}

/// `PortConfig.PublishMode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum PublishMode {
    Ingress = 0,
    Host = 1,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PortConfig {
    #[prost(string, tag = "1")]
    pub name: String,
    /// 0 TCP, 1 UDP, 2 SCTP.
    #[prost(int32, tag = "2")]
    pub protocol: i32,
    #[prost(uint32, tag = "3")]
    pub target_port: u32,
    #[prost(uint32, tag = "4")]
    pub published_port: u32,
    #[prost(enumeration = "PublishMode", tag = "5")]
    pub publish_mode: i32,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Endpoint {
    #[prost(message, repeated, tag = "2")]
    pub ports: Vec<PortConfig>,
}

/// `TaskState`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum TaskState {
    New = 0,
    Pending = 64,
    Assigned = 192,
    Accepted = 256,
    Preparing = 320,
    Ready = 384,
    Starting = 448,
    Running = 512,
    Complete = 576,
    Shutdown = 640,
    Failed = 704,
    Rejected = 768,
    Remove = 800,
    Orphaned = 832,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ContainerStatus {
    #[prost(string, tag = "1")]
    pub container_id: String,
    #[prost(int32, tag = "2")]
    pub pid: i32,
    #[prost(int32, tag = "3")]
    pub exit_code: i32,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PortStatus {
    #[prost(message, repeated, tag = "1")]
    pub ports: Vec<PortConfig>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct TaskStatus {
    #[prost(message, optional, tag = "1")]
    pub timestamp: Option<Timestamp>,
    #[prost(enumeration = "TaskState", tag = "2")]
    pub state: i32,
    #[prost(string, tag = "3")]
    pub message: String,
    #[prost(string, tag = "4")]
    pub err: String,
    #[prost(message, optional, tag = "5")]
    pub container: Option<ContainerStatus>,
    #[prost(message, optional, tag = "6")]
    pub port_status: Option<PortStatus>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Task {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(message, optional, tag = "3")]
    pub spec: Option<TaskSpec>,
    #[prost(string, tag = "4")]
    pub service_id: String,
    #[prost(uint64, tag = "5")]
    pub slot: u64,
    #[prost(string, tag = "6")]
    pub node_id: String,
    #[prost(message, optional, tag = "7")]
    pub annotations: Option<Annotations>,
    #[prost(message, optional, tag = "8")]
    pub service_annotations: Option<Annotations>,
    #[prost(message, optional, tag = "9")]
    pub status: Option<TaskStatus>,
    #[prost(enumeration = "TaskState", tag = "10")]
    pub desired_state: i32,
    #[prost(message, repeated, tag = "11")]
    pub networks: Vec<NetworkAttachment>,
    #[prost(message, optional, tag = "12")]
    pub endpoint: Option<Endpoint>,
    #[prost(message, optional, tag = "13")]
    pub log_driver: Option<Driver>,
    #[prost(message, repeated, tag = "15")]
    pub assigned_generic_resources: Vec<Empty>,
    #[prost(message, repeated, tag = "17")]
    pub volumes: Vec<Empty>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Secret {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(message, optional, tag = "3")]
    pub spec: Option<PayloadSpec>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Config {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(message, optional, tag = "3")]
    pub spec: Option<PayloadSpec>,
}

/// `SecretSpec` and `ConfigSpec`, which have these fields in common. Its Debug shows no content.
#[derive(Clone, PartialEq, Eq, prost::Message)]
#[prost(skip_debug)]
pub struct PayloadSpec {
    #[prost(message, optional, tag = "1")]
    pub annotations: Option<Annotations>,
    #[prost(bytes = "vec", tag = "2")]
    pub data: Vec<u8>,
    #[prost(message, optional, tag = "3")]
    pub templating: Option<Driver>,
}

impl std::fmt::Debug for PayloadSpec {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "PayloadSpec({} bytes)", self.data.len())
    }
}
