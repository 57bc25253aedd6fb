//! The scheduler as a whole: waits for an identity, and keeps a session for as long as there is one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};

use super::describe::{describe, limitations};
use super::identity::{self, IDENTITY, Identity, check_validity};
use super::managers::{Managers, random};
use super::mapping::SWARM;
use super::reports::Reports;
use super::rpc::Connection;
use super::session::{End, Links, Session};
use super::store::Store;
use super::wire::ca::Issuance;
use super::wire::dispatcher::SessionMessage;
use super::worker::{Command, Worker, remove_pods};
use crate::scheduler::{Host, Scheduler, Standing};

/// How often it is looked whether the node has joined or left.
const LOOK: Duration = Duration::from_secs(1);

/// swarmkit's back-off between sessions.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// Between tries of a renewal, and between those of a node that cannot write down what it does.
const RENEWAL_PAUSE: Duration = Duration::from_secs(10);
const TROUBLE_PAUSE: Duration = Duration::from_secs(10);

/// The client of a swarm.
#[derive(Debug, Default)]
pub struct Swarm;

#[async_trait]
impl Scheduler for Swarm {
    fn name(&self) -> &'static str {
        SWARM
    }

    async fn run(
        self: Box<Self>,
        host: Arc<dyn Host>,
        folder: &Path,
        mut stop: watch::Receiver<bool>,
    ) -> anyhow::Result<()> {
        let work = async {
            let mut told = String::new();
            loop {
                let identity = || std::fs::read(folder.join(IDENTITY)).ok();
                let before = identity();
                match member(&host, folder).await {
                    Ok(Ended::Left) => {
                        tracing::info!("the node has left its swarm");
                        host.tell(None);
                    }
                    // A disk that is full, for one: its pods go on, and it is a member again when there is room.
                    Err(error) => {
                        tracing::error!(
                            "the node does not work for its swarm, tried again in {TROUBLE_PAUSE:?}: {error:#}"
                        );
                        tell(&host, format!("the node does not work for its swarm, and tries again: {error:#}"));
                        sleep(TROUBLE_PAUSE).await;
                    }
                    Ok(Ended::Useless(why)) => {
                        if why != told {
                            tracing::error!("{why}");
                        }
                        told.clone_from(&why);
                        tell(&host, why);
                        // Until it leaves or joins; its cause may pass, too: a clock that was wrong, a file that could not be read.
                        let other = async {
                            while before == identity() {
                                sleep(LOOK).await;
                            }
                        };
                        if timeout(TROUBLE_PAUSE, other).await.is_ok() {
                            told.clear();
                        }
                    }
                }
            }
        };
        tokio::select! {
            ended = work => ended,
            _ = stop.wait_for(|stop| *stop) => Ok(()),
        }
    }
}

/// How a membership ended.
enum Ended {
    /// By `flintd leave`.
    Left,
    /// With what it has the node is no member, unless that passes: why, and what to do.
    Useless(String),
}

fn tell(host: &Arc<dyn Host>, sentence: String) {
    host.tell(Some(Standing { sentence, limitations: limitations() }));
}

/// One membership, from when the node has an identity to when it has none.
async fn member(host: &Arc<dyn Host>, folder: &Path) -> anyhow::Result<Ended> {
    // A disk that does not say is none that says no.
    if !folder.join(IDENTITY).try_exists().unwrap_or(true) {
        // It may have left while flintd did not run.
        remove_pods(host).await;
        let _ = std::fs::remove_file(folder.join("tasks.redb"));
    }
    let identity = loop {
        match Identity::load(folder) {
            Ok(Some(identity)) => break identity,
            Ok(None) => sleep(LOOK).await,
            Err(error) => return Ok(Ended::Useless(format!("{error:#}"))),
        }
    };
    let node = identity.chain().node_id.clone();
    let reports = Reports::default();
    let (roster_sender, roster) = watch::channel(Arc::default());
    let description = describe(&host.describe(), &identity);
    let worker = Worker::new(Arc::clone(host), description, Store::open(folder)?, reports.clone(), roster_sender)?;
    let (commands, ear) = mpsc::channel(8);
    let mut working = tokio::spawn(worker.run(ear));
    let links = Links { host: Arc::clone(host), commands: commands.clone(), reports, roster };
    let mut membership = Membership {
        folder: folder.to_owned(),
        managers: Managers::load(folder)?,
        identity,
        links,
        session_id: String::new(),
        must_renew: false,
    };
    let end = tokio::select! {
        end = membership.keep() => end,
        ended = &mut working => return ended.context("the worker")?.and(Ok(Ended::Left)),
        () = has_left(folder, &node) => Ok(Gone::Left),
    };
    if matches!(end, Ok(Gone::Left | Gone::Removed(_))) {
        let (done, gone) = oneshot::channel();
        commands.send(Command::RemoveAll(done)).await.context("the worker has ended")?;
        gone.await.context("the worker has ended")?;
    }
    drop((membership, commands));
    working.await.context("the worker")??;
    let why = match end? {
        // Its pods go on: whatever is wrong with the identity, the node was not taken out of the swarm.
        Gone::Useless(why) => return Ok(Ended::Useless(why)),
        Gone::Removed(why) => Some(why),
        Gone::Left => None,
    };
    let _ = std::fs::remove_file(folder.join("tasks.redb"));
    let Some(why) = why.filter(|_| !is_another(folder, &node)) else { return Ok(Ended::Left) };
    Identity::remove(folder)?;
    Managers::remove(folder)?;
    let sentence =
        format!("the swarm has removed this node ({why}): its pods are stopped. `flintd join` makes it a member again");
    Ok(Ended::Useless(sentence))
}

async fn has_left(folder: &Path, node: &str) {
    while !is_another(folder, node) {
        sleep(LOOK).await;
    }
}

/// Whether the folder's identity is not this node's: it was left, and joined again perhaps. One that cannot be read says nothing.
fn is_another(folder: &Path, node: &str) -> bool {
    Identity::load(folder).is_ok_and(|identity| identity.is_none_or(|identity| identity.chain().node_id != node))
}

struct Membership {
    folder: PathBuf,
    identity: Identity,
    managers: Managers,
    links: Links,
    session_id: String,
    /// Whether a manager asked for a new certificate.
    must_renew: bool,
}

/// Why no session is to be kept any more.
enum Gone {
    /// The node has left.
    Left,
    /// A manager says that it is none of the swarm's.
    Removed(String),
    /// No manager takes what the node has; why, and what to do.
    Useless(String),
}

/// Why there is to be a new session.
enum Again {
    /// The node's certificate or root is another one: at once.
    Changed,
    /// It broke.
    Broken(anyhow::Error),
    /// The manager says that the node is none of the swarm's.
    Removed(String),
}

impl Membership {
    /// Keeps a session until there cannot be one; why.
    async fn keep(&mut self) -> anyhow::Result<Gone> {
        let mut pause = Duration::ZERO;
        loop {
            sleep(pause.mul_f64(random())).await;
            if let Err(expired) = check_validity(&self.identity, SystemTime::now()) {
                return Ok(Gone::Useless(expired.to_string()));
            }
            let Some(manager) = self.managers.pick(random()) else {
                return Ok(Gone::Useless("the node knows no manager: `flintd leave`, and join again".to_owned()));
            };
            let mut registered = false;
            let again = self.session(&manager, &mut registered).await?;
            self.managers.observe(&manager, registered);
            if registered {
                pause = Duration::ZERO;
            }
            match again {
                Again::Removed(why) => return Ok(Gone::Removed(why)),
                Again::Changed => {}
                Again::Broken(error) => {
                    self.managers.observe(&manager, false);
                    pause = LONGEST_PAUSE.min(FIRST_PAUSE + pause * 2);
                    tracing::warn!(manager, "the session with the swarm is lost: {error:#}");
                    tell(&self.links.host, format!("no session; another manager is tried: {manager}: {error:#}"));
                }
            }
        }
    }

    async fn session(&mut self, manager: &str, registered: &mut bool) -> anyhow::Result<Again> {
        let connection = match Connection::open(manager, &self.identity.trust()).await {
            Ok(connection) => connection,
            Err(error) => return Ok(Again::Broken(error)),
        };
        let description = describe(&self.links.host.describe(), &self.identity);
        let (session, first) = match Session::open(connection, description, &self.session_id).await {
            Ok(opened) => opened,
            Err(End::Removed(why)) => return Ok(Again::Removed(why)),
            Err(End::Broken(error)) => return Ok(Again::Broken(error)),
        };
        *registered = true;
        session.id().clone_into(&mut self.session_id);
        let node = &self.identity.chain().node_id;
        tracing::info!(manager, node, "the node is in the swarm");
        tell(&self.links.host, format!("member as {node}, in session with {manager}"));
        let (notices, mut told) = mpsc::channel(8);
        let _ = notices.send(first).await;
        let running = session.run(self.links.clone(), notices);
        tokio::pin!(running);
        let mut renewal = Box::pin(self.renewal(manager));
        loop {
            tokio::select! {
                end = &mut running => return Ok(match end {
                    End::Removed(why) => Again::Removed(why),
                    End::Broken(error) => Again::Broken(error),
                }),
                Some(message) = told.recv() => {
                    let was_wanted = self.must_renew;
                    if self.notice(&message)? {
                        return Ok(Again::Changed);
                    }
                    // One that is under way is not begun anew: the manager's next message is about its own outcome.
                    if self.must_renew && !was_wanted {
                        renewal = Box::pin(self.renewal(manager));
                    }
                }
                renewed = &mut renewal => {
                    self.save(&renewed)?;
                    tracing::info!("the node's certificate is renewed");
                    self.must_renew = false;
                    self.identity = renewed;
                    return Ok(Again::Changed);
                }
            }
        }
    }

    /// Writes it down, unless the node has left meanwhile.
    fn save(&self, identity: &Identity) -> anyhow::Result<()> {
        if is_another(&self.folder, &identity.chain().node_id) { Ok(()) } else { identity.save(&self.folder) }
    }

    /// Takes what a manager says of the node and of the swarm; whether a new session has to be opened.
    fn notice(&mut self, message: &SessionMessage) -> anyhow::Result<bool> {
        if self.managers.replace(&message.managers) {
            self.managers.save(&self.folder)?;
        }
        let status = message.node.as_ref().and_then(|node| node.certificate.as_ref()?.status.as_ref());
        if status.is_some_and(|status| status.state == i32::from(Issuance::Rotate)) {
            self.must_renew = true;
        }
        if message.root_ca.is_empty() || message.root_ca == self.identity.root() {
            return Ok(false);
        }
        match self.identity.with_root(&message.root_ca) {
            Ok(identity) => {
                self.save(&identity)?;
                self.identity = identity;
                tracing::info!("the swarm has a new root certificate");
                Ok(true)
            }
            // A new certificate of the new root comes first.
            Err(error) => {
                tracing::warn!("{error:#}: a new certificate is asked for");
                self.must_renew = true;
                Ok(false)
            }
        }
    }

    /// Waits until it is time, and gets a new certificate, however often it takes.
    fn renewal(&self, manager: &str) -> impl Future<Output = Identity> + Send + 'static {
        let identity = self.identity.clone();
        let manager = manager.to_owned();
        let is_wanted = self.must_renew;
        async move {
            if !is_wanted {
                sleep(identity.renew_in(SystemTime::now(), random())).await;
            }
            loop {
                match identity::renew(&identity, &manager).await {
                    Ok(renewed) => return renewed,
                    Err(error) => {
                        tracing::warn!("the node's certificate is not renewed yet: {error:#}");
                        sleep(RENEWAL_PAUSE).await;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::Fake;
    use super::super::identity::tests::Root;
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_useless_is_tried_again() {
        let (fake, folder) = (Arc::new(Fake::default()), tempfile::tempdir().unwrap());
        Root::new().identity("node", -60, 3600).save(folder.path()).unwrap();
        Managers::default().save(folder.path()).unwrap();
        // Its disk gives one file for a moment not.
        let (root, aside) = (folder.path().join("root.pem"), folder.path().join("aside"));
        std::fs::rename(&root, &aside).unwrap();
        let (stop, stopped) = watch::channel(false);
        let (host, path) = (fake.clone(), folder.path().to_owned());
        let running = tokio::spawn(async move { Box::new(Swarm).run(host, &path, stopped).await });
        let says = async |what: &str| {
            let said = async {
                while !fake.state().standing.contains(what) {
                    sleep(LOOK / 10).await;
                }
            };
            timeout(TROUBLE_PAUSE * 3, said).await.unwrap_or_else(|_| panic!("{what}: {}", fake.state().standing));
        };
        says("root.pem is missing").await;
        std::fs::rename(&aside, &root).unwrap();
        says("knows no manager").await;
        stop.send_replace(true);
        running.await.unwrap().unwrap();
    }
}
