//! What is on the wire: structs with field numbers, nothing is generated. Values of [`desired`], [`observed`] and [`backend`] go as the
//! JSON in which they are stored, too: its fields have defaults, so clients and nodes of other versions understand each other.
//!
//! Streams go both ways, and begin with a [`Ask`] that has a request. ttrpc's client keeps what was received and not read, without
//! bounds, and its server takes messages of a stream in any order. So a stream of ours has a window: its server sends no more than
//! [`WINDOW`] bytes that the client has not told to have used, and the client one piece of input that was not taken yet.
//!
//! [`desired`]: crate::desired
//! [`observed`]: crate::observed
//! [`backend`]: super::Backend

use prost::Message;
use ttrpc::proto::Codec;

/// The service's full name.
pub(crate) const SERVICE: &str = "flint.node.v1.Node";

/// Bytes of a stream that are on their way, unused by the client.
pub(crate) const WINDOW: usize = 1 << 20;

/// Bytes of a piece of input or output.
pub(crate) const PIECE: usize = 32 << 10;

/// A call with one answer takes and gives no more than this (ttrpc's own limit is 4 MiB).
pub(crate) const MAX_MESSAGE: usize = 4 << 20;

macro_rules! messages {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field:meta])* $member:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, prost::Message)]
        pub(crate) struct $name {
            $($(#[$field])* pub(crate) $member: $type,)*
        }

        impl Codec for $name {
            type E = prost::DecodeError;

            fn size(&self) -> u32 {
                self.encoded_len() as u32
            }

            fn encode(&self) -> Result<Vec<u8>, Self::E> {
                Ok(self.encode_to_vec())
            }

            fn decode(buffer: impl AsRef<[u8]>) -> Result<Self, Self::E> {
                Message::decode(buffer.as_ref())
            }

            fn merge(&mut self, buffer: impl AsRef<[u8]>) -> Result<(), Self::E> {
                Message::merge(self, buffer.as_ref())
            }
        }
    )*};
}

messages! {
    /// A file of manifests.
    Document {
        #[prost(string, tag = "1")] name: String,
        #[prost(string, tag = "2")] text: String,
    }
    /// Of `Apply`.
    ApplyRequest {
        #[prost(message, repeated, tag = "1")] documents: Vec<Document>,
        #[prost(bool, tag = "2")] dry_run: bool,
    }
    /// Of `Remove`, `Stop`, `Restart`, `Inspect`.
    PodRequest {
        #[prost(string, tag = "1")] namespace: String,
        #[prost(string, tag = "2")] name: String,
        #[prost(string, tag = "3")] container: String,
        #[prost(uint64, optional, tag = "4")] grace_millis: Option<u64>,
    }
    /// Of `Pull`, `RemoveImage`.
    ImageRequest {
        #[prost(string, tag = "1")] name: String,
    }
    /// Of `Pods`, `Events`: whether it goes on.
    FollowRequest {
        #[prost(bool, tag = "1")] follow: bool,
    }
    /// Of `Logs`.
    LogsRequest {
        #[prost(message, optional, tag = "1")] pod: Option<PodRequest>,
        #[prost(bool, tag = "2")] follow: bool,
        #[prost(uint64, optional, tag = "3")] tail: Option<u64>,
        #[prost(uint64, optional, tag = "4")] since_nanos: Option<u64>,
        #[prost(bool, tag = "5")] previous: bool,
    }
    /// Of `Exec`; `exec` is the JSON of `api::Exec`.
    ExecRequest {
        #[prost(message, optional, tag = "1")] pod: Option<PodRequest>,
        #[prost(bytes = "vec", tag = "2")] exec: Vec<u8>,
    }
    /// Of `Attach`.
    AttachRequest {
        #[prost(message, optional, tag = "1")] pod: Option<PodRequest>,
        #[prost(bool, tag = "2")] stdin: bool,
        #[prost(bool, tag = "3")] from_start: bool,
    }
    /// The answer of a call with one.
    Reply {
        #[prost(bytes = "vec", tag = "1")] json: Vec<u8>,
    }
    /// From the client, on a stream.
    Ask {
        /// The first message's: the request, as a message of its own.
        #[prost(bytes = "vec", optional, tag = "1")] request: Option<Vec<u8>>,
        /// So many bytes of what came are used.
        #[prost(uint64, tag = "2")] used: u64,
        /// A piece of input; an empty one is its end.
        #[prost(bytes = "vec", optional, tag = "3")] input: Option<Vec<u8>>,
        /// The terminal has another size.
        #[prost(message, optional, tag = "4")] size: Option<Size>,
    }
    /// Of a terminal.
    Size {
        #[prost(uint32, tag = "1")] rows: u32,
        #[prost(uint32, tag = "2")] columns: u32,
    }
    /// From the node, on a stream.
    Answer {
        /// A value: pods, an event, a step of a pull.
        #[prost(bytes = "vec", tag = "1")] json: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")] stdout: Vec<u8>,
        #[prost(bytes = "vec", tag = "3")] stderr: Vec<u8>,
        #[prost(message, repeated, tag = "4")] lines: Vec<Line>,
        /// The piece of input was taken: the next may come.
        #[prost(bool, tag = "5")] input_taken: bool,
        /// Nobody reads the input any more.
        #[prost(bool, tag = "6")] input_closed: bool,
        /// The program has ended with this status.
        #[prost(uint32, optional, tag = "7")] exit: Option<u32>,
        /// What it takes of the window. Told, since another version may not know all of its fields.
        #[prost(uint64, tag = "8")] weight: u64,
    }
    /// A line of a log.
    Line {
        #[prost(uint64, tag = "1")] at_nanos: u64,
        #[prost(bool, tag = "2")] is_error: bool,
        #[prost(bytes = "vec", tag = "3")] text: Vec<u8>,
    }
}

impl Answer {
    /// The same with what it takes of the window: never so much that it waits for what the client has not told yet.
    pub(crate) fn weighed(mut self) -> Self {
        self.weight = self.encoded_len().clamp(1, WINDOW / 2) as u64;
        self
    }
}
