use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::{Beginning, Scheduler};
use crate::desired::{Check, Key, Probe};
use crate::probes::{Change, Exec, Exited, Kind, NotRun, Report, Target, Watch};

/// Answers with what stands in the program's place: a status, `lost`, or `hang`.
#[derive(Default)]
struct Script {
    asked: AtomicUsize,
}

#[async_trait]
impl Exec for Script {
    async fn exec(&self, _target: &Target, argv: &[String], timeout: Duration) -> Result<Exited, NotRun> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if let Ok(status) = argv[0].parse() {
            return Ok(Exited { status, output: "said so".to_owned() });
        }
        if argv[0] == "lost" {
            return Err(NotRun::Lost("its shim has died".to_owned()));
        }
        tokio::time::sleep(timeout).await;
        Err(NotRun::Failed("took too long".to_owned()))
    }
}

fn probe(program: &str) -> Probe {
    Probe {
        check: Check::Exec(vec![program.to_owned()]),
        initial_delay: Duration::ZERO,
        period: Duration::from_secs(1),
        timeout: Duration::from_secs(1),
        success_threshold: 1,
        failure_threshold: 3,
        grace: None,
    }
}

fn watch(id: &str, liveness: Option<Probe>, readiness: Option<Probe>) -> Watch {
    let target =
        Target { id: id.to_owned(), pod: Key::new("default", "web"), container: "main".to_owned(), address: None };
    Watch { target, since: SystemTime::now(), started: false, ready: false, startup: None, liveness, readiness }
}

fn begin() -> (Arc<Script>, Scheduler, mpsc::Receiver<Report>) {
    let (script, (reports, received)) = (Arc::new(Script::default()), mpsc::channel(16));
    let scheduler = Scheduler::new(Arc::clone(&script) as Arc<dyn Exec>, reports);
    (script, scheduler, received)
}

#[tokio::test(start_paused = true)]
async fn what_fails_is_reported_each_time_and_killed_once() {
    let (script, scheduler, mut reports) = begin();
    let beginning = scheduler.watch(watch("a", Some(probe("7")), None));
    assert_eq!(beginning, Beginning { started: true, ready: true });
    let mut changes = Vec::new();
    for _ in 0..3 {
        let report = reports.recv().await.unwrap();
        assert_eq!(report.kind, Kind::Liveness);
        assert_eq!(report.failure.as_deref(), Some("7 ended with status 7: said so"));
        changes.extend(report.changes);
    }
    assert_eq!(changes, [Change::Ready(false), Change::Kill(None)]);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(script.asked.load(Ordering::Relaxed), 3, "what is to be killed is asked no more");
    assert!(reports.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn only_changes_of_what_goes_well_are_reported() {
    let (script, scheduler, mut reports) = begin();
    let beginning = scheduler.watch(watch("a", Some(probe("0")), Some(probe("0"))));
    assert_eq!(beginning, Beginning { started: true, ready: false });
    let report = reports.recv().await.unwrap();
    assert_eq!((report.kind, report.failure, report.changes), (Kind::Readiness, None, vec![Change::Ready(true)]));
    while script.asked.load(Ordering::Relaxed) < 20 {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(reports.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn what_was_lost_is_asked_again_and_not_reported() {
    let (script, scheduler, mut reports) = begin();
    scheduler.watch(watch("a", Some(probe("lost")), Some(probe("lost"))));
    while script.asked.load(Ordering::Relaxed) < 20 {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(reports.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_container_is_neither_asked_nor_reported() {
    let (script, scheduler, mut reports) = begin();
    scheduler.watch(watch("a", Some(probe("hang")), None));
    while script.asked.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    scheduler.forget("a");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(script.asked.load(Ordering::Relaxed), 1);
    assert!(reports.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_slow_container_holds_no_other_up() {
    let (_script, scheduler, mut reports) = begin();
    for index in 0..100 {
        scheduler.watch(watch(&format!("slow{index}"), None, Some(probe("hang"))));
    }
    scheduler.watch(watch("quick", None, Some(probe("0"))));
    let first = reports.recv().await.unwrap();
    assert_eq!((first.target.id.as_str(), first.changes), ("quick", vec![Change::Ready(true)]));
}
