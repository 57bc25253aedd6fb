//! Steps in words: one line each, for `flint plan` and for the sentences of errors.

use flint_init::plan::{
    Attributes, Barrier, HookStage, IdMap, Mount, MountSource, Range, Remount, RootBind, Slot, Step,
};
use serde_json::{Value, json};

use crate::plan::{HostHookStage, HostStep, Plan, SlotSource};

/// Names of `MOUNT_ATTR_*` when set, and when cleared.
const ATTRIBUTES: &[(u64, &str, &str)] = &[
    (0x1, "ro", "rw"),
    (0x2, "nosuid", "suid"),
    (0x4, "nodev", "dev"),
    (0x8, "noexec", "exec"),
    (0x10, "noatime", ""),
    (0x20, "strictatime", ""),
    (0x80, "nodiratime", "diratime"),
    (0x0020_0000, "nosymfollow", "symfollow"),
];

use crate::compile::CLONE_NEWTIME;

const NAMESPACES: &[(i32, &str)] = &[
    (libc::CLONE_NEWUSER, "user"),
    (libc::CLONE_NEWPID, "pid"),
    (libc::CLONE_NEWNET, "network"),
    (libc::CLONE_NEWNS, "mount"),
    (libc::CLONE_NEWIPC, "ipc"),
    (libc::CLONE_NEWUTS, "uts"),
    (libc::CLONE_NEWCGROUP, "cgroup"),
    (CLONE_NEWTIME, "time"),
];

/// One step of init's lane in words.
#[must_use]
#[allow(clippy::too_many_lines, reason = "one line for each kind of step")]
pub fn describe(plan: &Plan, step: &Step) -> String {
    let text = |text| plan.string(text);
    match *step {
        Step::CloseFds => "close inherited descriptors".to_owned(),
        Step::NotDumpable => "hide init's memory from other processes".to_owned(),
        Step::Announce(barrier) => {
            format!("tell the host of {}, and wait only outside the cgroups", barrier_name(barrier))
        }
        Step::Barrier(barrier) => format!("wait for the host at {}", barrier_name(barrier)),
        Step::JoinNamespace { slot, kind } => format!("join the {} namespace {}", kinds(kind), source(plan, slot)),
        Step::Unshare { kind } => format!("make new namespaces: {}", kinds(kind)),
        Step::TimeNamespace { offsets } => format!("enter a time namespace with the offsets {:?}", text(offsets)),
        Step::BecomeRoot => "become uid 0 of the user namespace".to_owned(),
        Step::Birth => "clone the process into the pid namespace".to_owned(),
        Step::Session => "start a session".to_owned(),
        Step::ControllingTerminal => "make the terminal the session's".to_owned(),
        Step::Keyring { name, permissions: 0 } => format!("join the session keyring {}", text(name)),
        Step::Keyring { name, .. } => format!("join a new session keyring {}", text(name)),
        Step::CpuAffinity { mask: Range { length: 0, .. } } => "use all CPUs that the cgroup allows".to_owned(),
        Step::CpuAffinity { mask } => format!("use the CPUs {}", numbers(mask.of(&plan.masks))),
        Step::Scheduler { ref attributes } => {
            let names = ["OTHER", "FIFO", "RR", "BATCH", "ISO", "IDLE", "DEADLINE"];
            format!("set the scheduler to SCHED_{}", names.get(attributes.policy() as usize).unwrap_or(&"?"))
        }
        Step::IoPriority { priority } => {
            format!("set the I/O priority to class {}, level {}", priority >> 13, priority & 0x1fff)
        }
        Step::MemoryPolicy { mode, nodes } => {
            format!("set the memory policy to {mode:#x} with nodes {}", numbers(nodes.of(&plan.masks)))
        }
        Step::Personality { domain } => format!("set the personality to {domain:#x}"),
        Step::Loopback => "bring the loopback device up".to_owned(),
        Step::Hostname { name } => format!("set the hostname to {}", text(name)),
        Step::Domainname { name } => format!("set the domainname to {}", text(name)),
        Step::InheritedPropagation { flag } => format!("make the inherited mounts {}", propagation(flag)),
        Step::Root { path, bind } => {
            let bound = match bind {
                RootBind::None => "",
                RootBind::Own => " and mount it on itself",
                RootBind::Host => " and mount it on itself, in the host's mount namespace",
            };
            format!("open the root {}{bound}", text(path))
        }
        Step::Mount(ref mount) => describe_mount(plan, mount),
        Step::Remount(ref remount) => describe_remount(plan, remount),
        Step::Device { path, mode, major, minor, uid, gid } => {
            let kind = match mode & libc::S_IFMT {
                libc::S_IFBLK => "b",
                libc::S_IFIFO => "p",
                _ => "c",
            };
            format!(
                "make the device {} ({kind} {major}:{minor}, mode {:04o}, owner {uid}:{gid})",
                text(path),
                mode & 0o7777
            )
        }
        Step::DeviceBind { source, path } => format!("bind the host's device {} to {}", text(source), text(path)),
        Step::Symlink { target, path, .. } => format!("link {} -> {}", text(path), text(target)),
        Step::Console { width, height, .. } => match (width, height) {
            (0, _) | (_, 0) => "open a terminal and send it to the console socket".to_owned(),
            _ => format!("open a terminal of {width}x{height} and send it to the console socket"),
        },
        Step::OwnStdio { uid, files } => {
            format!(
                "give stdin, stdout and stderr{} to uid {uid}",
                if files { "" } else { ", where they are pipes or sockets," }
            )
        }
        Step::RunHook(ref hook) => {
            let stage = match hook.stage {
                HookStage::CreateContainer => "createContainer",
                HookStage::StartContainer => "startContainer",
            };
            format!("run the {stage} hook #{} {}", hook.index, text(hook.path))
        }
        Step::Mask { path } => format!("hide {}", text(path)),
        Step::Readonly { path } => format!("make {} read-only", text(path)),
        Step::Label { file, value, .. } => format!("write {} to /proc/{}", text(value).trim(), text(file)),
        Step::Sysctl { path, value, .. } => format!("write {} to /proc/{}", text(value), text(path)),
        Step::MakeFolder { path } => format!("make the folder {}", text(path)),
        Step::RootReadonly => "make the root read-only".to_owned(),
        Step::RemountReadonly { path, .. } => format!("make the mount {} read-only", text(path)),
        Step::Close { slot } => format!("close {}", source(plan, slot)),
        Step::Detach { path, .. } => format!("unmount {}", text(path)),
        Step::PivotRoot => "pivot to the root".to_owned(),
        Step::MoveRoot { bare } => {
            let bare = bare.of(&plan.strings).iter().filter(|path| !path.is_none()).map(|&path| text(path));
            format!("part from {}, then move the root over / (no pivot)", bare.collect::<Vec<_>>().join(", "))
        }
        Step::ChangeRoot => "change the root (no mount namespace)".to_owned(),
        Step::RootPropagation { flag } => format!("make the root mount {}", propagation(flag)),
        Step::ResourceLimit { resource, soft, hard } => {
            format!("limit {} to {}:{}", resource_name(resource), limit(soft), limit(hard))
        }
        Step::Umask { mask } => format!("set the umask to {mask:04o}"),
        Step::Home { uid, .. } => format!("find HOME of uid {uid}"),
        Step::FindProgram { name, .. } => format!("find the program {}", text(name)),
        Step::AwaitStart { listener, .. } => match listener {
            Some(_) => "report ready and wait for start on the socket".to_owned(),
            None => "report ready and wait for start".to_owned(),
        },
        Step::BoundingSet { keep } => {
            format!("drop capabilities from the bounding set, keep {}", capabilities(keep))
        }
        Step::User { uid, gid, keep_groups: true, .. } => {
            format!("become user {uid}:{gid}, keep the maker's supplementary groups")
        }
        Step::User { uid, gid, groups, .. } => {
            format!("become user {uid}:{gid}, supplementary groups {:?}", groups.of(&plan.ids))
        }
        Step::Capabilities { effective, permitted, inheritable } => format!(
            "set capabilities: effective {}, permitted {}, inheritable {}",
            capabilities(effective),
            capabilities(permitted),
            capabilities(inheritable)
        ),
        Step::Ambient { set } => format!("set ambient capabilities: {}", capabilities(set)),
        Step::NoNewPrivileges => "forbid new privileges".to_owned(),
        Step::Seccomp { program, .. } => format!("install the seccomp filter ({} instructions)", program.length),
        Step::WorkingDirectory { path, .. } => format!("change to the working directory {}", text(path)),
        Step::Execute { arguments, .. } => {
            let words: Vec<_> =
                arguments.of(&plan.strings).iter().filter(|word| !word.is_none()).map(|word| text(*word)).collect();
            format!("execute {}", words.join(" "))
        }
    }
}

/// One step of the host's lane in words.
#[must_use]
pub fn describe_host(plan: &Plan, step: HostStep) -> String {
    match step {
        HostStep::ClaimId => "claim the id in the state root".to_owned(),
        HostStep::MakeCgroup => {
            format!("make the cgroup {} and write {} limits", plan.cgroup.path, plan.cgroup.writes.len())
        }
        HostStep::Bind(slot) => format!("open {} as slot {}", source(plan, slot), slot.0),
        HostStep::BindMounts => {
            let slots = (0..plan.slots.len()).map(|slot| Slot(slot as u16)).filter(|&slot| plan.is_bound_late(slot));
            let sources = slots.map(|slot| format!("{} as slot {}", source(plan, slot), slot.0));
            format!("open as init has them: {}", sources.collect::<Vec<_>>().join(", "))
        }
        HostStep::Clone => match plan.time {
            Some(time) => format!(
                "make a time namespace with the offsets {:?} and clone init in it with new namespaces: {}",
                plan.string(time),
                kinds(plan.clone_flags as u32)
            ),
            None => format!("clone init with new namespaces: {}", kinds(plan.clone_flags as u32)),
        },
        HostStep::Await(barrier) => format!("wait until init is at {}", barrier_name(barrier)),
        HostStep::HardLimits => "raise init's hard limits to those that it will set".to_owned(),
        HostStep::IdMaps => {
            let denied = if plan.deny_setgroups { ", with setgroups denied" } else { "" };
            format!("write the id maps: uid {:?}, gid {:?}{denied}", plan.uid_map, plan.gid_map)
        }
        HostStep::OomScore => format!("write oom_score_adj {}", plan.oom_score_adj.unwrap_or(0)),
        HostStep::MakeCgroupFolders => format!("make the folders of the cgroup {}", plan.cgroup.path),
        HostStep::StartUnit => match &plan.cgroup.systemd {
            Some(scope) => format!("let {} start the unit {} with init in it", scope.unit.manager, scope.unit.name),
            None => "start no unit".to_owned(),
        },
        HostStep::JoinCgroup => "move init into its cgroups".to_owned(),
        HostStep::EnterSubgroup => {
            format!("move init into {} of its cgroup", plan.cgroup.subgroup.as_deref().unwrap_or("."))
        }
        HostStep::Delegate => format!("move init further, into {}", plan.cgroup.delegate.as_deref().unwrap_or(".")),
        HostStep::Resctrl => match &plan.resctrl {
            Some(group) => format!("move init into the class of service {group}"),
            None => "move init into no class of service".to_owned(),
        },
        HostStep::NetDevices => {
            let devices = plan.net_devices.iter().map(|device| format!("{} as {}", device.name, device.renamed));
            format!("move network devices: {}", devices.collect::<Vec<_>>().join(", "))
        }
        HostStep::SaveState => "save the state".to_owned(),
        HostStep::Hooks(stage) => {
            let (name, count) = match stage {
                HostHookStage::Prestart => ("prestart", plan.hooks.prestart.len()),
                HostHookStage::CreateRuntime => ("createRuntime", plan.hooks.create_runtime.len()),
                HostHookStage::Poststart => ("poststart", plan.hooks.poststart.len()),
                HostHookStage::Poststop => ("poststop", plan.hooks.poststop.len()),
            };
            format!("run {count} {name} hooks")
        }
        HostStep::Release(barrier) => format!("let init go on from {}", barrier_name(barrier)),
        HostStep::Start => "let init start its program as soon as it is ready".to_owned(),
        HostStep::AwaitReady => "wait until init is ready".to_owned(),
    }
}

/// The whole plan, a line a step: the host's lane, then init's.
#[must_use]
pub fn describe_plan(plan: &Plan) -> Vec<String> {
    let host =
        plan.host.iter().enumerate().map(|(index, step)| format!("host {index:3}  {}", describe_host(plan, *step)));
    let init = plan.init.iter().enumerate().map(|(index, step)| format!("init {index:3}  {}", describe(plan, step)));
    host.chain(init).collect()
}

/// The whole plan for programs: `{"host": [...], "init": [...], "cgroup": ..., "warnings": [...]}`.
#[must_use]
pub fn plan_json(plan: &Plan) -> Value {
    let name = |debug: String| debug.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned();
    let host =
        plan.host.iter().map(|step| json!({"step": name(format!("{step:?}")), "text": describe_host(plan, *step)}));
    let init = plan.init.iter().map(|step| json!({"step": name(format!("{step:?}")), "text": describe(plan, step)}));
    json!({
        "rootfs": plan.rootfs,
        "host": host.collect::<Vec<_>>(),
        "init": init.collect::<Vec<_>>(),
        "cgroup": plan.cgroup,
        "warnings": plan.warnings,
    })
}

fn describe_mount(plan: &Plan, mount: &Mount) -> String {
    let (from, mut words) = match mount.source {
        MountSource::New { fstype, source, options } => {
            let mut words = vec![plan.string(fstype)];
            words.extend(option_words(plan, options));
            (plan.string(source), words)
        }
        MountSource::Bind { path, recursive } => {
            (plan.string(path), vec![if recursive { "rbind" } else { "bind" }.to_owned()])
        }
        MountSource::Inside { path, recursive } => (
            format!("the container's {}", plan.string(path)),
            vec![if recursive { "rbind" } else { "bind" }.to_owned()],
        ),
        MountSource::Cgroup { path, own } => {
            let own = if own.is_none() { "hidden".to_owned() } else { format!("{} read-only", plan.string(own)) };
            let words = vec!["bind".to_owned(), format!("without such a cgroup {own}")];
            (if path.is_none() { "no cgroup".to_owned() } else { plan.string(path) }, words)
        }
        MountSource::Prepared { slot } => prepared(plan, slot),
    };
    words.extend(attributes(mount.attributes, ""));
    words.extend(attributes(mount.recursive_attributes, "r"));
    if let Some(idmap) = mount.idmap {
        words.push(idmap_words(plan, idmap));
    }
    if mount.propagation != 0 {
        words.push(format!("{}{}", if mount.propagation_recursive { "r" } else { "" }, propagation(mount.propagation)));
    }
    if mount.copy_up {
        words.push("tmpcopyup".to_owned());
    }
    let number = if mount.index == Mount::OWN { String::new() } else { format!(" #{}", mount.index) };
    format!("mount{number} {from} -> {} ({})", plan.string(mount.target), words.join(", "))
}

fn describe_remount(plan: &Plan, remount: &Remount) -> String {
    let mut words = remount.options.map_or_else(|| vec!["bind".to_owned()], |options| option_words(plan, options));
    words.extend(attributes(remount.attributes, ""));
    words.extend(attributes(remount.recursive_attributes, "r"));
    if remount.propagation != 0 {
        words.push(propagation(remount.propagation).to_owned());
    }
    format!("remount #{} {} ({})", remount.index, plan.string(remount.target), words.join(", "))
}

fn option_words(plan: &Plan, options: Range) -> Vec<String> {
    let words = options.of(&plan.options).iter().map(|option| {
        let key = plan.string(option.key);
        if option.value.is_none() { key } else { format!("{key}={}", plan.string(option.value)) }
    });
    words.collect()
}

/// What the host opened, with the attributes that it gave it.
fn prepared(plan: &Plan, slot: Slot) -> (String, Vec<String>) {
    let mut words = Vec::new();
    let idmap = match plan.slots.get(usize::from(slot.0)) {
        Some(SlotSource::BindMount { recursive, attributes: own, recursive_attributes, idmap, .. }) => {
            words.push(if *recursive { "rbind" } else { "bind" }.to_owned());
            words.extend(attributes(*own, ""));
            words.extend(attributes(*recursive_attributes, "r"));
            *idmap
        }
        Some(SlotSource::Filesystem { fstype, options, attributes: own, idmap, .. }) => {
            words.push(fstype.clone());
            words.extend(options.iter().map(|(key, value)| match value {
                Some(value) => format!("{key}={value}"),
                None => key.clone(),
            }));
            words.extend(attributes(*own, ""));
            *idmap
        }
        _ => {
            words.push("bind".to_owned());
            None
        }
    };
    words.extend(idmap.map(|idmap| idmap_words(plan, idmap)));
    words.push("opened by the host".to_owned());
    (source(plan, slot), words)
}

fn idmap_words(plan: &Plan, idmap: IdMap) -> String {
    format!("{} by {}", if idmap.recursive { "ridmap" } else { "idmap" }, source(plan, idmap.slot))
}

fn attributes(attributes: Attributes, prefix: &str) -> Vec<String> {
    let words = ATTRIBUTES.iter().filter_map(|&(bit, set, cleared)| {
        let word = if attributes.set & bit != 0 {
            set
        } else if attributes.clear & bit != 0 {
            cleared
        } else {
            ""
        };
        (!word.is_empty()).then(|| format!("{prefix}{word}"))
    });
    words.collect()
}

fn source(plan: &Plan, slot: Slot) -> String {
    match plan.slots.get(usize::from(slot.0)) {
        Some(SlotSource::Proc) => "/proc".to_owned(),
        Some(SlotSource::Namespace { path, .. } | SlotSource::BindMount { path, .. }) => path.display().to_string(),
        Some(SlotSource::Filesystem { fstype, .. }) => format!("a new {fstype}"),
        Some(SlotSource::IdMapping { uid, gid }) => format!("a user namespace with uids {uid:?}, gids {gid:?}"),
        Some(SlotSource::InitNamespace { kind }) => format!("the {} namespace of the container's init", kinds(*kind)),
        Some(SlotSource::ContainerInit) => "the container's init".to_owned(),
        Some(SlotSource::ConsoleSocket) => "the console socket".to_owned(),
        Some(SlotSource::Made) => "a mount of an earlier step".to_owned(),
        Some(SlotSource::Listener) => "the socket for start".to_owned(),
        Some(SlotSource::HookOutput { path }) => format!("{} for the hooks' output", path.display()),
        Some(SlotSource::HookState) => "the hooks' state".to_owned(),
        Some(SlotSource::CgroupMount { hierarchy, .. }) => format!("the container's cgroup ({hierarchy})"),
        None => format!("slot {}", slot.0),
    }
}

fn barrier_name(barrier: Barrier) -> &'static str {
    match barrier {
        Barrier::Born => "barrier 1 (born)",
        Barrier::Network => "barrier 3 (network)",
        Barrier::Sources => "barrier 4 (sources)",
        Barrier::Mounted => "barrier 2 (mounted)",
    }
}

fn kinds(flags: u32) -> String {
    let names: Vec<_> =
        NAMESPACES.iter().filter(|(flag, _)| flags & *flag as u32 != 0).map(|(_, name)| *name).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(" ") }
}

fn propagation(flag: u64) -> &'static str {
    match flag & !libc::MS_REC {
        libc::MS_SHARED => "shared",
        libc::MS_SLAVE => "slave",
        libc::MS_PRIVATE => "private",
        _ => "unbindable",
    }
}

fn capabilities(mask: u64) -> String {
    let names: Vec<_> = caps::all()
        .into_iter()
        .filter(|capability| mask & capability.bitmask() != 0)
        .map(|capability| capability.to_string())
        .collect();
    if names.is_empty() {
        "none".to_owned()
    } else {
        let mut names = names;
        names.sort();
        names.join(" ")
    }
}

/// The numbers of a set.
fn numbers(words: &[u64]) -> String {
    let bits = words.iter().enumerate().flat_map(|(index, word)| {
        (0..64).filter(move |bit| word & (1 << bit) != 0).map(move |bit| (index * 64 + bit).to_string())
    });
    let list = bits.collect::<Vec<_>>().join(",");
    if list.is_empty() { "none".to_owned() } else { list }
}

fn limit(value: u64) -> String {
    if value == u64::MAX { "unlimited".to_owned() } else { value.to_string() }
}

fn resource_name(resource: u32) -> &'static str {
    const NAMES: &[&str] = &[
        "RLIMIT_CPU",
        "RLIMIT_FSIZE",
        "RLIMIT_DATA",
        "RLIMIT_STACK",
        "RLIMIT_CORE",
        "RLIMIT_RSS",
        "RLIMIT_NPROC",
        "RLIMIT_NOFILE",
        "RLIMIT_MEMLOCK",
        "RLIMIT_AS",
        "RLIMIT_LOCKS",
        "RLIMIT_SIGPENDING",
        "RLIMIT_MSGQUEUE",
        "RLIMIT_NICE",
        "RLIMIT_RTPRIO",
        "RLIMIT_RTTIME",
    ];
    NAMES.get(resource as usize).copied().unwrap_or("RLIMIT_?")
}
