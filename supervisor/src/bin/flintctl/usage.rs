//! `stats`: what pods use.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use flintd::api::PodUsage;
use flintd::desired::Key;
use serde::Serialize;

use crate::command::{Session, print, print_json, shown};
use crate::table::table;
use crate::values::size;

/// Show what containers use
///
/// CPU is that of one second, in hundredths of one CPU; `top` goes on with it.
#[derive(Args)]
pub(crate) struct Stats {
    /// These pods alone
    #[arg(value_name = "POD")]
    pods: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A container's use.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Row {
    /// The pod.
    pub(crate) pod: Key,
    /// The container.
    pub(crate) container: String,
    /// Hundredths of a CPU.
    pub(crate) cpu_percent: f64,
    /// Bytes.
    pub(crate) memory: u64,
    /// Bytes; none: no limit.
    pub(crate) memory_limit: Option<u64>,
    /// Processes and threads.
    pub(crate) pids: u64,
}

impl Stats {
    pub(crate) async fn run(self, session: &Session) -> Result<u8> {
        let client = session.client().await?;
        let wanted: Vec<Key> = self.pods.iter().map(|name| session.key(name)).collect();
        let before = client.usage().await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = client.usage().await?;
        let mut rows = rows(&before, &now);
        rows.retain(|row| wanted.is_empty() || wanted.contains(&row.pod));
        if self.json {
            print_json(&rows)?;
        } else {
            print(&text(&rows))?;
        }
        Ok(0)
    }
}

/// What containers use, by two looks at them.
pub(crate) fn rows(before: &[PodUsage], now: &[PodUsage]) -> Vec<Row> {
    let before: BTreeMap<&Key, &PodUsage> = before.iter().map(|pod| (&pod.key, pod)).collect();
    let mut rows = Vec::new();
    for pod in now {
        let earlier = before.get(&pod.key);
        for (name, usage) in &pod.containers {
            let then = earlier.and_then(|earlier| Some((earlier.at, earlier.containers.get(name)?.cpu)));
            let cpu_percent = then.map_or(0.0, |(at, cpu)| {
                let passed = pod.at.duration_since(at).unwrap_or_default().as_secs_f64();
                // A container that was started anew meanwhile begins at 0.
                let used = usage.cpu.saturating_sub(cpu).as_secs_f64();
                if passed > 0.0 { used / passed * 100.0 } else { 0.0 }
            });
            rows.push(Row {
                pod: pod.key.clone(),
                container: name.clone(),
                cpu_percent,
                memory: usage.memory,
                memory_limit: pod.memory_limits.get(name).copied(),
                pids: usage.pids,
            });
        }
    }
    rows
}

fn text(rows: &[Row]) -> String {
    let row = |row: &Row| {
        let limit = row.memory_limit.map_or_else(|| "-".to_owned(), size);
        let share = row.memory_limit.filter(|limit| *limit > 0);
        let share =
            share.map_or_else(|| "-".to_owned(), |limit| format!("{:.1}%", row.memory as f64 / limit as f64 * 100.0));
        vec![
            shown(&row.pod),
            row.container.clone(),
            format!("{:.2}%", row.cpu_percent),
            size(row.memory),
            limit,
            share,
            row.pids.to_string(),
        ]
    };
    table(&["POD", "CONTAINER", "CPU", "MEMORY", "LIMIT", "OF IT", "PIDS"], rows.iter().map(row))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::SystemTime;

    use flintd::observed::Usage;

    use super::*;

    pub(crate) fn look(seconds: u64, cpu_millis: u64) -> PodUsage {
        let usage = |cpu| Usage { cpu: Duration::from_millis(cpu), memory: 12 << 20, pids: 3 };
        PodUsage {
            key: Key::new("default", "web"),
            at: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
            containers: BTreeMap::from([("main".to_owned(), usage(cpu_millis)), ("side".to_owned(), usage(5))]),
            memory_limits: BTreeMap::from([("main".to_owned(), 64 << 20)]),
        }
    }

    #[test]
    fn two_looks_make_a_share_of_a_cpu() {
        assert_eq!(
            text(&rows(&[look(10, 1000)], &[look(12, 1500)])),
            "POD   CONTAINER   CPU      MEMORY    LIMIT     OF IT   PIDS\n\
             web   main        25.00%   12.0MiB   64.0MiB   18.8%   3\n\
             web   side        0.00%    12.0MiB   -         -       3\n"
        );
        assert!(rows(&[], &[look(1, 5)])[0].cpu_percent.abs() < f64::EPSILON);
        assert!(rows(&[look(1, 500)], &[look(2, 5)])[0].cpu_percent.abs() < f64::EPSILON, "it was started anew");
    }
}
