//! The Plan: what init does, in order, with every string, flag, id and program ready.
//!
//! A plan is flat and immutable. It holds no pointers and no file descriptors: strings are [`Text`]s in
//! one buffer, lists are [`Range`]s in shared tables, and what belongs to one container (open fds, pointer
//! arrays) is bound to it by [`Slot`] numbers when it is executed. So one plan serves any number of
//! containers, can be printed, and is the same for the host that writes the error messages and for the
//! init that reports only an index.

pub use crate::step::{RootBind, Step};

/// A string in the plan's text buffer, NUL-terminated there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Text {
    /// Where it starts in the text buffer, in bytes.
    pub offset: u32,
    /// Its length in bytes without the NUL.
    pub length: u32,
}

impl Text {
    /// Stands for "no string": the end of a pointer array, or an absent value.
    pub const NONE: Self = Self { offset: u32::MAX, length: 0 };

    /// Whether this is [`Text::NONE`].
    #[must_use]
    pub const fn is_none(self) -> bool {
        self.offset == u32::MAX
    }
}

/// A run of entries in one of the plan's tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Range {
    /// Index of the first entry.
    pub start: u32,
    /// Number of entries.
    pub length: u32,
}

impl Range {
    /// The range's entries of `table`; empty when the range does not fit (a plan from the compiler always fits).
    #[must_use]
    pub fn of<T>(self, table: &[T]) -> &[T] {
        let start = self.start as usize;
        table.get(start..start.saturating_add(self.length as usize)).unwrap_or(&[])
    }
}

/// The number of a file descriptor that the host opens for one container before it clones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot(pub u16);

/// One option for `fsconfig`: a key, and a value unless it is a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FsOption {
    /// The parameter's name, as the file system knows it.
    pub key: Text,
    /// Its value; [`Text::NONE`] makes it a flag (`FSCONFIG_SET_FLAG`).
    pub value: Text,
}

/// Mount attributes to set and to clear (`MOUNT_ATTR_*` of mount_setattr(2)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Bits to set.
    pub set: u64,
    /// Bits to clear; must hold `MOUNT_ATTR__ATIME` whenever an atime mode is set.
    pub clear: u64,
}

impl Attributes {
    /// Whether nothing is to be changed.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.set == 0 && self.clear == 0
    }
}

/// The user namespace that the owners of a mount's files are shown through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdMap {
    /// Holds the user namespace.
    pub slot: Slot,
    /// On the mounts below, too (`ridmap`).
    pub recursive: bool,
    /// Asked of the host when the mount is there: init is not root of the user namespace of its file system.
    pub by_host: bool,
}

/// Where a mount comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MountSource {
    /// A new instance of a file system (fsopen, fsconfig, fsmount).
    New {
        /// File system type, such as `tmpfs`.
        fstype: Text,
        /// The `source` parameter, shown in mountinfo; may be [`Text::NONE`].
        source: Text,
        /// Its other parameters, in [`PlanRef::options`].
        options: Range,
    },
    /// A clone of an existing tree (open_tree), found by its path in the runtime's mount namespace.
    Bind {
        /// Absolute path on the host.
        path: Text,
        /// Take the mounts below it too (`rbind`).
        recursive: bool,
    },
    /// A clone of a tree inside the container's root, as far as it is made: found there, whatever the links in it.
    Inside {
        /// Absolute path inside the root.
        path: Text,
        /// Take the mounts below it too (`rbind`).
        recursive: bool,
    },
    /// The container's folder of a cgroup hierarchy, where there is one. Else its maker's, read-only; without that, an
    /// empty read-only folder: what a user may write to must not be the container's to write to (CVE-2023-25809).
    Cgroup {
        /// Absolute path on the host; may be [`Text::NONE`], and missing.
        path: Text,
        /// The maker's own; may be [`Text::NONE`].
        own: Text,
    },
    /// A detached mount that the host lane opened and gave all its attributes.
    Prepared {
        /// Holds the detached mount.
        slot: Slot,
    },
}

/// One mount of the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is a property of the mount")]
pub struct Mount {
    /// Position in config.json's `mounts`, for messages; [`Mount::OWN`] for a mount that flint adds.
    pub index: u16,
    /// Where it comes from.
    pub source: MountSource,
    /// Absolute, lexically clean path inside the root; created when missing (a folder, or an empty file
    /// when the source is no folder).
    pub target: Text,
    /// Refuse a symlink anywhere in the target (proc and sysfs: CVE-2019-19921, CVE-2023-27561).
    pub no_symlinks: bool,
    /// For the mount itself.
    pub attributes: Attributes,
    /// Attributes that a clone shall lose as far as they are not locked: its source has them, and nobody asked for them.
    pub unlisted: u64,
    /// For the mount and all below it (`rro` and friends).
    pub recursive_attributes: Attributes,
    /// Whose owners are shown; the host lane has done it for what it prepared.
    pub idmap: Option<IdMap>,
    /// Propagation to set on the mount (`MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE`, `MS_UNBINDABLE`), 0 for none.
    pub propagation: u64,
    /// Set the propagation on the mounts below it too.
    pub propagation_recursive: bool,
    /// Copy what the target held into the new mount first (tmpfs only).
    pub copy_up: bool,
    /// Take the mode of the folder that is covered, where it was there already (tmpfs without `mode=`, as runc does).
    pub keep_mode: bool,
    /// Where it stays open for [`Step::RemountReadonly`].
    pub kept: Option<Slot>,
}

impl Mount {
    /// The `index` of a mount that is not in config.json.
    pub const OWN: u16 = u16::MAX;
}

/// A change of a mount that is there already: mount(2) with `MS_REMOUNT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remount {
    /// Position in config.json's `mounts`, for messages.
    pub index: u16,
    /// Absolute, lexically clean path inside the root; none of it may be a link, since the image could lead the change to
    /// a file system of the host by one.
    pub target: Text,
    /// Parameters of the file system, in [`PlanRef::options`]; `None` to leave it as it is (`bind`).
    pub options: Option<Range>,
    /// For the mount itself.
    pub attributes: Attributes,
    /// For the mount and all below it.
    pub recursive_attributes: Attributes,
    /// As [`Mount::propagation`].
    pub propagation: u64,
    /// As [`Mount::propagation_recursive`].
    pub propagation_recursive: bool,
    /// As [`Mount::kept`].
    pub kept: Option<Slot>,
}

/// A program run beside init: createContainer and startContainer hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    /// `createContainer` or `startContainer`, and its position there, for messages.
    pub stage: HookStage,
    /// Position in its stage's list.
    pub index: u16,
    /// Absolute path of the program.
    pub path: Text,
    /// Its argv, in [`PlanRef::strings`], ended by [`Text::NONE`] (counted in the length).
    pub arguments: Range,
    /// Its environment, likewise.
    pub environment: Range,
    /// Seconds after which it is killed and has failed; 0 for no limit.
    pub timeout: u32,
    /// Holds the state's JSON, which the hook reads on its standard input.
    pub state: Slot,
    /// Where its output goes; `None` for memory, from where it is told when the hook fails.
    pub stdout: Option<Slot>,
    /// Where what it says of errors goes; likewise.
    pub stderr: Option<Slot>,
}

/// Which of init's hook lists a hook is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookStage {
    /// Before pivot_root, in the container's namespaces.
    CreateContainer,
    /// After `start`, before the program.
    StartContainer,
}

/// A point where init waits until the host has done its part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Barrier {
    /// init exists; the host writes the state and the id maps, moves init into its cgroups, moves devices.
    Born = 1,
    /// The network namespace is there; the host moves devices to it.
    Network = 3,
    /// The mount namespace is there; the host opens in it what only the host may.
    Sources = 4,
    /// The mounts are made; the host runs the prestart and createRuntime hooks.
    Mounted = 2,
}

/// A plan as init sees it: borrowed tables, no owner, no allocator.
#[derive(Clone, Copy, Debug)]
pub struct PlanRef<'a> {
    /// Init's lane, in order.
    pub steps: &'a [Step],
    /// All strings, each with its NUL.
    pub text: &'a [u8],
    /// Argument and environment lists.
    pub strings: &'a [Text],
    /// Options of file systems.
    pub options: &'a [FsOption],
    /// Supplementary groups.
    pub ids: &'a [u32],
    /// Seccomp programs.
    pub filter: &'a [libc::sock_filter],
    /// Sets of CPUs and of NUMA nodes, 64 to a word.
    pub masks: &'a [u64],
    /// What a new time namespace's `timens_offsets` gets, in which the throw-away process clones init; `None` for no new
    /// time namespace.
    pub time: Option<Text>,
}

impl<'a> PlanRef<'a> {
    /// Whether the throw-away process that joins namespaces executes the steps up to [`Step::Birth`] itself.
    #[must_use]
    pub fn is_born_late(&self) -> bool {
        self.steps.contains(&Step::Birth)
    }

    /// The string at `text`, or `None` when it is [`Text::NONE`] or lies outside the buffer.
    #[must_use]
    pub fn text(&self, text: Text) -> Option<&'a core::ffi::CStr> {
        let start = text.offset as usize;
        let end = start.checked_add(text.length as usize)?.checked_add(1)?;
        core::ffi::CStr::from_bytes_with_nul(self.text.get(start..end)?).ok()
    }
}
