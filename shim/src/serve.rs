//! The serving shim: its socket, its threads, its end.

use std::os::fd::AsFd as _;
use std::os::unix::net::UnixListener as StdListener;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use ttrpc::r#async::Server;
use ttrpc::r#async::transport::Listener;

use crate::address::Address;
use crate::arguments::Arguments;
use crate::events::Events;
use crate::node::Node;
use crate::tasks::{Shared, Tasks};
use crate::{log, service};

/// Where events go; containerd sets it.
const EVENTS: &str = "TTRPC_ADDRESS";
/// A shim without a task that hears nothing for so long is nobody's: containerd died between `start` and Create. A client
/// alone does not keep it: containerd 1.6 connects again to whatever it finds, and then has no use for it.
const FORGOTTEN: Duration = Duration::from_secs(60);
/// Another time, in seconds.
const FORGOTTEN_AFTER: &str = "FLINT_SHIM_FORGOTTEN_AFTER";
/// How long containerd waits for a shim that it told to end.
const LAST_EVENTS: Duration = Duration::from_secs(3);
/// How long a client may take to leave that told the shim to end.
const LAST_ANSWER: Duration = Duration::from_millis(100);
/// Threads that may wait in system calls at a time, how long one idles, and their stacks (bytes; touched as needed).
const THREADS: (usize, Duration, usize) = (64, Duration::from_millis(200), 256 * 1024);

/// Serves on the listening socket that is this process's standard input.
///
/// # Errors
///
/// A standard input that is no such socket; the seal fails.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    // Containers' inits run from this program's file until they execute their own.
    flint_runtime::seal::ensure()?;
    let listener = listener().context("this action is for `start`, which gives the socket as standard input")?;
    log::open(&std::env::current_dir().unwrap_or_default(), arguments.debug);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(THREADS.0)
        .thread_keep_alive(THREADS.1)
        .thread_stack_size(THREADS.2)
        .build()
        .context("start the executor")?;
    let address = Address::parse(&arguments.socket);
    let served = runtime.block_on(serve(arguments, listener));
    address.remove();
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

async fn serve(arguments: &Arguments, listener: StdListener) -> Result<()> {
    let events = std::env::var(EVENTS).unwrap_or_else(|_| format!("{}.ttrpc", arguments.address));
    let events = Events::deliver_to(&events, &arguments.namespace);
    let shared = Arc::new(Shared::new(&arguments.namespace, events.clone()));
    let (tasks, end) = (Arc::<Tasks>::default(), Arc::<Notify>::default());
    let node = Arc::new(Node::new(shared.clone(), tasks.clone()));
    let clients = Arc::<Clients>::default();
    let incoming = Incoming { listener: UnixListener::from_std(listener)?, clients: clients.clone() };
    let mut server = Server::new().add_listener(Listener::new(incoming)).register_service(service::services(
        shared.clone(),
        tasks.clone(),
        node.clone(),
        end.clone(),
    ));
    server.start().await.context("start the server")?;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        () = end.notified() => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = forgotten(|| tasks.is_empty() && shared.sandbox().is_none() && node.is_empty(), &clients) => log::warn("nobody asks for this shim: it ends"),
    }
    // Whoever asked for the end has its answer, and leaves, before the socket goes.
    let _ = tokio::time::timeout(LAST_ANSWER, left(&clients)).await;
    let _ = tokio::time::timeout(LAST_EVENTS, events.delivered()).await;
    Ok(())
}

/// Until no client is connected.
async fn left(clients: &Clients) {
    while clients.count.load(Ordering::Relaxed) != 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Until nobody has needed this shim for a while.
async fn forgotten(is_empty: impl Fn() -> bool, clients: &Clients) {
    let after = std::env::var(FORGOTTEN_AFTER).ok().and_then(|seconds| seconds.parse().ok());
    let after = after.map_or(FORGOTTEN, Duration::from_secs);
    let mut heard = None;
    loop {
        tokio::time::sleep(after / 2).await;
        let now = is_empty().then(|| clients.heard.load(Ordering::Relaxed));
        if now.is_some() && now == heard {
            return;
        }
        heard = now;
    }
}

/// Who is connected, and how often anything was read of anybody.
#[derive(Debug, Default)]
struct Clients {
    count: AtomicUsize,
    heard: AtomicUsize,
}

/// Connections of our own user, counted.
struct Incoming {
    listener: UnixListener,
    clients: Arc<Clients>,
}

impl Stream for Incoming {
    type Item = std::io::Result<Client>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let stream = match self.listener.poll_accept(context) {
                Poll::Ready(Ok((stream, _))) => stream,
                Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(error))),
                Poll::Pending => return Poll::Pending,
            };
            // The folder keeps others out already; who it does not is refused here.
            if stream.peer_cred().is_ok_and(|peer| peer.uid() == nix::unistd::geteuid().as_raw()) {
                self.clients.count.fetch_add(1, Ordering::Relaxed);
                return Poll::Ready(Some(Ok(Client { stream, clients: self.clients.clone() })));
            }
            log::warn("a connection of another user is refused");
        }
    }
}

struct Client {
    stream: UnixStream,
    clients: Arc<Clients>,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.clients.count.fetch_sub(1, Ordering::Relaxed);
    }
}

impl AsyncRead for Client {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        self.clients.heard.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Client {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
