//! Verbs of runc that this version does not have. Their options are known, so that callers which ask for the
//! help or send an option get the answer they expect, and a clear sentence for the rest.

use anyhow::{Result, bail};

use super::{BUNDLE, CONSOLE_SOCKET, CONTAINER, NO_PIVOT, PID_FILE, Verb};
use crate::Session;
use crate::arguments::{Arguments, Flag, option, switch};

fn run(_: &Session, _: &Arguments) -> Result<u8> {
    bail!("not supported by this version")
}

const NOTE: &str = "This version of flint does not support it.";
const MISSING: Verb = Verb { description: NOTE, run, ..CONTAINER };

const IMAGE_PATH: Flag = option("image-path", None, "FOLDER", "CRIU's images");
const WORK_PATH: Flag = option("work-path", None, "FOLDER", "CRIU's work files and logs");
const PARENT_PATH: Flag = option("parent-path", None, "FOLDER", "images of an earlier pre-dump");
const TCP_ESTABLISHED: Flag = switch("tcp-established", None, "keep open TCP connections");
const EXT_UNIX_SK: Flag = switch("ext-unix-sk", None, "keep unix sockets to the outside");
const SHELL_JOB: Flag = switch("shell-job", None, "allow a session of the caller's shell");
const FILE_LOCKS: Flag = switch("file-locks", None, "keep file locks");
const LAZY_PAGES: Flag = switch("lazy-pages", None, "fetch memory when it is used");
const MANAGE_CGROUPS: Flag =
    option("manage-cgroups-mode", None, "MODE", "what of the cgroups is kept: soft, full, strict or ignore");
const EMPTY_NS: Flag = option("empty-ns", None, "NAMESPACE", "make the namespace and leave it empty");
const AUTO_DEDUP: Flag = switch("auto-dedup", None, "free pages of the images that are no longer needed");
const LINK_REMAP: Flag = switch("link-remap", None, "keep files without a name by hard links");
const SKIP_IN_FLIGHT: Flag = switch("tcp-skip-in-flight", None, "leave TCP connections that are being made");

pub(super) const CHECKPOINT: Verb = Verb {
    name: "checkpoint",
    summary: "save a running container to files",
    failure: "flint checkpoint: ",
    flags: &[
        IMAGE_PATH,
        WORK_PATH,
        PARENT_PATH,
        switch("leave-running", None, "let the container go on"),
        TCP_ESTABLISHED,
        SKIP_IN_FLIGHT,
        LINK_REMAP,
        EXT_UNIX_SK,
        SHELL_JOB,
        LAZY_PAGES,
        option("status-fd", None, "FD", "CRIU writes a zero byte here once lazy pages are ready"),
        option("page-server", None, "ADDRESS:PORT", "send the memory there"),
        FILE_LOCKS,
        switch("pre-dump", None, "save the memory only and let the container go on"),
        MANAGE_CGROUPS,
        EMPTY_NS,
        AUTO_DEDUP,
    ],
    ..MISSING
};

pub(super) const RESTORE: Verb = Verb {
    name: "restore",
    summary: "bring a saved container back",
    failure: "flint restore: ",
    flags: &[
        BUNDLE,
        IMAGE_PATH,
        WORK_PATH,
        PARENT_PATH,
        CONSOLE_SOCKET,
        switch("detach", Some('d'), "do not stay with the program"),
        PID_FILE,
        switch("no-subreaper", None, "do not become the parent of processes that the container leaves behind"),
        NO_PIVOT,
        TCP_ESTABLISHED,
        LINK_REMAP,
        EXT_UNIX_SK,
        SHELL_JOB,
        LAZY_PAGES,
        FILE_LOCKS,
        MANAGE_CGROUPS,
        EMPTY_NS,
        AUTO_DEDUP,
        option("lsm-profile", None, "TYPE:NAME", "another LSM profile"),
        option("lsm-mount-context", None, "CONTEXT", "another LSM context of the mounts"),
    ],
    ..MISSING
};
