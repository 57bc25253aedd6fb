//! What the command line of `cargo xtask vm` asks for.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use lexopt::prelude::*;

/// How the machine's cgroup hierarchies are mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cgroup {
    V1,
    V2,
    /// v1 controllers, and a v2 hierarchy without controllers at /sys/fs/cgroup/unified.
    Hybrid,
}

impl Cgroup {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
            Self::Hybrid => "hybrid",
        }
    }
}

/// The machine's process 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Init {
    /// A short script.
    None,
    /// systemd with dbus and a lingering user.
    Systemd,
}

/// How a machine goes down before it is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// Its power is cut: qemu is killed.
    Cut,
    /// By systemd.
    Reboot,
}

impl Then {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Cut => "cut",
            Self::Reboot => "reboot",
        }
    }
}

/// One machine and what runs in it.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) cgroup: Cgroup,
    pub(crate) init: Init,
    /// Debian's suite of the kernel.
    pub(crate) kernel: String,
    /// Debian's suite of the root filesystem.
    pub(crate) image: String,
    /// In MiB.
    pub(crate) memory: u32,
    /// In MiB; 0 for none.
    pub(crate) swap: u32,
    /// In MiB; 0 for none.
    pub(crate) scratch: u32,
    pub(crate) cpus: u32,
    /// What comes after the command, and then the command again; with any, what the machine writes is kept.
    pub(crate) then: Vec<Then>,
    pub(crate) timeout: Duration,
    /// Files and folders that are carried in beside the checkout's.
    pub(crate) carry: Vec<PathBuf>,
    /// Set in the command's environment.
    pub(crate) environment: Vec<(String, OsString)>,
    /// Integration tests that are built, carried in and run.
    pub(crate) tests: Vec<String>,
    /// More words for the kernel.
    pub(crate) kernel_words: Vec<String>,
    /// The kernel's console goes to stderr, too.
    pub(crate) console: bool,
    /// The command and its arguments; with `tests`, what is handed to each test program.
    pub(crate) command: Vec<OsString>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cgroup: Cgroup::V2,
            init: Init::None,
            kernel: "bookworm".to_owned(),
            image: "bookworm".to_owned(),
            memory: 1536,
            swap: 256,
            scratch: 64,
            cpus: 2,
            then: Vec::new(),
            timeout: Duration::from_secs(1800),
            carry: Vec::new(),
            environment: Vec::new(),
            tests: Vec::new(),
            kernel_words: Vec::new(),
            console: false,
            command: Vec::new(),
        }
    }
}

/// What is to be done.
pub(super) enum Asked {
    Help,
    /// Remove the cache.
    Clean,
    Run(Box<Options>),
}

/// Reads the command line.
///
/// # Errors
///
/// For an option that is not there or a value that it cannot have.
pub(super) fn parse(mut parser: lexopt::Parser) -> anyhow::Result<Asked> {
    let mut options = Options::default();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("cgroup") => {
                options.cgroup = match parser.value()?.string()?.as_str() {
                    "v1" => Cgroup::V1,
                    "v2" => Cgroup::V2,
                    "hybrid" => Cgroup::Hybrid,
                    other => bail!("--cgroup is v1, v2 or hybrid, not {other}"),
                }
            }
            Long("init") => {
                options.init = match parser.value()?.string()?.as_str() {
                    "none" => Init::None,
                    "systemd" => Init::Systemd,
                    other => bail!("--init is none or systemd, not {other}"),
                }
            }
            Long("kernel") => options.kernel = suite("--kernel", parser.value()?.string()?)?,
            Long("image") => options.image = suite("--image", parser.value()?.string()?)?,
            Long("memory") => options.memory = parser.value()?.parse().context("--memory is a number of MiB")?,
            Long("swap") => options.swap = parser.value()?.parse().context("--swap is a number of MiB")?,
            Long("scratch") => options.scratch = parser.value()?.parse().context("--scratch is a number of MiB")?,
            Long("cpus") => options.cpus = parser.value()?.parse().context("--cpus is a number")?,
            Long("then") => options.then.push(match parser.value()?.string()?.as_str() {
                "cut" => Then::Cut,
                "reboot" => Then::Reboot,
                other => bail!("--then is cut or reboot, not {other}"),
            }),
            Long("timeout") => {
                options.timeout =
                    Duration::from_secs(parser.value()?.parse().context("--timeout is a number of seconds")?);
            }
            Long("carry") => options.carry.push(parser.value()?.into()),
            Long("env") => options.environment.push(variable(parser.value()?)?),
            Long("test") => options.tests.push(parser.value()?.string()?),
            Long("kernel-option") => options.kernel_words.push(parser.value()?.string()?),
            Long("console") => options.console = true,
            Long("clean") => return Ok(Asked::Clean),
            Short('h') | Long("help") => return Ok(Asked::Help),
            Value(first) => {
                options.command.push(first);
                // What stands behind the command's name is its own, whether or not `--` was written.
                options.command.extend(parser.raw_args()?);
            }
            other => return Err(other.unexpected().into()),
        }
    }
    ensure!(!(options.command.is_empty() && options.tests.is_empty()), "no command; `cargo xtask vm --help` says more");
    ensure!(options.memory >= 256, "--memory {}: Debian's kernel needs 256 MiB", options.memory);
    let can_reboot = options.init == Init::Systemd || !options.then.contains(&Then::Reboot);
    ensure!(can_reboot, "--then reboot needs --init systemd: there is nobody else who would end anything first");
    ensure!((1..=64).contains(&options.cpus), "--cpus is 1 to 64, not {}", options.cpus);
    Ok(Asked::Run(Box::new(options)))
}

/// A suite's name becomes part of file names.
fn suite(option: &str, name: String) -> anyhow::Result<String> {
    let plain = name.chars().all(|character| character.is_ascii_lowercase() || character == '-');
    ensure!(plain && !name.is_empty(), "{option} is the name of a Debian suite (bookworm, sid), not {name}");
    Ok(name)
}

fn variable(text: OsString) -> anyhow::Result<(String, OsString)> {
    let text = text.into_string().map_err(|text| anyhow::anyhow!("--env {} is not UTF-8", text.display()))?;
    let (name, value) = text.split_once('=').with_context(|| format!("--env is NAME=VALUE, not {text}"))?;
    let plain = |character: char| character.is_ascii_alphanumeric() || character == '_';
    ensure!(!name.is_empty() && name.chars().all(plain), "--env: {name} is no name of a variable");
    Ok((name.to_owned(), value.into()))
}
