//! How a step fails: which operation of it, and with which number. Sentences are made by the host.

use flint_sys::Errno;

macro_rules! operations {
    ($($(#[$text:meta])* $name:ident = $words:literal,)*) => {
        /// The part of a step that failed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Operation { $($(#[$text])* $name,)* }

        impl Operation {
            /// All of them, by number.
            const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Its name in messages: the system call, or what was found wrong.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $words,)* }
            }

            /// The operation with this number, as it came over the channel.
            #[must_use]
            pub fn from_number(number: u32) -> Option<Self> {
                Self::ALL.get(number as usize).copied()
            }
        }
    };
}

operations! {
    /// The plan does not fit its tables: a bug of the compiler.
    Plan = "plan",
    /// A path is longer than PATH_MAX.
    PathLength = "path",
    /// The channel to the host broke.
    Channel = "channel",
    /// dup3 of standard input, output or error
    Stdio = "dup3",
    /// clone3
    Clone = "clone3",
    /// close_range
    CloseRange = "close_range",
    /// prctl
    Prctl = "prctl",
    /// setns
    Setns = "setns",
    /// unshare
    Unshare = "unshare",
    /// setsid
    Setsid = "setsid",
    /// setresuid
    Setuid = "setresuid",
    /// setresgid
    Setgid = "setresgid",
    /// setgroups
    Setgroups = "setgroups",
    /// capset
    Capset = "capset",
    /// PR_CAPBSET_DROP
    BoundingDrop = "prctl(PR_CAPBSET_DROP)",
    /// PR_CAP_AMBIENT
    Ambient = "prctl(PR_CAP_AMBIENT)",
    /// keyctl
    Keyctl = "keyctl",
    /// SIOCSIFFLAGS
    Loopback = "ioctl(SIOCSIFFLAGS)",
    /// sethostname
    Hostname = "sethostname",
    /// setdomainname
    Domainname = "setdomainname",
    /// open
    Open = "open",
    /// The source of a bind mount.
    OpenSource = "open_tree",
    /// The target of a mount or a device.
    OpenTarget = "open target",
    /// mkdirat
    MakeFolder = "mkdir",
    /// Making an empty file as a target.
    MakeFile = "create file",
    /// mknodat
    MakeDevice = "mknod",
    /// symlinkat
    MakeSymlink = "symlink",
    /// fsopen
    Fsopen = "fsopen",
    /// fsconfig with a parameter
    Fsconfig = "fsconfig",
    /// fsconfig, FSCONFIG_CMD_CREATE
    FsconfigCreate = "fsconfig(create)",
    /// fspick
    Fspick = "fspick",
    /// fsconfig, to change a file system
    Reconfigure = "fsconfig(RECONFIGURE)",
    /// fsmount
    Fsmount = "fsmount",
    /// move_mount
    MoveMount = "move_mount",
    /// mount_setattr
    MountSetattr = "mount_setattr",
    /// mount_setattr with a user namespace
    IdMap = "mount_setattr(MOUNT_ATTR_IDMAP)",
    /// The target lies on procfs, reached through a link or a mount.
    TargetInProc = "target is inside procfs",
    /// Copying a folder up into a tmpfs.
    CopyUp = "copy up",
    /// pivot_root
    PivotRoot = "pivot_root",
    /// umount2
    Unmount = "umount",
    /// chroot
    Chroot = "chroot",
    /// chdir
    Chdir = "chdir",
    /// The working directory is outside the root (CVE-2024-21626).
    OutsideRoot = "working directory is outside the container's root",
    /// stat
    Stat = "stat",
    /// chown
    Chown = "chown",
    /// write
    Write = "write",
    /// The null device is none.
    NullDevice = "/dev/null is not the null device",
    /// Something else was where a device should be.
    DeviceExists = "another file is in the place of the device",
    /// The pty is not of a devpts.
    Devpts = "/dev/pts/ptmx is not a pty of a devpts",
    /// Terminal ioctls.
    Terminal = "terminal",
    /// Sending the terminal to the console socket.
    ConsoleSocket = "console socket",
    /// A hook ended with this exit code.
    HookExited = "hook exit code",
    /// A hook was ended by this signal.
    HookSignaled = "hook signal",
    /// A hook was killed after this many seconds.
    HookTimedOut = "hook timeout",
    /// setrlimit
    Setrlimit = "setrlimit",
    /// seccomp
    Seccomp = "seccomp",
    /// The look-up of the program.
    FindProgram = "find program",
    /// execve
    Execve = "execve",
    /// Handing the listener of a filter's notifications to the host.
    Listener = "seccomp listener",
    /// sched_setaffinity
    SchedSetaffinity = "sched_setaffinity",
    /// sched_setattr
    SchedSetattr = "sched_setattr",
    /// ioprio_set
    IoprioSet = "ioprio_set",
    /// set_mempolicy
    SetMempolicy = "set_mempolicy",
    /// personality
    Personality = "personality",
    /// unshare of a time namespace
    NewTime = "unshare(CLONE_NEWTIME)",
    /// Writing the offsets of a time namespace.
    TimeOffsets = "write /proc/self/timens_offsets",
    /// Signal masks.
    Signals = "signals",
}

/// What a step returns when it fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The part that failed.
    pub operation: Operation,
    /// An errno; for hooks a code, a signal or seconds.
    pub number: i32,
}

impl Failure {
    /// A failure that is no system call's.
    pub(crate) const fn new(operation: Operation, number: i32) -> Self {
        Self { operation, number }
    }
}

/// What a step returns.
pub(crate) type Outcome<T = ()> = core::result::Result<T, Failure>;

/// Names the operation of a system call's error.
pub(crate) trait At<T> {
    fn at(self, operation: Operation) -> Outcome<T>;
}

impl<T> At<T> for flint_sys::Result<T> {
    fn at(self, operation: Operation) -> Outcome<T> {
        match self {
            Ok(value) => Ok(value),
            Err(Errno(number)) => Err(Failure { operation, number }),
        }
    }
}
