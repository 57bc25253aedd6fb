//! Probes and hooks of containers: what they say, and programs that they run.

use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;

use super::{Entry, ExecRequest, Node};
use crate::desired::{Container, Network};
use crate::executor::is_lost;
use crate::observed::Reason;
use crate::probes::{self, Change, Exited, NotRun, Report, Scheduler, Target, Watch};
use crate::store::{ContainerPhase, Stopping};

/// So much of a probe's output is kept.
const OUTPUT: usize = 10 << 10;
/// Reports that may wait.
const REPORTS: usize = 64;
/// A hook after the start has no limit of its own in Kubernetes; something that hangs shall be told.
const POST_START: Duration = Duration::from_secs(300);
/// So long a hook that was lost with its shim waits before it is run again.
const AGAIN: Duration = Duration::from_millis(200);

/// The node, for programs that probes run. Weak: the node holds the probes.
struct InContainers(Weak<Node>);

#[async_trait]
impl probes::Exec for InContainers {
    async fn exec(&self, target: &Target, argv: &[String], timeout: Duration) -> Result<Exited, NotRun> {
        let node = self.0.upgrade().ok_or_else(|| NotRun::Lost("flintd ends".to_owned()))?;
        let mut command = argv.to_vec();
        let ours = super::exits::parse_id(&target.id);
        let (uid, ..) = ours.ok_or_else(|| NotRun::Failed("its id is none of flintd's".to_owned()))?;
        super::addresses::put_in(&node, uid, command.iter_mut());
        let request = ExecRequest { command, ..ExecRequest::default() };
        // How long its containers take to be adopted is not the program's time.
        let shim = node.entry(uid).and_then(|entry| entry.read(|record| record.sandbox.shim.clone()));
        let lost = || match &shim {
            Some(shim) if node.executor.is_dead(shim) => Err(NotRun::Lost(format!("its shim {shim} has died"))),
            _ => Ok(()),
        };
        lost()?;
        // What runs still is killed when it is dropped.
        let Ok(ended) = tokio::time::timeout(timeout, run(&node, uid, target, &request)).await else {
            lost()?;
            return Err(NotRun::Failed(format!("it took longer than {timeout:?}")));
        };
        ended
    }
}

/// Runs a program to its end: of two pods of a name in the target's, and in no later container than that.
async fn run(node: &Arc<Node>, uid: &str, target: &Target, request: &ExecRequest) -> Result<Exited, NotRun> {
    let failed = |why: &str| NotRun::Failed(why.to_owned());
    let entry = node.entry(uid).ok_or_else(|| failed("its pod is gone"))?;
    let last = entry.read(|record| record.runtime_id(&target.container));
    if last.as_ref() != Some(&target.id) {
        return Err(failed("the container has ended"));
    }
    let mut executed = node.exec_in(&entry, &target.container, request).await.map_err(|error| {
        // What a shim refuses is an answer; what went with it is none.
        if is_lost(&error) { NotRun::Lost(format!("{error:#}")) } else { failed(&format!("{error:#}")) }
    })?;
    let (stdout, stderr) = (executed.stdout.take(), executed.stderr.take());
    let (out, err) = tokio::join!(beginning(stdout), beginning(stderr));
    // It fails when the shim has died: the next one does not know the program.
    let status = executed.wait().await.map_err(|error| NotRun::Lost(format!("{error:#}")))?;
    Ok(Exited { status, output: out + &err })
}

/// Reads to the end, and keeps the beginning.
async fn beginning(stream: Option<pipe::Receiver>) -> String {
    let Some(mut stream) = stream else { return String::new() };
    let (mut kept, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        let room = OUTPUT.saturating_sub(kept.len()).min(count);
        kept.extend_from_slice(&buffer[..room]);
    }
    String::from_utf8_lossy(&kept).into_owned()
}

/// Begins to ask, when somebody is to be asked; reports go to the records.
pub(super) fn begin(node: &Arc<Node>) -> Scheduler {
    let (reports, mut received) = mpsc::channel(REPORTS);
    let weak = Arc::downgrade(node);
    let scheduler = Scheduler::new(Arc::new(InContainers(weak.clone())), reports);
    tokio::spawn(async move {
        while let Some(report) = received.recv().await {
            let Some(node) = weak.upgrade() else { return };
            if let Err(error) = take(&node, report).await {
                tracing::error!("write down what a probe said: {error:#}");
            }
        }
    });
    scheduler
}

async fn take(node: &Arc<Node>, report: Report) -> anyhow::Result<()> {
    let Report { target, kind, failure, changes } = report;
    let Some((uid, name, attempt)) = super::exits::parse_id(&target.id) else { return Ok(()) };
    let Some(entry) = node.entry(uid) else { return Ok(()) };
    let runs = |there: &crate::store::ContainerRecord| {
        there.attempt == attempt && matches!(there.phase, ContainerPhase::Running { .. })
    };
    if !entry.read(|record| record.containers.get(name).is_some_and(runs)) {
        return Ok(());
    }
    if let Some(failure) = &failure {
        let sentence = format!("the {} probe says no: {failure}", kind.name());
        node.tell(Some(&target.pod), Some(name), true, Reason { word: "Unhealthy".to_owned(), sentence });
    }
    let changed = entry.change(node, |record| {
        let grace = record.pod.grace;
        let there = record.containers.get_mut(name).filter(|there| there.attempt == attempt)?;
        if !matches!(there.phase, ContainerPhase::Running { .. }) {
            return None;
        }
        let mut kill = None;
        for change in changes {
            match change {
                Change::Started => there.started = true,
                Change::Ready(ready) => there.set_ready(ready),
                Change::Kill(own) => kill = Some(own.unwrap_or(grace)),
            }
        }
        let kill = kill.filter(|_| there.stopping.is_none())?;
        there.set_ready(false);
        let sentence = format!("its {} probe failed too often; its restart policy decides", kind.name());
        let reason = Reason { word: super::exits::UNHEALTHY.to_owned(), sentence };
        there.stopping = Some(Stopping { until: SystemTime::now() + kill, killed: false, reason: reason.clone() });
        Some(reason)
    });
    if let Some(reason) = changed.await? {
        node.tell(Some(&target.pod), Some(name), true, reason);
        crate::pod::signal_again(node, &entry, name);
    }
    Ok(())
}

fn find(entry: &Entry, name: &str) -> Option<Container> {
    entry.view().pod.all_containers().find(|container| container.name == name).cloned()
}

fn target(entry: &Entry, name: &str) -> Option<Target> {
    entry.read(|record| {
        let address = match record.pod.network {
            Network::Host => Some(std::net::Ipv4Addr::LOCALHOST.into()),
            _ => record.sandbox.addresses.first().copied(),
        };
        let id = record.runtime_id(name)?;
        Some(Target { id, pod: record.pod.key.clone(), container: name.to_owned(), address })
    })
}

/// A container was started, or adopted: its probes begin.
pub(crate) fn watch(node: &Arc<Node>, entry: &Arc<Entry>, name: &str) {
    let Some(container) = find(entry, name) else { return };
    if container.startup.is_none() && container.liveness.is_none() && container.readiness.is_none() {
        return;
    }
    let (Some(target), Some(probes)) = (target(entry, name), node.probes.get()) else { return };
    entry.read(|record| {
        let Some(there) = record.containers.get(name) else { return };
        let ContainerPhase::Running { started: since } = there.phase else { return };
        // Under the record's lock: who forgets it has written down its end before.
        probes.watch(Watch {
            target,
            since,
            started: there.started,
            ready: there.ready,
            startup: container.startup,
            liveness: container.liveness,
            readiness: container.readiness,
        });
    });
}

/// A container has ended: nobody asks it any more.
pub(crate) fn forget(node: &Node, id: &str) {
    if let Some(probes) = node.probes.get() {
        probes.forget(id);
    }
}

/// Runs the hook that comes after a start, again if its shim died in it; what it failed with.
pub(crate) async fn after_start(node: &Arc<Node>, entry: &Arc<Entry>, name: &str) -> Result<(), String> {
    let Some(hook) = find(entry, name).and_then(|container| container.lifecycle.post_start) else { return Ok(()) };
    let Some(target) = target(entry, name) else { return Ok(()) };
    loop {
        match probes::run_hook(&hook, &target, POST_START, &InContainers(Arc::downgrade(node))).await {
            Ok(()) => return Ok(()),
            Err(NotRun::Failed(sentence)) => return Err(sentence),
            Err(NotRun::Lost(why)) => {
                if entry.read(|record| record.containers.get(name).is_none_or(|there| there.stopping.is_some())) {
                    return Err(why);
                }
                tracing::warn!(pod = %target.pod, container = name, "the hook after its start is run again: {why}");
                if let Some(shim) = entry.read(|record| record.sandbox.shim.clone()) {
                    node.revived(&shim).await;
                }
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

/// Runs the hook that comes before the stop signal, within the grace.
pub(crate) async fn before_stop(node: &Arc<Node>, entry: &Arc<Entry>, name: &str) {
    let Some(hook) = find(entry, name).and_then(|container| container.lifecycle.pre_stop) else { return };
    let until = entry.read(|record| Some(record.containers.get(name)?.stopping.as_ref()?.until));
    if let Some(shim) = entry.read(|record| record.sandbox.shim.clone()) {
        node.revived(&shim).await;
    }
    let left = until.and_then(|until| until.duration_since(SystemTime::now()).ok()).unwrap_or_default();
    let Some(target) = target(entry, name) else { return };
    if let Err(NotRun::Failed(sentence) | NotRun::Lost(sentence)) =
        probes::run_hook(&hook, &target, left, &InContainers(Arc::downgrade(node))).await
    {
        let reason = Reason { word: "FailedPreStopHook".to_owned(), sentence };
        node.tell(Some(&entry.key()), Some(name), true, reason);
    }
}
