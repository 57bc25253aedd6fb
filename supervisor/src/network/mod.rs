//! Networks of pods: none, the host's, the node's own, or what plugins of CNI make.
//!
//! ```text
//!  attach(uid, namespace) ─> an address and ports, chosen ─> record written ─> devices, routes, NAT ─> Attached
//!  take_over(uid, other)  ─> the other's host ports lead to this one, in one step
//!  detach(uid, namespace) ─> NAT, devices removed ─> record removed ─> the address is free
//!  retain(uids)           ─> detach of whatever else has a record or a device: the repair after a crash
//! ```
//!
//! The record comes first and goes last, so a kill at any moment leaves nothing that no record tells of, and no address is
//! given twice. The calls block and may be made from any threads at once; core makes them on blocking threads. How the
//! node's own network is built, and why so, is told in docs/network.md.
//!
//! It must not know pods beyond what [`Attach`] says, and it makes no namespace: its caller does.

mod cni;
mod conntrack;
pub mod files;
mod namespace;
mod netlink;
mod networks;
mod nftables;
mod node;
mod pool;
mod ports;
mod record;
mod settings;

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

pub use networks::Networks;
pub use settings::{Cni, Settings, Subnet};

use crate::desired::{HostPort, Key, Network};

/// A pod that gets a network.
#[derive(Debug, Clone, Copy)]
pub struct Attach<'a> {
    /// The pod's uid: its attachment is known by it.
    pub uid: &'a str,
    /// Its name, for people and for plugins of CNI.
    pub key: &'a Key,
    /// Its network namespace, as a file that can be joined (`/run/netns/X`, `/proc/PID/ns/net`). Nothing is done in it with
    /// [`Network::Host`].
    pub netns: &'a Path,
    /// Which network.
    pub network: &'a Network,
    /// Ports of the host that lead to it.
    pub ports: &'a [HostPort],
    /// The name that the pod has of itself.
    pub hostname: &'a str,
    /// The pod that it takes the place of: what ports both have lead to that one until [`Networks::take_over`], and none of its
    /// own are open before.
    pub after: Option<&'a str>,
}

/// What a pod got.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attached {
    /// The pod's addresses, IPv4 first; none without a network, or with the host's.
    pub addresses: Vec<IpAddr>,
    /// Ports of the host as they are, also those that the node chose.
    pub ports: Vec<HostPort>,
    /// Where the pod sends what is not for itself, IPv4 if it has both.
    pub gateway: Option<IpAddr>,
    /// The pod's device (`eth0`).
    pub interface: Option<String>,
}

/// Why a network could not be made or removed. Every text says which step and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings cannot be used on this host.
    #[error("the node's network: {0}")]
    Settings(String),
    /// What the pod asks for cannot be.
    #[error("{0}")]
    Refused(String),
    /// Another pod, or a program of the host, has the port.
    #[error("host port {port}: {reason}")]
    PortTaken {
        /// The port, its protocol and address (`8080/tcp`, `127.0.0.1:53/udp`).
        port: String,
        /// Who has it.
        reason: String,
    },
    /// No address is left.
    #[error("all {0} addresses of the node's network are given to pods: remove pods, or set a larger subnet")]
    Exhausted(u32),
    /// A step that the kernel refused.
    #[error("{step}: {source}")]
    System {
        /// What was done, and to what.
        step: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A record that cannot be read or written.
    #[error("{}: {source}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
    /// A plugin of CNI failed.
    #[error("CNI network {network:?}, {step}: {reason}")]
    Plugin {
        /// The configuration list.
        network: String,
        /// Verb and plugin.
        step: String,
        /// The plugin's own words.
        reason: String,
    },
}

impl Error {
    /// Whether the pod itself must change before another attempt can end differently.
    #[must_use]
    pub const fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused(_))
    }

    fn system(step: impl Into<String>, source: io::Error) -> Self {
        Self::System { step: step.into(), source }
    }
}

/// The result of this part's calls.
pub type Result<T> = std::result::Result<T, Error>;
