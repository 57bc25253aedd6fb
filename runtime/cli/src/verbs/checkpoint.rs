//! `flint checkpoint`, and the options that `restore` has too.

use std::fs::{File, OpenOptions};
use std::os::fd::RawFd;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use flint_runtime::{CgroupsMode, CheckpointOptions, CriuOptions, NetworkLock};

use super::{CONTAINER, Verb};
use crate::Session;
use crate::arguments::{Arguments, Flag, UsageError, integer, option, switch};

pub(super) const IMAGE_PATH: Flag = option("image-path", None, "FOLDER", "CRIU's images (default: checkpoint)");
pub(super) const WORK_PATH: Flag =
    option("work-path", None, "FOLDER", "CRIU's work files and logs (default: the image path)");
pub(super) const TCP_ESTABLISHED: Flag = switch("tcp-established", None, "keep open TCP connections");
pub(super) const NETWORK_LOCK: Flag = option(
    "network-lock",
    None,
    "METHOD",
    "what keeps packets away meanwhile: iptables, nftables or skip (default: CRIU's own choice)",
);
pub(super) const EXT_UNIX_SK: Flag = switch("ext-unix-sk", None, "keep unix sockets to the outside");
pub(super) const SHELL_JOB: Flag = switch("shell-job", None, "allow a session of the caller's shell");
pub(super) const FILE_LOCKS: Flag = switch("file-locks", None, "keep file locks");
pub(super) const LAZY_PAGES: Flag = switch("lazy-pages", None, "fetch memory when it is used");
pub(super) const MANAGE_CGROUPS: Flag = option(
    "manage-cgroups-mode",
    None,
    "MODE",
    "what of the cgroups is kept: soft, full, strict or ignore (default: soft)",
);
pub(super) const EMPTY_NS: Flag =
    option("empty-ns", None, "NAMESPACE", "make the namespace and leave it empty: network (it always is)");
pub(super) const AUTO_DEDUP: Flag = switch("auto-dedup", None, "free pages of the images that are no longer needed");

pub(super) const VERB: Verb = Verb {
    name: "checkpoint",
    summary: "save a running container to files",
    description: "CRIU (criu in PATH, or --criu before the verb) writes its processes to the image path.
The container is gone afterwards, unless it is left running; restore brings it back.",
    failure: "flint checkpoint: ",
    flags: &[
        IMAGE_PATH,
        WORK_PATH,
        option("parent-path", None, "FOLDER", "images of an earlier pre-dump, relative to the image path"),
        switch("leave-running", None, "let the container go on"),
        TCP_ESTABLISHED,
        NETWORK_LOCK,
        switch("tcp-skip-in-flight", None, "leave TCP connections that are being made"),
        switch("link-remap", None, "keep files without a name by hard links"),
        EXT_UNIX_SK,
        SHELL_JOB,
        LAZY_PAGES,
        integer("status-fd", None, "FD", "a zero byte is written here once lazy pages are ready"),
        option("page-server", None, "ADDRESS:PORT", "send the memory there; with --lazy-pages, offer it there"),
        FILE_LOCKS,
        switch("pre-dump", None, "save the memory only and let the container go on"),
        MANAGE_CGROUPS,
        EMPTY_NS,
        AUTO_DEDUP,
    ],
    run,
    ..CONTAINER
};

fn run(session: &Session, arguments: &Arguments) -> Result<u8> {
    let status_fd = status_fd(arguments.integer("status-fd"))?;
    let options = CheckpointOptions {
        criu: criu_options(session, arguments)?,
        parent_path: arguments.value("parent-path").map(PathBuf::from),
        leave_running: arguments.is_set("leave-running"),
        pre_dump: arguments.is_set("pre-dump"),
        tcp_skip_in_flight: arguments.is_set("tcp-skip-in-flight"),
        link_remap: arguments.is_set("link-remap"),
        page_server: page_server(arguments)?,
        status: status_fd.map(open_status).transpose()?,
    };
    if let Some(fd) = status_fd {
        // Whoever reads it shall see its end when CRIU is ready, and not when flint ends.
        nix::unistd::close(fd).with_context(|| format!("closing --status-fd {fd}"))?;
    }
    session.warn(&session.runtime()?.checkpoint(arguments.operand(0)?, options)?);
    Ok(0)
}

/// What both verbs tell CRIU.
pub(super) fn criu_options(session: &Session, arguments: &Arguments) -> Result<CriuOptions> {
    for namespace in arguments.texts("empty-ns")? {
        if namespace != "network" {
            bail!("namespace {namespace:?} is not supported: --empty-ns takes network");
        }
    }
    let path = |name| arguments.value(name).map(PathBuf::from);
    let defaults = CriuOptions::default();
    Ok(CriuOptions {
        program: session.criu.clone().unwrap_or(defaults.program),
        image_path: path("image-path").unwrap_or(defaults.image_path),
        work_path: path("work-path"),
        tcp_established: arguments.is_set("tcp-established"),
        tcp_close: arguments.is_set("tcp-close"),
        network_lock: arguments.text("network-lock")?.map(NetworkLock::parse).transpose()?,
        ext_unix_sk: arguments.is_set("ext-unix-sk"),
        shell_job: arguments.is_set("shell-job"),
        file_locks: arguments.is_set("file-locks"),
        cgroups_mode: CgroupsMode::parse(arguments.text("manage-cgroups-mode")?.unwrap_or_default())?,
        auto_dedup: arguments.is_set("auto-dedup"),
        lazy_pages: arguments.is_set("lazy-pages"),
    })
}

fn page_server(arguments: &Arguments) -> Result<Option<(String, u16)>, UsageError> {
    let Some(text) = arguments.text("page-server")? else { return Ok(None) };
    split_address(text)
        .map(Some)
        .ok_or_else(|| crate::arguments::invalid(text, "page-server", "use ADDRESS:PORT, with a port from 1 to 65535"))
}

/// `192.0.2.1:7` or `[2001:db8::1]:7`.
fn split_address(text: &str) -> Option<(String, u16)> {
    let (address, port) = text.rsplit_once(':')?;
    let address = match address.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?,
        None if address.contains(':') => return None,
        None => address,
    };
    let port = port.parse().ok().filter(|port| *port != 0)?;
    (!address.is_empty()).then(|| (address.to_owned(), port))
}

/// -1 is runc's default.
fn status_fd(given: Option<i64>) -> Result<Option<RawFd>> {
    let Some(number) = given.filter(|number| *number != -1) else { return Ok(None) };
    match RawFd::try_from(number) {
        Ok(fd @ 3..) => Ok(Some(fd)),
        _ => bail!("invalid --status-fd argument {number}: it must be a descriptor from 3 on"),
    }
}

fn open_status(fd: RawFd) -> Result<File> {
    OpenOptions::new()
        .write(true)
        .open(format!("/proc/self/fd/{fd}"))
        .with_context(|| format!("invalid --status-fd argument {fd}: it cannot be written to"))
}

#[cfg(test)]
mod tests {
    use super::{split_address, status_fd};

    #[test]
    fn descriptors_for_the_status() {
        assert_eq!(status_fd(None).expect("none"), None);
        assert_eq!(status_fd(Some(-1)).expect("runc's default"), None);
        assert_eq!(status_fd(Some(3)).expect("a descriptor"), Some(3));
        for wrong in [-2, 0, 2, 1 << 31, i64::MAX] {
            assert!(status_fd(Some(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn addresses() {
        assert_eq!(split_address("1.2.3.4:5"), Some(("1.2.3.4".into(), 5)));
        assert_eq!(split_address("[::1]:80"), Some(("::1".into(), 80)));
        for wrong in ["", "a", ":1", "a:", "a:0", "a:65536", "::1:80", "[::1:80"] {
            assert_eq!(split_address(wrong), None, "{wrong}");
        }
    }
}
