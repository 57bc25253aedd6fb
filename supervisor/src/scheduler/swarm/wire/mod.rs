//! Messages of a swarm's managers, package `docker.swarmkit.v1`: structs with swarmkit's field numbers, so that nothing is
//! generated and no protoc is needed.
//!
//! A field is here when it is sent, honoured or looked at to be refused; what is not listed is skipped when received. A `oneof`
//! is a set of options: on the wire it is the same.
#![allow(missing_docs, reason = "swarmkit's .proto files explain them, under the same names")]

pub mod ca;
pub mod container;
pub mod dispatcher;
pub mod logs;
pub mod node;
pub mod task;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// `google.protobuf.Timestamp`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Timestamp {
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

impl From<SystemTime> for Timestamp {
    fn from(at: SystemTime) -> Self {
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { seconds: since.as_secs() as i64, nanos: since.subsec_nanos() as i32 }
    }
}

impl Timestamp {
    /// The moment; times before 1970 are 1970.
    #[must_use]
    pub fn time(&self) -> SystemTime {
        let seconds = u64::try_from(self.seconds).unwrap_or(0);
        let nanos = u32::try_from(self.nanos).unwrap_or(0).min(999_999_999);
        UNIX_EPOCH.checked_add(Duration::new(seconds, nanos)).unwrap_or(UNIX_EPOCH)
    }
}

/// `google.protobuf.Duration`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Span {
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

impl Span {
    /// The duration; a negative one is zero.
    #[must_use]
    pub fn duration(&self) -> Duration {
        let nanos = u32::try_from(self.nanos).unwrap_or(0).min(999_999_999);
        Duration::new(u64::try_from(self.seconds).unwrap_or(0), nanos)
    }
}

/// `google.protobuf.BoolValue`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct BoolValue {
    #[prost(bool, tag = "1")]
    pub value: bool,
}

/// `google.protobuf.Int64Value`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Int64Value {
    #[prost(int64, tag = "1")]
    pub value: i64,
}

/// A message without fields that matter.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Empty {}
