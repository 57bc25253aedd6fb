//! Programs in containers, beside their init.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::fs::{FileType, Mode, mknodat};
use serde_json::{Value, json};
use tokio::net::unix::pipe;

use super::exits::parse_id;
use super::{Entry, Node};
use crate::desired::Key;
use crate::store::ContainerPhase;

/// A program to be run in a container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExecRequest {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Whether it has a terminal.
    pub tty: bool,
    /// Whether it has an input.
    pub stdin: bool,
    /// More variables.
    pub env: Vec<(String, String)>,
    /// The working directory in place of the container's.
    pub cwd: Option<String>,
    /// `USER[:GROUP]` in place of the container's, as numbers or as the container's root filesystem names them.
    pub user: Option<String>,
    /// The terminal's rows and columns.
    pub size: Option<(u16, u16)>,
}

/// A program that runs.
#[derive(Debug)]
pub struct Executed {
    node: Arc<Node>,
    program: Program,
    /// Its input; dropped: the end of it.
    pub stdin: Option<pipe::Sender>,
    /// Its output, and all of a terminal.
    pub stdout: Option<pipe::Receiver>,
    /// Its errors.
    pub stderr: Option<pipe::Receiver>,
}

/// Where a program is.
#[derive(Debug, Clone)]
pub(super) struct Program {
    shim: String,
    /// The container's id in the runtime.
    container: String,
    /// The program's id there.
    id: String,
    folder: PathBuf,
}

const SIGKILL: u32 = 9;
/// So long those that take containers over wait for the end of programs there that are killed.
const ENDING: std::time::Duration = std::time::Duration::from_secs(10);
/// In a program's folder: its shim and its container, a line each.
const PLACE: &str = "place";
/// How long a program waits for a shim that has died to be replaced.
const REVIVAL: std::time::Duration = std::time::Duration::from_secs(10);

impl Node {
    /// Runs a program in a container.
    ///
    /// # Errors
    ///
    /// The container does not run, or the program cannot be started.
    pub async fn exec(self: &Arc<Self>, key: &Key, container: &str, request: &ExecRequest) -> Result<Executed> {
        let entry = self.find(key).with_context(|| format!("there is no pod {key}"))?;
        self.exec_in(&entry, container, request).await
    }

    /// The same in a pod that may be one of two of its name.
    pub(super) async fn exec_in(
        self: &Arc<Self>,
        entry: &Entry,
        container: &str,
        request: &ExecRequest,
    ) -> Result<Executed> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let key = entry.key();
        let (shim, id) = entry.read(|record| {
            let there = record.containers.get(container);
            if !there.is_some_and(|there| matches!(there.phase, ContainerPhase::Running { .. })) {
                return (None, None);
            }
            (record.sandbox.shim.clone(), record.runtime_id(container))
        });
        let (Some(shim), Some(runtime_id)) = (shim, id) else {
            bail!("the container {container} of {key} does not run")
        };
        self.revived(&shim).await;
        let bundle = self.config.pod_folder(&entry.uid()).join("bundles").join(&runtime_id);
        let process = process(&bundle, request)?;
        // In a namespace of its own each flintd may have the same process id.
        let since = self.started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
        let exec = format!("exec-{since:x}-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = self.execs().join(&exec);
        super::make_private(&folder)?;
        // Before it is there: the next flintd ends what nobody waits for any more.
        std::fs::write(folder.join(PLACE), format!("{shim}\n{runtime_id}\n")).context("note where a program runs")?;
        let program = Program { shim, container: runtime_id, id: exec, folder };
        let mut executed = Executed { node: self.clone(), program, stdin: None, stdout: None, stderr: None };
        let streams = executed.open(request)?;
        let Program { shim, container: runtime_id, id, .. } = &executed.program;
        let started = self.executor.exec(shim, runtime_id, id, process, streams).await;
        started.with_context(|| format!("run {:?} in {container} of {key}", request.command))?;
        if let Some((rows, columns)) = request.size.filter(|_| request.tty) {
            executed.resize(rows, columns).await?;
        }
        Ok(executed)
    }
}

impl Node {
    fn execs(&self) -> PathBuf {
        self.config.run.join("execs")
    }

    /// The programs that a flintd before this one had started: their clients have gone with it. To be asked before this one starts
    /// any.
    pub(super) fn find_old_execs(&self) -> Vec<Program> {
        let folders = std::fs::read_dir(self.execs()).into_iter().flatten().flatten();
        let found = folders.filter_map(|entry| {
            let folder = entry.path();
            let place = std::fs::read_to_string(folder.join(PLACE)).unwrap_or_default();
            let program = place.trim_end().split_once('\n').and_then(|(shim, container)| {
                let (uid, ..) = parse_id(container)?;
                let in_shim = self.entry(uid)?.read(|record| record.sandbox.shim.as_deref() == Some(shim));
                if !in_shim {
                    return None;
                }
                let id = entry.file_name().into_string().ok()?;
                Some(Program { shim: shim.to_owned(), container: container.to_owned(), id, folder: folder.clone() })
            });
            if program.is_none() {
                // It was not started yet, or went with its pod.
                let _ = std::fs::remove_dir_all(folder);
            }
            program
        });
        found.collect()
    }

    /// Ends those of them that are in a shim. They have ended when this returns, unless it does not answer in time.
    pub(super) async fn end_old_execs(self: &Arc<Self>, shim: &str) {
        let ending = super::locked(&self.old_execs).extract_if(.., |program| program.shim == shim).collect::<Vec<_>>();
        let mut ending: tokio::task::JoinSet<()> =
            ending.into_iter().map(|program| program.end(self.clone())).collect();
        let all = async { while ending.join_next().await.is_some() {} };
        if tokio::time::timeout(ENDING, all).await.is_err() {
            ending.detach_all();
        }
    }

    /// Until a shim that has died is back with its containers; not for ever.
    pub(super) async fn revived(&self, shim: &str) {
        let mut changes = self.changes();
        let back = async { while self.executor.is_dead(shim) && changes.changed().await.is_ok() {} };
        let _ = tokio::time::timeout(REVIVAL, back).await;
    }
}

/// The fifos of a program, as the shim is told them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fifos {
    pub(crate) terminal: bool,
    pub(crate) stdin: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Executed {
    fn open(&mut self, request: &ExecRequest) -> Result<Fifos> {
        let mut fifos = Fifos { terminal: request.tty, ..Fifos::default() };
        let make = |name: &str| -> Result<(PathBuf, String)> {
            let path = self.program.folder.join(name);
            mknodat(rustix::fs::CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
                .with_context(|| format!("make the fifo {}", path.display()))?;
            let text = path.display().to_string();
            Ok((path, text))
        };
        let (stdout, text) = make("stdout")?;
        fifos.stdout = text;
        self.stdout = Some(pipe::OpenOptions::new().open_receiver(&stdout)?);
        if !request.tty {
            let (stderr, text) = make("stderr")?;
            fifos.stderr = text;
            self.stderr = Some(pipe::OpenOptions::new().open_receiver(&stderr)?);
        }
        if request.stdin {
            let (stdin, text) = make("stdin")?;
            fifos.stdin = text;
            // The shim opens its end in Start; until then ours is the reader, too.
            self.stdin = Some(pipe::OpenOptions::new().read_write(true).open_sender(&stdin)?);
        }
        Ok(fifos)
    }

    /// Tells the terminal its size.
    ///
    /// # Errors
    ///
    /// The program has ended.
    pub async fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        let Program { shim, container, id, .. } = &self.program;
        self.node.executor.resize(shim, container, id, rows, columns).await
    }

    /// Its input has ended: the shim lets go of it.
    ///
    /// # Errors
    ///
    /// The program has ended.
    pub async fn close_stdin(&self) -> Result<()> {
        let Program { shim, container, id, .. } = &self.program;
        self.node.executor.close_stdin(shim, container, id).await
    }

    /// Its exit status, once it has ended.
    ///
    /// # Errors
    ///
    /// Nobody knows it any more.
    pub async fn wait(&self) -> Result<u32> {
        let Program { shim, container, id, .. } = &self.program;
        let status = self.node.executor.wait(shim, container, id).await?;
        status.ok_or_else(|| anyhow!("nobody saw how the program ended"))
    }

    /// Kills it.
    ///
    /// # Errors
    ///
    /// The shim does not answer.
    pub async fn kill(&self) -> Result<()> {
        self.program.kill(&self.node).await
    }
}

impl Drop for Executed {
    /// The shim forgets it, and its fifos go.
    fn drop(&mut self) {
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(self.program.clone().end(self.node.clone()));
        }
    }
}

impl Program {
    async fn kill(&self, node: &Node) -> Result<()> {
        match node.executor.kill(&self.shim, &self.container, &self.id, SIGKILL).await {
            Err(error) if !crate::executor::is_missing(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// One that runs still is somebody's who did not wait: it is not left behind.
    async fn end(self, node: Arc<Node>) {
        let Self { shim, container, id, folder } = &self;
        let _ = self.kill(&node).await;
        if node.executor.delete_exec(shim, container, id).await.is_err() {
            // It is on its way out, or was on its way in.
            let _ = self.kill(&node).await;
            let _ = node.executor.wait(shim, container, id).await;
            let _ = node.executor.delete_exec(shim, container, id).await;
        }
        // Last: if flintd ends before, the next one does it again.
        let _ = std::fs::remove_dir_all(folder);
    }
}

/// The process of config.json, with the request's part.
fn process(bundle: &Path, request: &ExecRequest) -> Result<Vec<u8>> {
    let path = bundle.join("config.json");
    let told = || format!("read {}", path.display());
    let config: Value = serde_json::from_slice(&std::fs::read(&path).with_context(told)?).with_context(told)?;
    let mut process = config["process"].clone();
    process["args"] = json!(request.command);
    process["terminal"] = json!(request.tty);
    if let Some(cwd) = &request.cwd {
        process["cwd"] = json!(cwd);
    }
    if let Some(user) = &request.user {
        process["user"] = flint_bundle::config::user(&bundle.join("rootfs"), user)?;
    }
    if let Some(env) = process["env"].as_array_mut() {
        let more = request.env.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in more.chain(request.tty.then_some(("TERM", "xterm"))) {
            let prefix = format!("{name}=");
            env.retain(|one| !one.as_str().is_some_and(|one| one.starts_with(&prefix)));
            env.push(json!(format!("{prefix}{value}")));
        }
    }
    Ok(process.to_string().into_bytes())
}
