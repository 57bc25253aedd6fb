//! One task for all probes of the node.

use std::cmp::Reverse;
use std::collections::hash_map::DefaultHasher;
use std::collections::{BinaryHeap, HashMap};
use std::hash::{Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tokio::sync::{Semaphore, mpsc};

use super::{Answer, Change, Exec, Kind, Machine, Report, Watch, ask};
use crate::desired::Check;

/// So many questions are on their way at once at most. What is due beyond waits for its turn; its timeout counts from then.
const AT_ONCE: usize = 256;

enum Command {
    Watch(Box<Watch>),
    Forget(String),
}

/// What is known of a container at the moment it is watched: what its status says until the first report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beginning {
    /// It has no startup probe, or has started before.
    pub started: bool,
    /// It has no readiness probe and has started, or was ready before.
    pub ready: bool,
}

/// The probes of the node. Dropped, it asks no more.
pub struct Scheduler {
    commands: mpsc::UnboundedSender<Command>,
}

impl Scheduler {
    /// Begins; programs are run by `exec`, and what there is to tell goes to `reports`. A receiver that is slow delays the
    /// following questions, and loses none of the reports.
    #[must_use]
    pub fn new(exec: Arc<dyn Exec>, reports: mpsc::Sender<Report>) -> Self {
        let (commands, received) = mpsc::unbounded_channel();
        tokio::spawn(Worker::new(exec, reports).run(received));
        Self { commands }
    }

    /// Asks a container from now on, in place of one with the same id. One without probes need not be watched.
    #[allow(clippy::must_use_candidate, reason = "one who reads the beginning off its own status needs no answer")]
    pub fn watch(&self, watch: Watch) -> Beginning {
        let at = now();
        let machine = Machine::new(&watch, at, at, 0);
        // The worker ends only with its runtime.
        let _ended = self.commands.send(Command::Watch(Box::new(watch)));
        Beginning { started: machine.is_started(), ready: machine.is_ready() }
    }

    /// Asks a container no more, by its id in the runtime. An answer that is on its way is not reported.
    pub fn forget(&self, id: &str) {
        let _ended = self.commands.send(Command::Forget(id.to_owned()));
    }
}

struct Watched {
    watch: Watch,
    machine: Machine,
    /// Tells this watch from an earlier one of the same id.
    serial: u64,
}

struct Answered {
    id: String,
    serial: u64,
    kind: Kind,
    answer: Answer,
}

struct Worker {
    exec: Arc<dyn Exec>,
    reports: mpsc::Sender<Report>,
    watched: HashMap<String, Watched>,
    due: BinaryHeap<Reverse<(Instant, u64, String)>>,
    serial: u64,
    turns: Arc<Semaphore>,
}

impl Worker {
    fn new(exec: Arc<dyn Exec>, reports: mpsc::Sender<Report>) -> Self {
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        Self { exec, reports, watched: HashMap::new(), due: BinaryHeap::new(), serial: 0, turns }
    }

    async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        let (answers, mut answered) = mpsc::unbounded_channel();
        loop {
            let next = self.due.peek().map(|Reverse((at, ..))| tokio::time::Instant::from_std(*at));
            let wait = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::Watch(watch)) => self.watch(*watch),
                    Some(Command::Forget(id)) => drop(self.watched.remove(&id)),
                    None => return,
                },
                Some(answer) = answered.recv() => {
                    if let Some(report) = self.take(answer)
                        && self.reports.send(report).await.is_err()
                    {
                        return;
                    }
                }
                () = wait => self.ask_due(&answers),
            }
        }
    }

    fn watch(&mut self, watch: Watch) {
        self.serial += 1;
        let (at, id) = (now(), watch.target.id.clone());
        let age = SystemTime::now().duration_since(watch.since).unwrap_or_default();
        let since = at.checked_sub(age).unwrap_or(at);
        let machine = Machine::new(&watch, since, at, part_of(&id));
        self.watched.insert(id.clone(), Watched { watch, machine, serial: self.serial });
        self.queue(&id);
    }

    fn queue(&mut self, id: &str) {
        let Some(watched) = self.watched.get(id) else { return };
        if let Some((at, _)) = watched.machine.next() {
            self.due.push(Reverse((at, watched.serial, id.to_owned())));
        }
    }

    fn ask_due(&mut self, answers: &mpsc::UnboundedSender<Answered>) {
        let at = now();
        while let Some(Reverse((due, ..))) = self.due.peek() {
            if *due > at {
                return;
            }
            let Some(Reverse((_, serial, id))) = self.due.pop() else { return };
            let Some(watched) = self.watched.get_mut(&id).filter(|watched| watched.serial == serial) else { continue };
            // An entry of before an answer is stale when the machine says another time, which has an entry of its own.
            while let Some((_, kind)) = watched.machine.next().filter(|(due, _)| *due <= at) {
                watched.machine.asked(kind);
                if let Some(question) = Question::new(&watched.watch, kind) {
                    tokio::spawn(question.put(
                        Arc::clone(&self.exec),
                        Arc::clone(&self.turns),
                        serial,
                        answers.clone(),
                    ));
                }
            }
            self.queue(&id);
        }
    }

    fn take(&mut self, Answered { id, serial, kind, answer }: Answered) -> Option<Report> {
        let watched = self.watched.get_mut(&id).filter(|watched| watched.serial == serial)?;
        let target = watched.watch.target.clone();
        let (answer, failure) = match answer {
            Answer::Yes => (Some(true), None),
            Answer::No(why) => (Some(false), Some(why)),
            Answer::Lost(why) => {
                tracing::warn!(pod = %target.pod, container = target.container, "the {} probe: {why}", kind.name());
                (None, None)
            }
        };
        let changes = watched.machine.answered(kind, answer, now());
        if changes.iter().any(|change| matches!(change, Change::Kill(_))) {
            self.watched.remove(&id);
        } else {
            self.queue(&id);
        }
        (failure.is_some() || !changes.is_empty()).then_some(Report { target, kind, failure, changes })
    }
}

struct Question {
    target: super::Target,
    check: Check,
    timeout: std::time::Duration,
    kind: Kind,
}

impl Question {
    fn new(watch: &Watch, kind: Kind) -> Option<Self> {
        let probe = match kind {
            Kind::Startup => watch.startup.as_ref(),
            Kind::Liveness => watch.liveness.as_ref(),
            Kind::Readiness => watch.readiness.as_ref(),
        }?;
        Some(Self { target: watch.target.clone(), check: probe.check.clone(), timeout: probe.timeout, kind })
    }

    async fn put(
        self,
        exec: Arc<dyn Exec>,
        turns: Arc<Semaphore>,
        serial: u64,
        answers: mpsc::UnboundedSender<Answered>,
    ) {
        let Ok(_turn) = turns.acquire().await else { return };
        let answer = ask(&self.check, &self.target, self.timeout, &*exec).await;
        let _ended = answers.send(Answered { id: self.target.id, serial, kind: self.kind, answer });
    }
}

/// The executor's clock: tests move it on.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Where in a period a container's late probes begin: always the same for the same id, and spread over all ids.
fn part_of(id: &str) -> u32 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    (hasher.finish() % 1000) as u32
}

#[cfg(test)]
mod tests;
