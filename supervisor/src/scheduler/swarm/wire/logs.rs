//! logbroker.proto: who wants which lines.

use super::Timestamp;

/// `LogStream`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum LogStream {
    Unknown = 0,
    Stdout = 1,
    Stderr = 2,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct LogSubscriptionOptions {
    #[prost(enumeration = "LogStream", repeated, packed = "false", tag = "1")]
    pub streams: Vec<i32>,
    #[prost(bool, tag = "2")]
    pub follow: bool,
    #[prost(int64, tag = "3")]
    pub tail: i64,
    #[prost(message, optional, tag = "4")]
    pub since: Option<Timestamp>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct LogSelector {
    #[prost(string, repeated, tag = "1")]
    pub service_ids: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub node_ids: Vec<String>,
    #[prost(string, repeated, tag = "3")]
    pub task_ids: Vec<String>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct LogContext {
    #[prost(string, tag = "1")]
    pub service_id: String,
    #[prost(string, tag = "2")]
    pub node_id: String,
    #[prost(string, tag = "3")]
    pub task_id: String,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct LogMessage {
    #[prost(message, optional, tag = "1")]
    pub context: Option<LogContext>,
    #[prost(message, optional, tag = "2")]
    pub timestamp: Option<Timestamp>,
    #[prost(enumeration = "LogStream", tag = "3")]
    pub stream: i32,
    #[prost(bytes = "vec", tag = "4")]
    pub data: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SubscriptionMessage {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(message, optional, tag = "2")]
    pub selector: Option<LogSelector>,
    #[prost(message, optional, tag = "3")]
    pub options: Option<LogSubscriptionOptions>,
    #[prost(bool, tag = "4")]
    pub close: bool,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PublishLogsMessage {
    #[prost(string, tag = "1")]
    pub subscription_id: String,
    #[prost(message, repeated, tag = "2")]
    pub messages: Vec<LogMessage>,
    #[prost(bool, tag = "3")]
    pub close: bool,
}
