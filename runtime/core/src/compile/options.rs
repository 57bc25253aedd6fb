//! What a plan is compiled from besides its bundle: the caller's options, and facts about the host.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Caller;
use crate::cgroup::{self, Layout, Need};
use crate::{CgroupManager, Error, Result};

/// How a plan is compiled, besides its bundle. Kept in the state: `start` compiles the plan again for its messages.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct CompileOptions {
    /// The container's id.
    pub id: String,
    /// Whether there is a console socket to send the terminal to.
    pub console_socket: bool,
    /// --no-pivot
    pub no_pivot: bool,
    /// A session keyring of its own (not with --no-new-keyring).
    pub new_keyring: bool,
    /// --preserve-fds
    pub preserve_fds: u32,
    /// How many of them are sockets of a systemd socket unit (sd_listen_fds(3)); 0 for none.
    pub listen_fds: u32,
    /// The folder of the container's notify socket on the host (sd_notify(3)), if it gets one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notify_folder: Option<PathBuf>,
    /// Who gets the seccomp listener where config.json names nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seccomp_receiver: Option<PathBuf>,
    /// Wait for `start` on a socket (`create`), not on the channel (`run`).
    pub wait_on_socket: bool,
    /// The program's stdio is the caller's own, who goes on with it (`run` without --detach).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub foreground: bool,
    /// Who makes the cgroups.
    #[serde(default)]
    pub cgroup_manager: CgroupManager,
}

/// How a process for a running container is compiled.
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub struct ExecCompileOptions {
    /// The container's id.
    pub id: String,
    /// Whether there is a console socket to send the terminal to.
    pub console_socket: bool,
    /// --preserve-fds
    pub preserve_fds: u32,
    /// How many of them are sockets of a systemd socket unit (sd_listen_fds(3)); 0 for none.
    pub listen_fds: u32,
    /// Whether the container has a session keyring of its own, which the process joins.
    pub keyring: bool,
    /// As [`CompileOptions::foreground`].
    pub foreground: bool,
    /// Whether an earlier process of `exec` could get CAP_SYS_PTRACE, and may be there still.
    pub tracers: bool,
    /// Who gets the seccomp listener where config.json names nobody.
    pub seccomp_receiver: Option<PathBuf>,
}

/// What a plan depends on besides the bundle: facts about the host, found out once.
#[derive(Clone, Debug)]
pub struct Host {
    /// Where the cgroup hierarchies are.
    pub layout: Layout,
    /// Bits of the capabilities that this process may pass on.
    pub capabilities: u64,
    /// Whether /proc/kcore exists: then /dev/core links to it.
    pub kcore: bool,
    /// Who calls.
    pub caller: Caller,
    /// Which systemd makes cgroups, if one is asked.
    pub systemd: cgroup::systemd::Manager,
    /// Below which cgroup it makes them: a user's has one of its own. Asked only where it is the driver.
    pub systemd_above: String,
}

impl Host {
    /// Looks at the host, for containers that need `cgroups` or not.
    ///
    /// # Errors
    ///
    /// /proc or the cgroup hierarchies cannot be read.
    pub fn detect(cgroups: Need) -> Result<Self> {
        let permitted = caps::read(None, caps::CapSet::Permitted)
            .map_err(|error| Error::new(crate::Kind::System, format!("read the permitted capabilities: {error}")))?;
        Ok(Self {
            layout: match Layout::detect() {
                Err(error) if cgroups != Need::Required && error.kind() == crate::Kind::Unsupported => Layout::none(),
                layout => layout?,
            },
            capabilities: permitted.iter().fold(0, |set, capability| set | capability.bitmask()),
            kcore: std::fs::symlink_metadata("/proc/kcore").is_ok(),
            caller: Caller::detect(cgroups),
            systemd: cgroup::systemd::Manager::detect(),
            systemd_above: String::new(),
        })
    }
}
