//! The sandbox of a pod, for containerd's `sandboxer = "shim"`: no pause image, and no pause process but where pids are
//! shared.
//!
//! ```text
//!  CreateSandbox ─▶ Created ─StartSandbox─▶ Ready ─StopSandbox─▶ Stopped ─ShutdownSandbox─▶ the shim ends
//!                   files                   namespaces           containers are killed
//! ```
//!
//! containerd starts this shim for the pod, in a bundle without config.json; containers of the pod are tasks of the same shim,
//! and join namespaces by `/proc/PID/ns` of what StartSandbox tells.

mod files;
mod namespaces;
mod request;
mod service;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use flint_runtime::Bundle;
use oci_spec::runtime::LinuxNamespaceType;
use tokio::sync::watch;

use crate::error::{Error, Result};
use files::Files;
pub(crate) use files::unmount;
use namespaces::Namespaces;
use request::PodConfig;
pub(crate) use service::{SandboxService, service};

/// The pod of this shim, if it has one.
pub(crate) type Pod = Mutex<Option<Arc<Sandbox>>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Created,
    Ready,
    Stopped(SystemTime),
}

#[derive(Debug)]
pub(crate) struct Sandbox {
    id: String,
    config: PodConfig,
    network: PathBuf,
    created: SystemTime,
    phase: watch::Sender<Phase>,
    /// Both until it is stopped.
    held: Mutex<(Option<Files>, Option<Namespaces>)>,
}

/// Nothing panics under these locks.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sandbox {
    /// Writes its files.
    ///
    /// # Errors
    ///
    /// A folder that cannot be written.
    fn create(id: &str, bundle: &Path, network: &str, config: PodConfig) -> Result<Self> {
        let files = Files::make(bundle, &config)?;
        let (phase, _) = watch::channel(Phase::Created);
        Ok(Self {
            id: id.to_owned(),
            config,
            network: network.into(),
            created: SystemTime::now(),
            phase,
            held: Mutex::new((Some(files), None)),
        })
    }

    /// Makes its namespaces; whose `/proc/PID/ns` they are.
    ///
    /// # Errors
    ///
    /// It was started already; what the kernel refuses.
    fn start(&self) -> Result<u32> {
        let mut held = locked(&self.held);
        if *self.phase.borrow() != Phase::Created {
            return Err(Error::wrong_state(format!("sandbox {} was started already", self.id)));
        }
        let namespaces = Namespaces::make(&self.config, &self.network)?;
        let pid = namespaces.pid;
        held.1 = Some(namespaces);
        self.phase.send_replace(Phase::Ready);
        Ok(pid)
    }

    /// Lets its namespaces and files go. Its containers have ended.
    fn stop(&self) {
        let held = std::mem::take(&mut *locked(&self.held));
        self.phase.send_if_modified(|phase| {
            let ends = !matches!(phase, Phase::Stopped(_));
            if ends {
                *phase = Phase::Stopped(SystemTime::now());
            }
            ends
        });
        drop(held);
    }

    /// 0 while it has no namespaces.
    fn pid(&self) -> u32 {
        locked(&self.held).1.as_ref().map_or(0, |namespaces| namespaces.pid)
    }

    /// When it was stopped.
    async fn stopped(&self) -> SystemTime {
        let mut phase = self.phase.subscribe();
        loop {
            if let Phase::Stopped(at) = *phase.borrow_and_update() {
                return at;
            }
            if phase.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// The bundle of one of its containers, with the pod's files.
    ///
    /// # Errors
    ///
    /// It is not running; a container that would get the host's pids for the pod's.
    pub(crate) fn furnish(&self, bundle: &Bundle) -> Result<Bundle> {
        let held = locked(&self.held);
        let (Some(files), Some(namespaces)) = (&held.0, &held.1) else {
            return Err(Error::wrong_state(format!("sandbox {} is not running", self.id)));
        };
        let pids = Path::new("/proc").join(namespaces.pid.to_string()).join("ns/pid");
        let all = bundle.spec().linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
        let joins = all
            .into_iter()
            .flatten()
            .any(|namespace| namespace.typ() == LinuxNamespaceType::Pid && namespace.path().as_deref() == Some(&pids));
        if joins && !namespaces.shares_pids {
            return Err(Error::invalid(format!(
                "the container shares the pod's pids, and sandbox {} was made without (its config says that each \
                 container has its own)",
                self.id
            )));
        }
        files.furnish(bundle)
    }
}
