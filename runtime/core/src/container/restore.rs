//! `restore`: brings a container back from the files of a checkpoint, by CRIU.
//!
//! The id is claimed and the cgroups are made as at `create`. CRIU is put into the cgroups, so that what it restores is
//! born there; its restored init becomes a child of ours (`rst_sibling`), as if we had cloned it.

use std::os::fd::{AsFd as _, AsRawFd, OwnedFd};
use std::path::PathBuf;

use flint_init::plan::Step;

use crate::bundle::Bundle;
use crate::container::bind::{connect_to, send_fd};
use crate::container::checkpoint::{check, common_opts, open_folder, text};
use crate::container::create::CreateOptions;
use crate::container::making::{Making, out_of_order};
use crate::container::process::{Container, Process, start_time, user_namespace_of};
use crate::criu::root::Start;
use crate::criu::rpc::{CgroupRoot, InheritFd, Notify, Opts, Pair, Request, kind};
use crate::criu::{self, RestoreOptions, descriptors, external};
use crate::plan::{HostHookStage, HostStep, Plan};
use crate::state::Phase;
use crate::{Error, Kind, Result, Runtime};

const LOG: &str = "restore.log";

impl Runtime {
    /// Brings a checkpointed container back. Its processes run when this returns; the caller is the parent of init.
    ///
    /// # Errors
    ///
    /// A wrong bundle, images that are none, what CRIU or the kernel lacks, CRIU's own failure with the line of its log
    /// that tells it; nothing is left then.
    pub fn restore(&self, id: &str, bundle: &Bundle, mut options: RestoreOptions) -> Result<Container> {
        let (console, console_socket) = (options.console.take(), options.console_socket.take());
        let create =
            CreateOptions { console, console_socket, pid_file: options.pid_file.take(), ..CreateOptions::default() };
        let plan = self.compile(id, bundle, &create, false)?;
        criu::check_version(&options.criu.program)?;
        // Looked at before anything is made; CRIU gets them as they are in its own mount namespace.
        open_folder(&options.criu.image_path, false)?;
        if let Some(work) = &options.criu.work_path {
            open_folder(work, true)?;
        }
        let opts = Opts {
            lsm_profile: options.lsm_profile.clone(),
            lsm_mount_context: options.lsm_mount_context.clone(),
            evasive_devices: Some(true),
            rst_sibling: Some(true),
            log_file: Some(LOG.to_owned()),
            ..common_opts(&options.criu, &plan, -1)
        };
        let mut making = Making::new(self, id, bundle, &plan, create, false);
        match restore(&mut making, &mut options, opts) {
            Ok(()) => making.finish(Vec::new()),
            Err(error) => Err(making.undo(error)),
        }
    }
}

fn restore(making: &mut Making<'_>, options: &mut RestoreOptions, mut opts: Opts) -> Result<()> {
    making.prepare()?;
    let plan = making.plan;
    let fds = namespaces(plan, &mut opts)?;
    opts.inherit_fd.extend(descriptors::replaced(&options.criu.image_path)?);
    making.record.stdio = descriptors::of_caller(options.stdio.as_ref());
    let start = Start {
        program: &options.criu.program,
        stdio: options.stdio.take(),
        fds,
        plan,
        cgroup: &making.record.cgroup,
        folder: &making.state_folder()?,
        images: &options.criu.image_path,
        work: options.criu.work_path.as_deref(),
    };
    let started = start.start()?;
    opts.images_dir_fd = started.images.as_raw_fd();
    opts.work_dir_fd = started.work.as_ref().map(AsRawFd::as_raw_fd);
    opts.root = Some(text(&started.root)?);
    opts.ext_mnt = started.external;
    opts.cg_root = join_cgroups(making, started.criu.pid())?;
    let request = Request { kind: kind::RESTORE, opts: Some(opts), ..Request::default() };
    let doing = format!("restore container {}", making.record.id);
    let mut notified = |notify: &Notify, fd: Option<OwnedFd>| hear(making, notify, fd);
    let response = started.criu.ask(&request, &mut notified).map_err(|error| error.context(&doing))?;
    check(&response, &doing, &options.criu, LOG)?;
    making.check_restored()
}

impl Making<'_> {
    fn prepare(&mut self) -> Result<()> {
        self.perform(HostStep::ClaimId)?;
        if let Some((folder, _)) = &self.folder {
            // Who knows what was in the container when it was checkpointed.
            folder.note_tracers()?;
        }
        self.perform(HostStep::MakeCgroup)
    }

    fn state_folder(&self) -> Result<PathBuf> {
        self.folder.as_ref().map(|(folder, _)| folder.path().to_owned()).ok_or_else(out_of_order)
    }

    /// CRIU has told init's pid. It is our child, so the pid stays its own until we reap it.
    fn found(&mut self, pid: i32) -> Result<()> {
        if self.init.is_none() {
            self.init = Some(Process::of_child(pid)?);
        }
        self.record.pid = pid;
        self.record.start_time =
            start_time(pid).ok_or_else(|| Error::new(Kind::System, "the restored init has ended at once"))?;
        Ok(())
    }

    fn run_early_hooks(&self) -> Result<()> {
        self.run_hooks(HostHookStage::Prestart)?;
        self.run_hooks(HostHookStage::CreateRuntime)
    }

    /// From here on every command sees it as running: CRIU lets its processes go next.
    fn save_restored(&mut self) -> Result<()> {
        self.record.phase = Phase::Running;
        self.record.user_namespace = user_namespace_of(self.record.pid);
        let time = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/time")).ok();
        self.record.restored_time = time(&self.record.pid.to_string()) != time("self");
        self.save()
    }

    fn check_restored(&self) -> Result<()> {
        if self.record.phase == Phase::Running {
            return Ok(());
        }
        Err(Error::new(Kind::System, "CRIU has restored the container without telling so"))
    }

    fn take_console(&mut self) -> Result<Option<OwnedFd>> {
        match (self.options.console.take(), &self.options.console_socket) {
            (None, Some(path)) => connect_to(path).map(Some),
            (console, _) => Ok(console),
        }
    }
}

fn hear(making: &mut Making<'_>, notify: &Notify, fd: Option<OwnedFd>) -> Result<()> {
    match (notify.script.as_deref().unwrap_or_default(), fd) {
        ("setup-namespaces", _) => {
            making.found(notify.pid.unwrap_or(0))?;
            if making.plan.init.contains(&Step::Loopback) {
                bring_loopback_up(making.record.pid)?;
            }
            making.run_early_hooks()
        }
        ("post-restore", _) => {
            making.found(notify.pid.unwrap_or(0))?;
            making.save_restored()
        }
        ("orphan-pts-master", Some(master)) => match making.take_console()? {
            Some(socket) => send_fd(&socket, b"/dev/ptmx", master.as_fd()),
            None => Ok(()),
        },
        _ => Ok(()),
    }
}

/// The namespaces that the container joins; returns those that CRIU gets as descriptors.
fn namespaces(plan: &Plan, opts: &mut Opts) -> Result<Vec<OwnedFd>> {
    let mut fds = Vec::new();
    for joined in external::joined(plan) {
        let failure =
            |error| Error::os(format!("open the {} namespace {}", joined.name(), joined.path.display()), error);
        if let Some(key) = joined.key() {
            // Behind the socket, which is descriptor 3.
            opts.inherit_fd.push(InheritFd { key: key.to_owned(), fd: 4 + fds.len() as i32 });
            fds.push(std::fs::File::open(&joined.path).map_err(failure)?.into());
        } else if joined.kind == libc::CLONE_NEWCGROUP {
            return Err(Error::unsupported(
                "linux.namespaces: CRIU cannot restore into an existing cgroup namespace; leave its path out",
            ));
        } else {
            opts.join_ns.push(Pair { key: joined.name().to_owned(), value: text(&joined.path)? });
        }
    }
    Ok(fds)
}

/// Moves CRIU into the container's cgroups, and tells where that is: the images know other places.
fn join_cgroups(making: &mut Making<'_>, pid: i32) -> Result<Vec<CgroupRoot>> {
    if let Some(cgroup) = &mut making.cgroup {
        cgroup.join(&making.cgroup_plan, pid)?;
        making.record.cgroup = cgroup.paths().clone();
    }
    making.join_resctrl(pid)?;
    let text = crate::procfs::read(&format!("/proc/{pid}/cgroup"))
        .map_err(|error| Error::os("read the cgroups of CRIU", error))?;
    let mut roots = Vec::new();
    for line in String::from_utf8_lossy(&text).lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let root = |name: &str| CgroupRoot { controller: Some(name.to_owned()), path: path.to_owned() };
        roots.extend(controllers.split(',').map(root));
    }
    Ok(roots)
}

/// CRIU leaves a new network namespace empty; at `create` it has its loopback device up.
fn bring_loopback_up(pid: i32) -> Result<()> {
    let failure = |error: std::io::Error| Error::os("bring the restored container's loopback device up", error);
    let namespace = std::fs::File::open(format!("/proc/{pid}/ns/net")).map_err(failure)?;
    // A network namespace is a thread's: this one must not become the caller's.
    let joined = std::thread::scope(|scope| {
        let work = || {
            nix::sched::setns(&namespace, nix::sched::CloneFlags::CLONE_NEWNET)?;
            flint_sys::namespace::loopback_up().map_err(|errno| std::io::Error::from_raw_os_error(errno.0))
        };
        scope.spawn(work).join()
    });
    joined.unwrap_or_else(|_| Err(std::io::Error::other("its thread has died"))).map_err(failure)
}
