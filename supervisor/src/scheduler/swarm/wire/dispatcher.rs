//! dispatcher.proto: sessions, assignments, statuses.

use super::Span;
use super::node::{Node, NodeDescription, WeightedPeer};
use super::task::{Config, Secret, Task, TaskStatus};

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SessionRequest {
    #[prost(message, optional, tag = "1")]
    pub description: Option<NodeDescription>,
    #[prost(string, tag = "2")]
    pub session_id: String,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SessionMessage {
    #[prost(string, tag = "1")]
    pub session_id: String,
    #[prost(message, optional, tag = "2")]
    pub node: Option<Node>,
    #[prost(message, repeated, tag = "3")]
    pub managers: Vec<WeightedPeer>,
    #[prost(bytes = "vec", tag = "5")]
    pub root_ca: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct HeartbeatRequest {
    #[prost(string, tag = "1")]
    pub session_id: String,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct HeartbeatResponse {
    #[prost(message, optional, tag = "1")]
    pub period: Option<Span>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct UpdateTaskStatusRequest {
    #[prost(string, tag = "1")]
    pub session_id: String,
    #[prost(message, repeated, tag = "3")]
    pub updates: Vec<TaskStatusUpdate>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct TaskStatusUpdate {
    #[prost(string, tag = "1")]
    pub task_id: String,
    #[prost(message, optional, tag = "2")]
    pub status: Option<TaskStatus>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct AssignmentsRequest {
    #[prost(string, tag = "1")]
    pub session_id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Assignment {
    #[prost(message, optional, tag = "1")]
    pub task: Option<Task>,
    #[prost(message, optional, tag = "2")]
    pub secret: Option<Secret>,
    #[prost(message, optional, tag = "3")]
    pub config: Option<Config>,
}

/// `AssignmentChange.AssignmentAction`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum Action {
    Update = 0,
    Remove = 1,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct AssignmentChange {
    #[prost(message, optional, tag = "1")]
    pub assignment: Option<Assignment>,
    #[prost(enumeration = "Action", tag = "2")]
    pub action: i32,
}

/// `AssignmentsMessage.Type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum Extent {
    Complete = 0,
    Incremental = 1,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct AssignmentsMessage {
    #[prost(enumeration = "Extent", tag = "1")]
    pub extent: i32,
    #[prost(string, tag = "2")]
    pub applies_to: String,
    #[prost(string, tag = "3")]
    pub results_in: String,
    #[prost(message, repeated, tag = "4")]
    pub changes: Vec<AssignmentChange>,
}
