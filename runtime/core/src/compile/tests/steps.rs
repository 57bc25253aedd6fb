//! What is planned, and in which order.

use flint_init::plan::{Barrier, Slot};
use serde_json::json;

use super::*;
use crate::describe::describe_host;
use crate::plan::{HostStep, SlotSource};

/// What `runc spec` writes, without a terminal.
pub(super) fn runc_spec() -> serde_json::Value {
    let sets = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    let mut spec = config();
    spec["process"] = json!({
        "user": {"uid": 0, "gid": 0}, "args": ["sh"], "cwd": "/", "noNewPrivileges": true,
        "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
        "capabilities": {"bounding": sets, "effective": sets, "permitted": sets, "ambient": sets},
        "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}]
    });
    spec["root"]["readonly"] = json!(true);
    spec["hostname"] = json!("runc");
    spec["mounts"] = json!([
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
         "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
         "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
        {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
         "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
         "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]}
    ]);
    spec["linux"]["maskedPaths"] = json!(["/proc/acpi", "/proc/kcore"]);
    spec["linux"]["readonlyPaths"] = json!(["/proc/bus", "/proc/sys"]);
    spec
}

const RUNC_SPEC: &str = "\
close inherited descriptors
hide init's memory from other processes
tell the host of barrier 1 (born), and wait only outside the cgroups
use all CPUs that the cgroup allows
start a session
join a new session keyring _ses.c1
bring the loopback device up
set the hostname to runc
make the inherited mounts slave
open the root /bundle/rootfs and mount it on itself
mount #0 proc -> /proc (proc)
mount #1 tmpfs -> /dev (tmpfs, mode=755, size=65536k, nosuid, strictatime)
mount #2 devpts -> /dev/pts (devpts, newinstance, ptmxmode=0666, mode=0620, gid=5, nosuid, noexec)
mount #3 shm -> /dev/shm (tmpfs, mode=1777, size=65536k, nosuid, nodev, noexec)
mount #4 mqueue -> /dev/mqueue (mqueue, nosuid, nodev, noexec)
mount #5 sysfs -> /sys (sysfs, ro, ro, nosuid, nodev, noexec)
mount #6 a new tmpfs -> /sys/fs/cgroup (tmpfs, mode=755, nosuid, nodev, noexec, opened by the host)
mount #6 the container's cgroup (cpu,cpuacct) -> /sys/fs/cgroup/cpu,cpuacct (bind, opened by the host)
link /sys/fs/cgroup/cpu -> cpu,cpuacct
link /sys/fs/cgroup/cpuacct -> cpu,cpuacct
mount #6 the container's cgroup (memory) -> /sys/fs/cgroup/memory (bind, opened by the host)
mount #6 the container's cgroup (name=systemd) -> /sys/fs/cgroup/systemd (bind, opened by the host)
make the device /dev/null (c 1:3, mode 0666, owner 0:0)
make the device /dev/random (c 1:8, mode 0666, owner 0:0)
make the device /dev/full (c 1:7, mode 0666, owner 0:0)
make the device /dev/tty (c 5:0, mode 0666, owner 0:0)
make the device /dev/zero (c 1:5, mode 0666, owner 0:0)
make the device /dev/urandom (c 1:9, mode 0666, owner 0:0)
link /dev/fd -> /proc/self/fd
link /dev/stdin -> /proc/self/fd/0
link /dev/stdout -> /proc/self/fd/1
link /dev/stderr -> /proc/self/fd/2
link /dev/core -> /proc/kcore
link /dev/ptmx -> pts/ptmx
make /proc/bus read-only
make /proc/sys read-only
hide /proc/acpi
hide /proc/kcore
make the root read-only
wait for the host at barrier 1 (born)
pivot to the root
limit RLIMIT_NOFILE to 1024:1024
give stdin, stdout and stderr to uid 0
set the umask to 0022
change to the working directory /
find the program sh
report ready and wait for start on the socket
find HOME of uid 0
forbid new privileges
drop capabilities from the bounding set, keep CAP_AUDIT_WRITE CAP_KILL CAP_NET_BIND_SERVICE
become user 0:0, supplementary groups []
set capabilities: effective CAP_AUDIT_WRITE CAP_KILL CAP_NET_BIND_SERVICE, permitted CAP_AUDIT_WRITE CAP_KILL CAP_NET_BIND_SERVICE, inheritable none
set ambient capabilities: none
change to the working directory /
execute sh
";

#[test]
fn the_default_config_of_runc() {
    let plan = compiled(&runc_spec());
    assert_eq!(lines(&plan).join("\n") + "\n", RUNC_SPEC);
    assert!(plan.warnings.is_empty(), "{:?}", plan.warnings);
    let flags = libc::CLONE_NEWPID | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWNS;
    assert_eq!(plan.clone_flags, flags as u64);
}

#[test]
fn what_is_listed_twice_is_covered_once() {
    let mut config = runc_spec();
    config["linux"]["maskedPaths"] = json!(["/proc/acpi", "/proc/kcore", "/proc//acpi/", "/proc/kcore", "/proc/bus"]);
    config["linux"]["readonlyPaths"] = json!(["/proc/bus", "/proc/bus"]);
    let plan = compiled(&config);
    let masked = plan.init.iter().filter(|step| matches!(step, Step::Mask { .. })).count();
    let readonly = plan.init.iter().filter(|step| matches!(step, Step::Readonly { .. })).count();
    assert_eq!((masked, readonly), (3, 1));
}

#[test]
fn ambient_capabilities_that_are_not_inheritable_are_told() {
    let mut config = runc_spec();
    config["process"]["capabilities"]["inheritable"] = json!(["CAP_KILL"]);
    config["process"]["capabilities"]["ambient"] = json!(["CAP_KILL", "CAP_AUDIT_WRITE"]);
    let plan = compiled(&config);
    assert_eq!(plan.warnings.len(), 1, "{:?}", plan.warnings);
    assert!(plan.warnings[0].starts_with("can't raise ambient capability CAP_AUDIT_WRITE: "), "{:?}", plan.warnings);
    assert!(lines(&plan).iter().any(|line| line == "set ambient capabilities: CAP_KILL"));
}

#[test]
fn the_same_config_gives_the_same_plan() {
    let mut config = runc_spec();
    config["linux"]["sysctl"] = json!({"net.a": "1", "net.b": "2", "net.c": "3", "net.d": "4"});
    config["process"]["capabilities"]["bounding"] = json!(["CAP_SYS_RESOURCE", "CAP_KILL", "CAP_CHOWN"]);
    let first = format!("{:?}", compiled(&config));
    for _ in 0..8 {
        assert_eq!(format!("{:?}", compiled(&config)), first);
    }
}

#[test]
fn a_cgroup_namespace_of_the_containers_own() {
    let config = with_namespace(runc_spec(), json!({"type": "cgroup"}));
    let plan = compiled(&config);
    assert!(
        position(&plan, |step| matches!(step, Step::Unshare { .. }))
            > position(&plan, |step| matches!(step, Step::Announce(_)))
    );
    assert_eq!(plan.clone_flags & libc::CLONE_NEWCGROUP as u64, 0);
    let mounts: Vec<_> = lines_of(&plan, "mount #6").into_iter().skip(1).collect();
    assert_eq!(
        mounts,
        [
            "mount #6 cgroup -> /sys/fs/cgroup/cpu,cpuacct (cgroup, cpu, cpuacct, ro, nosuid, nodev, noexec)",
            "mount #6 cgroup -> /sys/fs/cgroup/memory (cgroup, memory, ro, nosuid, nodev, noexec)",
            "mount #6 systemd -> /sys/fs/cgroup/systemd (cgroup, none, name=systemd, ro, nosuid, nodev, noexec)",
        ]
    );
    let plan = compiled_on(&unified(), &config).unwrap();
    assert_eq!(lines_of(&plan, "mount #6"), ["mount #6 cgroup -> /sys/fs/cgroup (cgroup2, ro, nosuid, nodev, noexec)"]);
    let plan = compiled_on(&unified(), &runc_spec()).unwrap();
    assert_eq!(
        lines_of(&plan, "mount #6"),
        ["mount #6 /sys/fs/cgroup -> /sys/fs/cgroup (bind, ro, nosuid, nodev, noexec, opened by the host)"]
    );
}

#[test]
fn joined_namespaces() {
    let mut joining = without_namespace(without_namespace(config(), "network"), "pid");
    joining = with_namespace(joining, json!({"type": "network", "path": "/run/netns/a"}));
    joining = with_namespace(joining, json!({"type": "pid", "path": "/proc/7/ns/pid"}));
    let plan = compiled(&joining);
    let joined: Vec<_> = plan.join_before_clone.iter().map(|(_, kind)| *kind as i32).collect();
    assert_eq!(joined, [libc::CLONE_NEWPID]);
    assert_eq!(lines_of(&plan, "join the"), ["join the network namespace /run/netns/a"]);
    assert!(lines_of(&plan, "bring the loopback").is_empty());

    // From inside its own user namespace init may not join what belongs to the host's.
    let plan = compiled(&with_user(joining.clone()));
    let joined: Vec<_> = plan.join_before_clone.iter().map(|(_, kind)| *kind as i32).collect();
    assert_eq!(joined, [libc::CLONE_NEWPID, libc::CLONE_NEWNET]);
    assert!(lines_of(&plan, "join the").is_empty());

    // What is joined beside a user namespace that is joined may belong to that one, or to the host's: the throw-away
    // process tries both.
    let plan = compiled(&with_namespace(joining, json!({"type": "user", "path": "/proc/7/ns/user"})));
    let joined: Vec<_> = plan.join_before_clone.iter().map(|(_, kind)| *kind as i32).collect();
    assert_eq!(joined, [libc::CLONE_NEWUSER, libc::CLONE_NEWPID, libc::CLONE_NEWNET]);
    assert!(lines_of(&plan, "join the").is_empty());
    assert!(!plan.host.contains(&crate::plan::HostStep::IdMaps));
}

#[test]
fn a_user_namespace() {
    let mut config = with_user(config());
    config["mounts"] = json!([{"destination": "/m", "source": "s", "options": ["rbind", "ro", "rslave"]}]);
    let plan = compiled(&config);
    assert_eq!(lines_of(&plan, "make the device"), Vec::<String>::new());
    assert!(lines(&plan).contains(&"bind the host's device /dev/null to /dev/null".to_owned()));
    assert_eq!(
        lines_of(&plan, "mount"),
        ["mount #0 /bundle/s -> /m (rbind, ro, symfollow, opened by the host, rslave)"]
    );
    assert!(
        plan.slots.iter().any(
            |slot| matches!(slot, SlotSource::BindMount { recursive: true, attributes, .. } if attributes.set == 1)
        )
    );
    assert_eq!(plan.uid_map, [(0, 100_000, 65_536)]);
    assert!(plan.host.contains(&crate::plan::HostStep::IdMaps));
    assert!(plan.init.contains(&Step::BecomeRoot));
}

#[test]
fn hooks_and_their_places() {
    let mut config = config();
    config["hooks"] = json!({
        "prestart": [{"path": "/p"}], "createRuntime": [{"path": "/r", "args": ["r", "x"], "env": ["A=1"], "timeout": 3}],
        "createContainer": [{"path": "/c", "timeout": 7}], "startContainer": [{"path": "/s"}],
        "poststart": [{"path": "/t"}], "poststop": [{"path": "/o"}]
    });
    let plan = compiled(&config);
    let hook = |path: &str| {
        let line =
            format!("run the {} hook #0 {path}", if path == "/c" { "createContainer" } else { "startContainer" });
        lines(&plan).iter().position(|found| *found == line).unwrap()
    };
    assert!(hook("/c") > position(&plan, |step| *step == Step::Barrier(flint_init::plan::Barrier::Mounted)));
    assert!(hook("/c") < position(&plan, |step| matches!(step, Step::PivotRoot)));
    assert!(hook("/s") > position(&plan, |step| matches!(step, Step::AwaitStart { .. })));
    assert_eq!(hook("/s"), plan.init.len() - 2, "as the program, and right before it");
    assert_eq!(plan.hooks.create_runtime[0].timeout, Some(3));
    assert_eq!(plan.hooks.poststop.len() + plan.hooks.poststart.len() + plan.hooks.prestart.len(), 3);
    let Step::RunHook(start) = plan.init[hook("/s")] else { unreachable!() };
    let environment: Vec<_> = start.environment.of(&plan.strings).iter().map(|text| plan.string(*text)).collect();
    assert_eq!(environment, ["PATH=/bin", "HOME=/root", ""], "a startContainer hook without env sees the program's");
    assert_eq!(plan.slots.iter().filter(|slot| **slot == SlotSource::HookState).count(), 1);
}

#[test]
fn seccomp_comes_before_the_capabilities_go_unless_it_need_not() {
    let seccomp =
        json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["chmod"], "action": "SCMP_ACT_ERRNO"}]});
    let config = set("/linux/seccomp", seccomp);
    let filter = |plan: &Plan| position(plan, |step| matches!(step, Step::Seccomp { .. }));
    let bounding = |plan: &Plan| position(plan, |step| matches!(step, Step::BoundingSet { .. }));
    let plan = compiled(&config);
    assert!(filter(&plan) < bounding(&plan));
    assert!(!plan.init.contains(&Step::NoNewPrivileges));
    let plan = compiled(&with(config, "/process/noNewPrivileges", json!(true)));
    assert_eq!(filter(&plan), plan.init.len() - 2);
    assert!(position(&plan, |step| *step == Step::NoNewPrivileges) < bounding(&plan));
}

#[test]
fn the_last_of_equal_variables_counts() {
    let plan = compiled(&set("/process/env", json!(["A=1", "PATH=/x", "B=", "A=2", "PATH=/y", "HOME=", "AB=3"])));
    let Some(Step::Execute { environment, .. }) = plan.init.last() else { unreachable!() };
    let list: Vec<_> = environment.of(&plan.strings).iter().map(|text| plan.string(*text)).collect();
    assert_eq!(list, ["A=2", "PATH=/y", "B=", "AB=3", "", ""]);
    let Step::Home { entry, .. } = plan.init[position(&plan, |step| matches!(step, Step::Home { .. }))] else {
        unreachable!()
    };
    assert_eq!(entry, environment.start + 4);
    let Step::FindProgram { path, .. } = plan.init[position(&plan, |step| matches!(step, Step::FindProgram { .. }))]
    else {
        unreachable!()
    };
    assert_eq!(plan.string(path), "/y");
}

#[test]
fn ways_into_the_root() {
    let way = |config: &serde_json::Value, no_pivot: bool| {
        let plan = compile(&bundle(config).unwrap(), &hybrid(), &CompileOptions { no_pivot, ..options() }).unwrap();
        let is_way = |step: &&Step| matches!(step, Step::PivotRoot | Step::MoveRoot { .. } | Step::ChangeRoot);
        let ways: Vec<Step> = plan.init.iter().filter(is_way).copied().collect();
        (ways, lines_of(&plan, "part from").join(""))
    };
    assert_eq!(way(&config(), false).0, [Step::PivotRoot]);
    let (moved, line) = way(&config(), true);
    assert!(matches!(moved[..], [Step::MoveRoot { .. }]), "{moved:?}");
    // The machine that the test runs on has at least this one.
    assert!(line.contains("/proc"), "{line}");
    assert_eq!(way(&without_namespace(config(), "mount"), false).0, [Step::ChangeRoot]);
}

#[test]
fn propagation_of_the_root() {
    // Unbindable comes last: until the root is cloned it is private.
    for (name, inherited, flag) in [
        ("shared", libc::MS_SHARED, Some(libc::MS_SHARED)),
        // Once more at the end, it would undo what mounts asked for.
        ("rprivate", libc::MS_PRIVATE | libc::MS_REC, None),
        ("unbindable", libc::MS_PRIVATE, Some(libc::MS_UNBINDABLE)),
    ] {
        let plan = compiled(&set("/linux/rootfsPropagation", json!(name)));
        assert!(plan.init.contains(&Step::InheritedPropagation { flag: inherited }), "{name}");
        let last = plan.init.iter().find_map(|step| match step {
            Step::RootPropagation { flag } => Some(*flag),
            _ => None,
        });
        assert_eq!(last, flag, "{name}");
    }
}

#[test]
fn run_waits_on_its_channel() {
    let plan = compile(
        &bundle(&config()).unwrap(),
        &hybrid(),
        &CompileOptions { wait_on_socket: false, new_keyring: false, ..options() },
    )
    .unwrap();
    assert!(plan.init.contains(&Step::AwaitStart { listener: None, proc: None }));
    assert!(!plan.slots.contains(&SlotSource::Listener));
    assert!(lines_of(&plan, "join a new session keyring").is_empty());
}

#[test]
fn terminals() {
    let mut config = set("/process/terminal", json!(true));
    config["process"]["consoleSize"] = json!({"width": 80, "height": 25});
    config["process"]["user"]["uid"] = json!(1000);
    let options = CompileOptions { console_socket: true, ..options() };
    let plan = compile(&bundle(&config).unwrap(), &hybrid(), &options).unwrap();
    let console = position(&plan, |step| {
        matches!(step, Step::Console { width: 80, height: 25, uid: 1000, mount: true, controlling: true, .. })
    });
    assert!(console < position(&plan, |step| matches!(step, Step::PivotRoot)));
    assert!(lines_of(&plan, "give stdin").is_empty());
    assert!(plan.terminal);
}

#[test]
fn exec_joins_by_inits_pidfd_alone() {
    let mut config = without_namespace(runc_spec(), "network");
    config = with_namespace(config, json!({"type": "network", "path": "/proc/77777/ns/net"}));
    config["linux"]["seccomp"] =
        json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["chmod"], "action": "SCMP_ACT_ERRNO"}]});
    let process = json!({"user": {"uid": 7, "gid": 8, "additionalGids": [9]}, "args": ["id", "-u"], "cwd": "/tmp", "env": ["HOME=/"], "capabilities": {}});
    let plan = exec_plan(&config, &process).unwrap();
    // The path may be gone by now; the container's init is in the namespace itself.
    assert_eq!(plan.slots, [SlotSource::ContainerInit]);
    let kinds = libc::CLONE_NEWPID | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWNS;
    assert_eq!(plan.join_before_clone, [(Slot(0), kinds as u32)]);
    assert_eq!((plan.clone_flags, plan.host.len()), (0, 0));
    let lines = lines(&plan);
    let filter = lines.iter().position(|line| line.starts_with("install the seccomp filter")).unwrap();
    assert_eq!(lines[filter + 1], "drop capabilities from the bounding set, keep none");
    let others: Vec<_> = lines.iter().filter(|line| !line.starts_with("install")).map(String::as_str).collect();
    assert_eq!(
        others,
        [
            "close inherited descriptors",
            "hide init's memory from other processes",
            "wait for the host at barrier 1 (born)",
            "use all CPUs that the cgroup allows",
            "start a session",
            "join the session keyring _ses.c1",
            "close the container's init",
            "give stdin, stdout and stderr to uid 7",
            "set the umask to 0022",
            "change to the working directory /tmp",
            "find the program id",
            "drop capabilities from the bounding set, keep none",
            "become user 7:8, supplementary groups [9]",
            "set capabilities: effective none, permitted none, inheritable none",
            "set ambient capabilities: none",
            "change to the working directory /tmp",
            "execute id -u",
        ]
    );
}

#[test]
fn json_has_every_step() {
    let plan = compiled(&runc_spec());
    let json = crate::describe::plan_json(&plan);
    assert_eq!(json["init"].as_array().unwrap().len(), plan.init.len());
    assert_eq!(json["host"].as_array().unwrap().len(), plan.host.len());
    assert_eq!(json["init"][10], json!({"step": "Mount", "text": "mount #0 proc -> /proc (proc)"}));
    assert_eq!(json["host"][0]["step"], "ClaimId");
}

#[test]
fn network_devices_wait_for_their_namespace() {
    for config in [config(), with_user(config())] {
        let config = with(config, "/linux/netDevices", json!({"eth1": {}, "eth0": {"name": "up0"}}));
        let plan = compiled(&config);
        let barrier = position(&plan, |step| matches!(step, Step::Barrier(Barrier::Network)));
        assert!(barrier < position(&plan, |step| matches!(step, Step::InheritedPropagation { .. })));
        if plan.clone_flags & libc::CLONE_NEWNET as u64 == 0 {
            assert!(barrier > position(&plan, |step| matches!(step, Step::Unshare { .. })));
        }
        let wanted = [HostStep::Await(Barrier::Network), HostStep::NetDevices, HostStep::Release(Barrier::Network)];
        assert!(plan.host.windows(3).any(|steps| steps == wanted));
        assert_eq!(describe_host(&plan, HostStep::NetDevices), "move network devices: eth0 as up0, eth1 as eth1");
    }
    assert!(!compiled(&config()).host.contains(&HostStep::NetDevices));
}
