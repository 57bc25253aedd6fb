//! `rm`, `stop` and `restart`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use flintd::api::client::Client;
use flintd::desired::Key;

use crate::command::{FAILURE, Session, all_pods, print, shown};
use crate::values::duration;
use crate::{applying, waiting};

/// Remove pods
#[derive(Args)]
pub(crate) struct Rm {
    /// The pods
    #[arg(value_name = "POD")]
    pods: Vec<String>,
    /// The pods of these manifests
    #[arg(long, short, value_name = "FILE")]
    filename: Vec<PathBuf>,
    /// How long they have to end, in place of their own time; 0 kills them
    #[arg(long, value_name = "TIME", value_parser = duration)]
    grace: Option<Duration>,
    /// Do not wait until nothing is left of them
    #[arg(long)]
    no_wait: bool,
}

impl Rm {
    pub(crate) async fn run(self, session: &Session) -> Result<u8> {
        let client = session.client().await?;
        let mut keys: Vec<Key> = self.pods.iter().map(|name| session.key(name)).collect();
        if !self.filename.is_empty() {
            // Who knows what is in manifests is the node.
            let changes = client.apply(applying::read(&self.filename)?, true).await?;
            keys.extend(changes.into_iter().filter(|change| change.kind == "Pod").map(|change| change.key));
        }
        if keys.is_empty() {
            bail!("remove which pods? Name them, or their manifests with -f");
        }
        let how = if self.no_wait { Removal::Asked } else { Removal::Told };
        remove(&client, &keys, self.grace, how).await
    }
}

/// How far a removal goes, and what is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Removal {
    /// It is under way; names are printed.
    Asked,
    /// Nothing is left; names are printed.
    Told,
    /// Nothing is left, and nothing is printed.
    Silent,
}

/// Removes pods.
pub(crate) async fn remove(client: &Client, keys: &[Key], grace: Option<Duration>, how: Removal) -> Result<u8> {
    let before = all_pods(client).await?;
    // Of a rolling update there are two of a name.
    let mut uids: BTreeMap<&Key, BTreeSet<String>> = BTreeMap::new();
    for view in &before {
        uids.entry(&view.status.key).or_default().insert(view.status.uid.clone());
    }
    let mut leaving = BTreeMap::new();
    let mut result = 0;
    for key in keys {
        match client.remove(key, grace).await {
            Ok(()) => {
                leaving.extend(uids.get(key).map(|uids| (key.clone(), uids.clone())));
                if how == Removal::Asked {
                    print(&format!("{}\n", shown(key)))?;
                }
            }
            Err(error) => {
                eprintln!("flintctl: {error}");
                result = FAILURE;
            }
        }
    }
    if how != Removal::Asked {
        waiting::gone(client, &leaving).await?;
    }
    if how == Removal::Told {
        print(&leaving.keys().map(|key| shown(key) + "\n").collect::<String>())?;
    }
    Ok(result)
}

/// Stop pods and keep them, with their statuses and logs
///
/// They stay so over a restart of the host; `restart` starts them again.
#[derive(Args)]
pub(crate) struct Stop {
    /// The pods
    #[arg(required = true, value_name = "POD")]
    pods: Vec<String>,
    /// How long they have to end, in place of their own time; 0 kills them
    #[arg(long, value_name = "TIME", value_parser = duration)]
    grace: Option<Duration>,
    /// Do not wait until they have ended
    #[arg(long)]
    no_wait: bool,
}

impl Stop {
    pub(crate) async fn run(self, session: &Session) -> Result<u8> {
        let client = session.client().await?;
        let mut stopping = Vec::new();
        let mut result = 0;
        for name in &self.pods {
            let key = session.key(name);
            match client.stop(&key, self.grace).await {
                Ok(()) => stopping.push(key),
                Err(error) => {
                    eprintln!("flintctl: {error}");
                    result = FAILURE;
                }
            }
        }
        if !self.no_wait {
            waiting::stopped(&client, &stopping).await?;
        }
        print(&stopping.iter().map(|key| shown(key) + "\n").collect::<String>())?;
        Ok(result)
    }
}

/// Stop and start pods, or one of their containers
#[derive(Args)]
pub(crate) struct Restart {
    /// The pods
    #[arg(required = true, value_name = "POD")]
    pods: Vec<String>,
    /// This container alone
    #[arg(long, short, value_name = "NAME")]
    container: Option<String>,
}

impl Restart {
    pub(crate) async fn run(self, session: &Session) -> Result<u8> {
        let client = session.client().await?;
        let mut result = 0;
        for name in &self.pods {
            let target = session.target(name, self.container.as_ref());
            match client.restart(&target).await {
                Ok(()) => print(&format!("{}\n", shown(&target.pod)))?,
                Err(error) => {
                    eprintln!("flintctl: {error}");
                    result = FAILURE;
                }
            }
        }
        Ok(result)
    }
}
