//! The serving shim: its socket, its threads, its end.

use std::os::fd::AsFd as _;
use std::os::unix::net::UnixListener as StdListener;
use std::sync::{Arc, Once};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use ttrpc::r#async::Server;
use ttrpc::r#async::transport::Listener;

use crate::address::Address;
use crate::arguments::Arguments;
use crate::clients::{Clients, Incoming};
use crate::events::Events;
use crate::node::Node;
use crate::tasks::{Shared, Tasks};
use crate::{log, service};

/// Where events go; containerd sets it.
const EVENTS: &str = "TTRPC_ADDRESS";
/// A shim without a task that hears nothing for so long is nobody's: containerd died between `start` and Create. Nor is a task
/// anybody's that has ended, and whose bundle is gone. A client alone does not keep a shim: containerd 1.6 connects again to whatever it finds, and then has no use for it.
const FORGOTTEN: Duration = Duration::from_secs(60);
/// Another time, in seconds.
const FORGOTTEN_AFTER: &str = "FLINT_SHIM_FORGOTTEN_AFTER";
/// How long containerd waits for a shim that it told to end.
const LAST_EVENTS: Duration = Duration::from_secs(3);
/// How long a client may take to leave that told the shim to end.
const LAST_ANSWER: Duration = Duration::from_millis(100);
/// Threads that may wait in system calls at a time, how long one idles, and their stacks (bytes; touched as needed). More
/// than there are containers: each may have a hook, a logger or a disk that takes its time, and none is to wait for another's.
const THREADS: (usize, Duration, usize) = (4096, Duration::from_millis(200), 256 * 1024);

/// Serves on the listening socket that is this process's standard input.
///
/// # Errors
///
/// A standard input that is no such socket; the seal fails.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    // Containers' inits run from this program's file until they execute their own.
    flint_runtime::seal::ensure()?;
    let listener = listener().context("this action is for `start`, which gives the socket as standard input")?;
    let end = Arc::new(End::new(Address::parse(&arguments.socket)));
    let served = serve_from(arguments, listener, &end);
    // Whatever came of it.
    end.tell();
    served
}

fn serve_from(arguments: &Arguments, listener: StdListener, end: &Arc<End>) -> Result<()> {
    log::open(&std::env::current_dir().unwrap_or_default(), arguments.debug);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(THREADS.0)
        .thread_keep_alive(THREADS.1)
        .thread_stack_size(THREADS.2)
        .build()
        .context("start the executor")?;
    let served = runtime.block_on(serve(arguments, listener, end));
    // What still waits in a system call must not keep the process.
    runtime.shutdown_background();
    served
}

/// Takes the socket from descriptor 0, which becomes /dev/null: containers must not inherit it.
fn listener() -> Result<StdListener> {
    let socket = std::io::stdin().as_fd().try_clone_to_owned().context("standard input")?;
    if !nix::sys::socket::getsockopt(&socket, nix::sys::socket::sockopt::AcceptConn).unwrap_or(false) {
        bail!("standard input is no listening socket");
    }
    let null = std::fs::File::open("/dev/null").context("open /dev/null")?;
    nix::unistd::dup2_stdin(&null).context("close standard input")?;
    let listener = StdListener::from(socket);
    listener.set_nonblocking(true).context("prepare the socket")?;
    Ok(listener)
}

/// The end of this shim: told once, and not taken back.
#[derive(Debug)]
pub(crate) struct End {
    address: Address,
    /// Its tasks; none is begun any more.
    tasks: Arc<Tasks>,
    once: Once,
    told: Notify,
}

impl End {
    fn new(address: Address) -> Self {
        Self { address, tasks: Arc::default(), once: Once::new(), told: Notify::new() }
    }

    /// From now on `start` finds no shim here, and makes another one: a container of this one would end with it, or lose it.
    pub(crate) fn tell(&self) {
        // Later the socket of that name is the other one's.
        self.once.call_once(|| {
            self.tasks.close();
            self.address.remove();
            self.told.notify_one();
        });
    }
}

async fn serve(arguments: &Arguments, listener: StdListener, end: &Arc<End>) -> Result<()> {
    let events = std::env::var(EVENTS).unwrap_or_else(|_| format!("{}.ttrpc", arguments.address));
    let events = Events::deliver_to(&events, &arguments.namespace);
    let shared = Arc::new(Shared::new(&arguments.namespace, events.clone()));
    let tasks = end.tasks.clone();
    let node = Arc::new(Node::new(shared.clone(), tasks.clone()));
    let clients = Arc::<Clients>::default();
    let incoming = Incoming::new(UnixListener::from_std(listener)?, clients.clone());
    let mut server = Server::new().add_listener(Listener::new(incoming)).register_service(service::services(
        shared.clone(),
        tasks.clone(),
        node.clone(),
        end.clone(),
    ));
    server.start().await.context("start the server")?;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        () = end.told.notified() => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = forgotten(&tasks, || shared.sandbox().is_none() && node.is_empty(), &clients) => log::warn("nobody asks for this shim: it ends"),
    }
    end.tell();
    // Whoever asked for the end has its answer, and leaves.
    let _ = tokio::time::timeout(LAST_ANSWER, clients.left()).await;
    let _ = tokio::time::timeout(LAST_EVENTS, events.delivered()).await;
    Ok(())
}

/// Until nobody has needed this shim for a while.
async fn forgotten(tasks: &Tasks, is_empty: impl Fn() -> bool, clients: &Clients) {
    let after = std::env::var(FORGOTTEN_AFTER).ok().and_then(|seconds| seconds.parse().ok());
    let after = after.map_or(FORGOTTEN, Duration::from_secs);
    let mut heard = None;
    loop {
        tokio::time::sleep(after / 2).await;
        tasks.delete_forgotten().await;
        let now = (tasks.is_empty() && is_empty()).then(|| clients.heard());
        if now.is_some() && now == heard {
            return;
        }
        heard = now;
    }
}
