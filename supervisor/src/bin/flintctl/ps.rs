//! `ps` and `inspect`: what there is.

use std::collections::BTreeMap;
use std::time::SystemTime;

use anyhow::{Result, bail};
use clap::Args;
use flintd::api::PodView;
use flintd::api::summary::{is_active, ready, status};
use flintd::desired::{HostPort, Key, Protocol};

use crate::command::{FAILURE, Session, all_pods, print, print_json, shown};
use crate::table::table;
use crate::values::ago;

/// List pods
#[derive(Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is an option of its own")]
pub(crate) struct Ps {
    /// These pods alone
    #[arg(value_name = "POD")]
    pods: Vec<String>,
    /// Those that have ended or are stopped, too
    #[arg(long, short)]
    all: bool,
    /// Names alone
    #[arg(long, short, conflicts_with = "json")]
    quiet: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Go on with what changes; with --json one line each time
    #[arg(long, short)]
    watch: bool,
}

const HEADS: [&str; 8] = ["NAME", "READY", "STATUS", "RESTARTS", "AGE", "ADDRESS", "PORTS", "IMAGE"];

impl Ps {
    pub(crate) async fn run(self, session: &Session) -> Result<u8> {
        let client = session.client().await?;
        let wanted: Vec<Key> = self.pods.iter().map(|name| session.key(name)).collect();
        let is_wanted = |view: &PodView| {
            if wanted.is_empty() { self.all || is_active(view) } else { wanted.contains(&view.status.key) }
        };
        if !self.watch {
            let pods: Vec<PodView> = all_pods(&client).await?.into_iter().filter(is_wanted).collect();
            let missing: Vec<String> =
                wanted.iter().filter(|key| !pods.iter().any(|view| view.status.key == **key)).map(shown).collect();
            print(&self.text(&pods)?)?;
            if !missing.is_empty() {
                eprintln!("flintctl: there is no pod {}", missing.join(", "));
                return Ok(FAILURE);
            }
            return Ok(0);
        }
        let mut stream = client.pods(true).await?;
        let mut known: BTreeMap<Key, PodView> = BTreeMap::new();
        let mut is_first = true;
        while let Some(change) = stream.next().await? {
            let pods: Vec<PodView> = change
                .pods
                .into_iter()
                .filter(|view| is_wanted(view) || known.contains_key(&view.status.key))
                .collect();
            known.extend(pods.iter().map(|view| (view.status.key.clone(), view.clone())));
            known.retain(|key, _| !change.gone.contains(key));
            if self.json {
                for view in &pods {
                    print(&format!("{}\n", serde_json::to_string(view)?))?;
                }
            } else if is_first || !pods.is_empty() {
                let text = self.text(&pods)?;
                // The heads are there already.
                let rows =
                    if is_first || self.quiet { &text } else { text.split_once('\n').map_or("", |(_, rows)| rows) };
                print(rows)?;
            }
            is_first = false;
        }
        bail!("flintd has ended the stream")
    }

    fn text(&self, pods: &[PodView]) -> Result<String> {
        if self.json {
            return Ok(format!("{}\n", serde_json::to_string_pretty(pods)?));
        }
        if self.quiet {
            return Ok(pods.iter().map(|view| shown(&view.status.key) + "\n").collect());
        }
        Ok(rows(pods, SystemTime::now()))
    }
}

/// The table of pods.
pub(crate) fn rows(pods: &[PodView], now: SystemTime) -> String {
    table(&HEADS, pods.iter().map(|view| row(view, now)))
}

fn row(view: &PodView, now: SystemTime) -> Vec<String> {
    let (ready, all) = ready(view);
    let restarts: u32 = view.status.containers.values().map(|container| container.restarts).sum();
    let mut images: Vec<&String> =
        view.images.iter().filter(|(name, _)| !view.init_containers.contains(name)).map(|(_, image)| image).collect();
    images.dedup();
    let image = match images.as_slice() {
        [] => "-".to_owned(),
        [image] => (*image).clone(),
        [first, rest @ ..] => format!("{first} +{}", rest.len()),
    };
    vec![
        shown(&view.status.key),
        format!("{ready}/{all}"),
        status(view).0,
        restarts.to_string(),
        ago(view.status.started, now),
        view.status.addresses.first().map_or_else(|| "-".to_owned(), ToString::to_string),
        ports(&view.status.ports),
        image,
    ]
}

/// `8080->80/tcp`, as docker writes them.
fn ports(ports: &[HostPort]) -> String {
    if ports.is_empty() {
        return "-".to_owned();
    }
    let one = |port: &HostPort| {
        let protocol = match port.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        };
        let address = port.address.map_or_else(String::new, |address| format!("{}:", bracketed(address)));
        format!("{address}{}->{}/{protocol}", port.host, port.pod)
    };
    ports.iter().map(one).collect::<Vec<_>>().join(",")
}

fn bracketed(address: std::net::IpAddr) -> String {
    if address.is_ipv6() { format!("[{address}]") } else { address.to_string() }
}

/// Print all that is known of pods, as JSON
///
/// What is wanted, without secrets, and what is.
#[derive(Args)]
pub(crate) struct Inspect {
    /// The pods
    #[arg(required = true, value_name = "POD")]
    pods: Vec<String>,
}

impl Inspect {
    pub(crate) async fn run(self, session: &Session) -> Result<u8> {
        let client = session.client().await?;
        let mut found = Vec::new();
        let mut result = 0;
        for name in &self.pods {
            match client.inspect(&session.key(name)).await {
                Ok(inspection) => found.push(inspection),
                Err(error) => {
                    eprintln!("flintctl: {error}");
                    result = FAILURE;
                }
            }
        }
        print_json(&found)?;
        Ok(result)
    }
}

#[cfg(test)]
mod tests;
