//! Streams that tell: pods, logs, events, a pull.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;

use super::messages::{Answer, FollowRequest, ImageRequest, Line, LogsRequest, PIECE};
use super::server::{Caller, decode, named};
use super::stream::{Inlet, Outlet};
use super::{Failure, ImageView, PodView, PullStep};
use crate::desired::{Goal, Key, RestartPolicy};
use crate::observed::{ContainerState, Phase};
use crate::scheduler::{LogLine, LogRequest, Stream};

/// Pods of one message: some 100 KB.
const CHUNK: usize = 100;

/// Changes of pods are told no more often; what changes in between comes together.
const BREATH: Duration = Duration::from_millis(200);

/// What comes in a stream of pods.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct PodsFrame {
    /// Pods that are new or have changed; at first all there are.
    pub(crate) pods: Vec<PodView>,
    /// Pods that are gone.
    pub(crate) gone: Vec<Key>,
    /// Whether all that was known has come with this.
    pub(crate) is_complete: bool,
}

/// What comes in a pull.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PullFrame {
    /// A step.
    Step(PullStep),
    /// It is here.
    Done(ImageView),
}

pub(super) async fn pods(caller: &Caller, request: &[u8], outlet: &Outlet, mut inlet: Inlet) -> Result<(), Failure> {
    let FollowRequest { follow } = decode(request)?;
    let backend = &caller.server.backend;
    let mut changes = backend.changes();
    let mut known: HashMap<Key, PodView> = HashMap::new();
    loop {
        changes.mark_unchanged();
        let now = backend.pods();
        let (pods, gone) = difference(&mut known, now, follow);
        tell_pods(outlet, pods, gone).await?;
        if !follow {
            return Ok(());
        }
        tokio::select! {
            any = changes.changed() => {
                if any.is_err() {
                    return Ok(());
                }
            }
            () = inlet.ended() => return Ok(()),
        }
        tokio::time::sleep(BREATH).await;
    }
}

/// What has changed since `known`, which is brought up to date if that is of use.
fn difference(known: &mut HashMap<Key, PodView>, now: Vec<PodView>, keep: bool) -> (Vec<PodView>, Vec<Key>) {
    if !keep {
        return (now, Vec::new());
    }
    let mut next = HashMap::with_capacity(now.len());
    let mut changed = Vec::new();
    for view in now {
        let key = view.status.key.clone();
        if known.remove(&key).as_ref() != Some(&view) {
            changed.push(view.clone());
        }
        next.insert(key, view);
    }
    let gone = std::mem::replace(known, next).into_keys().collect();
    (changed, gone)
}

async fn tell_pods(outlet: &Outlet, pods: Vec<PodView>, gone: Vec<Key>) -> Result<(), Failure> {
    let mut frame = PodsFrame { gone, ..PodsFrame::default() };
    for view in pods {
        if frame.pods.len() == CHUNK {
            outlet.tell(&std::mem::take(&mut frame)).await?;
        }
        frame.pods.push(view);
    }
    frame.is_complete = true;
    Ok(outlet.tell(&frame).await?)
}

pub(super) async fn events(caller: &Caller, request: &[u8], outlet: &Outlet, mut inlet: Inlet) -> Result<(), Failure> {
    let FollowRequest { follow } = decode(request)?;
    let (events, mut next) = caller.server.backend.events();
    for event in events {
        outlet.tell(&event).await?;
    }
    if !follow {
        return Ok(());
    }
    loop {
        let event = tokio::select! {
            event = next.recv() => event,
            () = inlet.ended() => return Ok(()),
        };
        match event {
            Ok(event) => outlet.tell(&event).await?,
            // This client was too slow for what is kept; it goes on with what there is.
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return Ok(()),
        }
    }
}

pub(super) async fn pull(caller: &Caller, request: &[u8], outlet: &Outlet) -> Result<(), Failure> {
    let ImageRequest { name } = decode(request)?;
    caller.note("pull", &name);
    let (sender, mut steps) = mpsc::channel(64);
    let backend = caller.server.backend.clone();
    // A client that goes stops no pull: what it wanted is wanted by the next one, too.
    let task = tokio::spawn(async move { backend.pull(&name, sender).await });
    while let Some(step) = steps.recv().await {
        outlet.tell(&PullFrame::Step(step)).await?;
    }
    let image = task.await.map_err(|error| Failure::broken(format!("the pull was not finished: {error}")))??;
    Ok(outlet.tell(&PullFrame::Done(image)).await?)
}

pub(super) async fn logs(caller: &Caller, request: &[u8], outlet: &Outlet, mut inlet: Inlet) -> Result<(), Failure> {
    let request: LogsRequest = decode(request)?;
    let (key, container) = named(request.pod.as_ref().ok_or_else(|| Failure::refused("logs of which pod?"))?);
    let container = container_of(caller, &key, container)?;
    let wanted = LogRequest {
        follow: request.follow && !request.previous,
        tail: request.tail,
        since: request.since_nanos.map(|nanos| UNIX_EPOCH + Duration::from_nanos(nanos)),
    };
    let mut lines = tokio::select! {
        lines = lines(caller, &key, &container, &wanted, request.previous) => lines?,
        () = inlet.ended() => return Ok(()),
    };
    let mut batch = Vec::new();
    loop {
        let count = tokio::select! {
            count = lines.recv_many(&mut batch, 256) => count,
            () = inlet.ended() => return Ok(()),
        };
        if count == 0 {
            return Ok(());
        }
        send_lines(outlet, &mut batch).await?;
    }
}

/// The container that is meant; without a name the pod's first that is no init container.
pub(super) fn container_of(caller: &Caller, key: &Key, wanted: Option<&str>) -> Result<String, Failure> {
    let missing = || Failure::missing(format!("there is no pod {key}"));
    let view = caller.server.backend.pod(key).ok_or_else(missing)?;
    let names = view.images.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    match wanted {
        Some(name) if view.images.contains_key(name) => Ok(name.to_owned()),
        Some(name) => Err(Failure::missing(format!("{key} has no container {name}; it has {names}"))),
        None => match caller
            .server
            .backend
            .desired(key)
            .and_then(|pod| pod.containers.first().map(|first| first.name.clone()))
        {
            Some(first) => Ok(first),
            None => Err(Failure::refused(format!("which container of {key}? It has {names}"))),
        },
    }
}

/// Opens a container's log; when following, waits until there is one.
async fn lines(
    caller: &Caller,
    key: &Key,
    container: &str,
    wanted: &LogRequest,
    previous: bool,
) -> Result<mpsc::Receiver<LogLine>, Failure> {
    let backend = &caller.server.backend;
    let mut changes = backend.changes();
    loop {
        changes.mark_unchanged();
        let Some(view) = backend.pod(key) else { return Err(Failure::missing(format!("there is no pod {key}"))) };
        if let Some(folder) = backend.log_folder(key, container).filter(|folder| folder.is_dir()) {
            let told = |error| Failure::broken(format!("read the log of {container} in {key}: {error}"));
            if previous {
                return caller.server.logs.read_previous(&folder, wanted).map_err(|error| match error.kind() {
                    std::io::ErrorKind::NotFound => {
                        Failure::not_now(format!("{container} of {key} was started once only"))
                    }
                    _ => told(error),
                });
            }
            let over = over(caller.server.backend.clone(), key.clone(), container.to_owned());
            return caller.server.logs.read(&folder, wanted, over).map_err(told);
        }
        if !wanted.follow || is_over(&view, container) {
            let why = view.status.reason.map_or_else(String::new, |reason| format!(": {}", reason.sentence));
            return Err(Failure::not_now(format!("{container} of {key} was not started yet{why}")));
        }
        if changes.changed().await.is_err() {
            return Err(Failure::not_now("the node goes down"));
        }
    }
}

/// Returns once nothing more comes to a container's log.
async fn over(backend: std::sync::Arc<dyn super::Backend>, key: Key, container: String) {
    let mut changes = backend.changes();
    loop {
        changes.mark_unchanged();
        match backend.pod(&key) {
            Some(view) if !is_over(&view, &container) => {}
            _ => return,
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Whether a container has ended for good.
pub(super) fn is_over(view: &PodView, container: &str) -> bool {
    let status = view.status.containers.get(container);
    let Some(ContainerState::Exited(exit)) = status.map(|status| &status.state) else {
        return matches!(view.status.phase, Phase::Succeeded | Phase::Failed);
    };
    let went_well = exit.status == Some(0);
    let is_init = view.init_containers.iter().any(|name| name == container);
    view.goal == Goal::Stopped
        || view.status.terminating
        || matches!(view.status.phase, Phase::Succeeded | Phase::Failed)
        || match view.restart {
            RestartPolicy::Never => true,
            RestartPolicy::OnFailure => went_well,
            RestartPolicy::Always => is_init && went_well,
        }
}

/// Sends lines, several in a message.
async fn send_lines(outlet: &Outlet, batch: &mut Vec<LogLine>) -> Result<(), Failure> {
    let mut answer = Answer::default();
    let mut size = 0;
    for line in batch.drain(..) {
        size += line.bytes.len() + 16;
        answer.lines.push(Line {
            at_nanos: line.at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos() as u64,
            is_error: line.stream == Stream::Stderr,
            text: line.bytes,
        });
        if size >= PIECE {
            outlet.send(std::mem::take(&mut answer)).await?;
            size = 0;
        }
    }
    if !answer.lines.is_empty() {
        outlet.send(answer).await?;
    }
    Ok(())
}
