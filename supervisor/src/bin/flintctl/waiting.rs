//! Waiting until pods are as they should be.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Result, bail};
use flintd::api::PodView;
use flintd::api::client::Client;
use flintd::api::summary::{is_active, status};
use flintd::desired::Key;
use flintd::observed::Phase;

use crate::command::shown;
use crate::values::plain;

/// Looks at the pods until `look` has an answer, at most so long.
pub(crate) async fn until<T>(
    client: &Client,
    patience: Option<Duration>,
    mut look: impl FnMut(&BTreeMap<Key, PodView>) -> Option<T>,
) -> Result<Option<T>> {
    let watching = async {
        let mut stream = client.pods(true).await?;
        let mut known = BTreeMap::new();
        while let Some(change) = stream.next().await? {
            // What is gone goes first: its name may be another's by now.
            for key in change.gone {
                known.remove(&key);
            }
            known.extend(change.pods.into_iter().map(|view| (view.status.key.clone(), view)));
            if let Some(answer) = look(&known) {
                return Ok(answer);
            }
        }
        bail!("flintd has ended the stream")
    };
    match patience {
        None => watching.await.map(Some),
        Some(patience) => match tokio::time::timeout(patience, watching).await {
            Ok(answer) => answer.map(Some),
            Err(_) => Ok(None),
        },
    }
}

/// Waits until all are ready, or have ended well; false if that took too long or one has failed. Tells on stderr what they wait for.
pub(crate) async fn ready(client: &Client, keys: &[Key], patience: Duration) -> Result<bool> {
    let mut told: BTreeMap<Key, String> = BTreeMap::new();
    let answer = until(client, Some(patience), |pods| {
        let mut is_done = true;
        for key in keys {
            let Some(view) = pods.get(key) else {
                is_done = false;
                continue;
            };
            match view.status.phase {
                Phase::Succeeded => continue,
                Phase::Failed => {
                    tell(&mut told, view);
                    return Some(false);
                }
                _ if view.status.is_ready() && view.status.replaces.is_none() => continue,
                _ => {}
            }
            is_done = false;
            tell(&mut told, view);
        }
        is_done.then_some(true)
    })
    .await?;
    if answer.is_none() {
        eprintln!("flintctl: not all pods are ready after {}s", patience.as_secs());
    }
    Ok(answer.unwrap_or(false))
}

/// Tells a pod's state when it is another one.
fn tell(told: &mut BTreeMap<Key, String>, view: &PodView) {
    let (word, sentence) = status(view);
    let text =
        sentence.filter(|sentence| !sentence.is_empty()).map_or_else(|| word.clone(), |why| format!("{word}: {why}"));
    if told.get(&view.status.key) != Some(&text) {
        eprintln!("{}: {}", shown(&view.status.key), plain(&text));
        told.insert(view.status.key.clone(), text);
    }
}

/// Waits until nothing is left of these pods, by their uids: others may have their names.
pub(crate) async fn gone(client: &Client, uids: &BTreeMap<Key, BTreeSet<String>>) -> Result<()> {
    let is_left = |pods: &BTreeMap<Key, PodView>| {
        uids.iter().any(|(key, uids)| pods.get(key).is_some_and(|view| uids.contains(&view.status.uid)))
    };
    until(client, None, |pods| (!is_left(pods)).then_some(())).await.map(drop)
}

/// Waits until none of the pods has a container that runs.
pub(crate) async fn stopped(client: &Client, keys: &[Key]) -> Result<()> {
    let runs = |view: &PodView| {
        is_active(view)
            || view
                .status
                .containers
                .values()
                .any(|container| matches!(container.state, flintd::observed::ContainerState::Running { .. }))
    };
    let any = |pods: &BTreeMap<Key, PodView>| keys.iter().any(|key| pods.get(key).is_some_and(runs));
    until(client, None, |pods| (!any(pods)).then_some(())).await.map(drop)
}
