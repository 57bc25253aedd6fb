//! What containers use.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use containerd_shim_protos::{cgroups, cgroups_v2};
use protobuf::Message as _;
use protobuf::well_known_types::any::Any;

use super::{Entry, Node};
use crate::desired::Key;
use crate::observed::Usage;
use crate::store::ContainerPhase;

impl Node {
    /// What the running containers of all pods use, by pod and name.
    pub async fn usage(self: &Arc<Self>) -> Vec<(Key, BTreeMap<String, Usage>)> {
        let mut all = Vec::new();
        for entry in self.entries() {
            let used = self.usage_of(&entry).await;
            if !used.is_empty() {
                all.push((entry.key(), used));
            }
        }
        all
    }

    pub(super) async fn usage_of(&self, entry: &Entry) -> BTreeMap<String, Usage> {
        let (shim, running) = entry.read(|record| {
            let running =
                record.containers.iter().filter(|(_, there)| matches!(there.phase, ContainerPhase::Running { .. }));
            let ids = running.filter_map(|(name, _)| Some((name.clone(), record.runtime_id(name)?)));
            (record.sandbox.shim.clone(), ids.collect::<Vec<_>>())
        });
        let mut used = BTreeMap::new();
        let Some(shim) = shim else { return used };
        for (name, id) in running {
            // One that has ended meanwhile uses nothing.
            if let Ok(usage) = self.executor.stats(&shim, &id).await.and_then(|stats| decode(&stats)) {
                used.insert(name, usage);
            }
        }
        used
    }
}

fn decode(stats: &Any) -> Result<Usage> {
    match stats.type_url.rsplit('/').next() {
        Some("io.containerd.cgroups.v1.Metrics") => {
            let metrics = cgroups::metrics::Metrics::parse_from_bytes(&stats.value)?;
            let caches = metrics.memory.total_inactive_file;
            Ok(Usage {
                cpu: Duration::from_nanos(metrics.cpu.usage.total),
                memory: metrics.memory.usage.usage.saturating_sub(caches),
                pids: metrics.pids.current,
            })
        }
        Some("io.containerd.cgroups.v2.Metrics") => {
            let metrics = cgroups_v2::metrics::Metrics::parse_from_bytes(&stats.value)?;
            Ok(Usage {
                cpu: Duration::from_micros(metrics.cpu.usage_usec),
                memory: metrics.memory.usage.saturating_sub(metrics.memory.inactive_file),
                pids: metrics.pids.current,
            })
        }
        _ => bail!("the shim tells of {:?} what nobody knows to read", stats.type_url),
    }
}
