//! `flint`, the command: an OCI runtime with runc's command line. A library, so that fuzz targets can call its parts.
//!
//! ```text
//! main -> arguments (global flags) -> verbs/<verb> -> flint_runtime::Runtime
//!                                        |-> foreground (run, exec): signals, terminal
//!                                        '-> log: the failure, once, to --log and stderr
//! ```
//!
//! It must not start threads before the runtime has cloned, panic on a closed pipe, or know how a container
//! is made: that is the library's.
#![forbid(unsafe_code)]

mod arguments;
mod foreground;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod help;
mod log;
mod notify;
mod signals;
mod state_root;
mod terminal;
mod verbs;

use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use flint_runtime::error::{errno_text, io_text};
use flint_runtime::features::SPEC_VERSION;
use flint_runtime::seal::Sealed;
use flint_runtime::{CgroupManager, Container, Options, Process, Runtime};

use crate::arguments::{Arguments, Flag, Order, UsageError, option, parse_bool, switch};
use crate::log::{Format, Level, Log};
use crate::verbs::Verb;

/// Options in front of the verb.
pub(crate) const GLOBAL_FLAGS: &[Flag] = &[
    option(
        "root",
        None,
        "FOLDER",
        "keep the containers' state here, best on a tmpfs (default: /run/flint, and for others than root $XDG_RUNTIME_DIR/flint)",
    ),
    option("log", None, "FILE", "append errors and warnings to this file (default: stderr)"),
    option("log-format", None, "FORMAT", "lines of the log: text or json (default: text)"),
    option("log-level", None, "LEVEL", "least grave level that is logged: error, warning or debug (default: warning)"),
    switch("debug", None, "log what is done, too"),
    switch("systemd-cgroup", None, "let systemd make the cgroups; cgroupsPath is then slice:prefix:name"),
    option(
        "cgroup-manager",
        None,
        "MANAGER",
        "who makes the cgroups: cgroupfs, systemd or disabled (default: cgroupfs)",
    ),
    option("rootless", None, "WHEN", "go on without permission for cgroups: true, false or auto (default: auto)"),
    option("criu", None, "PROGRAM", "the CRIU of checkpoint and restore (default: criu in PATH)"),
    switch("version", Some('v'), "print the version"),
];

/// What all verbs get: the global flags, understood.
#[derive(Debug)]
pub(crate) struct Session {
    /// Where messages go.
    pub(crate) log: Log,
    root: Option<PathBuf>,
    cgroup_manager: CgroupManager,
    /// `None` for auto.
    rootless: Option<bool>,
    /// The CRIU to use.
    pub(crate) criu: Option<PathBuf>,
}

impl Session {
    /// Opens the state folder.
    ///
    /// # Errors
    /// A root that is refused or cannot be made.
    pub(crate) fn runtime(&self) -> Result<Runtime> {
        let root = match &self.root {
            Some(root) => std::path::absolute(root).context("finding the root folder of the state")?,
            None => state_root::default()?,
        };
        // What has no ".." is spared the look-up.
        let resolved = if root.components().any(|part| part == Component::ParentDir) {
            std::fs::canonicalize(&root).unwrap_or_else(|_| root.clone())
        } else {
            root.clone()
        };
        if resolved.components().count() == 1 {
            bail!("/ cannot be the root folder of the state: choose a folder of its own with --root");
        }
        self.log.debug(|| format!("flint {} with its state in {}", env!("CARGO_PKG_VERSION"), root.display()));
        let rootless = self.rootless.unwrap_or_else(state_root::is_rootless);
        let options = Options { root, cgroup_manager: self.cgroup_manager, rootless };
        Ok(Runtime::open(options)?)
    }

    /// Whether there is a state root.
    ///
    /// # Errors
    /// The one that was asked for is not there, or is no folder: a mistyped one must not look like one without containers.
    pub(crate) fn has_root(&self) -> Result<bool> {
        let Some(root) = &self.root else { return Ok(state_root::default()?.try_exists()?) };
        std::fs::read_dir(root).map(|_| true).with_context(|| format!("open the state root {}", root.display()))
    }

    /// How far init came, in the words that people grep runc's debug output for.
    pub(crate) fn trace_init(&self, init: &Container) {
        let pid = init.pid();
        self.log.debug(|| format!("nsexec container setup: init was cloned, its pid is {pid}"));
        self.log.debug(|| format!("child process in init(): {pid} executed its lane of the plan"));
        self.log.debug(|| "init: closing the pipe to signal completion".to_owned());
        self.note(init);
    }

    /// The same for a process of exec.
    pub(crate) fn trace_exec(&self, process: &Process) {
        let pid = process.pid();
        self.log.debug(|| format!("nsexec container setup: {pid} joined the container's namespaces"));
        self.log.debug(|| format!("child process in init(): {pid} executed its lane of the plan"));
        self.log.debug(|| "setns_init: about to exec was its last word".to_owned());
        self.note(process);
    }

    fn note(&self, process: &Process) {
        for note in process.notes() {
            self.log.debug(|| note.clone());
        }
    }

    /// What keeps a container from writing to this program, likewise.
    fn trace_seal(&self, sealed: Sealed) {
        if sealed != Sealed::Verity {
            self.log.debug(|| "runc exeseal: using /proc/self/exe clone".to_owned());
        }
        if sealed == Sealed::View {
            self.log.debug(|| "runc exeseal: using overlayfs for sealed /proc/self/exe".to_owned());
        }
    }

    /// Tells the library's warnings.
    pub(crate) fn warn(&self, warnings: &[String]) {
        for warning in warnings {
            self.log.warning(warning);
        }
    }
}

/// Reads the command line of this process and does what it says; the exit code.
#[must_use]
pub fn main() -> ExitCode {
    let mut log = Log::default();
    ExitCode::from(match execute(std::env::args_os().skip(1).collect(), &mut log) {
        Ok(code) => code,
        Err(failure) => {
            log.error(&failure.sentence);
            failure.code
        }
    })
}

/// What main tells before it ends.
struct Failure {
    sentence: String,
    code: u8,
}

fn execute(arguments: Vec<OsString>, log: &mut Log) -> Result<u8, Failure> {
    let globals = arguments::parse(GLOBAL_FLAGS, arguments, Order::Verb).map_err(|error| usage(&error, ""))?;
    let session = session(&globals, log).map_err(|error| usage(&error, ""))?;
    if globals.is_set("version") {
        return told(print(&version()));
    }
    let name = globals.operands.first().map(|name| name.to_string_lossy());
    let Some(name) = name.filter(|_| !globals.help) else {
        return told(print(&help::program()));
    };
    let rest = globals.operands.iter().skip(1).cloned();
    if name == "help" || name == "h" {
        let topic = rest.map(|topic| topic.to_string_lossy().into_owned()).next();
        return match topic.as_deref().map(|topic| verbs::find(topic).ok_or_else(|| unknown(topic))) {
            None => told(print(&help::program())),
            Some(verb) => told(print(&help::verb(verb?))),
        };
    }
    let verb = verbs::find(&name).ok_or_else(|| unknown(&name))?;
    let arguments = arguments::parse(verb.flags, rest, verb.order).map_err(|error| usage(&error, verb.name))?;
    if arguments.help {
        return told(print(&help::verb(verb)));
    }
    verb.check_operands(arguments.operands.len()).map_err(|error| usage(&error, verb.name))?;
    if verb.clones {
        // Before anything else is opened or made: the process starts over, from a copy that nobody can write to.
        let sealed = flint_runtime::seal::ensure().map_err(|error| failed(verb, &error.into()))?;
        session.trace_seal(sealed);
    }
    (verb.run)(&session, &arguments).map_err(|error| failed(verb, &error))
}

fn told(printed: Result<()>) -> Result<u8, Failure> {
    printed.map(|()| 0).map_err(|error| Failure { sentence: sentence(&error), code: 1 })
}

/// runc's words and code.
fn unknown(verb: &str) -> Failure {
    Failure { sentence: format!("No help topic for '{verb}'; see 'flint --help'"), code: 3 }
}

fn usage(error: &UsageError, verb: &str) -> Failure {
    let space = if verb.is_empty() { "" } else { " " };
    Failure { sentence: format!("{error}; see 'flint{space}{verb} --help'"), code: 1 }
}

fn failed(verb: &Verb, error: &anyhow::Error) -> Failure {
    Failure { sentence: format!("{}{}", verb.failure, sentence(error)), code: verb.failure_code }
}

/// The error and what caused it, in one sentence; the operating system's part in the words that runc's callers look for.
pub(crate) fn sentence(error: &anyhow::Error) -> String {
    let words = |cause: &(dyn std::error::Error + 'static)| {
        if let Some(error) = cause.downcast_ref::<std::io::Error>() {
            return io_text(error);
        }
        let errno = cause.downcast_ref::<nix::Error>().map(|errno| *errno as i32);
        let errno = errno.or(cause.downcast_ref::<rustix::io::Errno>().map(|errno| errno.raw_os_error()));
        errno.map_or_else(|| cause.to_string(), errno_text)
    };
    error.chain().map(words).collect::<Vec<_>>().join(": ")
}

fn session(globals: &Arguments, log: &mut Log) -> Result<Session, UsageError> {
    let path = globals.value("log").map(PathBuf::from).filter(|path| path != Path::new("/dev/stderr"));
    log.path = path;
    log.format = match globals.text("log-format")? {
        None | Some("text") => Format::Text,
        Some("json") => Format::Json,
        Some(other) => return Err(arguments::invalid(other, "log-format", "it must be text or json")),
    };
    if let Some(level) = globals.text("log-level")? {
        log.level = Level::parse(level)
            .ok_or_else(|| arguments::invalid(level, "log-level", "it must be error, warning or debug"))?;
    }
    if globals.is_set("debug") {
        log.level = Level::Debug;
    }
    let cgroup_manager = match globals.text("cgroup-manager")? {
        None if globals.is_set("systemd-cgroup") => CgroupManager::Systemd,
        None | Some("cgroupfs") => CgroupManager::Cgroupfs,
        Some("systemd") => CgroupManager::Systemd,
        Some("disabled") => CgroupManager::Disabled,
        Some(other) => {
            return Err(arguments::invalid(other, "cgroup-manager", "it must be cgroupfs, systemd or disabled"));
        }
    };
    let rootless = match globals.text("rootless")?.filter(|text| !text.eq_ignore_ascii_case("auto")) {
        None => None,
        Some(text) => Some(
            parse_bool(text).ok_or_else(|| arguments::invalid(text, "rootless", "it must be true, false or auto"))?,
        ),
    };
    let log = Log { path: log.path.clone(), format: log.format, level: log.level };
    let criu = globals.value("criu").map(PathBuf::from);
    Ok(Session { log, root: globals.value("root").map(PathBuf::from), cgroup_manager, rootless, criu })
}

/// What dockerd and containerd read line by line.
fn version() -> String {
    let commit = option_env!("FLINT_COMMIT").filter(|commit| !commit.is_empty());
    let commit = commit.map_or(String::new(), |commit| format!("commit: {commit}\n"));
    format!("flint version {}\n{commit}spec: {SPEC_VERSION}\n", env!("CARGO_PKG_VERSION"))
}

/// Writes to stdout. A reader who has gone away (`flint list | head -1`) has all it wanted.
///
/// # Errors
/// stdout cannot be written for another reason.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error).context("writing to stdout"),
        _ => Ok(()),
    }
}
