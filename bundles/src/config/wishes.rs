//! What a caller may ask of a bundle beside the image.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use crate::error::{Error, Result};

/// The caller's wishes; the default leaves all to the image.
#[derive(Debug, Clone)]
#[allow(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub struct Wishes {
    /// The entrypoint in place of the image's.
    pub entrypoint: Option<Vec<String>>,
    /// The command in place of the image's.
    pub command: Vec<String>,
    /// More variables, `NAME=VALUE`.
    pub env: Vec<String>,
    /// `USER[:GROUP]`, names or numbers.
    pub user: Option<String>,
    /// The working directory.
    pub cwd: Option<String>,
    /// The name that the container has of itself.
    pub hostname: Option<String>,
    /// Whether the program has a terminal.
    pub terminal: bool,
    /// Whether the root filesystem is read-only.
    pub read_only: bool,
    /// Whether the container uses the host's network.
    pub host_network: bool,
    /// Whether set-id programs give nothing.
    pub no_new_privileges: bool,
    /// Whether there is docker's default seccomp profile.
    pub seccomp: bool,
    /// Capabilities more than docker's default, `CAP_` may be left out; `ALL`.
    pub cap_add: Vec<String>,
    /// Capabilities less; `ALL`. It counts before `cap_add`, but takes from an `ALL` that is added.
    pub cap_drop: Vec<String>,
    /// Folders and files of the host.
    pub mounts: Vec<BindMount>,
    /// Limits.
    pub resources: Resources,
}

impl Default for Wishes {
    fn default() -> Self {
        Self {
            entrypoint: None,
            command: Vec::new(),
            env: Vec::new(),
            user: None,
            cwd: None,
            hostname: None,
            terminal: false,
            read_only: false,
            host_network: false,
            no_new_privileges: false,
            seccomp: true,
            cap_add: Vec::new(),
            cap_drop: Vec::new(),
            mounts: Vec::new(),
            resources: Resources::default(),
        }
    }
}

/// All of Linux's capabilities, up to the newest.
const ALL: [&str; 41] = [
    "CAP_AUDIT_CONTROL",
    "CAP_AUDIT_READ",
    "CAP_AUDIT_WRITE",
    "CAP_BLOCK_SUSPEND",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_KILL",
    "CAP_LEASE",
    "CAP_LINUX_IMMUTABLE",
    "CAP_MAC_ADMIN",
    "CAP_MAC_OVERRIDE",
    "CAP_MKNOD",
    "CAP_NET_ADMIN",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_RAW",
    "CAP_PERFMON",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYSLOG",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_CHROOT",
    "CAP_SYS_MODULE",
    "CAP_SYS_NICE",
    "CAP_SYS_PACCT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_WAKE_ALARM",
];

impl Wishes {
    /// The capabilities, sorted.
    pub(super) fn capabilities(&self, default: &[&'static str]) -> Result<Vec<&'static str>> {
        let named = |name: &str| -> Result<Vec<&'static str>> {
            if name.eq_ignore_ascii_case("ALL") {
                return Ok(ALL.to_vec());
            }
            let upper = name.to_ascii_uppercase();
            let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
            let known = ALL.iter().find(|one| **one == full);
            known.map(|one| vec![*one]).ok_or_else(|| Error::refused(format!("there is no capability {name:?}")))
        };
        let is_all = |name: &String| name.eq_ignore_ascii_case("ALL");
        let start = if self.cap_add.iter().any(is_all) { &ALL[..] } else { default };
        let mut set: std::collections::BTreeSet<&str> = start.iter().copied().collect();
        for name in &self.cap_drop {
            for one in named(name)? {
                set.remove(one);
            }
        }
        for name in self.cap_add.iter().filter(|name| !is_all(name)) {
            set.extend(named(name)?);
        }
        Ok(set.into_iter().collect())
    }
}

/// A folder or file of the host that the container sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindMount {
    /// The path on the host, absolute.
    pub source: PathBuf,
    /// The path in the container, absolute.
    pub destination: String,
    /// Whether the container may only read it.
    pub read_only: bool,
}

impl BindMount {
    /// Reads `SOURCE:DESTINATION[:ro|:rw]`.
    ///
    /// # Errors
    ///
    /// When one of the paths is not absolute, or the option is another.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong =
            || Error::refused(format!("the mount {text:?} is not SOURCE:DESTINATION[:ro], with absolute paths"));
        let parts: Vec<&str> = text.split(':').collect();
        let (source, destination, read_only) = match *parts.as_slice() {
            [source, destination] | [source, destination, "rw"] => (source, destination, false),
            [source, destination, "ro"] => (source, destination, true),
            _ => return Err(wrong()),
        };
        if !source.starts_with('/') || !destination.starts_with('/') {
            return Err(wrong());
        }
        Ok(Self { source: source.into(), destination: destination.to_owned(), read_only })
    }

    pub(super) fn to_json(&self) -> Result<Value> {
        let source = self.source.to_str().ok_or_else(|| {
            Error::refused(format!("the mount's source {} is not UTF-8, which JSON cannot say", self.source.display()))
        })?;
        let access = if self.read_only { "ro" } else { "rw" };
        Ok(
            json!({"destination": self.destination, "type": "bind", "source": source, "options": ["rbind", "rprivate", access]}),
        )
    }
}

/// Limits of a container.
#[derive(Debug, Clone, Default)]
pub struct Resources {
    /// Memory in bytes.
    pub memory: Option<u64>,
    /// CPUs, in thousandths.
    pub milli_cpus: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
}

/// The period of CPU quotas in microseconds; the kernel's default.
const PERIOD: u64 = 100_000;

impl Resources {
    pub(super) fn to_json(&self) -> Value {
        let mut resources = Map::new();
        // The runtime adds the devices that every container has.
        resources.insert("devices".to_owned(), json!([{"allow": false, "access": "rwm"}]));
        if let Some(bytes) = self.memory {
            resources.insert("memory".to_owned(), json!({"limit": bytes}));
        }
        if let Some(milli) = self.milli_cpus {
            let quota = milli.saturating_mul(PERIOD / 1000).max(1000);
            resources.insert("cpu".to_owned(), json!({"quota": quota, "period": PERIOD}));
        }
        if let Some(pids) = self.pids {
            resources.insert("pids".to_owned(), json!({"limit": pids}));
        }
        Value::Object(resources)
    }
}
