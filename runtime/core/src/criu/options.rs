//! What callers of checkpoint and restore choose.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use crate::container::Stdio;
use crate::{Error, Result};

/// What CRIU does with cgroups (its `--manage-cgroups`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CgroupsMode {
    /// CRIU's own choice (soft).
    #[default]
    Default,
    /// Nothing: processes stay in the cgroups that flint makes.
    Ignore,
    /// Restore the properties of cgroups that CRIU makes itself.
    Soft,
    /// Restore the properties of all cgroups.
    Full,
    /// Refuse to restore when a cgroup is missing that should be there.
    Strict,
}

impl CgroupsMode {
    /// Reads the word of the command line.
    ///
    /// # Errors
    ///
    /// `Invalid` for another one.
    pub fn parse(word: &str) -> Result<Self> {
        Ok(match word {
            "" => Self::Default,
            "ignore" => Self::Ignore,
            "soft" => Self::Soft,
            "full" => Self::Full,
            "strict" => Self::Strict,
            _ => {
                return Err(Error::invalid(format!(
                    "invalid manage-cgroups-mode value {word:?}: it must be soft, full, strict or ignore"
                )));
            }
        })
    }

    /// `criu_cg_mode`
    pub(crate) fn number(self) -> i32 {
        match self {
            Self::Ignore => 0,
            Self::Soft => 3,
            Self::Full => 4,
            Self::Strict => 5,
            Self::Default => 6,
        }
    }
}

/// How CRIU keeps packets from a container while it is saved or brought back (its `--network-lock`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkLock {
    /// By iptables-restore, which is CRIU's own choice.
    Iptables,
    /// By nftables.
    Nftables,
    /// Not at all.
    Skip,
}

impl NetworkLock {
    /// Reads the word of the command line.
    ///
    /// # Errors
    ///
    /// `Invalid` for another one.
    pub fn parse(word: &str) -> Result<Self> {
        Ok(match word {
            "iptables" => Self::Iptables,
            "nftables" => Self::Nftables,
            "skip" => Self::Skip,
            _ => {
                return Err(Error::invalid(format!(
                    "unknown network lock method {word:?}: it must be iptables, nftables or skip"
                )));
            }
        })
    }

    /// `criu_network_lock_method`
    pub(crate) fn number(self) -> i32 {
        match self {
            Self::Iptables => 1,
            Self::Nftables => 2,
            Self::Skip => 3,
        }
    }
}

/// What checkpoint and restore have in common.
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of CRIU")]
pub struct CriuOptions {
    /// The program: a path, or a name that is looked for in PATH.
    pub program: PathBuf,
    /// The folder of the images. A checkpoint makes it.
    pub image_path: PathBuf,
    /// The folder of CRIU's logs and sockets; `None` for that of the images. Made when it is missing.
    pub work_path: Option<PathBuf>,
    /// Keep established TCP connections.
    pub tcp_established: bool,
    /// Bring saved TCP connections back closed. Restore alone has it.
    pub tcp_close: bool,
    /// How the network is locked meanwhile; `None` for CRIU's own choice.
    pub network_lock: Option<NetworkLock>,
    /// Go on with unix sockets whose other end is outside.
    pub ext_unix_sk: bool,
    /// Allow a session and a terminal of the caller's shell.
    pub shell_job: bool,
    /// Keep file locks.
    pub file_locks: bool,
    /// What CRIU does with the cgroups.
    pub cgroups_mode: CgroupsMode,
    /// Free memory pages in the images once they are superseded or restored.
    pub auto_dedup: bool,
    /// Restore memory when it is used (userfaultfd).
    pub lazy_pages: bool,
}

impl Default for CriuOptions {
    fn default() -> Self {
        Self {
            program: "criu".into(),
            image_path: "checkpoint".into(),
            work_path: None,
            tcp_established: false,
            tcp_close: false,
            network_lock: None,
            ext_unix_sk: false,
            shell_job: false,
            file_locks: false,
            cgroups_mode: CgroupsMode::Default,
            auto_dedup: false,
            lazy_pages: false,
        }
    }
}

/// How a container is checkpointed.
#[derive(Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of CRIU")]
pub struct CheckpointOptions {
    /// What restore has too.
    pub criu: CriuOptions,
    /// Images of an earlier pre-dump, relative to `image_path`.
    pub parent_path: Option<PathBuf>,
    /// Let the container go on.
    pub leave_running: bool,
    /// Write the memory only and let the container go on; a later dump writes what has changed since.
    pub pre_dump: bool,
    /// Leave out TCP connections that are being made.
    pub tcp_skip_in_flight: bool,
    /// Give unlinked files a name, so that they can be opened again.
    pub link_remap: bool,
    /// Where a page server listens that takes the memory (or, with lazy pages, where CRIU itself listens).
    pub page_server: Option<(String, u16)>,
    /// Gets a zero byte once lazy pages can be fetched, and is closed then.
    pub status: Option<File>,
}

/// How a container is restored.
#[derive(Debug, Default)]
pub struct RestoreOptions {
    /// What checkpoint has too.
    pub criu: CriuOptions,
    /// Where the terminal's master is sent: a listening unix socket.
    pub console_socket: Option<PathBuf>,
    /// The same, connected already.
    pub console: Option<OwnedFd>,
    /// What takes the place of the standard descriptors that led out of the container; the caller's without.
    pub stdio: Option<Stdio>,
    /// A file that will hold init's pid in decimal digits.
    pub pid_file: Option<PathBuf>,
    /// Another LSM profile: `TYPE:NAME`.
    pub lsm_profile: Option<String>,
    /// Another SELinux context of the mounts.
    pub lsm_mount_context: Option<String>,
}
