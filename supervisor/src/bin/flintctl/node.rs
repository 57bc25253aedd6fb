//! `node`: what the node is and has.

use std::time::SystemTime;

use anyhow::Result;
use clap::Args;
use flintd::api::NodeFacts;

use crate::command::{Session, print, print_json};
use crate::values::{ago, plain, size};

/// Show what the node is and has
#[derive(Args)]
pub(crate) struct NodeVerb {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl NodeVerb {
    pub(crate) async fn run(self, session: &Session) -> Result<u8> {
        let node = session.client().await?.node().await?;
        if self.json {
            print_json(&node)?;
        } else {
            print(&text(&node, SystemTime::now()))?;
        }
        Ok(0)
    }
}

fn text(node: &NodeFacts, now: SystemTime) -> String {
    let cpus = |milli: u64| {
        format!("{}.{:03}", milli / 1000, milli % 1000).trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    let mut lines = vec![
        ("Name".to_owned(), node.hostname.clone()),
        ("Kernel".to_owned(), format!("{} {}", node.kernel, node.architecture)),
        ("flintd".to_owned(), format!("{}, up {}", node.version, ago(node.started, now))),
        (
            "CPUs".to_owned(),
            format!(
                "{}, {} for pods, {} asked for",
                cpus(node.milli_cpus.0),
                cpus(node.milli_cpus.1),
                cpus(node.requested_milli_cpus)
            ),
        ),
        (
            "Memory".to_owned(),
            format!(
                "{}, {} for pods, {} asked for",
                size(node.memory.0),
                size(node.memory.1),
                size(node.requested_memory)
            ),
        ),
        ("Pods".to_owned(), format!("{} at most", node.pods)),
    ];
    for (name, (holds, sentence)) in &node.conditions {
        lines.push((name.clone(), format!("{}: {sentence}", if *holds { "yes" } else { "no" })));
    }
    lines.extend(node.schedulers.iter().map(|(name, how)| (format!("Scheduler {name}"), how.clone())));
    lines.extend(node.limitations.iter().map(|cannot| ("Cannot".to_owned(), cannot.clone())));
    let width = lines.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    lines.iter().map(|(name, value)| plain(&format!("{name:width$}  {value}")).trim_end().to_owned() + "\n").collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_node_is_told_in_lines() {
        let node = NodeFacts {
            hostname: "here".to_owned(),
            kernel: "6.12.0".to_owned(),
            architecture: "x86_64".to_owned(),
            version: "0.1.0".to_owned(),
            started: Some(SystemTime::UNIX_EPOCH),
            milli_cpus: (2000, 1900),
            memory: (24 << 30, 23 << 30),
            pods: 4096,
            requested_milli_cpus: 250,
            requested_memory: 64 << 20,
            conditions: BTreeMap::from([("MemoryPressure".to_owned(), (false, "20 GiB are free".to_owned()))]),
            available: BTreeMap::new(),
            schedulers: BTreeMap::new(),
            limitations: vec!["no quota".to_owned()],
        };
        assert_eq!(
            text(&node, SystemTime::UNIX_EPOCH + Duration::from_secs(60)),
            "Name            here\n\
             Kernel          6.12.0 x86_64\n\
             flintd          0.1.0, up 60s\n\
             CPUs            2, 1.9 for pods, 0.25 asked for\n\
             Memory          24.0GiB, 23.0GiB for pods, 64.0MiB asked for\n\
             Pods            4096 at most\n\
             MemoryPressure  no: 20 GiB are free\n\
             Cannot          no quota\n"
        );
    }
}
