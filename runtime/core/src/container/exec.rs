//! `exec`: another process in a container.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::PathBuf;

use flint_init::Bindings;
use flint_init::plan::{Barrier, Slot};
use flint_init::protocol::Kind as Said;

use crate::bundle::Bundle;
use crate::cgroup::{Cgroup, Layout};
use crate::compile::{self, ExecCompileOptions};
use crate::container::bind::{self, Slots, Sources, Stdio};
use crate::container::channel::{Channel, Heard};
use crate::container::create::{born_child, hear_cloned, publish, write_proc};
use crate::container::folder::Folder;
use crate::container::process::{Process, open_pidfd, raise_hard_limits, start_time, user_namespace_of};
use crate::container::start::{Execution, connect_to_init, hear_execution};
use crate::container::{listener, sentence};
use crate::plan::{Plan, SlotSource};
use crate::runtime::{status, status_under_lock};
use crate::state::{Record, Status};
use crate::{Error, Kind, Result, Runtime};

/// How a process is added to a container.
#[derive(Debug, Default)]
pub struct ExecOptions {
    /// Where the terminal's master is sent: a listening unix socket.
    pub console_socket: Option<PathBuf>,
    /// The same, connected already.
    pub console: Option<OwnedFd>,
    /// Where the process's pidfd is sent: a listening unix socket.
    pub pidfd_socket: Option<PathBuf>,
    /// A file that will hold its pid in decimal digits.
    pub pid_file: Option<PathBuf>,
    /// Its standard input, output and error; `None`: the caller's. Not looked at with a terminal.
    pub stdio: Option<Stdio>,
    /// As [`super::CreateOptions::foreground`].
    pub foreground: bool,
    /// How many descriptors from 3 on the program gets.
    pub preserve_fds: u32,
    /// How many of them it is told of as `LISTEN_FDS` (sd_listen_fds(3)).
    pub listen_fds: u32,
    /// Cgroups below the container's own to put the process into: `[controller,..:]path`.
    pub cgroup: Vec<String>,
    /// Also in a paused container, where the process waits until it is resumed.
    pub ignore_paused: bool,
    /// As [`super::CreateOptions::seccomp_receiver`], and what that was is used without it.
    pub seccomp_receiver: Option<PathBuf>,
}

impl Runtime {
    /// Runs a process in a created or running container. It runs when this returns; the caller is its parent.
    ///
    /// # Errors
    ///
    /// `WrongState` when the container has stopped or is paused; what the process's start fails with.
    pub fn exec(&self, id: &str, process: &oci_spec::runtime::Process, options: ExecOptions) -> Result<Process> {
        let folder = self.folder(id)?;
        let mut record = folder.record()?;
        let mut status = status(&folder, Some(&record));
        if status == Status::Creating {
            // One that `run` has started looks so while another command is at work on it.
            let _lock = folder.lock()?;
            record = folder.record()?;
            status = status_under_lock(&record);
        }
        if status == Status::Paused && !options.ignore_paused {
            return Err(Error::new(
                Kind::WrongState,
                "cannot exec in a paused container (use --ignore-paused to override)",
            ));
        }
        if !matches!(status, Status::Created | Status::Running | Status::Paused) {
            return Err(Error::new(
                Kind::WrongState,
                format!("cannot exec in container {id}: container not running ({})", status.as_str()),
            ));
        }
        check_places(&options.cgroup)?;
        let bundle = Bundle::from_parts(record.bundle.clone(), folder.config()?)?;
        let tracers = folder.has_tracers();
        if !tracers && compile::may_trace(process) {
            folder.note_tracers()?;
        }
        let compile_options = ExecCompileOptions {
            tracers,
            id: id.to_owned(),
            console_socket: options.console.is_some() || options.console_socket.is_some(),
            preserve_fds: options.preserve_fds,
            listen_fds: options.listen_fds,
            keyring: record.options.new_keyring,
            foreground: options.foreground,
            seccomp_receiver: options.seccomp_receiver.clone().or_else(|| record.options.seccomp_receiver.clone()),
        };
        let mut plan = compile::compile_exec(&bundle, process, self.host()?, &compile_options)?;
        if record.restored_time {
            // CRIU's own: monotonic time goes on there from where it was at the checkpoint.
            plan.join_before_clone.iter_mut().for_each(|(_, kinds)| *kinds |= libc::CLONE_NEWTIME as u32);
        }
        let namespaces = match status {
            Status::Created if self.host()?.caller.is_unprivileged() => handed_namespaces(&folder, &mut plan),
            _ => Vec::new(),
        };
        let cgroup = Cgroup::from_paths(&record.cgroup);
        Joining { plan: &plan, record: &record, cgroup, namespaces: RefCell::new(namespaces) }.execute(
            &self.host()?.layout,
            &folder,
            options,
        )
    }
}

/// `--cgroup`s that contradict each other, in runc's words: the last one would count where it can be made to.
fn check_places(places: &[String]) -> Result<()> {
    let mut named = BTreeSet::new();
    for place in places {
        let Some((controllers, _)) = place.split_once(':') else {
            if places.len() > 1 {
                return Err(Error::invalid(format!(
                    "invalid --cgroup argument: {place} (missing <controller>: prefix)"
                )));
            }
            continue;
        };
        for controller in controllers.split(',') {
            if controller.is_empty() {
                return Err(Error::invalid(format!("invalid --cgroup argument: {place} (empty <controller> prefix)")));
            }
            if !named.insert(controller) {
                return Err(Error::invalid(format!(
                    "invalid --cgroup argument(s): controller {controller} specified multiple times"
                )));
            }
        }
    }
    Ok(())
}

/// An init that waits for its start is not dumpable, so nobody but root may join its namespaces by a pidfd of it. Its maker
/// may ask it for them; if it does not answer, it has been started meanwhile, and the pidfd does.
fn handed_namespaces(folder: &Folder, plan: &mut Plan) -> Vec<(u32, OwnedFd)> {
    let kinds = plan.join_before_clone.iter().fold(0, |flags, (_, kind)| flags | kind);
    let Ok(namespaces) = connect_to_init(folder).and_then(|channel| channel.ask_for_namespaces(kinds)) else {
        return Vec::new();
    };
    plan.join_before_clone.clear();
    for &(kind, _) in &namespaces {
        plan.join_before_clone.push((Slot(plan.slots.len() as u16), kind));
        plan.slots.push(SlotSource::InitNamespace { kind });
    }
    namespaces
}

/// The container's init, proven to be the one that was recorded.
pub(super) fn open_init(record: &Record) -> Result<OwnedFd> {
    let pidfd = open_pidfd(record.pid)?;
    if start_time(record.pid) == Some(record.start_time) {
        return Ok(pidfd);
    }
    Err(Error::new(Kind::WrongState, "container not running"))
}

/// Refuses an init that has left the user namespace it was made in. Whoever does so may do it without any right, and then
/// makes namespaces of the other kinds for themselves: a mount namespace in which the container's programs and its
/// /etc/passwd are theirs, which a process of `exec` would then run and read with more rights than they have.
///
/// Asked when the process has joined: nobody comes back to a user namespace that they left, so an init that is in it now was
/// there when its namespaces were joined. What may not be read may not be joined either (setns(2)).
pub(super) fn must_be_where_it_was_made(record: &Record, doing: &str) -> Result<()> {
    match (&record.user_namespace, user_namespace_of(record.pid)) {
        (Some(made_in), Some(now)) if *made_in != now => Err(Error::new(
            Kind::WrongState,
            format!(
                "cannot {doing} container {}: its init has left the user namespace that it was made in, and what the process \
                 would find is not the container that was made",
                record.id
            ),
        )),
        _ => Ok(()),
    }
}

/// A process on its way into a container.
struct Joining<'a> {
    plan: &'a Plan,
    record: &'a Record,
    cgroup: Cgroup,
    /// What init handed out, until its slots are bound.
    namespaces: RefCell<Vec<(u32, OwnedFd)>>,
}

impl Joining<'_> {
    fn execute(&self, layout: &Layout, folder: &Folder, mut options: ExecOptions) -> Result<Process> {
        let slots = self.bind(folder, &mut options)?;
        let (channel, mut process) = self.spawn(&slots, options.preserve_fds, options.stdio.as_ref())?;
        // The other ends of pipes must see the program's end, not ours.
        drop(options.stdio.take());
        match self.accompany(layout, &channel, &mut process, &options) {
            Ok(warnings) => Ok(process.with_warnings(warnings).with_notes(self.plan.notes())),
            Err(error) => {
                drop(channel);
                process.destroy();
                Err(error)
            }
        }
    }

    fn bind(&self, folder: &Folder, options: &mut ExecOptions) -> Result<Slots> {
        if let (None, Some(path)) = (&options.console, &options.console_socket) {
            options.console = Some(bind::connect_to(path)?);
        }
        let mut sources = Sources {
            folder,
            cgroup: Some(&self.cgroup),
            console: options.console.take(),
            init: Some(open_init(self.record)?),
            namespaces: self.namespaces.take(),
        };
        let mut slots = Slots::for_plan(self.plan);
        for index in 0..self.plan.slots.len() {
            slots.bind(self.plan, Slot(index as u16), &mut sources)?;
        }
        Ok(slots)
    }

    fn spawn(&self, slots: &Slots, preserve_fds: u32, stdio: Option<&Stdio>) -> Result<(Channel, Process)> {
        let (channel, init_end) = Channel::pair()?;
        let mut fds = slots.numbers();
        let keep = bind::keep(slots, init_end.as_raw_fd(), preserve_fds, &[]);
        let join = self.plan.joins();
        let mut pointers = self.plan.pointers();
        let bindings = Bindings {
            fds: &mut fds,
            keep: &keep,
            channel: flint_init::Fd(init_end.as_raw_fd()),
            stdio: bind::stdio(stdio)?,
            pointers: &mut pointers,
            join: &join,
            flags: self.plan.clone_flags,
            // The host moves it in before it is released: in a user namespace it could not do so itself.
            cgroup: None,
            cgroups: &[],
            entered: false,
            fault: crate::fault::of_init(),
        };
        let child = flint_init::spawn(self.plan.as_ref(), bindings).map_err(|errno| {
            Error::new(Kind::System, format!("clone a process: {}", crate::error::errno_text(errno.0)))
        })?;
        drop(init_end);
        let child = Process::of_child(child.pid)?;
        if join.is_empty() || self.plan.as_ref().is_born_late() {
            return Ok((channel, child));
        }
        let process = hear_cloned(&channel, self.plan, &child)?;
        Ok((channel, process))
    }

    fn accompany(
        &self,
        layout: &Layout,
        channel: &Channel,
        process: &mut Process,
        options: &ExecOptions,
    ) -> Result<Vec<String>> {
        let mut warnings = self.plan.warnings.clone();
        match channel.hear()? {
            Heard::Said(message) if message.kind == Said::Reached => {}
            Heard::Said(message) if message.kind == Said::Failed => return Err(sentence::failed(self.plan, &message)),
            _ => return Err(sentence::died("exec", process.wait().ok(), None)),
        }
        must_be_where_it_was_made(self.record, "exec in")?;
        self.cgroup.add_beside(layout, process.pid(), self.record.pid)?;
        for place in &options.cgroup {
            self.cgroup.add_below(place, process.pid())?;
        }
        if let Some(group) = self.record.resctrl.as_ref().filter(|group| !group.is_gone()) {
            group.add(process.pid())?;
        }
        // Only the namespace of another user takes the right to do so itself.
        if self.plan.join_before_clone.iter().any(|(_, kinds)| kinds & libc::CLONE_NEWUSER as u32 != 0) {
            raise_hard_limits(process.pid(), self.plan)?;
        }
        if let Some(score) = self.plan.oom_score_adj
            && let Err(error) = write_proc(process.pid(), "oom_score_adj", &score.to_string())
        {
            warnings.push(format!("oomScoreAdj {score} is left as it is: {error}"));
        }
        let mut heard = Execution::default();
        if self.plan.as_ref().is_born_late() {
            channel.release(Barrier::Born)?;
            if let Some(born) = self.hear_birth(channel, &mut heard)? {
                let _ = std::mem::replace(process, born).wait();
                publish(process, options.pid_file.as_deref(), options.pidfd_socket.as_deref())?;
                channel.proceed()?;
            }
        } else {
            // Before it is released: a caller that finds the file finds a process that is in its cgroup.
            publish(process, options.pid_file.as_deref(), options.pidfd_socket.as_deref())?;
            channel.release(Barrier::Born)?;
        }
        hear_execution(channel, &mut heard, |number| {
            listener::hand_over(channel, self.plan, self.record, Status::Running, process.pid(), number)
        })?;
        warnings.extend(heard.warnings.iter().map(|message| sentence::warned(self.plan, message)));
        if let Some(message) = &heard.failure {
            return Err(sentence::failed(self.plan, message));
        }
        if !heard.executing {
            return Err(sentence::died("exec", process.wait().ok(), self.cgroup.out_of_memory()));
        }
        Ok(warnings)
    }

    /// The process that the one that has joined the namespaces clones; `None` when that has failed, or died.
    fn hear_birth(&self, channel: &Channel, heard: &mut Execution) -> Result<Option<Process>> {
        loop {
            match channel.hear()? {
                Heard::End => return Ok(None),
                Heard::Said(message) if message.kind == Said::Cloned => {
                    let born = born_child(message.number)?;
                    // Somebody in the pid namespace may speak for it, once it is there.
                    let namespace = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
                    if namespace(born.pid()) == namespace(self.record.pid) {
                        return Ok(Some(born));
                    }
                    return Err(Error::new(Kind::System, "init said something out of turn"));
                }
                Heard::Said(message) => heard.take(message)?,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::check_places;

    #[test]
    fn places_that_contradict_each_other() {
        let check = |places: &[&str]| check_places(&places.iter().map(|&place| place.to_owned()).collect::<Vec<_>>());
        for places in [&[][..], &["below"], &["/"], &["cpu,cpuacct:a", "pids:a"], &["cpu:a:b"]] {
            check(places).unwrap();
        }
        for (places, said) in [
            (&["cpu:a", "cpu:b"][..], "invalid --cgroup argument(s): controller cpu specified multiple times"),
            (&["cpu,pids,cpu:a"], "invalid --cgroup argument(s): controller cpu specified multiple times"),
            (&["a", "b"], "invalid --cgroup argument: a (missing <controller>: prefix)"),
            (&["cpu:a", "b"], "invalid --cgroup argument: b (missing <controller>: prefix)"),
            (&[":a"], "invalid --cgroup argument: :a (empty <controller> prefix)"),
            (&["cpu,:a"], "invalid --cgroup argument: cpu,:a (empty <controller> prefix)"),
        ] {
            assert_eq!(check(places).unwrap_err().to_string(), said);
        }
    }
}
