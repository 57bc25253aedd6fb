//! flintd's scheduler on a thread of this process, in the network namespace of a place.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use flintd::scheduler::swarm::{JoinOptions, Swarm, join};
use flintd::scheduler::{Host, Scheduler};
use integration_tests::swarm::Manager;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tempfile::TempDir;
use tokio::sync::watch;

use crate::fake::Fake;

/// Runs a future on a thread in the network namespace of a process. Threads that it starts are there too.
pub(crate) fn in_network<R: Send + 'static>(
    pid: u32,
    make: impl FnOnce() -> std::pin::Pin<Box<dyn Future<Output = R>>> + Send + 'static,
) -> JoinHandle<R> {
    let file = File::open(format!("/proc/{pid}/ns/net")).expect("open the network namespace");
    std::thread::spawn(move || {
        move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), Some(LinkNameSpaceType::Network))
            .expect("enter the network namespace");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("start an executor");
        runtime.block_on(make())
    })
}

/// A worker.
pub(crate) struct Worker {
    pub host: Arc<Fake>,
    pub node: String,
    folder: TempDir,
    network: u32,
    running: Option<(watch::Sender<bool>, JoinHandle<anyhow::Result<()>>)>,
}

impl Worker {
    /// Joins the manager's swarm and starts.
    #[track_caller]
    pub(crate) fn join(manager: &Manager, name: &str) -> Self {
        let folder = tempfile::tempdir().expect("make a folder");
        let node = try_join(manager, folder.path(), &manager.token()).expect("join");
        let mut worker = Self { host: Fake::new(name), node, folder, network: manager.pid(), running: None };
        worker.start();
        manager.wait_node(&worker.node, "ready active");
        worker
    }

    /// Starts the scheduler.
    pub(crate) fn start(&mut self) {
        let (stop, stopped) = watch::channel(false);
        let host: Arc<dyn Host> = self.host.clone();
        let folder = self.folder.path().to_owned();
        let run = move || -> std::pin::Pin<Box<dyn Future<Output = anyhow::Result<()>>>> {
            Box::pin(async move { Box::<Swarm>::default().run(host, &folder, stopped).await })
        };
        self.running = Some((stop, in_network(self.network, run)));
    }

    /// Ends it in the midst of whatever it does: its host and its folder stay as they are.
    pub(crate) fn stop(&mut self) {
        let (stop, thread) = self.running.take().expect("it runs");
        stop.send_replace(true);
        thread.join().expect("no panic").expect("it was told to stop");
    }

    /// The scheduler's folder.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Whether what is in any file of the folder holds `text`.
    pub(crate) fn folder_holds(&self, text: &str) -> bool {
        let files = std::fs::read_dir(self.folder()).expect("read the folder");
        let paths: Vec<PathBuf> = files.map(|entry| entry.expect("an entry").path()).collect();
        paths.iter().any(|path| {
            let content = std::fs::read(path).expect("read a file");
            content.windows(text.len()).any(|window| window == text.as_bytes())
        })
    }

    /// Asserts of a service that each task was once in the state that the manager shows.
    #[track_caller]
    pub(crate) fn assert_true(&self, manager: &Manager, service: &str) {
        for task in manager.tasks(service) {
            let is_true = match task.state.as_str() {
                "Starting" => self.host.was(&task.id, "Ready") || self.host.was(&task.id, "Starting"),
                // It may have ended by itself, or never have been made: what counts is that it does not run.
                "Shutdown" => !self.host.running().iter().any(|name| name.ends_with(&task.id)),
                "Ready" | "Running" | "Complete" | "Failed" | "Rejected" => self.host.was(&task.id, &task.state),
                _ => true,
            };
            assert!(is_true, "the manager was told what never was: {task:?}");
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.running.take() {
            stop.send_replace(true);
            let _ = thread.join();
        }
    }
}

/// `flintd join`.
pub(crate) fn try_join(manager: &Manager, folder: &Path, token: &str) -> anyhow::Result<String> {
    let (folder, token, address) = (folder.to_owned(), token.to_owned(), manager.address());
    let run = move || -> std::pin::Pin<Box<dyn Future<Output = anyhow::Result<String>>>> {
        Box::pin(async move { join(&folder, &token, &address, JoinOptions::Active).await })
    };
    in_network(manager.pid(), run).join().expect("no panic")
}
