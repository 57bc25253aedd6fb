//! Calls, and streams that tell.

use std::fs;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use super::{Node, soon, target};
use crate::api::Manifest;
use crate::api::client::{Error, PullEvent, Target};
use crate::api::fake::{event, pod};
use crate::desired::{Goal, Key, RestartPolicy};
use crate::observed::{ContainerState, Exit, Phase, Reason};
use crate::scheduler::LogRequest;

fn manifest(text: &str) -> Vec<Manifest> {
    vec![Manifest { name: "-".to_owned(), text: text.to_owned() }]
}

#[tokio::test]
async fn calls_reach_the_node_and_failures_keep_their_kind() {
    let node = Node::serve();
    let client = node.client().await;
    let changes = client.apply(manifest("web"), true).await.unwrap();
    assert_eq!(changes[0].key, Key::new("default", "web"));
    let key = Key::new("default", "no");
    let error = client.remove(&key, Some(Duration::from_secs(2))).await.unwrap_err();
    assert!(matches!(&error, Error::Missing(text) if text == "there is no pod default/no"), "{error:?}");
    let error = client.stop(&key, None).await.unwrap_err();
    assert!(matches!(error, Error::NotNow(_)), "{error:?}");
    client.restart(&Target { pod: key.clone(), container: Some("main".to_owned()) }).await.unwrap();
    assert_eq!(
        *node.fake.calls.lock().unwrap(),
        ["apply true", "remove default/no Some(2s)", "restart default/no Some(\"main\")"]
    );
    assert_eq!(client.node().await.unwrap().hostname, "here");
    assert_eq!(client.usage().await.unwrap()[0].containers["main"].memory, 1 << 20);
    assert!(matches!(client.inspect(&key).await, Err(Error::Missing(_))));
    node.fake.change(|pods| pods.push(pod("web")));
    let all = client.inspect(&Key::new("default", "web")).await.unwrap();
    assert_eq!(all.status.phase, Phase::Running);
    assert_eq!(all.desired.unwrap().containers[0].env[0].value, "<hidden>");
    let error = client.apply(manifest(&"x".repeat(5 << 20)), true).await.unwrap_err();
    assert!(matches!(&error, Error::Refused(text) if text.contains("in parts")), "{error:?}");
}

#[tokio::test]
async fn a_change_goes_on_when_its_client_has_gone() {
    let node = Node::serve();
    let client = node.client().await;
    let asked = tokio::spawn(async move { client.apply(manifest("slow"), false).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    asked.abort();
    assert!(asked.await.unwrap_err().is_cancelled());
    tokio::time::sleep(Duration::from_millis(100)).await;
    node.fake.slow.notify_one();
    soon(async {
        while !node.fake.done.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn thousands_of_pods_are_listed_and_watched() {
    let node = Node::serve();
    node.fake.change(|pods| pods.extend((0..5000).map(|number| pod(&format!("p{number}")))));
    let client = node.client().await;
    let mut once = client.pods(false).await.unwrap();
    assert_eq!(soon(once.next()).await.unwrap().unwrap().pods.len(), 5000);
    assert!(soon(once.next()).await.unwrap().is_none());
    let mut pods = client.pods(true).await.unwrap();
    assert_eq!(soon(pods.next()).await.unwrap().unwrap().pods.len(), 5000);
    node.fake.change(|pods| {
        pods.remove(7);
        pods[0].goal = Goal::Stopped;
    });
    let change = soon(pods.next()).await.unwrap().unwrap();
    assert_eq!(change.gone, [Key::new("default", "p7")]);
    assert_eq!(change.pods.len(), 1);
    assert_eq!(change.pods[0].goal, Goal::Stopped);
}

#[tokio::test]
async fn events_and_pulls_come_as_they_happen() {
    let node = Node::serve();
    let client = node.client().await;
    let mut events = client.events(true).await.unwrap();
    assert_eq!(soon(events.next()).await.unwrap().unwrap(), event("Before"));
    node.fake.events.send(event("After")).unwrap();
    assert_eq!(soon(events.next()).await.unwrap().unwrap(), event("After"));
    let mut pull = client.pull("web:1").await.unwrap();
    assert!(matches!(soon(pull.next()).await.unwrap(), Some(PullEvent::Step(_))));
    assert!(matches!(soon(pull.next()).await.unwrap(), Some(PullEvent::Done(image)) if image.bytes == 5));
    assert!(soon(pull.next()).await.unwrap().is_none());
    let mut pull = client.pull("bad").await.unwrap();
    soon(pull.next()).await.unwrap();
    assert!(matches!(soon(pull.next()).await, Err(Error::Broken(text)) if text.contains("on fire")));
}

/// The state of a container that ended with this status.
fn exited(status: u32) -> ContainerState {
    ContainerState::Exited(Exit {
        status: Some(status),
        oom: false,
        started: None,
        finished: SystemTime::UNIX_EPOCH,
        reason: Reason::default(),
        message: String::new(),
    })
}

#[tokio::test]
async fn logs_are_followed_from_before_the_start_to_the_last_end() {
    let node = Node::serve();
    let client = node.client().await;
    let wanted = LogRequest { follow: true, ..LogRequest::default() };
    let mut lines = client.logs(&target("web"), &wanted, false).await.unwrap();
    assert!(matches!(soon(lines.next()).await, Err(Error::Missing(_))));
    node.fake.change(|pods| {
        let mut view = pod("web");
        view.restart = RestartPolicy::OnFailure;
        view.status.phase = Phase::Pending;
        pods.push(view);
    });
    let now = LogRequest::default();
    assert!(matches!(
        soon(client.logs(&target("web"), &now, false).await.unwrap().next()).await,
        Err(Error::NotNow(_))
    ));
    let mut lines = client.logs(&target("web"), &wanted, false).await.unwrap();
    let reader = tokio::spawn(async move {
        let mut texts = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            texts.push(String::from_utf8(line.bytes).unwrap());
        }
        texts
    });
    let folder = node.folder.path().join("logs/web/main");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("0.log"), "2026-11-28T16:00:00Z stdout F one\n").unwrap();
    node.fake.change(|pods| pods[0].status.containers.get_mut("main").unwrap().state = exited(1));
    fs::write(folder.join("1.log"), "2026-11-28T16:00:00Z stderr F two\n").unwrap();
    node.fake.change(|pods| pods[0].status.containers.get_mut("main").unwrap().state = exited(0));
    assert_eq!(soon(reader).await.unwrap().last().unwrap(), "two\n");
    let mut lines = client.logs(&target("web"), &now, true).await.unwrap();
    assert_eq!(soon(lines.next()).await.unwrap().unwrap().bytes, b"one\n");
    let other = Target { container: Some("other".to_owned()), ..target("web") };
    let error = soon(client.logs(&other, &now, false).await.unwrap().next()).await.unwrap_err();
    assert!(matches!(&error, Error::Missing(text) if text.contains("it has main")), "{error}");
}

/// 40 MB of log: whole and in order, and the client's memory is not where they wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_log_comes_whole_and_a_client_that_stalls_holds_up_nobody() {
    let node = Node::serve();
    node.fake.change(|pods| pods.push(pod("web")));
    let folder = node.folder.path().join("logs/web/main");
    fs::create_dir_all(&folder).unwrap();
    let entry = |number: u32| format!("2026-11-28T16:00:00Z stdout F {number:0100}\n");
    fs::write(folder.join("0.log"), (0..300_000).map(entry).collect::<String>()).unwrap();
    let mut stalled = Vec::new();
    for _ in 0..8 {
        stalled.push(node.client().await.logs(&target("web"), &LogRequest::default(), false).await.unwrap());
    }
    // On the same connection, too.
    let client = node.client().await;
    let mut other = client.logs(&target("web"), &LogRequest::default(), false).await.unwrap();
    soon(other.next()).await.unwrap();
    let mut lines = client.logs(&target("web"), &LogRequest::default(), false).await.unwrap();
    let mut count = 0_u32;
    while let Some(line) = soon(lines.next()).await.unwrap() {
        let number: u32 = std::str::from_utf8(&line.bytes).unwrap().trim().parse().unwrap();
        assert_eq!(number, count);
        count += 1;
    }
    assert_eq!(count, 300_000);
    assert!(soon(stalled[0].next()).await.unwrap().is_some());
}
