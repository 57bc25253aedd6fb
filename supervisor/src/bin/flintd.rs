//! `flintd`: keeps the pods of a node as they are desired.
#![forbid(unsafe_code)]

use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{CommandFactory as _, Parser, Subcommand};
use flintd::api::{Access, Server};
use flintd::manual;
use flintd::node::{Config, LocalApi, Node};
use flintd::page::Page;
use flintd::scheduler::Scheduler as _;
use flintd::scheduler::swarm::{JoinOptions, Swarm};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Keeps the pods of a node as they are desired
///
/// Pods come from the folder of manifests, from flintctl, and from a remote scheduler. Containers live in shims: when flintd ends, for whatever
/// reason, they go on, and the next flintd takes them over. SIGTERM and SIGINT end flintd, and no container.
#[derive(Parser)]
#[command(name = "flintd", version)]
struct Arguments {
    /// The configuration, TOML [default: /etc/flintd/config.toml, if there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// What outlives the host: store, volumes, logs
    #[arg(long, value_name = "FOLDER")]
    root: Option<PathBuf>,
    /// What does not: sockets, namespaces, the runtime's state
    #[arg(long, value_name = "FOLDER")]
    run: Option<PathBuf>,
    /// The API's socket
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// The folder of Pod manifests
    #[arg(long, value_name = "FOLDER")]
    manifests: Option<PathBuf>,
    /// The program containerd-shim-flint-v1
    #[arg(long, value_name = "PATH")]
    shim: Option<PathBuf>,
    /// Logs as JSON
    #[arg(long)]
    log_json: bool,
    /// What is logged: error, warn, info, debug, trace, or tracing's filter
    #[arg(long, value_name = "FILTER", default_value = "info")]
    log: String,
    /// Check the configuration, then end
    #[arg(long)]
    check: bool,
    #[command(subcommand)]
    verb: Option<Verb>,
}

/// Without one, flintd works until it is told to end
#[derive(Subcommand)]
enum Verb {
    /// Make this node a worker of a Docker Swarm; a running flintd sees it by itself
    Join {
        /// The worker token, as `docker swarm join-token worker` shows it; `-` reads it from standard input
        #[arg(long)]
        token: String,
        /// A manager's HOST:PORT
        manager: String,
    },
    /// Leave the swarm; its pods are removed
    Leave,
    /// Print a manual page: of the program, or of one of its commands
    Man {
        /// The command
        command: Option<String>,
    },
    /// Print a completion for a shell
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
}

const CONFIG: &str = "/etc/flintd/config.toml";
/// Threads of the executor: it decides and waits, and what takes time runs on threads of its own.
const WORKERS: usize = 2;
/// How long one of those idles.
const IDLE: Duration = Duration::from_secs(5);
/// Their stacks, in bytes; touched as needed.
const STACK: usize = 512 << 10;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("flintd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn configuration(arguments: &Arguments) -> Result<Config> {
    let mut config = match &arguments.config {
        Some(path) => Config::read(path)?,
        None if std::path::Path::new(CONFIG).exists() => Config::read(CONFIG.as_ref())?,
        None => Config::default(),
    };
    let given = [
        (&arguments.root, &mut config.root),
        (&arguments.run, &mut config.run),
        (&arguments.socket, &mut config.socket),
        (&arguments.manifests, &mut config.manifests),
        (&arguments.shim, &mut config.shim),
    ];
    for (given, place) in given {
        if let Some(given) = given {
            place.clone_from(given);
        }
    }
    for folder in [&config.root, &config.run] {
        if !folder.is_absolute() {
            bail!("{} is not an absolute path", folder.display());
        }
    }
    page_address(&config)?;
    Ok(config)
}

/// Where the page is served, if anywhere.
fn page_address(config: &Config) -> Result<Option<SocketAddr>> {
    if config.page.is_empty() {
        return Ok(None);
    }
    let address = config.page.parse();
    address.map(Some).with_context(|| format!("page {:?} is no ADDRESS:PORT, such as 127.0.0.1:10290", config.page))
}

fn run(arguments: &Arguments) -> Result<()> {
    let printed = match &arguments.verb {
        Some(Verb::Man { command }) => Some(manual::page(Arguments::command(), command.as_deref(), "8")?),
        Some(Verb::Completion { shell }) => Some(manual::completion(Arguments::command(), *shell)),
        _ => None,
    };
    if let Some(text) = printed {
        return std::io::stdout().write_all(&text).context("write to stdout");
    }
    let config = configuration(arguments)?;
    if arguments.check {
        println!("{config:#?}");
        return Ok(());
    }
    if !nix::unistd::geteuid().is_root() {
        bail!("it takes root: containers of the node are made and mounted here");
    }
    // While there is one thread. What the caller had blocked outlives execve; daemon(7) has a daemon reset it first.
    nix::sys::signal::SigSet::empty().thread_set_mask().context("reset the mask of signals")?;
    flintd::capabilities::keep_needed().context("give up the capabilities that flintd does not need")?;
    log(arguments)?;
    let swarm = config.root.join("schedulers/swarm");
    if matches!(arguments.verb, Some(Verb::Leave)) {
        println!("{}", flintd::scheduler::swarm::leave(&swarm)?);
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(64)
        .thread_keep_alive(IDLE)
        .thread_stack_size(STACK)
        .enable_all()
        .build()
        .context("start the executor")?;
    let served = match &arguments.verb {
        Some(Verb::Join { token, manager }) => runtime.block_on(join(&swarm, token, manager)),
        _ => runtime.block_on(serve(config)),
    };
    // What waits in a system call must not keep the process: all that counts is written down.
    runtime.shutdown_background();
    served
}

fn log(arguments: &Arguments) -> Result<()> {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_new(&arguments.log).with_context(|| format!("--log {}", arguments.log))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if arguments.log_json {
        log.json().init();
    } else {
        log.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).with_target(false).init();
    }
    Ok(())
}

async fn serve(config: Config) -> Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let access = Access::of_group(config.group.as_deref())?;
    let node = Node::open(config).await?;
    let listener = access.bind(&node.config().socket)?;
    let (stop, stopped) = watch::channel(false);
    let server = Arc::new(Server::new(Arc::new(LocalApi(node.clone())), node.logs()));
    let mut stopping = stopped.clone();
    let api = tokio::spawn(server.serve(listener, access, async move {
        let _ = stopping.wait_for(|stop| *stop).await;
    }));
    let manifests = tokio::spawn(flintd::node::follow_manifests(node.clone(), stopped.clone()));
    let page = tokio::spawn(serve_page(node.clone(), stopped.clone()));
    let swarm = tokio::spawn(work_for_swarm(node.clone(), stopped));
    tracing::info!(pods = node.pods().len(), socket = %node.config().socket.display(), "flintd takes pods");
    notify(&[sd_notify::NotifyState::Ready]);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    notify(&[sd_notify::NotifyState::Stopping]);
    tracing::info!("flintd ends; containers go on");
    stop.send_replace(true);
    let _ = tokio::time::timeout(Duration::from_secs(5), async { tokio::join!(api, page, manifests, swarm) }).await;
    Ok(())
}

/// Serves the page and the metrics. Pods do not depend on them: an address that another has is told, and the node goes on without.
async fn serve_page(node: Arc<Node>, mut stop: watch::Receiver<bool>) {
    let Ok(Some(address)) = page_address(node.config()) else { return };
    let listener = match tokio::net::TcpListener::bind(address).await {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(
                "the page and the metrics are not served: listen at {address}: {error}; set `page` to another"
            );
            return;
        }
    };
    if let Ok(address) = listener.local_addr() {
        tracing::info!("the page is at http://{address}/, the metrics are at http://{address}/metrics");
    }
    let stop = async move {
        let _ = stop.wait_for(|stop| *stop).await;
    };
    Arc::new(Page::new(Arc::new(LocalApi(node)))).serve(listener, stop).await;
}

async fn join(folder: &Path, token: &str, manager: &str) -> Result<()> {
    let token = if token == "-" { std::io::read_to_string(std::io::stdin())? } else { token.to_owned() };
    let node = flintd::scheduler::swarm::join(folder, token.trim(), manager, JoinOptions::default()).await?;
    println!("{node}");
    Ok(())
}

/// Works for a swarm, whenever the node is a member of one.
async fn work_for_swarm(node: Arc<Node>, stop: watch::Receiver<bool>) {
    let folder = node.config().root.join("schedulers/swarm");
    if let Err(error) = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder) {
        tracing::error!("make {}: {error}", folder.display());
        return;
    }
    let host = Arc::new(node.host_of("swarm"));
    if let Err(error) = Box::new(Swarm).run(host, &folder, stop).await {
        tracing::error!("this node works for its swarm no more, until flintd is started again: {error:#}");
    }
}

/// Tells systemd; without it, nobody.
fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!("tell systemd: {error}");
    }
}
