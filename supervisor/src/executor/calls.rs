//! What is asked of a shim. Each call may be repeated.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Result, anyhow};
use containerd_shim_protos::api::{KillRequest, StartRequest, UpdateTaskRequest};
use flint_shim_protocol::{
    AdoptRequest, Container, CreateRequest, ListRequest, MakeSandboxesRequest, Network, Phase, RemoveRequest,
    RemoveSandboxesRequest, Sandbox,
};
use protobuf::MessageField;
use protobuf::well_known_types::any::Any;

use super::Executor;

/// How long a call of the task API may take.
pub(super) fn patient() -> ttrpc::context::Context {
    ttrpc::context::with_duration(Duration::from_secs(60))
}

/// What a shim refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// ttrpc's code.
    pub code: i32,
    /// One sentence.
    pub message: String,
}

/// A shim that has died, and whose containers are not adopted yet.
#[derive(Debug, thiserror::Error)]
#[error("the shim {0} has died; another one is going to adopt its containers")]
pub(super) struct Lost(pub(super) String);

/// The shim's own sentence, without ttrpc's frame around it.
pub(super) fn told(error: ttrpc::Error) -> anyhow::Error {
    match error {
        ttrpc::Error::RpcStatus(status) => Failure { code: status.code.value(), message: status.message }.into(),
        lost => lost.into(),
    }
}

/// How a container was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Not at all.
    Absent,
    /// It waits for its start.
    Created,
    /// It runs.
    Running,
    /// It has ended.
    Stopped {
        /// None: nobody saw it.
        status: Option<u32>,
        /// When.
        at: SystemTime,
    },
}

/// What a shim has been taken over with.
#[derive(Debug)]
pub struct TakenOver {
    /// The containers that it was asked for.
    pub containers: Vec<ContainerState>,
    /// Those of them that it could not take over; why.
    pub refused: Vec<(String, Failure)>,
    /// What it has beside.
    pub strangers: Strangers,
}

/// What a shim has beside what it was asked for.
#[derive(Debug)]
pub struct Strangers {
    /// Containers.
    pub containers: Vec<ContainerState>,
    /// All its sandboxes: who asks knows which of them are pods.
    pub sandboxes: Vec<Sandbox>,
}

/// A container as a shim has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerState {
    /// Its id in the runtime.
    pub id: String,
    /// How it was found.
    pub found: Found,
    /// Its first process; 0: none.
    pub pid: u32,
    /// Its bundle.
    pub bundle: PathBuf,
}

/// Whether the shim has died in the call, or before it: what became of it is not known.
#[must_use]
pub fn is_lost(error: &anyhow::Error) -> bool {
    // What the shim itself has said is a `Failure`.
    error.chain().any(|cause| cause.is::<ttrpc::Error>() || cause.is::<Lost>())
}

/// Whether the shim knows no such container, or it has ended.
#[must_use]
pub fn is_missing(error: &anyhow::Error) -> bool {
    const NOT_FOUND: i32 = 5;
    error.chain().any(|cause| cause.downcast_ref::<Failure>().is_some_and(|failure| failure.code == NOT_FOUND))
}

fn refuse(failure: Option<flint_shim_protocol::Failure>) -> Result<()> {
    match failure {
        None => Ok(()),
        Some(failure) => Err(Failure { code: failure.code, message: failure.message }.into()),
    }
}

fn one<T>(items: Vec<T>) -> Result<T> {
    items.into_iter().next().ok_or_else(|| anyhow!("the shim answers for no item: it is of another version"))
}

impl Executor {
    /// Makes a sandbox, or takes it over as it is.
    ///
    /// # Errors
    ///
    /// The shim's sentence; see [`is_lost`], as everywhere here.
    pub async fn make_sandbox(&self, shim: &str, sandbox: Sandbox) -> Result<()> {
        let shim = self.shim(shim).await?;
        let made = shim.node.make_sandboxes(&MakeSandboxesRequest { sandboxes: vec![sandbox] }).await.map_err(told)?;
        refuse(one(made.sandboxes)?.failure)
    }

    /// Takes a sandbox away.
    ///
    /// # Errors
    ///
    /// Something is left.
    pub async fn remove_sandbox(&self, shim: &str, sandbox: Sandbox) -> Result<()> {
        let shim = self.shim(shim).await?;
        let removed =
            shim.node.remove_sandboxes(&RemoveSandboxesRequest { sandboxes: vec![sandbox] }).await.map_err(told)?;
        refuse(one(removed.sandboxes)?.failure)
    }

    /// Makes and starts a container; the pid of its init.
    ///
    /// # Errors
    ///
    /// Nothing is left of it then, unless the shim was lost.
    pub async fn run(&self, shim: &str, container: Container) -> Result<u32> {
        let shim = self.shim(shim).await?;
        let request = CreateRequest { containers: vec![container], start: true, concurrency: 0 };
        let created = one(shim.node.create(&request).await.map_err(told)?.containers)?;
        refuse(created.failure)?;
        Ok(created.pid)
    }

    /// Starts a container that was made; the pid of its init.
    ///
    /// # Errors
    ///
    /// The program cannot be started.
    pub async fn start(&self, shim: &str, id: &str) -> Result<u32> {
        let shim = self.shim(shim).await?;
        let request = StartRequest { id: id.to_owned(), ..StartRequest::default() };
        Ok(shim.task.start(patient(), &request).await.map_err(told)?.pid)
    }

    /// Sends a signal to a container's init, or to an exec.
    ///
    /// # Errors
    ///
    /// It has ended ([`is_missing`]).
    pub async fn kill(&self, shim: &str, id: &str, exec: &str, signal: u32) -> Result<()> {
        let shim = self.shim(shim).await?;
        let request = KillRequest { id: id.to_owned(), exec_id: exec.to_owned(), signal, ..KillRequest::default() };
        shim.task.kill(patient(), &request).await.map_err(told)?;
        Ok(())
    }

    /// Takes away what there is of a container, running or not.
    ///
    /// # Errors
    ///
    /// Something is left.
    pub async fn remove(&self, shim: &str, container: Container) -> Result<()> {
        let shim = self.shim(shim).await?;
        let removed = one(shim
            .node
            .remove(&RemoveRequest { containers: vec![container], concurrency: 0 })
            .await
            .map_err(told)?
            .containers)?;
        refuse(removed.failure)
    }

    /// Gives a running container other limits (JSON of the runtime-spec).
    ///
    /// # Errors
    ///
    /// The kernel refuses them.
    pub async fn update(&self, shim: &str, id: &str, resources: Vec<u8>) -> Result<()> {
        let shim = self.shim(shim).await?;
        let resources = Any {
            type_url: "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources".to_owned(),
            value: resources,
            ..Any::default()
        };
        let request = UpdateTaskRequest {
            id: id.to_owned(),
            resources: MessageField::some(resources),
            ..UpdateTaskRequest::default()
        };
        shim.task.update(patient(), &request).await.map_err(told)?;
        Ok(())
    }

    /// Takes over sandboxes and containers: of a shim that flintd left alone for a while, or of one that has died and is
    /// started anew. What there is of each container, and all that nobody asked about.
    ///
    /// # Errors
    ///
    /// The shim cannot be started or asked.
    pub async fn take_over(
        &self,
        shim: &str,
        sandboxes: Vec<Sandbox>,
        containers: Vec<Container>,
    ) -> Result<TakenOver> {
        let id = shim;
        let known = self.shims().by_id.get(id).filter(|shim| shim.is_alive()).cloned();
        let shim = match known {
            Some(shim) => shim,
            None => self.start_shim(id).await?,
        };
        for made in shim.node.make_sandboxes(&MakeSandboxesRequest { sandboxes }).await.map_err(told)?.sandboxes {
            if let Some(failure) = made.failure {
                // Its containers run on; what else needs it fails by itself.
                tracing::warn!(pod = made.id, shim = shim.id, "take over a sandbox: {}", failure.message);
            }
        }
        let asked: Vec<String> = containers.iter().map(|container| container.id.clone()).collect();
        let (mut taken, mut refused) = (Vec::new(), Vec::new());
        for mut state in shim.node.adopt(&AdoptRequest { containers }).await.map_err(told)?.containers {
            match state.failure.take() {
                None => taken.push(read(state)),
                Some(failure) => refused.push((state.id, Failure { code: failure.code, message: failure.message })),
            }
        }
        let all = shim.node.list(&ListRequest {}).await.map_err(told)?;
        let strangers = Strangers {
            containers: all.containers.into_iter().filter(|state| !asked.contains(&state.id)).map(read).collect(),
            sandboxes: all
                .sandboxes
                .into_iter()
                .map(|state| Sandbox {
                    network: Network::Own as i32,
                    network_path: self.network(&state.id).display().to_string(),
                    id: state.id,
                    folder: state.folder,
                    ..Sandbox::default()
                })
                .collect(),
        };
        self.shims().by_id.insert(id.to_owned(), shim);
        Ok(TakenOver { containers: taken, refused, strangers })
    }

    /// Where a pod's network namespace is bound.
    #[must_use]
    pub fn network(&self, uid: &str) -> PathBuf {
        self.place.network(uid)
    }

    /// A container that is known by no more than its id and bundle.
    #[must_use]
    pub fn named(id: &str, bundle: &Path) -> Container {
        Container { id: id.to_owned(), bundle: bundle.display().to_string(), ..Container::default() }
    }
}

fn read(state: flint_shim_protocol::ContainerState) -> ContainerState {
    let at = u64::try_from(state.exited_at).unwrap_or(0);
    let at = if at == 0 { SystemTime::now() } else { SystemTime::UNIX_EPOCH + Duration::from_nanos(at) };
    let found = match state.phase() {
        Phase::Absent => Found::Absent,
        Phase::Created => Found::Created,
        Phase::Running => Found::Running,
        Phase::Stopped => Found::Stopped { status: state.exit_status.and_then(super::events::known), at },
    };
    ContainerState { found, pid: state.pid, bundle: state.bundle.into(), id: state.id }
}
