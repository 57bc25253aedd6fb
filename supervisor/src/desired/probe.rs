//! Questions put to a container, and hooks of its life.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// An HTTP GET.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HttpCheck {
    /// The host to connect to; the pod's address if none is given.
    pub host: Option<String>,
    /// The port.
    pub port: u16,
    /// Path and query.
    pub path: String,
    /// Whether it is HTTPS; the certificate is not looked at, as in Kubernetes.
    pub tls: bool,
    /// More headers.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
}

/// One question.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// A program in the container; status 0 is yes.
    Exec(Vec<String>),
    /// A status from 200 to 399 is yes.
    Http(HttpCheck),
    /// A connection is yes.
    Tcp {
        /// The host to connect to; the pod's address if none is given.
        host: Option<String>,
        /// The port.
        port: u16,
    },
    /// `SERVING` of grpc.health.v1 is yes.
    Grpc {
        /// The port.
        port: u16,
        /// The name of the service asked about; may be empty.
        service: String,
    },
}

/// A question that is put again and again (Kubernetes' Probe).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Probe {
    /// The question.
    pub check: Check,
    /// From the container's start to the first question.
    pub initial_delay: Duration,
    /// Between questions.
    pub period: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// So many yes in a row after a no are a yes.
    pub success_threshold: u32,
    /// So many no in a row are a no.
    pub failure_threshold: u32,
    /// In place of the pod's, when this probe ends the container.
    pub grace: Option<Duration>,
}

/// What is done at a moment of a container's life.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hook {
    /// A program in the container.
    Exec(Vec<String>),
    /// An HTTP GET.
    Http(HttpCheck),
    /// A pause.
    Sleep(Duration),
}
