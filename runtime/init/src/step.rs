//! The steps of init's lane: one variant for each thing that init can do.

use flint_sys::schedule::SchedulerAttributes;

use crate::plan::{Barrier, Hook, Mount, Range, Remount, Slot, Text};

/// Where the root filesystem is mounted on itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootBind {
    /// It is not: nothing is mounted below it.
    None,
    /// In the container's mount namespace, so that it can be pivoted to.
    Own,
    /// In the host's: privately, so that nothing below it reaches what is mounted elsewhere.
    Host,
}

/// One step of init's lane.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Step {
    /// Closes every inherited fd but the slots, the channel, stdio and the preserved ones (trap 1).
    CloseFds,
    /// `PR_SET_DUMPABLE` 0: nobody may trace or open what the maker's memory holds (trap 4, CVE-2016-9962).
    NotDumpable,
    /// Tells the host that init is at the barrier, and goes on where the host need not move init first: it waits for the host at
    /// the [`Step::Barrier`] of the same name, later.
    Announce(Barrier),
    /// Tells the host, unless that was [`Step::Announce`]d, and waits for it.
    Barrier(Barrier),
    /// setns(2) to a namespace that the host opened. `kind` is its `CLONE_NEW*` flag.
    JoinNamespace {
        /// Holds the namespace, or a pidfd when `kind` has several flags.
        slot: Slot,
        /// `CLONE_NEW*`.
        kind: u32,
    },
    /// unshare(2); the cgroup namespace, once init is in its cgroups (trap 6).
    Unshare {
        /// `CLONE_NEW*`.
        kind: u32,
    },
    /// Makes a time namespace with these offsets and enters it; before [`Step::NotDumpable`], since it writes to its own
    /// files of procfs.
    TimeNamespace {
        /// What `timens_offsets` gets.
        offsets: Text,
    },
    /// Becomes uid 0 and gid 0 of its new user namespace.
    BecomeRoot,
    /// Clones the process that goes on with the steps behind this one, into the pid namespace that was joined, and ends. All
    /// steps before are of a process that nobody in that namespace can see.
    Birth,
    /// A new session (setsid).
    Session,
    /// The session keyring of this name, a new one for a container's init, so that the maker's keys are out of reach.
    Keyring {
        /// The keyring's description.
        name: Text,
        /// Permissions that a new one gets besides its own, so that exec can find it; 0 to join one that is there.
        permissions: u32,
    },
    /// sched_setaffinity(2). Without a mask all CPUs that the cgroup allows, which is warned about when it fails.
    CpuAffinity {
        /// In [`PlanRef::masks`](crate::plan::PlanRef::masks); empty for all CPUs.
        mask: Range,
    },
    /// sched_setattr(2).
    Scheduler {
        /// Policy, flags and parameters.
        attributes: SchedulerAttributes,
    },
    /// ioprio_set(2).
    IoPriority {
        /// The class in bits 13 to 15, the level below.
        priority: u32,
    },
    /// set_mempolicy(2).
    MemoryPolicy {
        /// `MPOL_*`, with its flags.
        mode: u32,
        /// NUMA nodes, in [`PlanRef::masks`](crate::plan::PlanRef::masks).
        nodes: Range,
    },
    /// personality(2); before a filter that may forbid it.
    Personality {
        /// `PER_*`.
        domain: u32,
    },
    /// Brings the loopback device of a new network namespace up.
    Loopback,
    /// sethostname(2).
    Hostname {
        /// The name.
        name: Text,
    },
    /// setdomainname(2).
    Domainname {
        /// The name.
        name: Text,
    },
    /// Sets the propagation of every mount inherited from the host.
    InheritedPropagation {
        /// `MS_SLAVE`, `MS_PRIVATE`, `MS_SHARED` or `MS_UNBINDABLE`; with `MS_REC` for the mounts below, too.
        flag: u64,
    },
    /// Opens the root filesystem and, where mounts follow, mounts it on itself.
    Root {
        /// Absolute path on the host.
        path: Text,
        /// Whether and where it is mounted on itself (open_tree, move_mount).
        bind: RootBind,
    },
    /// Makes one mount.
    Mount(Mount),
    /// Changes a mount that is there (`remount`).
    Remount(Remount),
    /// Makes a device node below the root (mknodat).
    Device {
        /// Path inside the root.
        path: Text,
        /// `S_IFCHR`, `S_IFBLK` or `S_IFIFO`, with the permission bits.
        mode: u32,
        /// Device major number.
        major: u32,
        /// Device minor number.
        minor: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
    /// Binds a device of the host below the root (user namespaces forbid mknod: trap 5).
    DeviceBind {
        /// Path on the host.
        source: Text,
        /// Path inside the root.
        path: Text,
    },
    /// Makes a symbolic link below the root; what is there already is kept unless `replace` says so.
    Symlink {
        /// What it points to.
        target: Text,
        /// Path inside the root.
        path: Text,
        /// Take the place of another file there (`/dev/ptmx`, which must be of the container's own devpts).
        replace: bool,
    },
    /// Opens a pty of the container's devpts, mounts it on /dev/console and sends its master to the console
    /// socket (CVE-2025-52565: by TIOCGPTPEER, never by the path of the other end).
    Console {
        /// The connected console socket.
        socket: Slot,
        /// Columns and rows, 0 to leave them.
        width: u16,
        /// Rows.
        height: u16,
        /// The container's user, who owns the terminal.
        uid: u32,
        /// Mount it on /dev/console (not for exec).
        mount: bool,
        /// Make it the controlling one of the session that this process leads.
        controlling: bool,
    },
    /// Makes standard input, a terminal, the controlling one of the session that this process leads.
    ControllingTerminal,
    /// Gives stdin, stdout and stderr to the container's user, so that it can reopen them by /proc/self/fd; those
    /// that are the host's null device become the container's.
    OwnStdio {
        /// The container's user.
        uid: u32,
        /// Files and terminals, too, and not only pipes and sockets.
        files: bool,
    },
    /// Runs a hook in the container's namespaces and waits for it.
    RunHook(Hook),
    /// Hides a path: /dev/null over a file, an empty read-only tmpfs over a folder; a missing one is skipped
    /// (CVE-2025-31133: the null device is the host's, opened and verified).
    Mask {
        /// Path inside the root.
        path: Text,
    },
    /// Makes a path read-only by a mount of its own; a missing one is skipped.
    Readonly {
        /// Path inside the root.
        path: Text,
    },
    /// Writes a label of a security module (lsm(7)) for what the calling thread makes or executes next, through the
    /// verified procfs of slot `proc` (CVE-2019-16884, CVE-2025-52881).
    Label {
        /// The host's procfs, verified.
        proc: Slot,
        /// File below it, such as `self/attr/apparmor/exec`.
        file: Text,
        /// The file of older kernels that lack it, or [`Text::NONE`].
        older: Text,
        /// What to write.
        value: Text,
    },
    /// Writes a kernel parameter through the verified procfs of slot [`Step::Sysctl::proc`] (CVE-2025-52881).
    Sysctl {
        /// The host's procfs, verified.
        proc: Slot,
        /// Path below it, such as `sys/net/ipv4/ip_forward`.
        path: Text,
        /// What to write.
        value: Text,
    },
    /// Makes a folder and those on the way to it, inside the root, where they are missing: the working directory,
    /// as runc does, before the root becomes read-only.
    MakeFolder {
        /// Path inside the root.
        path: Text,
    },
    /// Makes the mount at the root read-only.
    RootReadonly,
    /// Makes a mount below the root read-only again that had to be writable while its nodes were made
    /// (`/dev` with `ro`).
    RemountReadonly {
        /// Holds the mount, since it was made: a path could lead to another one by now.
        slot: Slot,
        /// Path inside the root, for messages.
        path: Text,
    },
    /// Closes what a slot holds, whose use is over.
    ///
    /// Where paths of the image are looked up to be executed, nothing of the host is open: a link in it to /proc/self/fd/7 would
    /// lead there (as in CVE-2024-21626).
    Close {
        /// What to close.
        slot: Slot,
    },
    /// Detaches the mount at a path of the root, with all below it (umount2 with `MNT_DETACH`).
    Detach {
        /// The host's procfs, verified: through it a descriptor has a path that nobody can change.
        proc: Slot,
        /// Path inside the root.
        path: Text,
    },
    /// pivot_root(2) to the root and detaches the old one.
    PivotRoot,
    /// Moves the root over `/` and changes root to it (--no-pivot, for a root on an initramfs).
    MoveRoot {
        /// Where the host's whole procfs and sysfs are mounted, in [`PlanRef::strings`](crate::plan::PlanRef::strings),
        /// ended by [`Text::NONE`]: they are unmounted first, since nothing masks them.
        bare: Range,
    },
    /// chroot(2) alone, without a mount namespace.
    ChangeRoot,
    /// Sets the propagation of the container's root mount (`linux.rootfsPropagation`).
    RootPropagation {
        /// `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE` or `MS_UNBINDABLE`; with `MS_REC` for the mounts below, too.
        flag: u64,
    },
    /// setrlimit(2); raising a hard limit without CAP_SYS_RESOURCE is warned about and left.
    ResourceLimit {
        /// `RLIMIT_*`.
        resource: u32,
        /// Soft limit.
        soft: u64,
        /// Hard limit.
        hard: u64,
    },
    /// umask(2).
    Umask {
        /// The mask.
        mask: u32,
    },
    /// Makes HOME known when the environment lacks it: from the root's /etc/passwd by uid, else `/`.
    Home {
        /// The container's user.
        uid: u32,
        /// Index in [`PlanRef::strings`] of the environment's free entry.
        entry: u32,
    },
    /// Finds the program as execvpe(3) would and checks that it may be executed; fails early, in `create`.
    FindProgram {
        /// argv\[0\].
        name: Text,
        /// The value of PATH; [`Text::NONE`] when the environment lacks it.
        path: Text,
    },
    /// Tells the host that `create` is done and waits for `start`, on the channel or on the listening socket.
    AwaitStart {
        /// The listening socket of `create`; `None` for `run`, which starts over the channel.
        listener: Option<Slot>,
        /// The host's procfs, verified: where who may not look into init may ask it for its namespaces.
        proc: Option<Slot>,
    },
    /// Drops from the bounding set all that is not in the mask.
    BoundingSet {
        /// Bit n is capability n.
        keep: u64,
    },
    /// setgroups, setresgid, setresuid, keeping the permitted capabilities until [`Step::Capabilities`].
    User {
        /// uid inside the container.
        uid: u32,
        /// gid inside the container.
        gid: u32,
        /// Supplementary gids, in [`PlanRef::ids`].
        groups: Range,
        /// Whether setgroups(2) may be denied for good (user_namespaces(7)): then a program without supplementary
        /// groups keeps its maker's, of which the namespace maps none.
        may_be_denied: bool,
        /// Keep the maker's supplementary groups, whatever they are.
        keep_groups: bool,
    },
    /// capset(2) of three sets at once.
    Capabilities {
        /// Effective set.
        effective: u64,
        /// Permitted set.
        permitted: u64,
        /// Inheritable set (CVE-2022-29162: only what the spec says).
        inheritable: u64,
    },
    /// Raises ambient capabilities; one that cannot be raised is warned about.
    Ambient {
        /// The set.
        set: u64,
    },
    /// `PR_SET_NO_NEW_PRIVS`.
    NoNewPrivileges,
    /// seccomp(2) with a filter.
    Seccomp {
        /// The program, in [`PlanRef::filter`].
        program: Range,
        /// `SECCOMP_FILTER_FLAG_*`.
        flags: u32,
        /// Before init waits for `start`, so that nothing is executed next.
        early: bool,
    },
    /// Changes to the working directory and verifies that it is inside the root (CVE-2024-21626).
    WorkingDirectory {
        /// Absolute path inside the root.
        path: Text,
        /// Do not fail on EACCES: it is tried again as the container's user.
        early: bool,
    },
    /// Tells the host, then executes the program that [`Step::FindProgram`] found.
    Execute {
        /// argv, in [`PlanRef::strings`], ended by [`Text::NONE`].
        arguments: Range,
        /// Environment, likewise; its last entry before the end is free for HOME when [`Step::Home`] is planned.
        environment: Range,
    },
}
