//! `checkpoint`: writes a running container to files by CRIU, and ends it unless it is to go on.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::Path;

use crate::cgroup::Cgroup;
use crate::container::delete::end;
use crate::container::folder::Folder;
use crate::criu::rpc::{Features, Notify, Opts, PageServer, Request, Response, kind};
use crate::criu::{self, CheckpointOptions, Criu, CriuOptions, NetworkLock, Stdio, descriptors, external};
use crate::plan::Plan;
use crate::runtime::status_under_lock;
use crate::state::{Record, Status};
use crate::{Error, Kind, Result, Runtime};

const LOG: &str = "dump.log";
/// CRIU's log level "info": errors come with what led to them.
pub(super) const LOG_LEVEL: i32 = 4;

impl Runtime {
    /// Writes a running container to files. Unless it is left running, it is gone afterwards, as if deleted, with the warnings
    /// of that.
    ///
    /// # Errors
    ///
    /// `WrongState` for a container that does not run; `Unsupported` for what CRIU or the kernel lacks; CRIU's own
    /// failure, with the line of its log that tells it: then the container goes on.
    pub fn checkpoint(&self, id: &str, options: CheckpointOptions) -> Result<Vec<String>> {
        let folder = self.folder(id)?;
        let _lock = folder.lock()?;
        let record = folder.record()?;
        let status = status_under_lock(&record);
        if matches!(status, Status::Created | Status::Creating | Status::Stopped) {
            return Err(Error::new(
                Kind::WrongState,
                format!("container cannot be checkpointed in {} state", status.as_str()),
            ));
        }
        let ends = !options.leave_running && !options.pre_dump;
        self.dump(&folder, &record, options)?;
        if ends {
            end(&record)?;
            return self.clean(&folder, &record);
        }
        Ok(Vec::new())
    }

    fn dump(&self, folder: &Folder, record: &Record, mut options: CheckpointOptions) -> Result<()> {
        let program = options.criu.program.clone();
        criu::check_version(&program)?;
        let plan = self.compiled_again(folder, record)?;
        let images = open_folder(&options.criu.image_path, true)?;
        let work = options.criu.work_path.as_deref().map(|path| open_folder(path, true)).transpose()?;
        let wanted = Features {
            mem_track: options.pre_dump.then_some(true),
            lazy_pages: options.criu.lazy_pages.then_some(true),
        };
        if wanted != Features::default() {
            criu::check_features(&program, wanted)?;
        }
        check_parent(&options)?;
        let names = descriptors::of_running(&record.stdio, record.pid)?;
        let opts = Opts {
            work_dir_fd: work.as_ref().map(AsRawFd::as_raw_fd),
            ..dump_opts(&options, &plan, record, &names, images.as_raw_fd())?
        };
        if !options.pre_dump {
            descriptors::save(&options.criu.image_path, &names)?;
        }
        let kind = if options.pre_dump { kind::PRE_DUMP } else { kind::DUMP };
        let criu = Criu::start(&program, Stdio::Apart, Vec::new())?;
        let mut notified = |notify: &Notify, _fd: Option<OwnedFd>| -> Result<()> {
            if notify.script.as_deref() == Some("status-ready")
                && let Some(mut status) = options.status.take()
            {
                status.write_all(&[0]).map_err(|error| Error::os("write to the status descriptor", error))?;
            }
            Ok(())
        };
        let response = criu.ask(&Request { kind, opts: Some(opts), ..Request::default() }, &mut notified);
        let response = response.map_err(|error| error.context(format!("checkpoint container {}", record.id)))?;
        check(&response, &format!("checkpoint container {}", record.id), &options.criu, LOG)
    }
}

/// CRIU's answer as a sentence.
///
/// # Errors
///
/// CRIU has failed: with the first error of its log, and where that is.
pub(super) fn check(response: &Response, doing: &str, options: &CriuOptions, log: &str) -> Result<()> {
    if response.success {
        return Ok(());
    }
    let log = options.work_path.as_ref().unwrap_or(&options.image_path).join(log);
    let reason = criu::first_error(&log).or_else(|| response.message.clone().filter(|text| !text.is_empty()));
    let reason = reason.or_else(|| response.errno.filter(|errno| *errno != 0).map(crate::error::errno_text));
    let reason = reason.unwrap_or_else(|| "it gives no reason".to_owned());
    Err(Error::new(Kind::System, format!("{doing}: CRIU failed: {reason} (its log: {})", log.display())))
}

/// Opens a folder of images or logs, which may be made for the purpose.
pub(super) fn open_folder(path: &Path, make: bool) -> Result<File> {
    let failure = |error| Error::os(format!("open the checkpoint's folder {}", path.display()), error);
    if make {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failure)?;
    }
    let folder = File::open(path).map_err(failure)?;
    if !folder.metadata().map_err(failure)?.is_dir() {
        return Err(Error::invalid(format!("{} is not a folder", path.display())));
    }
    Ok(folder)
}

/// CRIU looks for the parent from the images' folder, and keeps a link to it there.
fn check_parent(options: &CheckpointOptions) -> Result<()> {
    let Some(parent) = &options.parent_path else { return Ok(()) };
    if parent.is_absolute() {
        return Err(Error::invalid(format!("--parent-path {} must be relative to the image path", parent.display())));
    }
    let place = options.criu.image_path.join(parent);
    match std::fs::metadata(&place) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(Error::invalid(format!("invalid --parent-path: {} is not a folder", place.display()))),
        Err(error) => Err(Error::os(format!("invalid --parent-path: {}", place.display()), error)),
    }
}

fn dump_opts(options: &CheckpointOptions, plan: &Plan, record: &Record, names: &[String], images: i32) -> Result<Opts> {
    let mut external = descriptors::external(names);
    for joined in external::joined(plan) {
        let Some(key) = joined.key() else { continue };
        // Asked of init: what the path leads to may have changed.
        let own = format!("/proc/{}/ns/{}", record.pid, joined.name());
        let inode = std::fs::metadata(&own).map_err(|error| Error::os(format!("look at {own}"), error))?.ino();
        external.push(format!("{}[{inode}]:{key}", joined.name()));
    }
    let ext_mnt = if options.pre_dump { Vec::new() } else { external::of_running(plan, &record.cgroup, record.pid)? };
    let page_server = options
        .page_server
        .as_ref()
        .map(|(address, port)| PageServer { address: Some(address.clone()), port: Some(i32::from(*port)) });
    let parent = options.parent_path.as_ref().map(|path| text(path)).transpose()?;
    Ok(Opts {
        pid: Some(record.pid),
        log_file: Some(LOG.to_owned()),
        root: Some(text(&record.rootfs)?),
        leave_running: Some(options.leave_running),
        tcp_skip_in_flight: Some(options.tcp_skip_in_flight),
        link_remap: Some(options.link_remap),
        freeze_cgroup: Cgroup::from_paths(&record.cgroup).freezer_path().map(text).transpose()?,
        ps: page_server,
        track_mem: (options.pre_dump || parent.is_some()).then_some(true),
        parent_img: parent,
        external,
        ext_mnt,
        ..common_opts(&options.criu, plan, images)
    })
}

/// What is asked of CRIU both ways.
pub(super) fn common_opts(options: &CriuOptions, plan: &Plan, images: i32) -> Opts {
    Opts {
        images_dir_fd: images,
        log_level: Some(LOG_LEVEL),
        notify_scripts: Some(true),
        manage_cgroups: Some(true),
        manage_cgroups_mode: Some(options.cgroups_mode.number()),
        shell_job: Some(options.shell_job),
        ext_unix_sk: Some(options.ext_unix_sk),
        tcp_established: Some(options.tcp_established),
        tcp_close: options.tcp_close.then_some(true),
        network_lock: options.network_lock.map(NetworkLock::number),
        file_locks: Some(options.file_locks),
        auto_dedup: Some(options.auto_dedup),
        lazy_pages: Some(options.lazy_pages),
        orphan_pts_master: Some(true),
        // Devices and addresses of a network namespace are made by whoever made it: hooks, or its owner. As in runc.
        empty_ns: Some(libc::CLONE_NEWNET as u32),
        config_file: criu::config_file(&plan.annotations),
        ..Opts::default()
    }
}

/// Paths are strings in CRIU's messages.
pub(super) fn text(path: &Path) -> Result<String> {
    path.to_str()
        .map(str::to_owned)
        .ok_or_else(|| Error::unsupported(format!("CRIU takes no paths that are not UTF-8: {}", path.display())))
}
