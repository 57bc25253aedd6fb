//! A shim that answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use containerd_shim_protos::api::ShutdownRequest;
use containerd_shim_protos::shim_async::TaskClient;
use flint_shim_protocol::{Bounds, Client, ConfigureRequest, StatusRequest};
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use super::Place;

/// How long a shim without pods may take to end.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// A connection to a shim.
pub(crate) struct Shim {
    pub(super) id: String,
    pub(super) node: Client,
    pub(super) task: TaskClient,
    pid: u32,
    alive: Arc<AtomicBool>,
    ended: tokio::sync::watch::Receiver<bool>,
}

impl std::fmt::Debug for Shim {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Shim({}, pid {})", self.id, self.pid)
    }
}

impl Shim {
    /// Connects, and says what is to be kept ready. `lost` gets the id when the shim has died.
    pub(super) async fn connect(
        place: &Place,
        id: &str,
        address: &str,
        lost: mpsc::UnboundedSender<String>,
    ) -> Result<Arc<Self>> {
        let told = || format!("connect to the shim {id} at {address}");
        let node = Client::connect(address).await.with_context(told)?;
        let path = address.strip_prefix("unix://").unwrap_or(address);
        let mut watched = UnixStream::connect(path).await.with_context(told)?;
        let wanted = ConfigureRequest {
            networks: Some(Bounds { least: 1, most: 16 }),
            state_root: place.run.join("state").display().to_string(),
            systemd_cgroups: false,
        };
        node.configure(&wanted).await.with_context(told)?;
        let status = node.status(&StatusRequest {}).await.with_context(told)?;
        let alive = Arc::new(AtomicBool::new(true));
        let (end, ended) = tokio::sync::watch::channel(false);
        let task = TaskClient::new(node.connection().clone());
        let shim = Arc::new(Self { id: id.to_owned(), node, task, pid: status.pid, alive: alive.clone(), ended });
        let id = id.to_owned();
        // A shim says nothing on a connection that nobody asks on: what comes is the end.
        tokio::spawn(async move {
            let _ = watched.read(&mut [0; 1]).await;
            let was_expected = !alive.swap(false, Ordering::Relaxed);
            let _ = end.send(true);
            if !was_expected {
                let _ = lost.send(id);
            }
        });
        Ok(shim)
    }

    pub(super) fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Relaxed)
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether it answers.
    pub(super) async fn answers(&self) -> bool {
        self.node.status(&StatusRequest {}).await.is_ok()
    }

    /// Tells it to end; it has no pods any more.
    pub(super) async fn end(&self) {
        self.alive.store(false, Ordering::Relaxed);
        let request = ShutdownRequest { id: self.id.clone(), now: true, ..ShutdownRequest::default() };
        // One that has died already is as good; one that does not end is not used again and ends by itself.
        let _ = self.task.shutdown(super::calls::patient(), &request).await;
        let mut ended = self.ended.clone();
        let _ = tokio::time::timeout(LAST_WORDS, ended.wait_for(|ended| *ended)).await;
    }
}
