//! What `events` tells of a group, in runc's fields.

use std::fs;
use std::path::Path;

use serde::Serialize;

use super::{Group, Resctrl};

/// A container's share of caches and memory bandwidth; empty without a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct IntelRdt {
    /// What the L3 caches can do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l3_cache_info: Option<CacheInfo>,
    /// Of those who are in no class.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub l3_cache_schema_root: String,
    /// Of the container's class.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub l3_cache_schema: String,
    /// What the memory's bandwidth control can do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mem_bw_info: Option<MemoryBandwidthInfo>,
    /// Of those who are in no class.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mem_bw_schema_root: String,
    /// Of the container's class.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mem_bw_schema: String,
    /// All lines of the container's class.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub schemata: Vec<String>,
    /// Memory bandwidth by cache; `None` where it is not monitored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mbm_stats: Option<Vec<MemoryBandwidthUse>>,
    /// Cache use by cache; likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmt_stats: Option<Vec<CacheUse>>,
}

/// `info/L3`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "named as the files")]
pub struct CacheInfo {
    pub cbm_mask: String,
    pub min_cbm_bits: u64,
    pub num_closids: u64,
}

/// `info/MB`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "named as the files")]
pub struct MemoryBandwidthInfo {
    pub bandwidth_gran: u64,
    pub delay_linear: u64,
    pub min_bandwidth: u64,
    pub num_closids: u64,
}

/// Bytes that went through one L3 cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "named as the files")]
pub struct MemoryBandwidthUse {
    pub mbm_total_bytes: u64,
    pub mbm_local_bytes: u64,
}

/// Bytes of one L3 cache in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "named as the files")]
pub struct CacheUse {
    pub llc_occupancy: u64,
}

impl Group {
    /// What the group may use and uses. Files that are missing are left out.
    #[must_use]
    pub fn stats(&self) -> IntelRdt {
        let lines = |folder: &Path| -> Vec<String> {
            let text = fs::read_to_string(folder.join("schemata")).unwrap_or_default();
            text.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect()
        };
        let line_of = |lines: &[String], resource: &str| {
            lines.iter().rev().find(|line| line.contains(resource)).cloned().unwrap_or_default()
        };
        let resctrl = self.resctrl();
        let (all, own) = (lines(&resctrl.root), lines(&self.path));
        let mut stats = IntelRdt { schemata: own.clone(), ..IntelRdt::default() };
        if resctrl.has("L3") {
            let info = resctrl.root.join("info/L3");
            stats.l3_cache_info = Some(CacheInfo {
                cbm_mask: fs::read_to_string(info.join("cbm_mask")).unwrap_or_default().trim().to_owned(),
                min_cbm_bits: number(&info.join("min_cbm_bits")),
                num_closids: number(&info.join("num_closids")),
            });
            (stats.l3_cache_schema_root, stats.l3_cache_schema) = (line_of(&all, "L3"), line_of(&own, "L3"));
        }
        if resctrl.has("MB") {
            let info = resctrl.root.join("info/MB");
            let value = |file: &str| number(&info.join(file));
            stats.mem_bw_info = Some(MemoryBandwidthInfo {
                bandwidth_gran: value("bandwidth_gran"),
                delay_linear: value("delay_linear"),
                min_bandwidth: value("min_bandwidth"),
                num_closids: value("num_closids"),
            });
            (stats.mem_bw_schema_root, stats.mem_bw_schema) = (line_of(&all, "MB"), line_of(&own, "MB"));
        }
        self.monitored(&resctrl, &mut stats);
        stats
    }

    /// Without a monitoring group of its own a container is counted with all of its class.
    fn monitored(&self, resctrl: &Resctrl, stats: &mut IntelRdt) {
        let features = fs::read_to_string(resctrl.root.join("info/L3_MON/mon_features")).unwrap_or_default();
        let counts = |feature: &str| features.lines().any(|line| line == feature);
        let data = self.monitor.as_ref().unwrap_or(&self.path).join("mon_data");
        let Ok(entries) = fs::read_dir(data) else { return };
        let mut domains: Vec<_> = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
        domains.sort();
        if counts("mbm_total_bytes") || counts("mbm_local_bytes") {
            let used = |domain: &Path| MemoryBandwidthUse {
                mbm_total_bytes: number(&domain.join("mbm_total_bytes")),
                mbm_local_bytes: number(&domain.join("mbm_local_bytes")),
            };
            stats.mbm_stats = Some(domains.iter().map(|domain| used(domain)).collect());
        }
        if counts("llc_occupancy") {
            let used = |domain: &Path| CacheUse { llc_occupancy: number(&domain.join("llc_occupancy")) };
            stats.cmt_stats = Some(domains.iter().map(|domain| used(domain)).collect());
        }
    }
}

/// 0 for what is missing or says `Unavailable`.
fn number(file: &Path) -> u64 {
    fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}
