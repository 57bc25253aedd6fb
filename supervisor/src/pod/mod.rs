//! A pod's worker: asks the reconciler for the next step, does it, writes down what came of it.
//!
//! ```text
//!  next(record, now) ─┬─> Wait: until the record changes, or a time has come (no timer otherwise)
//!                     └─> Act: intention into the store ─> the world ─> result into the store ─> again
//! ```
//!
//! A worker does one step at a time. A step that flintd's death interrupted is said again by the next flintd, and each can
//! be repeated. What fails is written into the record with the time of the next try; the worker itself never gives up.

mod end;
mod make;
mod prepare;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Result;

use crate::executor::is_lost;
use crate::node::{Entry, Node};
use crate::observed::Reason;
use crate::page::{Step, timings};
use crate::reconciler::{self, Action, Decision, pull_pause};
use crate::store::{ContainerRecord, PodRecord, Retry};

pub(crate) use end::{remove_own, signal_again};
pub(crate) use make::{begin_post_start, container_of, input_of, sandbox_of};

/// A store that cannot be written is tried again so often.
const STORE_PAUSE: Duration = Duration::from_secs(2);

/// Works until nothing of the pod is left.
pub(crate) async fn work(node: Arc<Node>, entry: Arc<Entry>) {
    loop {
        match entry.read(|record| reconciler::next(record, SystemTime::now())) {
            Decision::Wait(None) => entry.changed().await,
            Decision::Wait(Some(at)) => {
                let pause = at.duration_since(SystemTime::now()).unwrap_or_default();
                tokio::select! {
                    () = entry.changed() => {}
                    () = tokio::time::sleep(pause) => {}
                }
            }
            Decision::Act(Action::Forget) => match end::forget(&node, &entry).await {
                Ok(()) => return,
                Err(error) => pause(&node, &entry, &error).await,
            },
            Decision::Act(action) => {
                if let Err(error) = act(&node, &entry, action).await {
                    pause(&node, &entry, &error).await;
                }
            }
        }
    }
}

/// The store cannot be written: nothing was done, and nothing can be until what memory has is in it.
async fn pause(node: &Node, entry: &Entry, error: &anyhow::Error) {
    tracing::error!(pod = %entry.key(), "{error:#}");
    loop {
        tokio::time::sleep(STORE_PAUSE).await;
        match entry.change(node, |_| ()).await {
            Ok(()) => return,
            Err(error) => tracing::debug!(pod = %entry.key(), "{error:#}"),
        }
    }
}

/// One step. Failures of the world are in the record when it returns; an error is the store's.
async fn act(node: &Arc<Node>, entry: &Arc<Entry>, action: Action) -> Result<()> {
    if let Action::Pull { container } = &action {
        // It may take minutes, and is no work of this machine's processors.
        let began = Instant::now();
        let done = make::pull(node, entry, container).await;
        timings().observe(Step::Pull, began.elapsed());
        return done;
    }
    if action == Action::Prepare && node.is_behind(entry) {
        entry.changed().await;
        return Ok(());
    }
    // Nobody closes it.
    let _permit = node.steps.acquire().await;
    // While a dead shim's containers are adopted, nobody makes or removes any.
    let _still = node.adopting.read().await;
    let (step, began) = (step(&action), Instant::now());
    let done = match action {
        Action::Stop { container, grace, reason } => end::stop(node, entry, &container, grace, reason).await,
        Action::Kill { container } => end::kill(node, entry, &container).await,
        Action::Delete { container } => end::delete(node, entry, &container).await,
        Action::Drop { container } => end::drop_container(node, entry, &container).await,
        Action::TearDown => end::tear_down(node, entry).await,
        Action::Expire => end::expire(node, entry).await,
        Action::TakeOver => node.take_over_from(entry).await,
        Action::Delay => node.tell_delay(entry).await,
        Action::Prepare => prepare::prepare(node, entry).await,
        Action::Refresh => prepare::refresh(node, entry).await,
        Action::Create { container } => make::create(node, entry, &container).await,
        Action::Start { container } => make::start(node, entry, &container).await,
        Action::Update { container } => make::update(node, entry, &container).await,
        Action::Pull { .. } | Action::Forget => Ok(()),
    };
    if let Some(step) = step {
        timings().observe(step, began.elapsed());
    }
    done
}

/// How the metrics call an action.
fn step(action: &Action) -> Option<Step> {
    Some(match action {
        Action::Pull { .. } => Step::Pull,
        Action::Prepare => Step::Prepare,
        Action::Create { .. } => Step::Create,
        Action::Start { .. } => Step::Start,
        Action::Stop { .. } => Step::Stop,
        Action::Kill { .. } => Step::Kill,
        Action::Delete { .. } => Step::Delete,
        Action::Update { .. } => Step::Update,
        Action::TearDown => Step::TearDown,
        Action::Drop { .. } | Action::Expire | Action::TakeOver | Action::Delay | Action::Refresh | Action::Forget => {
            return None;
        }
    })
}

fn reason(word: &str, error: &anyhow::Error) -> Reason {
    Reason { word: word.to_owned(), sentence: format!("{error:#}") }
}

impl Retry {
    /// One more failure. A shim that has died is no fault of the pod's: it is back in a moment.
    pub(crate) fn failed(&mut self, reason: Reason, was_lost: bool) {
        let pause = if was_lost {
            Duration::from_secs(1)
        } else {
            self.failures += 1;
            pull_pause(self.failures)
        };
        self.next = Some(SystemTime::now() + pause);
        self.reason = Some(reason);
    }
}

/// Writes down that something of a container failed, and tells it.
async fn failed(node: &Node, entry: &Entry, container: &str, word: &str, error: &anyhow::Error) -> Result<()> {
    let why = reason(word, error);
    node.tell(Some(&entry.key()), Some(container), true, why.clone());
    let was_lost = is_lost(error);
    entry.change(node, |record| of(record, container).retry.failed(why, was_lost)).await
}

/// The record of a container, which is made where it is missing.
fn of<'a>(record: &'a mut PodRecord, container: &str) -> &'a mut ContainerRecord {
    record.containers.entry(container.to_owned()).or_default()
}

/// Runs what may wait on a thread of its own.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await?
}
