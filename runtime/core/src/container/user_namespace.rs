//! User namespaces for idmapped mounts: a throw-away process is born into one, gets its maps, and is ended; the
//! descriptor keeps the namespace.

use std::fs::File;
use std::os::fd::{AsRawFd as _, OwnedFd};

use flint_init::plan::{Barrier, PlanRef, Step};
use flint_init::protocol::Kind as Said;
use flint_init::{Bindings, Fd};

use crate::container::channel::{Channel, Heard};
use crate::container::create::write_proc;
use crate::container::process::Process;
use crate::{Error, Kind, Result};

/// One line of a map: inside, outside, count.
type Line = (u32, u32, u32);

/// What the process does: nothing but wait. It keeps no descriptor of its maker, and ends when the channel does.
const STEPS: &[Step] = &[Step::CloseFds, Step::Barrier(Barrier::Born)];

/// A user namespace with these maps.
pub(super) fn with_maps(uid: &[Line], gid: &[Line]) -> Result<OwnedFd> {
    with_process(0, |pid| open_mapped(pid, uid, gid))
}

/// Does `work` while there is a process, whose pid it is told, that has a copy of the caller's mounts in a user namespace of its own.
pub(super) fn with_mounts<T>(work: impl FnOnce(i32) -> Result<T>) -> Result<T> {
    with_process(libc::CLONE_NEWNS, work)
}

fn with_process<T>(kinds: i32, work: impl FnOnce(i32) -> Result<T>) -> Result<T> {
    let (channel, child_end) = Channel::pair()?;
    let keep = [Fd(child_end.as_raw_fd())];
    let bindings = Bindings {
        fds: &mut [],
        keep: &keep,
        channel: keep[0],
        stdio: None,
        pointers: &mut [],
        join: &[],
        flags: (libc::CLONE_NEWUSER | kinds) as u64,
        cgroup: None,
        cgroups: &[],
        entered: false,
        fault: None,
    };
    let plan =
        PlanRef { steps: STEPS, text: &[], strings: &[], options: &[], ids: &[], filter: &[], masks: &[], time: None };
    let child = flint_init::spawn(plan, bindings).map_err(|errno| {
        let hint = match errno.0 {
            libc::ENOSPC => " (user.max_user_namespaces is reached)",
            libc::EPERM => " (user namespaces are not allowed: see kernel.unprivileged_userns_clone)",
            _ => "",
        };
        let text = crate::error::errno_text(errno.0);
        Error::new(Kind::System, format!("make a user namespace for mounts: {text}{hint}"))
    })?;
    drop(child_end);
    let child = Process::of_child(child.pid)?;
    let result = match channel.hear() {
        Ok(Heard::Said(message)) if message.kind == Said::Reached => work(child.pid()),
        Ok(_) => Err(Error::new(Kind::System, "the process that holds a new user namespace has ended")),
        Err(error) => Err(error),
    };
    drop(channel);
    child.destroy();
    result
}

fn open_mapped(pid: i32, uid: &[Line], gid: &[Line]) -> Result<OwnedFd> {
    write_proc(pid, "uid_map", &lines(uid)).map_err(|error| error.context("id maps of a mount"))?;
    write_proc(pid, "gid_map", &lines(gid)).map_err(|error| error.context("id maps of a mount"))?;
    File::open(format!("/proc/{pid}/ns/user"))
        .map(OwnedFd::from)
        .map_err(|error| Error::os("open the user namespace of an idmapped mount", error))
}

/// As the kernel reads them.
pub(super) fn lines(map: &[Line]) -> String {
    map.iter().fold(String::new(), |lines, (inside, outside, count)| lines + &format!("{inside} {outside} {count}\n"))
}
