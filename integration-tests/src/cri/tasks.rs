//! containerd's own task service (`containerd.services.tasks.v1`), which `ctr` and dockerd call: each of its calls is one of the
//! shim's, so that something can happen between two of them. The fields that the tests set or look at.
#![allow(missing_docs, reason = "containerd's tasks.proto explains them, under the same names")]

use super::messages::{Call, Nothing};

macro_rules! tasks {
    ($($method:literal $name:ident { $($(#[$field:meta])* $member:ident: $type:ty,)* } => $response:ty,)*) => {$(
        #[derive(Clone, PartialEq, prost::Message)]
        pub struct $name {
            $($(#[$field])* pub $member: $type,)*
        }

        impl Call for $name {
            const METHOD: &'static str = concat!("/containerd.services.tasks.v1.Tasks/", $method);
            type Response = $response;
        }
    )*};
}

tasks! {
    "Create" CreateTask { #[prost(string, tag = "1")] container_id: String, } => Nothing,
    "Start" StartTask {
        #[prost(string, tag = "1")] container_id: String,
        #[prost(string, tag = "2")] exec_id: String,
    } => Nothing,
    "Exec" ExecTask {
        #[prost(string, tag = "1")] container_id: String,
        #[prost(message, optional, tag = "6")] spec: Option<AnyMessage>,
        #[prost(string, tag = "7")] exec_id: String,
    } => Nothing,
    "Pause" PauseTask { #[prost(string, tag = "1")] container_id: String, } => Nothing,
    "Resume" ResumeTask { #[prost(string, tag = "1")] container_id: String, } => Nothing,
    "Update" UpdateTask {
        #[prost(string, tag = "1")] container_id: String,
        #[prost(message, optional, tag = "2")] resources: Option<AnyMessage>,
    } => Nothing,
    "Kill" KillTask {
        #[prost(string, tag = "1")] container_id: String,
        #[prost(string, tag = "2")] exec_id: String,
        #[prost(uint32, tag = "3")] signal: u32,
    } => Nothing,
    "Wait" WaitTask {
        #[prost(string, tag = "1")] container_id: String,
        #[prost(string, tag = "2")] exec_id: String,
    } => Ended,
    "DeleteProcess" DeleteProcess {
        #[prost(string, tag = "1")] container_id: String,
        #[prost(string, tag = "2")] exec_id: String,
    } => Deleted,
    "Delete" DeleteTask { #[prost(string, tag = "1")] container_id: String, } => Deleted,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AnyMessage {
    #[prost(string, tag = "1")]
    pub type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

/// `WaitResponse`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Ended {
    #[prost(uint32, tag = "1")]
    pub exit_status: u32,
}

/// `DeleteResponse`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Deleted {
    #[prost(uint32, tag = "3")]
    pub exit_status: u32,
}
