//! Clients and a server over a real socket, with a node in memory behind it.

mod calls;
mod rights;
mod sessions;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::client::{Client, Target};
use super::fake::Fake;
use super::{Access, Server};
use crate::desired::Key;
use crate::logs::Logs;

/// A served socket.
struct Node {
    fake: Arc<Fake>,
    socket: PathBuf,
    folder: tempfile::TempDir,
    server: tokio::task::JoinHandle<()>,
}

impl Node {
    fn serve() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let fake = Arc::new(Fake::new(&folder.path().join("logs")));
        let socket = folder.path().join("run/flintd.sock");
        let access = Access::of_group(None).unwrap();
        let listener = access.bind(&socket).unwrap();
        let server = Arc::new(Server::new(fake.clone(), Arc::new(Logs::new().unwrap())));
        let server = tokio::spawn(server.serve(listener, access, std::future::pending()));
        Self { fake, socket, folder, server }
    }

    async fn client(&self) -> Client {
        Client::connect(&self.socket).await.unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn target(name: &str) -> Target {
    Target { pod: Key::new("default", name), container: None }
}

/// What is not there in this time does not come.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(30), future).await.expect("it comes")
}
