//! The node as managers are told. The same node gives the same description: a difference begins a new session.

use super::identity::Identity;
use super::wire::node::{EngineDescription, NodeDescription, Platform, PluginDescription, Resources};
use crate::scheduler;

/// What this node cannot do: an engine label that is false, for `--constraint engine.labels.flint.overlay!=false`, and the sentence for
/// those who ask flintd.
const LIMITATIONS: &[(&str, &str)] = &[
    (
        "flint.overlay",
        "swarm: no overlay networks, routing mesh, virtual addresses and DNS of services: publish ports with mode=host",
    ),
    ("flint.csi", "swarm: no CSI volumes, no volume drivers but local"),
    ("flint.plugins", "swarm: no plugins of dockerd, log drivers among them"),
    ("flint.manager", "swarm: this node is a worker and never a manager"),
];

/// The sentences.
#[must_use]
pub(super) fn limitations() -> Vec<String> {
    LIMITATIONS.iter().map(|(_, sentence)| (*sentence).to_owned()).collect()
}

/// Sorted. `overlay` is not among them: tasks of such networks never come here.
const PLUGINS: &[(&str, &str)] =
    &[("Log", "json-file"), ("Log", "local"), ("Network", "bridge"), ("Network", "host"), ("Volume", "local")];

/// Describes the node. The identity has the part about TLS.
#[must_use]
pub(super) fn describe(node: &scheduler::NodeDescription, identity: &Identity) -> NodeDescription {
    let mut labels = node.labels.clone();
    labels.insert("flint".to_owned(), "true".to_owned());
    labels.extend(LIMITATIONS.iter().map(|(name, _)| ((*name).to_owned(), "false".to_owned())));
    let plugin = |(kind, name): &(&str, &str)| PluginDescription { kind: (*kind).to_owned(), name: (*name).to_owned() };
    NodeDescription {
        hostname: node.hostname.clone(),
        platform: Some(Platform { architecture: node.architecture.clone(), os: "linux".to_owned() }),
        resources: Some(Resources {
            nano_cpus: i64::try_from(node.milli_cpus).unwrap_or(i64::MAX).saturating_mul(1_000_000),
            memory_bytes: i64::try_from(node.memory).unwrap_or(i64::MAX),
        }),
        engine: Some(EngineDescription {
            engine_version: format!("flint-{}", node.version),
            labels,
            plugins: PLUGINS.iter().map(plugin).collect(),
        }),
        tls_info: Some(identity.tls_info()),
    }
}
