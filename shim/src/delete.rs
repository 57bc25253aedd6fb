//! `delete`: takes away what a container left whose shim is gone. Called also at a normal end; does nothing twice.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context as _, Result};
use containerd_shim_protos::api::DeleteResponse;
use protobuf::Message as _;

use crate::address::Address;
use crate::arguments::Arguments;
use crate::config::Place;
use crate::{clock, rootfs, sandbox, tasks};

/// 128 and SIGKILL: what is known of how it ended.
const KILLED: u32 = 137;

/// Kills and deletes the container, unmounts its root filesystem, and answers with a `DeleteResponse`.
///
/// # Errors
///
/// A container that cannot be ended, a mount that cannot be unmounted.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let bundle: PathBuf = if arguments.bundle.as_os_str().is_empty() {
        std::env::current_dir().context("the bundle is the current folder")?
    } else {
        arguments.bundle.clone()
    };
    let ended = end(arguments, &bundle);
    // Also after a failure: containerd does not come again.
    let unmounted = rootfs::unmount_all(&bundle.join("rootfs"));
    sandbox::unmount(&bundle);
    if let Some(address) = Address::kept(&bundle) {
        address.remove_dead();
    }
    let pid = ended?;
    unmounted?;
    let response = DeleteResponse {
        pid: pid as u32,
        exit_status: KILLED,
        exited_at: clock::timestamp(SystemTime::now()),
        ..DeleteResponse::default()
    };
    std::io::stdout().write_all(&response.write_to_bytes()?).context("answer containerd")
}

/// Kills and deletes the container; its init's pid, 0 without one.
fn end(arguments: &Arguments, bundle: &Path) -> Result<i32> {
    let place = Place::kept(bundle, &arguments.namespace);
    // Without its state root there never was a container.
    if !place.root.exists() {
        return Ok(0);
    }
    let runtime = tasks::open(&place)?;
    let pid = runtime.state(&arguments.id).map_or(0, |state| state.pid);
    runtime.delete(&arguments.id, true)?;
    Ok(pid)
}
