//! The compiled form of a bundle: both lanes, and the tables that init's lane refers to.
//!
//! ```text
//!  host lane                              init lane (flint_init::plan::Step)
//!  ClaimId, MakeCgroup, Bind(slot)...
//!  Clone ------------------------------>  CloseFds, NotDumpable
//!  Await(Born) <------------------------  Announce(Born), or Barrier(Born) already here
//!  IdMaps, OomScore, JoinCgroup, SaveState     namespaces, root, mounts, devices
//!  Release(Born) ---------------------->  Barrier(Born)
//!  Await(Network) <---------------------  Barrier(Network)          (only with network devices)
//!  NetDevices
//!  Release(Network) ------------------->
//!  Await(Sources) <---------------------  Barrier(Sources)          (only with mounts for a user namespace)
//!  BindMounts
//!  Release(Sources) ------------------->
//!  Await(Mounted) <---------------------  Barrier(Mounted)          (only with host hooks)
//!  Hooks(Prestart), Hooks(CreateRuntime)
//!  Release(Mounted) ------------------->  createContainer hooks, masks, pivot_root, limits
//!  AwaitReady <-------------------------  AwaitStart
//! ```
//!
//! With `linux.intelRdt` Resctrl comes behind JoinCgroup.
//! With the systemd cgroup driver StartUnit and MakeCgroup come before JoinCgroup: systemd makes a scope only around a process.

use std::collections::BTreeMap;
use std::path::PathBuf;

use flint_init::plan::{Attributes, Barrier, FsOption, IdMap, PlanRef, Slot, Step, Text};

use crate::cgroup;
use crate::container::SeccompListener;
use crate::resctrl;

/// A bundle, compiled. A pure template: nothing in it belongs to one container but what config.json itself
/// fixes, so it may be executed any number of times.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What the runtime does around init, in order.
    pub host: Vec<HostStep>,
    /// What init does, in order.
    pub init: Vec<Step>,
    /// Namespaces that clone3 makes (`CLONE_NEW*`). The cgroup namespace is a step of init instead.
    pub clone_flags: u64,
    /// Namespaces that a throw-away process joins before it clones init (trap 7): a slot and its `CLONE_NEW*` flags.
    pub join_before_clone: Vec<(Slot, u32)>,
    /// What each slot must be bound to before the clone.
    pub slots: Vec<SlotSource>,
    /// `linux.uidMappings`, as (inside, outside, count).
    pub uid_map: Vec<(u32, u32, u32)>,
    /// `linux.gidMappings`, likewise.
    pub gid_map: Vec<(u32, u32, u32)>,
    /// Whether setgroups(2) is denied before the gid map is written: a caller without privileges may map its own group only so.
    pub deny_setgroups: bool,
    /// `linux.netDevices`, by name.
    pub net_devices: Vec<NetDevice>,
    /// `process.oomScoreAdj`.
    pub oom_score_adj: Option<i32>,
    /// Who answers the filter's notifications; `None` when it has none.
    pub seccomp_listener: Option<SeccompListener>,
    /// Hooks that the host runs, by stage.
    pub hooks: HostHooks,
    /// `linux.intelRdt`.
    pub resctrl: Option<resctrl::Allocation>,
    /// The container's cgroup and its limits.
    pub cgroup: cgroup::Plan,
    /// Whether the program gets a terminal.
    pub terminal: bool,
    /// `annotations`.
    pub annotations: BTreeMap<String, String>,
    /// The root filesystem, absolute.
    pub rootfs: PathBuf,
    /// Things the spec says to warn about, each a sentence.
    pub warnings: Vec<String>,
    pub(crate) text: Vec<u8>,
    pub(crate) strings: Vec<Text>,
    pub(crate) options: Vec<FsOption>,
    pub(crate) ids: Vec<u32>,
    pub(crate) filter: Vec<libc::sock_filter>,
    pub(crate) masks: Vec<u64>,
    pub(crate) time: Option<Text>,
}

/// One step of the host lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostStep {
    /// Makes the container's folder in the state root; taken ids fail here.
    ClaimId,
    /// Makes the cgroups and writes their limits.
    MakeCgroup,
    /// Opens what a slot needs.
    Bind(Slot),
    /// Opens the sources of [`SlotSource::BindMount`]s that are locked, in init's mount namespace.
    BindMounts,
    /// Clones init.
    Clone,
    /// Waits until init is at the barrier.
    Await(Barrier),
    /// Writes init's uid_map and gid_map.
    IdMaps,
    /// Raises hard limits of init, as far as config.json asks for more: in its user namespace it may not do so itself.
    HardLimits,
    /// Writes init's oom_score_adj.
    OomScore,
    /// Makes the folders that a mount of the cgroups shows, which systemd would make only with init in them.
    MakeCgroupFolders,
    /// Makes the unit of systemd, with init in it.
    StartUnit,
    /// Moves init into its cgroups (cgroup v1, and the unified tree of a hybrid).
    JoinCgroup,
    /// Moves init into a cgroup below the container's (`run.oci.systemd.subgroup`).
    EnterSubgroup,
    /// Moves init, which has its cgroup namespace, one further down (`run.oci.delegate-cgroup`).
    Delegate,
    /// Makes the group of resctrl and moves init into it.
    Resctrl,
    /// Records the pid and the start time: from here on every command can see and clean the container.
    SaveState,
    /// Moves network devices of the host to the container's network namespace.
    NetDevices,
    /// Runs the hooks of a stage in the runtime's namespaces.
    Hooks(HostHookStage),
    /// Lets init go on from the barrier.
    Release(Barrier),
    /// Lets init start its program without waiting for it to be ready: `run`, where nothing is to be done in between.
    Start,
    /// Waits until init has done all that `create` promises.
    AwaitReady,
}

/// A network device of the host that becomes the container's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NetDevice {
    /// Its name on the host.
    pub name: String,
    /// Its name in the container.
    pub renamed: String,
}

/// Stages whose hooks run in the runtime's namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostHookStage {
    /// Deprecated since 1.0.2 of the spec, still used.
    Prestart,
    /// After the namespaces and mounts, before pivot_root.
    CreateRuntime,
    /// After the program was started.
    Poststart,
    /// After the container was deleted.
    Poststop,
}

/// A hook in the runtime's namespaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostHook {
    /// Absolute path of the program.
    pub path: PathBuf,
    /// argv, with argv\[0\]; empty for the path alone.
    pub arguments: Vec<String>,
    /// The whole environment; None for the runtime's own, as under runc and crun.
    pub environment: Option<Vec<String>>,
    /// Seconds until it is killed and has failed.
    pub timeout: Option<u32>,
    /// A file that its output is appended to; else it is dropped.
    pub stdout: Option<PathBuf>,
    /// A file that what it says of errors is appended to; else it is quoted when it fails.
    pub stderr: Option<PathBuf>,
}

/// The host's hooks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostHooks {
    /// `hooks.prestart`
    pub prestart: Vec<HostHook>,
    /// `hooks.createRuntime`
    pub create_runtime: Vec<HostHook>,
    /// `hooks.poststart`
    pub poststart: Vec<HostHook>,
    /// `hooks.poststop`
    pub poststop: Vec<HostHook>,
}

/// What the host binds to a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SlotSource {
    /// The host's procfs, verified to be one and to be its root.
    Proc,
    /// Nothing of the host's: a mount that init makes and comes back to.
    Made,
    /// A namespace by its path; its type is verified (`NS_GET_NSTYPE`).
    Namespace {
        /// `CLONE_NEW*`
        kind: u32,
        /// From config.json.
        path: PathBuf,
    },
    /// A pidfd of the container's init, for setns with several flags at once (exec).
    ContainerInit,
    /// A namespace of a container that is created, handed out by its init (exec).
    InitNamespace {
        /// `CLONE_NEW*`
        kind: u32,
    },
    /// A socket connected to `--console-socket`.
    ConsoleSocket,
    /// The listening socket on which `start` reaches init.
    Listener,
    /// A file that the output of init's hooks is appended to.
    HookOutput {
        /// Absolute path on the host; made when it is missing.
        path: PathBuf,
    },
    /// A memfd that will hold the state's JSON for init's hooks.
    HookState,
    /// A detached bind mount of the container's own folder in one cgroup v1 hierarchy.
    CgroupMount {
        /// Controllers of the hierarchy as in its mount options: `cpu,cpuacct`, `name=systemd`.
        hierarchy: String,
        /// For the mount.
        attributes: Attributes,
    },
    /// A new user namespace with these maps, for idmapped mounts; it outlives the process that made it.
    IdMapping {
        /// As (inside, outside, count): ids as the file system has them, and as the mount shows them.
        uid: Vec<(u32, u32, u32)>,
        /// Likewise.
        gid: Vec<(u32, u32, u32)>,
    },
    /// A detached mount of a new file system, opened with the runtime's rights.
    Filesystem {
        /// Its type, such as `tmpfs`.
        fstype: String,
        /// The `source` parameter.
        source: Vec<u8>,
        /// Its other parameters; without a value a flag.
        options: Vec<(String, Option<String>)>,
        /// For the mount.
        attributes: Attributes,
        /// Whose owners are shown, where not the file system's.
        idmap: Option<IdMap>,
    },
    /// A detached bind mount, opened with the runtime's rights (user namespaces: trap 5).
    BindMount {
        /// What the host's mount forbids is forbidden in the container's user namespace for good (mount_namespaces(7)): the
        /// source is opened in a mount namespace of one.
        locked: bool,
        /// Absolute path on the host.
        path: PathBuf,
        /// With the mounts below it.
        recursive: bool,
        /// For the mount itself.
        attributes: Attributes,
        /// For all below it too.
        recursive_attributes: Attributes,
        /// Whose owners are shown, where not the file system's.
        idmap: Option<IdMap>,
    },
}

impl SlotSource {
    /// Whether the slot is bound when init has its mount namespace ([`HostStep::BindMounts`]).
    pub(crate) fn is_bound_late(&self) -> bool {
        matches!(self, Self::BindMount { locked: true, .. })
    }
}

impl Plan {
    /// Init's view of the plan.
    #[must_use]
    pub fn as_ref(&self) -> PlanRef<'_> {
        PlanRef {
            steps: &self.init,
            text: &self.text,
            strings: &self.strings,
            options: &self.options,
            ids: &self.ids,
            filter: &self.filter,
            masks: &self.masks,
            time: self.time,
        }
    }

    /// As [`SlotSource::is_bound_late`].
    pub(crate) fn is_bound_late(&self, slot: Slot) -> bool {
        self.slots.get(usize::from(slot.0)).is_some_and(SlotSource::is_bound_late)
    }

    /// A string of the plan, for messages.
    #[must_use]
    pub fn string(&self, text: Text) -> String {
        self.as_ref().text(text).map(|t| t.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// What init does that people look for in a debug log, in the words of runc's.
    pub(crate) fn notes(&self) -> Vec<String> {
        let note = |step: &Step| match step {
            Step::CpuAffinity { mask } if mask.length > 0 => {
                Some(format!("nsexec: affinity: {:#x}", Hexadecimal(mask.of(&self.masks))))
            }
            Step::Seccomp { flags, .. } => Some(format!("seccomp filter flags: {flags}")),
            _ => None,
        };
        self.init.iter().filter_map(note).collect()
    }

    /// What the throw-away process joins: slots with their `CLONE_NEW*` flags.
    pub(crate) fn joins(&self) -> Vec<(Slot, u32)> {
        self.join_before_clone.clone()
    }

    /// Parallel to the strings: a pointer to each, null at the ends of lists.
    pub(crate) fn pointers(&self) -> Vec<*const std::ffi::c_char> {
        let base = self.text.as_ptr();
        let pointer = |text: &Text| {
            if text.is_none() { std::ptr::null() } else { base.wrapping_add(text.offset as usize).cast() }
        };
        self.strings.iter().map(pointer).collect()
    }
}

/// A number of many words, the lowest first.
struct Hexadecimal<'a>(&'a [u64]);

impl std::fmt::LowerHex for Hexadecimal<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut words = self.0.iter().rev().skip_while(|word| **word == 0);
        std::fmt::LowerHex::fmt(words.next().unwrap_or(&0), formatter)?;
        words.try_for_each(|word| write!(formatter, "{word:016x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::Hexadecimal;

    #[test]
    fn many_words_are_one_number() {
        let cases: [(&[u64], &str); 4] =
            [(&[], "0x0"), (&[3], "0x3"), (&[5, 0], "0x5"), (&[1, 0x20], "0x200000000000000001")];
        for (words, text) in cases {
            assert_eq!(format!("{:#x}", Hexadecimal(words)), text);
        }
    }
}
