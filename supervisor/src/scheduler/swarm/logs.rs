//! Lines of tasks for `docker service logs`: each subscription has a task of its own, and always ends with `close`.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures::channel::mpsc as outgoing;
use futures::{SinkExt as _, StreamExt as _, stream};
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinSet};

use super::roster::{Listed, RosterReceiver};
use super::rpc::Connection;
use super::seen::CONTAINER;
use super::wire::Empty;
use super::wire::logs::{
    LogContext, LogMessage, LogSelector, LogStream, LogSubscriptionOptions, PublishLogsMessage, SubscriptionMessage,
};
use crate::desired::Key;
use crate::scheduler::{Host, LogLine, LogRequest, Stream};

const LISTEN: &str = "/docker.swarmkit.v1.LogBroker/ListenSubscriptions";
const PUBLISH: &str = "/docker.swarmkit.v1.LogBroker/PublishLogs";

/// Lines go together in one message up to so many, or so many bytes.
const LINES: usize = 256;
const BYTES: usize = 256 << 10;

/// So many logs are read at a time, unless they are followed: each is open files, and lines that wait.
const TOGETHER: usize = 64;

/// For pods of tasks that are followed it is looked this often at most.
const BREATH: Duration = Duration::from_millis(200);

/// Answers to subscriptions until the stream breaks.
///
/// # Errors
///
/// How it broke.
pub(super) async fn serve(
    connection: Connection,
    host: Arc<dyn Host>,
    roster: RosterReceiver,
) -> anyhow::Result<Infallible> {
    let mut stream = connection.stream::<_, SubscriptionMessage>(LISTEN, Empty {}).await.context("listen for logs")?;
    let mut running: BTreeMap<String, oneshot::Sender<()>> = BTreeMap::new();
    let mut tasks = JoinSet::new();
    loop {
        let message = tokio::select! {
            message = stream.message() => message.context("listen for logs")?,
            Some(_) = tasks.join_next() => continue,
        };
        let Some(message) = message else { bail!("the manager has ended the stream of log subscriptions") };
        running.retain(|_, cancel| !cancel.is_closed());
        if message.close {
            running.remove(&message.id);
            continue;
        }
        let (cancel, cancelled) = oneshot::channel();
        running.insert(message.id.clone(), cancel);
        let subscription = Subscription {
            id: message.id,
            selector: message.selector.unwrap_or_default(),
            options: message.options.unwrap_or_default(),
            host: Arc::clone(&host),
            roster: roster.clone(),
        };
        let connection = connection.clone();
        tasks.spawn(async move {
            if let Err(error) = subscription.publish(&connection, cancelled).await {
                tracing::debug!("publish logs: {error:#}");
            }
        });
    }
}

struct Subscription {
    id: String,
    selector: LogSelector,
    options: LogSubscriptionOptions,
    host: Arc<dyn Host>,
    roster: RosterReceiver,
}

type Outgoing = outgoing::Sender<PublishLogsMessage>;

impl Subscription {
    async fn publish(self, connection: &Connection, cancelled: oneshot::Receiver<()>) -> anyhow::Result<()> {
        let (mut sender, receiver) = outgoing::channel(4);
        let id = self.id.clone();
        let pump = async move {
            tokio::select! {
                () = self.pump(&sender) => {}
                // Dropped by the session, or on the manager's word.
                _ = cancelled => {}
            }
            // Without it `docker service logs` waits for ever.
            let last = PublishLogsMessage { subscription_id: id, messages: Vec::new(), close: true };
            let _ = sender.send(last).await;
        };
        let upload = connection.upload::<_, Empty>(PUBLISH, receiver);
        let (uploaded, ()) = tokio::join!(upload, pump);
        uploaded?;
        Ok(())
    }

    /// Sends the lines of all tasks that are wanted; with `follow` also of those that come.
    async fn pump(&self, sender: &Outgoing) {
        let mut roster = self.roster.clone();
        if !self.options.follow {
            let tasks = Arc::clone(&roster.borrow());
            let wanted = tasks.iter().filter(|(id, task)| is_selected(&self.selector, id, task));
            let pumps = wanted.map(|(id, task)| self.lines(id.clone(), task.clone(), sender.clone()));
            return stream::iter(pumps.collect::<Vec<_>>()).for_each_concurrent(TOGETHER, |pump| pump).await;
        }
        let mut known = BTreeSet::new();
        let mut pumps = JoinSet::<()>::new();
        loop {
            let tasks = Arc::clone(&roster.borrow_and_update());
            known.retain(|id| tasks.contains_key(id));
            for (id, task) in tasks.iter().filter(|(id, task)| is_selected(&self.selector, id, task)) {
                if known.insert(id.clone()) {
                    let _: AbortHandle = pumps.spawn(self.lines(id.clone(), task.clone(), sender.clone()));
                }
            }
            // Those that have ended are let go of: who follows may do so for weeks.
            while pumps.try_join_next().is_some() {}
            if roster.changed().await.is_err() {
                return;
            }
        }
    }

    /// Sends the lines of one task.
    fn lines(&self, id: String, task: Listed, mut sender: Outgoing) -> impl Future<Output = ()> + Send + 'static {
        let (host, roster) = (Arc::clone(&self.host), self.roster.clone());
        let request = request(&self.options);
        let streams = self.options.streams.clone();
        let subscription = self.id.clone();
        async move {
            let Some(request) = request else { return };
            if request.follow && !comes(&host, roster, &id, &task.key).await {
                return;
            }
            let context = LogContext { service_id: task.service_id, node_id: task.node_id, task_id: id };
            let mut lines = host.logs(&task.key, CONTAINER, request).await;
            while let Some(line) = lines.recv().await {
                let mut batch = vec![line];
                let mut bytes = batch[0].bytes.len();
                while let Ok(line) = lines.try_recv() {
                    bytes += line.bytes.len();
                    batch.push(line);
                    if batch.len() >= LINES || bytes >= BYTES {
                        break;
                    }
                }
                let wanted = batch.into_iter().map(|line| message(&context, line));
                let wanted = wanted.filter(|line| streams.is_empty() || streams.contains(&line.stream));
                let messages: Vec<LogMessage> = wanted.collect();
                if messages.is_empty() {
                    continue;
                }
                let message = PublishLogsMessage { subscription_id: subscription.clone(), messages, close: false };
                if sender.send(message).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Waits until a task's pod is there; false: the task is gone before.
async fn comes(host: &Arc<dyn Host>, mut roster: RosterReceiver, id: &str, pod: &Key) -> bool {
    let mut changes = host.changes();
    loop {
        changes.mark_unchanged();
        roster.mark_unchanged();
        if host.pods().iter().any(|other| other.key == *pod) {
            return true;
        }
        if !roster.borrow().contains_key(id) {
            return false;
        }
        let told = tokio::select! {
            told = changes.changed() => told,
            told = roster.changed() => told,
        };
        if told.is_err() {
            return false;
        }
        tokio::time::sleep(BREATH).await;
    }
}

fn is_selected(selector: &LogSelector, id: &str, task: &Listed) -> bool {
    selector.task_ids.iter().any(|wanted| wanted == id)
        || selector.service_ids.contains(&task.service_id)
        || selector.node_ids.contains(&task.node_id)
}

/// 0 is all, -1 none, -11 the last ten. More than 0 would count from the first line, which nobody offers.
fn request(options: &LogSubscriptionOptions) -> Option<LogRequest> {
    let tail = match options.tail {
        0 => None,
        tail if tail < 0 => Some(tail.unsigned_abs() - 1),
        _ => return None,
    };
    let since = options.since.map(|since| since.time()).filter(|since| *since != std::time::UNIX_EPOCH);
    Some(LogRequest { follow: options.follow, tail, since })
}

fn message(context: &LogContext, line: LogLine) -> LogMessage {
    let stream = match line.stream {
        Stream::Stdout => LogStream::Stdout,
        Stream::Stderr => LogStream::Stderr,
    };
    LogMessage {
        context: Some(context.clone()),
        timestamp: Some(line.at.into()),
        stream: stream.into(),
        data: line.bytes,
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;

    use super::super::fake::Fake;
    use super::*;
    use crate::desired::tests::pod;
    use crate::observed::PodStatus;

    #[tokio::test(start_paused = true)]
    async fn a_task_that_is_followed_is_waited_for_until_it_has_a_pod_or_is_gone() {
        let fake = Arc::new(Fake::default());
        let listed = |name: &str| {
            let key = Key::new("swarm", name);
            Listed { key, service_id: "web".into(), node_id: "node".into() }
        };
        let tasks: BTreeMap<String, Listed> = ["a", "b"].map(|name| (name.to_owned(), listed(name))).into();
        let (roster_sender, roster) = watch::channel(Arc::new(tasks));
        let subscription = Subscription {
            id: "1".into(),
            selector: LogSelector { service_ids: vec!["web".into()], ..LogSelector::default() },
            options: LogSubscriptionOptions { follow: true, ..LogSubscriptionOptions::default() },
            host: fake.clone(),
            roster,
        };
        let (sender, mut receiver) = outgoing::channel(4);
        let pump = tokio::spawn(async move { subscription.pump(&sender).await });
        tokio::time::sleep(BREATH * 2).await;
        assert!(receiver.try_recv().is_err(), "nothing has a pod");
        let key = listed("a").key;
        fake.change(|fake| {
            let status = PodStatus::new(key.clone(), "a".into());
            fake.pods.insert(key.clone(), (crate::desired::Pod { key, ..pod("a") }, status));
        });
        let message = tokio::time::timeout(Duration::from_secs(5), receiver.next()).await.unwrap().unwrap();
        assert_eq!(message.messages[0].data, b"a line\n");
        roster_sender.send_replace(Arc::default());
        let (host, roster): (Arc<dyn Host>, _) = (fake.clone(), roster_sender.subscribe());
        assert!(!comes(&host, roster, "b", &listed("b").key).await);
        drop(roster_sender);
        pump.await.unwrap();
    }

    #[test]
    fn tails_are_counted_as_swarmkit_does() {
        let tail = |tail| request(&LogSubscriptionOptions { tail, ..Default::default() }).map(|request| request.tail);
        assert_eq!(tail(0), Some(None));
        assert_eq!(tail(-1), Some(Some(0)));
        assert_eq!(tail(-11), Some(Some(10)));
        assert_eq!(tail(3), None);
        assert_eq!(tail(i64::MIN), Some(Some(i64::MAX as u64)));
    }
}
