//! `mount` and `umount`: changing the mounts of a running container. Nothing is recorded: they are gone with it.

use std::os::fd::AsRawFd as _;
use std::path::Path;

use flint_init::Bindings;
use flint_init::plan::{Barrier, Slot};
use flint_init::protocol::Kind as Said;
use oci_spec::runtime::Mount;

use crate::bundle::Bundle;
use crate::compile::{self, Host};
use crate::container::bind::{self, Slots, Sources};
use crate::container::channel::{Channel, Heard};
use crate::container::exec::{must_be_where_it_was_made, open_init};
use crate::container::folder::Folder;
use crate::container::process::Process;
use crate::container::sentence;
use crate::plan::Plan;
use crate::runtime::status;
use crate::state::{Record, Status};
use crate::{Error, Kind, Result, Runtime};

impl Runtime {
    /// Adds a mount to a created or running container: an entry as in config.json's `mounts`, whose source is a path of
    /// the host. It lasts as long as the container and is recorded nowhere. What is to be warned about is returned.
    ///
    /// # Errors
    ///
    /// `WrongState` when the container has stopped; `Invalid` for file systems that would show the host's namespaces;
    /// what the kernel says of source and target.
    pub fn mount(&self, id: &str, mount: &Mount) -> Result<Vec<String>> {
        self.visit(id, "mount into", |bundle, host, record| compile::compile_mount(bundle, host, mount, record.pid))
    }

    /// Takes a mount from a created or running container, with all mounts below it; files in use stay open.
    ///
    /// # Errors
    ///
    /// `WrongState` when the container has stopped; a destination that is no mount.
    pub fn umount(&self, id: &str, destination: &Path) -> Result<()> {
        self.visit(id, "umount from", |bundle, host, _| compile::compile_umount(bundle, host, destination)).map(drop)
    }

    fn visit(
        &self,
        id: &str,
        doing: &str,
        compile: impl FnOnce(&Bundle, &Host, &Record) -> Result<Plan>,
    ) -> Result<Vec<String>> {
        let folder = self.folder(id)?;
        let record = folder.record()?;
        let status = status(&folder, Some(&record));
        if !matches!(status, Status::Created | Status::Running) {
            return Err(Error::new(
                Kind::WrongState,
                format!("cannot {doing} container {id}: container not running ({})", status.as_str()),
            ));
        }
        let bundle = Bundle::from_parts(record.bundle.clone(), folder.config()?)?;
        let plan = compile(&bundle, self.host()?, &record)?;
        execute(&plan, &folder, &record)?;
        Ok(plan.warnings)
    }
}

fn execute(plan: &Plan, folder: &Folder, record: &Record) -> Result<()> {
    let mut slots = Slots::for_plan(plan);
    // Opened first: what is found by the pid afterwards is found while the pidfd still is init's.
    let mut sources =
        Sources { folder, cgroup: None, console: None, init: Some(open_init(record)?), namespaces: Vec::new() };
    for index in 0..plan.slots.len() {
        slots.bind(plan, Slot(index as u16), &mut sources)?;
    }
    open_init(record)?;
    let (channel, visitor_end) = Channel::pair()?;
    let mut fds = slots.numbers();
    let keep = bind::keep(&slots, visitor_end.as_raw_fd(), 0, &[]);
    let mut pointers = plan.pointers();
    let bindings = Bindings {
        fds: &mut fds,
        keep: &keep,
        channel: flint_init::Fd(visitor_end.as_raw_fd()),
        stdio: None,
        pointers: &mut pointers,
        join: &[],
        flags: 0,
        cgroup: None,
        cgroups: &[],
        entered: false,
        fault: crate::fault::of_init(),
    };
    let child = flint_init::spawn(plan.as_ref(), bindings)
        .map_err(|errno| Error::new(Kind::System, format!("clone a process: {}", crate::error::errno_text(errno.0))))?;
    drop(visitor_end);
    let visitor = Process::of_child(child.pid)?;
    let result = wait_for(&visitor, &channel, plan, &slots, record);
    drop(channel);
    visitor.destroy();
    result
}

fn wait_for(visitor: &Process, channel: &Channel, plan: &Plan, slots: &Slots, record: &Record) -> Result<()> {
    loop {
        match channel.hear()? {
            Heard::Said(message) if message.kind == Said::Ready => return Ok(()),
            Heard::Said(message) if message.kind == Said::Reached => {
                must_be_where_it_was_made(record, "change the mounts of")?;
                channel.release(Barrier::Born)?;
            }
            Heard::Said(message) if message.kind == Said::Map => {
                slots.map_ids_for(visitor.pidfd(), plan, &message)?;
                channel.proceed()?;
            }
            Heard::Said(message) if message.kind == Said::Failed => return Err(sentence::failed(plan, &message)),
            Heard::Said(_) => return Err(Error::new(Kind::System, "the visitor said something out of turn")),
            Heard::End => return Err(sentence::died("mount", visitor.wait().ok(), None)),
        }
    }
}
