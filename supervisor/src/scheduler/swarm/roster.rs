//! Which tasks this node has, for those who want their logs.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use crate::desired::Key;

/// A task, as far as logs need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    /// Its pod.
    pub key: Key,
    /// Its service.
    pub service_id: String,
    /// Its node: this one.
    pub node_id: String,
}

/// By task id; replaced as a whole when it changes.
pub(super) type Roster = Arc<BTreeMap<String, Listed>>;

/// The end that changes it.
pub(super) type RosterSender = watch::Sender<Roster>;

/// An end that reads it.
pub(super) type RosterReceiver = watch::Receiver<Roster>;
