//! Containers of a batch: made, and taken away.

use std::path::PathBuf;
use std::sync::Arc;

use containerd_shim_protos::types::mount::Mount;
use flint_shim_protocol::{Container, ContainerState, Created, Phase as Told, Removed};

use super::{Node, failure};
use crate::config::Place;
use crate::error::{Error, Result};
use crate::process::{Exit, Phase};
use crate::stdio::Streams;
use crate::task::{Request, Task, blocking};
use crate::{clock, rootfs};

impl Node {
    pub(super) async fn create(&self, container: Container, start: bool) -> Created {
        let id = container.id.clone();
        match self.try_create(container, start).await {
            Ok(pid) => Created { id, failure: None, pid },
            Err(error) => Created { id, failure: Some(failure(&error)), pid: 0 },
        }
    }

    async fn try_create(&self, container: Container, start: bool) -> Result<u32> {
        let pod = self.pods.named(&container.sandbox)?;
        let claim = self.tasks.claim(&container.id)?;
        let request = Request { pod, start, ..request(container, self) };
        let task = Task::create(self.shared.clone(), request).await?;
        let pid = task.init.pid();
        claim.made(task);
        Ok(pid)
    }

    pub(super) async fn remove(&self, container: Container) -> Removed {
        let id = container.id.clone();
        match self.try_remove(container).await {
            Ok((exit_status, exited_at)) => Removed { id, failure: None, exit_status, exited_at },
            Err(error) => Removed { id, failure: Some(failure(&error)), ..Removed::default() },
        }
    }

    async fn try_remove(&self, container: Container) -> Result<(Option<u32>, i64)> {
        self.tasks.settled(&container.id).await;
        let Ok(task) = self.tasks.get(&container.id) else {
            self.remove_left(container).await?;
            return Ok((None, 0));
        };
        if task.init.phase() == Phase::Running {
            // One that has ended meanwhile is fine; one that does not end is told by Delete.
            let _ = task.kill("", nix::libc::SIGKILL, false).await;
            task.ends().await?;
        }
        let (_, exit) = task.delete().await?;
        self.tasks.remove(&container.id);
        Ok((exit.known(), clock::nanoseconds(exit.at)))
    }

    /// What is left of a container that no shim has.
    async fn remove_left(&self, container: Container) -> Result<()> {
        // Nobody makes it meanwhile.
        let claim = self.tasks.claim(&container.id)?;
        let bundle = PathBuf::from(&container.bundle);
        if !bundle.is_absolute() {
            return Err(Error::invalid(format!("container {:?}: its bundle has to be an absolute path", container.id)));
        }
        let default = Place::of(&self.options(), &self.shared.namespace, None);
        let (shared, id) = (self.shared.clone(), container.id);
        blocking(move || {
            let kept = Place::find(&bundle);
            let runtime = shared.runtime(kept.as_ref().unwrap_or(&default))?;
            runtime.delete(&id, true)?;
            if kept.is_some_and(|place| place.rootfs) {
                rootfs::unmount_all(&bundle.join("rootfs"))?;
            }
            crate::stdio::remove_fifos(&bundle);
            Ok(())
        })
        .await?;
        drop(claim);
        Ok(())
    }
}

/// The same as a request of the task API.
pub(super) fn request(container: Container, node: &Node) -> Request {
    let mount = |mount: flint_shim_protocol::Mount| Mount {
        type_: mount.kind,
        source: mount.source,
        options: mount.options,
        ..Mount::default()
    };
    let bundle = PathBuf::from(container.bundle);
    Request {
        id: container.id,
        rootfs: container.rootfs.into_iter().map(mount).collect(),
        streams: Streams {
            terminal: container.terminal,
            stdin: container.stdin,
            stdout: container.stdout,
            stderr: container.stderr,
            lasting: Some(bundle.clone()),
        },
        bundle,
        options: node.options(),
        checkpoint: None,
        sandbox: container.sandbox,
        pod: None,
        start: false,
    }
}

impl Task {
    /// As a supervisor is told of it.
    pub(crate) fn told(self: &Arc<Self>) -> ContainerState {
        let (phase, exit) = match self.init.phase() {
            Phase::Created => (Told::Created, None),
            Phase::Running => (Told::Running, None),
            Phase::Stopped(exit) => (Told::Stopped, Some(exit)),
        };
        ContainerState {
            id: self.id.clone(),
            failure: None,
            phase: phase.into(),
            pid: self.init.pid(),
            exit_status: exit.and_then(Exit::known),
            exited_at: exit.map_or(0, |exit| clock::nanoseconds(exit.at)),
            adopted: self.adopted,
            paused: self.is_paused() && exit.is_none(),
            bundle: self.bundle.display().to_string(),
            sandbox: self.sandbox.clone(),
            oom: self.had_oom,
        }
    }
}
