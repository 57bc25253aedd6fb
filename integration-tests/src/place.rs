//! A place for engines and their daemons: mount, network, ipc and pid namespaces of their own, with private folders for
//! what they keep, either on the machine's own programs or on Debian sid's.
//!
//! ```text
//! unshare ── sh (pid 1 of the place: mounts, then reaps) <── nsenter ── podman, dockerd, ctr ...
//! ```
//!
//! Dropping the place kills its pid 1, and with it whatever is still inside: conmon, shims, daemons, mounts. Cgroups
//! outlive a namespace: all that is made carries the place's prefix, and is swept by that.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use systems::criu_place;
use tempfile::TempDir;

use crate::criu::criu;
use crate::leaks::cgroups_with;
use crate::process::becomes_true;
use crate::{Command, PtyRun, find_program, flint, new_prefix, processes_with, skip, sweep};

/// Which cgroup hierarchies a place shows at /sys/fs/cgroup.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Layout {
    /// Those of the host.
    Host,
    /// Cgroup v2 alone.
    Unified,
}

/// Whose programs a place has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum System {
    /// The machine's own.
    Host,
    /// Debian sid's, from [`crate::sid_rootfs`].
    Sid,
}

impl System {
    /// How many there are.
    pub(crate) const COUNT: usize = 2;
}

/// Folders that every place has for itself; all of them die with it.
const PRIVATE: &str = "run var/lib/containers var/lib/docker var/lib/containerd dev/shm";

/// `$1` the place's folder, `$2` the root that it gets (empty: the machine's own), `$3` `unified` for cgroup v2 alone.
const SET_UP: &str = r#"set -e
root=
if [ -n "$2" ]; then
    mount -t tmpfs -o mode=755 tmpfs "$1/layers"
    mkdir "$1/layers/upper" "$1/layers/work" "$1/layers/root"
    root=$1/layers/root
    mount -t overlay -o "lowerdir=$2,upperdir=$1/layers/upper,workdir=$1/layers/work" overlay "$root"
    mount --rbind /dev "$root/dev"
    mount -t sysfs sysfs "$root/sys"
    if [ "$3" = host ]; then mount --rbind /sys/fs/cgroup "$root/sys/fs/cgroup"; fi
    mkdir -p "$root$1"
    mount --bind "$1" "$root$1"
elif [ "$3" = unified ]; then
    umount --recursive /sys/fs/cgroup
fi
if [ "$3" = unified ]; then mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"; fi
for dir in $4; do
    mkdir -p "$root/$dir"
    mount -t tmpfs -o mode=755 tmpfs "$root/$dir"
done
chmod 1777 "$root/dev/shm"
mount -t proc proc "$root/proc"
if [ -d /etc/docker ] && [ -z "$root" ]; then mount -t tmpfs tmpfs /etc/docker; fi
ip link set lo up
if [ -n "$root" ]; then
    cd "$root"
    pivot_root . .
    umount --lazy .
    cd /
fi
mkdir -p /run/lock
echo ready > "$1/ready"
while :; do sleep 1000 & wait $!; done
"#;

/// A set of namespaces that programs are run in.
#[derive(Debug)]
pub struct Place {
    // Dropped in this order: pid 1 ends before its folder goes.
    holder: Holder,
    dir: TempDir,
    system: System,
    next: AtomicU32,
}

#[derive(Debug)]
struct Holder {
    child: Child,
    prefix: String,
}

impl Place {
    /// Opens a place; None after a skip. `root` is the system's root for [`System::Sid`].
    #[must_use]
    pub fn open(system: System, layout: Layout) -> Option<Self> {
        let root = match system {
            System::Host => PathBuf::new(),
            System::Sid => crate::sid_rootfs()?,
        };
        let prefix = new_prefix();
        let dir = tempfile::Builder::new().prefix(&prefix).tempdir().expect("make the place's folder");
        // Users of a container's user namespace must be able to reach what is in it.
        std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("chmod");
        std::fs::create_dir(dir.path().join("layers")).expect("make a folder");
        let program = dir.path().join("flint");
        crate::copy_program(&flint().path, &program);
        if let Some(shim) = crate::shim::find_shim() {
            crate::copy_program(&shim, &dir.path().join(crate::shim::PROGRAM));
        }
        let child = std::process::Command::new("unshare")
            .args(["--mount", "--net", "--ipc", "--pid", "--fork", "--kill-child", "--propagation", "private", "--"])
            .args(["sh", "-c", SET_UP, "sh"])
            .arg(dir.path())
            .arg(&root)
            .arg(if layout == Layout::Unified { "unified" } else { "host" })
            .arg(PRIVATE)
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(dir.path().join("log")).expect("make the log"))
            .stderr(std::fs::File::create(dir.path().join("errors")).expect("make the log"))
            .spawn()
            .expect("start unshare");
        let mut place = Self { holder: Holder { child, prefix }, dir, system, next: AtomicU32::new(0) };
        let ready = place.dir.path().join("ready");
        let open = becomes_true(|| ready.exists() || place.holder.has_ended()) && ready.exists();
        let errors = std::fs::read_to_string(place.dir.path().join("errors")).unwrap_or_default();
        assert!(open, "the place cannot be made: {errors}");
        Some(place)
    }

    /// Whose programs it has.
    #[must_use]
    pub const fn system(&self) -> System {
        self.system
    }

    /// A folder that has the same path inside and outside.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The runtime under test, at the same path inside and outside.
    #[must_use]
    pub fn flint(&self) -> PathBuf {
        self.dir.path().join("flint")
    }

    /// flint's shim, at the same path inside and outside; None after a skip.
    #[must_use]
    pub fn shim(&self) -> Option<PathBuf> {
        crate::shim_program().map(|_| self.dir.path().join(crate::shim::PROGRAM))
    }

    /// What the names of all that is made in it hold; also a name for a parent cgroup.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.holder.prefix
    }

    /// A name that nothing else in it has.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}{}", self.holder.prefix, self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// A program to run in it.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter").args(self.enter()).args([program]).dir(Path::new("/"));
        for (name, value) in self.environment() {
            command = command.env(name, value);
        }
        command
    }

    /// A program in it, on a terminal of 33 times 77.
    #[must_use]
    pub fn on_terminal(&self, args: &[&str], environment: &[(&str, &str)]) -> PtyRun {
        let nsenter = find_program("nsenter").expect("nsenter");
        let enter = self.enter();
        let all: Vec<&str> = enter.iter().map(String::as_str).chain(args.iter().copied()).collect();
        let own = self.environment();
        let environment: Vec<(&str, &str)> =
            own.iter().map(|(name, value)| (*name, value.as_str())).chain(environment.iter().copied()).collect();
        PtyRun::start(&nsenter, &all, &environment, 33, 77)
    }

    /// What `nsenter` has to be told to enter it.
    pub(crate) fn enter(&self) -> Vec<String> {
        let namespace = |option: &str, name: &str| format!("--{option}=/proc/{}/ns/{name}", self.pid());
        vec![
            namespace("mount", "mnt"),
            namespace("net", "net"),
            namespace("ipc", "ipc"),
            namespace("pid", "pid_for_children"),
            "--".into(),
        ]
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            // The machine has no CRIU of its own; where a system has one, it comes first.
            ("PATH", format!("/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin:{}", criu_place().display())),
            ("HOME", self.dir.path().display().to_string()),
            ("TERM", "xterm".into()),
            ("LC_ALL", "C".into()),
            ("PODMAN_IGNORE_CGROUPSV1_WARNING", "1".into()),
            ("FLINT_PLACE", self.holder.prefix.clone()),
        ]
    }

    /// Gives a user `count` ids from 700000 on, in the place alone.
    ///
    /// # Panics
    ///
    /// When /etc cannot be copied.
    pub fn give_id_ranges(&self, user: &str, count: u32) {
        // A copy of the folder, and nothing on its files: whoever adds a user on the host replaces them, which takes away what
        // is mounted on them.
        let etc = self.dir.path().join("etc");
        let _ = self.command("cp").args(["--archive".as_ref(), "/etc".as_ref(), etc.as_os_str()]).output().ok();
        for file in ["subuid", "subgid"] {
            std::fs::write(etc.join(file), format!("{user}:700000:{count}\n")).expect("write the ranges");
        }
        let _ = self.command("mount").args(["--bind".as_ref(), etc.as_os_str(), "/etc".as_ref()]).output().ok();
    }

    /// The pid, outside, of a process in the place's namespaces (for pid: those of its children).
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.holder.child.id()
    }

    /// Whether a program is there.
    #[must_use]
    pub fn has(&self, program: &str) -> bool {
        self.command("sh").args(["-c", "command -v \"$0\"", program]).output().code == 0
    }

    /// Whether CRIU is there and finds what it needs of the kernel; skips otherwise.
    #[must_use]
    pub fn has_criu(&self) -> bool {
        if self.system == System::Host && criu().is_none() {
            return false;
        }
        let works = self.command("criu").args(["check"]).output().code == 0;
        if !works {
            skip("CRIU is not there, or finds that the kernel lacks what it needs");
        }
        works
    }

    /// A path inside, seen from outside.
    #[must_use]
    pub fn outside(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.pid()))
    }

    /// The mount table of the place, which began as a copy of the host's.
    fn mount_table(&self) -> String {
        std::fs::read_to_string(format!("/proc/{}/mountinfo", self.pid())).unwrap_or_default()
    }

    /// Fails when a layer of its images or containers is still mounted.
    pub fn assert_no_layer(&self) {
        let table = self.mount_table();
        let is_layer = |line: &&str| line.contains(" /var/lib/containers/") && line.contains("/merged ");
        let mounted: Vec<&str> = table.lines().filter(is_layer).collect();
        assert!(mounted.is_empty(), "layers are still mounted: {mounted:?}");
    }

    /// Processes, cgroups and mounts whose name, command line or environment holds `id`, and `files` that are there.
    #[must_use]
    pub fn left_of(&self, id: &str, files: &[String]) -> Vec<String> {
        let mut left: Vec<String> = processes_with(id).iter().map(|pid| format!("process {pid}")).collect();
        left.extend(cgroups_with(id).iter().map(|dir| dir.display().to_string()));
        left.extend(self.mount_table().lines().filter(|line| line.contains(id)).map(str::to_owned));
        left.extend(files.iter().filter(|file| self.outside(file).exists()).cloned());
        left
    }

    /// Fails when a process other than pid 1 and its `sleep` is still there: a conmon, a shim, a payload.
    #[track_caller]
    pub fn assert_still(&self) {
        let others = || self.command("ps").args(["-eo", "pid=,args="]).output().stdout;
        let strange = |text: &str| {
            let line = |line: &&str| !line.contains(" sh -c set -e") && !line.ends_with(" sleep 1000");
            text.lines().filter(line).filter(|line| !line.contains(" ps -eo ")).count()
        };
        let still = becomes_true(|| strange(&others()) == 0);
        assert!(still, "still running:\n{}", others());
    }
}

impl Holder {
    fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // Its child is pid 1 of the place and dies with it (--kill-child).
        let _ = self.child.kill();
        let _ = self.child.wait();
        sweep(&self.prefix);
    }
}
