//! Adopt: tasks of containers whose shim has died.
//!
//! The container's own processes go on meanwhile: nothing of them hangs on the shim but a terminal, whose session is hung up, and
//! what its streams are read by, which is taken up again. Processes that Exec had added go on as well, as part of the container;
//! their ends are told by nobody.

use std::path::PathBuf;
use std::time::SystemTime;

use flint_runtime::{Adopted, Kind};
use flint_shim_protocol::{Container, ContainerState, Phase as Told, STATUS_UNKNOWN};

use super::containers::request;
use super::{Node, failure};
use crate::config::Place;
use crate::error::{Error, Result};
use crate::log;
use crate::process::Exit;
use crate::task::{Found, Task, blocking};

impl Node {
    pub(super) async fn adopt(&self, container: Container) -> ContainerState {
        let id = container.id.clone();
        self.try_adopt(container).await.unwrap_or_else(|error| ContainerState {
            id,
            failure: Some(failure(&error)),
            ..ContainerState::default()
        })
    }

    async fn try_adopt(&self, container: Container) -> Result<ContainerState> {
        let id = container.id.clone();
        self.tasks.settled(&id).await;
        if let Ok(task) = self.tasks.get(&id) {
            return Ok(task.told());
        }
        let pod = self.pods.named(&container.sandbox)?;
        let claim = self.tasks.claim(&id)?;
        let (bundle, name) = (PathBuf::from(&container.bundle), id.clone());
        if !bundle.is_absolute() {
            return Err(Error::invalid(format!("container {id:?}: its bundle has to be an absolute path")));
        }
        let request = request(container, self);
        let default = Place::of(&request.options, &self.shared.namespace, None);
        let shared = self.shared.clone();
        let found = blocking(move || {
            let place = Place::find(&bundle).unwrap_or(default);
            let runtime = shared.runtime(&place)?;
            let found = match runtime.adopt(&name) {
                Err(error) if error.kind() == Kind::NotFound => return Ok(None),
                found => match found? {
                    Adopted::HalfMade => return Ok(None),
                    Adopted::Created(init) => Found::Created(init),
                    Adopted::Running(init) => Found::Running(init),
                    Adopted::Stopped(status) => {
                        let status = status.map_or(STATUS_UNKNOWN, |status| status.code() as u32);
                        Found::Stopped(Exit { status, at: SystemTime::now() })
                    }
                },
            };
            Task::found(shared, runtime, request, found, place.rootfs).map(Some)
        })
        .await?;
        let Some((task, running)) = found else {
            return Ok(ContainerState { id, phase: Told::Absent.into(), ..ContainerState::default() });
        };
        if let (Some(pod), Some(running)) = (pod, &running)
            && let Err(error) = pod.take_over(running)
        {
            // It has ended just now: the next one holds them, or they are made anew.
            log::warn(&format!("take over the namespaces of sandbox {}: {error}", task.sandbox));
        }
        let task = task.watched(running);
        let told = task.told();
        claim.made(task);
        Ok(told)
    }
}
