//! /dev: default and configured devices, links, the console (runtime-spec, "Default Devices", "Default symbolic links").

use std::path::{Path, PathBuf};

use flint_init::plan::{RootBind, Step};
use oci_spec::runtime::{LinuxDevice, LinuxDeviceType, Process};

use super::paths::{bytes, clean};
use super::{Compiler, mount_options};
use crate::plan::SlotSource;
use crate::{Error, Result};

const DEFAULT_DEVICES: &[(&str, u32, u32)] = &[
    ("/dev/null", 1, 3),
    ("/dev/random", 1, 8),
    ("/dev/full", 1, 7),
    ("/dev/tty", 5, 0),
    ("/dev/zero", 1, 5),
    ("/dev/urandom", 1, 9),
];
const DEFAULT_MODE: u32 = 0o666;

const LINKS: &[(&str, &str)] = &[
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
];

/// A node to be made.
struct Node {
    path: PathBuf,
    mode: u32,
    major: u32,
    minor: u32,
    uid: u32,
    gid: u32,
}

impl Compiler<'_> {
    pub(super) fn devices(&mut self) -> Result<()> {
        let configured = self.linux.and_then(|linux| linux.devices().as_deref()).unwrap_or(&[]);
        if self.root_bind() == RootBind::None {
            // The root is then the host's business.
            return if configured.is_empty() {
                Ok(())
            } else {
                Err(Error::invalid("linux.devices need a mount namespace in linux.namespaces"))
            };
        }
        let mut nodes = Vec::new();
        for (index, device) in configured.iter().enumerate() {
            nodes.push(node(index, device)?);
        }
        // A /dev of the host's comes with its devices.
        if self.dev_is_bound() {
            return Ok(());
        }
        let defaults = DEFAULT_DEVICES.iter().map(|&(path, major, minor)| Node {
            path: path.into(),
            mode: libc::S_IFCHR | DEFAULT_MODE,
            major,
            minor,
            uid: 0,
            gid: 0,
        });
        let mut all: Vec<Node> =
            defaults.filter(|default| nodes.iter().all(|node| node.path != default.path)).collect();
        all.append(&mut nodes);
        for node in &all {
            self.node(node)?;
        }
        self.links()
    }

    fn dev_is_bound(&self) -> bool {
        self.spec.mounts().iter().flatten().any(|mount| {
            let options = mount_options::parse(mount.options().as_deref().unwrap_or(&[]));
            clean(mount.destination()) == Path::new("/dev") && (options.bind || mount.typ().as_deref() == Some("bind"))
        })
    }

    fn node(&mut self, node: &Node) -> Result<()> {
        let path = self.tables.path("linux.devices", bytes(&node.path))?;
        let fifo = node.mode & libc::S_IFMT == libc::S_IFIFO;
        self.tables.push(if self.namespaces.has_user() && !fifo {
            Step::DeviceBind { source: path, path }
        } else {
            let &Node { mode, major, minor, uid, gid, .. } = node;
            Step::Device { path, mode, major, minor, uid, gid }
        });
        Ok(())
    }

    fn links(&mut self) -> Result<()> {
        let core = self.host.kcore.then_some(("/dev/core", "/proc/kcore"));
        for &(path, target) in LINKS.iter().chain(core.as_ref()) {
            let (path, target) = (self.tables.path("links", path)?, self.tables.path("links", target)?);
            self.tables.push(Step::Symlink { target, path, replace: false });
        }
        let (path, target) = (self.tables.path("links", "/dev/ptmx")?, self.tables.path("links", "pts/ptmx")?);
        self.tables.push(Step::Symlink { target, path, replace: true });
        Ok(())
    }

    /// `process.terminal`: a pty of the container's own.
    pub(super) fn console(&mut self, process: &Process, mount: bool, controlling: bool) -> Result<()> {
        if !process.terminal().unwrap_or(false) {
            if self.console_socket && mount {
                return Err(Error::invalid(
                    "a console socket was given, but process.terminal is false: leave out --console-socket",
                ));
            }
            return Ok(());
        }
        if !self.console_socket {
            return Err(Error::invalid(
                "process.terminal is true: cannot allocate a tty without a console socket (give --console-socket, or run in the foreground)",
            ));
        }
        let size = process.console_size();
        let characters = |size: u64| u16::try_from(size).unwrap_or(0);
        let step = Step::Console {
            socket: self.tables.slot(SlotSource::ConsoleSocket),
            width: size.as_ref().map_or(0, |size| characters(size.width())),
            height: size.as_ref().map_or(0, |size| characters(size.height())),
            uid: process.user().uid(),
            mount: mount && self.root_bind() != RootBind::None,
            controlling,
        };
        self.tables.push(step);
        Ok(())
    }
}

fn node(index: usize, device: &LinuxDevice) -> Result<Node> {
    let field = format!("linux.devices[{index}] {}", device.path().display());
    if !device.path().is_absolute() {
        return Err(Error::invalid(format!("{field}: the path must be absolute")));
    }
    let kind = match device.typ() {
        LinuxDeviceType::C | LinuxDeviceType::U => libc::S_IFCHR,
        LinuxDeviceType::B => libc::S_IFBLK,
        LinuxDeviceType::P => libc::S_IFIFO,
        LinuxDeviceType::A => {
            return Err(Error::invalid(format!("{field}: type a is for cgroup rules; a device is b, c, u or p")));
        }
    };
    let number = |name: &str, number: i64| {
        u32::try_from(number).map_err(|_| Error::invalid(format!("{field}: {name} {number} is no device number")))
    };
    Ok(Node {
        path: clean(device.path()),
        mode: kind | device.file_mode().unwrap_or(DEFAULT_MODE) & 0o7777,
        major: number("major", device.major())?,
        minor: number("minor", device.minor())?,
        uid: device.uid().unwrap_or(0),
        gid: device.gid().unwrap_or(0),
    })
}
