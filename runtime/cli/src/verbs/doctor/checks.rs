//! What is looked at, one function each.

use std::fs;
use std::path::{Path, PathBuf};

use flint_runtime::cgroup::{Layout, Mode};

use super::Finding;

/// mount_setattr (docs/kernel-features.md).
const LEAST_KERNEL: (u32, u32) = (5, 12);

const NAMESPACES: &[(&str, &str)] = &[
    ("mnt", "mount"),
    ("pid", "pid"),
    ("net", "network"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("user", "user"),
    ("cgroup", "cgroup"),
    ("time", "time"),
];

/// Controllers, with the name that cgroup v2 gives them.
const CONTROLLERS: &[(&str, &str)] = &[
    ("cpu", "cpu"),
    ("cpuset", "cpuset"),
    ("memory", "memory"),
    ("pids", "pids"),
    ("blkio", "io"),
    ("hugetlb", "hugetlb"),
    ("rdma", "rdma"),
];

pub(super) fn all() -> Vec<Finding> {
    let mut findings = vec![kernel(), namespaces(), user_namespaces(), rights()];
    findings.extend(cgroups());
    findings.extend([overlay(), seccomp(), apparmor(), selinux(), resctrl()]);
    findings.extend(programs());
    findings.extend([systemd(), pids()]);
    findings
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn kernel() -> Finding {
    let release = read("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(['.', '-', '+']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let found = format!("Linux {release}");
    if version >= LEAST_KERNEL {
        return Finding::ok("kernel", found);
    }
    let (major, minor) = LEAST_KERNEL;
    Finding::missing("kernel", found, format!("flint needs Linux {major}.{minor} or newer"))
}

fn namespaces() -> Finding {
    let there = |(file, _): &&(&str, &str)| Path::new("/proc/self/ns").join(file).exists();
    let (have, lack): (Vec<_>, Vec<_>) = NAMESPACES.iter().partition(there);
    let names = |list: Vec<&(&str, &str)>| list.iter().map(|(_, name)| *name).collect::<Vec<_>>().join(" ");
    if have.is_empty() {
        return Finding::missing("namespaces", "/proc/self/ns is empty", "mount procfs on /proc");
    }
    if lack.is_empty() {
        return Finding::ok("namespaces", names(have));
    }
    Finding::limited("namespaces", names(have), format!("this kernel was built without: {}", names(lack)))
}

fn user_namespaces() -> Finding {
    let name = "user namespaces";
    if read("/proc/sys/user/max_user_namespaces").as_deref() == Some("0") {
        let advice = "containers with a user namespace need sysctl user.max_user_namespaces above 0";
        return Finding::limited(name, "user.max_user_namespaces is 0", advice);
    }
    for (file, blocking) in [
        ("/proc/sys/kernel/unprivileged_userns_clone", "0"),
        ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1"),
    ] {
        if read(file).as_deref() == Some(blocking) {
            let sysctl = file.trim_start_matches("/proc/sys/").replace('/', ".");
            let other = if blocking == "0" { "1" } else { "0" };
            return Finding::limited(
                name,
                format!("{sysctl} is {blocking}"),
                format!("containers of users other than root need sysctl {sysctl}={other}"),
            );
        }
    }
    Finding::ok(name, "may be made by everybody")
}

/// Capabilities that root has elsewhere, and what is not possible without them.
fn rights() -> Finding {
    let name = "capabilities";
    if !nix::unistd::geteuid().is_root() {
        return Finding::limited(name, "not root", "containers need user namespaces, and cgroups that were delegated");
    }
    let Ok(permitted) = caps::read(None, caps::CapSet::Permitted) else {
        return Finding::missing(name, "cannot be read", "mount procfs on /proc");
    };
    let mut lack: Vec<_> = caps::runtime::thread_all_supported().difference(&permitted).copied().collect();
    lack.sort_by_key(caps::Capability::index);
    let names: Vec<_> = lack.iter().map(ToString::to_string).collect();
    if lack.is_empty() {
        return Finding::ok(name, "all of the kernel's");
    }
    let found = format!("without {}", names.join(" "));
    if lack.contains(&caps::Capability::CAP_SYS_ADMIN) {
        return Finding::missing(name, found, "making namespaces and mounts needs CAP_SYS_ADMIN");
    }
    let advice = if lack.contains(&caps::Capability::CAP_SYS_RESOURCE) {
        "hard limits cannot be raised nor oom_score_adj lowered; containers do not get these capabilities"
    } else {
        "containers do not get these capabilities"
    };
    Finding::limited(name, found, advice)
}

fn cgroups() -> Vec<Finding> {
    let layout = match Layout::detect() {
        Ok(layout) => layout,
        Err(error) => return vec![Finding::missing("cgroups", error.to_string(), "mount cgroup2 on /sys/fs/cgroup")],
    };
    let mode = match layout.mode() {
        Mode::V1 => "v1",
        Mode::Hybrid => "v1, with v2 beside it",
        Mode::V2 => "v2",
    };
    let mut findings = vec![Finding::ok("cgroups", mode)];
    let has = |(old, new): &&(&str, &str)| {
        layout.hierarchy_of(old).is_some() || layout.unified_controllers().iter().any(|it| it == new)
    };
    let (have, lack): (Vec<_>, Vec<_>) = CONTROLLERS.iter().partition(has);
    let names = |list: Vec<&(&str, &str)>| list.iter().map(|(_, name)| *name).collect::<Vec<_>>().join(" ");
    let without: Vec<&(&str, &str)> = lack;
    findings.push(if without.is_empty() {
        Finding::ok("controllers", names(have))
    } else {
        let advice = format!(
            "limits of these are refused: {} (see cgroup.controllers, or the kernel's command line)",
            names(without)
        );
        Finding::limited("controllers", names(have), advice)
    });
    findings
}

fn overlay() -> Finding {
    let there = read("/proc/filesystems").is_some_and(|text| text.lines().any(|line| line.ends_with("\toverlay")));
    if there {
        return Finding::ok("overlayfs", "the runtime's program is shown to containers by a read-only view");
    }
    let advice = "modprobe overlay; until then each start copies the program to memory";
    Finding::limited("overlayfs", "not known to the kernel", advice)
}

fn seccomp() -> Finding {
    match read("/proc/sys/kernel/seccomp/actions_avail") {
        Some(actions) => Finding::ok("seccomp", actions),
        None => Finding::limited("seccomp", "not in this kernel", "containers with a seccomp profile are refused"),
    }
}

fn apparmor() -> Finding {
    if read("/sys/module/apparmor/parameters/enabled").as_deref() == Some("Y") {
        return Finding::ok("AppArmor", "enabled");
    }
    Finding::limited("AppArmor", "not enabled", "containers with process.apparmorProfile are refused")
}

fn selinux() -> Finding {
    if Path::new("/sys/fs/selinux/enforce").exists() {
        return Finding::ok("SELinux", "enabled");
    }
    Finding::limited("SELinux", "not enabled", "containers with process.selinuxLabel are refused")
}

fn resctrl() -> Finding {
    let mounted = read("/proc/self/mounts").is_some_and(|text| text.lines().any(|line| line.contains(" resctrl ")));
    if mounted {
        return Finding::ok("resctrl", "mounted");
    }
    let advice = "linux.intelRdt needs a CPU with it and: mount -t resctrl resctrl /sys/fs/resctrl";
    Finding::limited("resctrl", "not mounted", advice)
}

/// Programs that flint calls for some containers.
fn programs() -> Vec<Finding> {
    let advice = [
        ("criu", "checkpoint and restore need it (Debian: criu)"),
        ("newuidmap", "containers of users other than root with more than one id need it (Debian: uidmap)"),
        ("newgidmap", "containers of users other than root with more than one id need it (Debian: uidmap)"),
    ];
    let finding = |(name, advice): (&'static str, &str)| match in_path(name) {
        Some(path) => Finding::ok(name, path.display().to_string()),
        None => Finding::limited(name, "not in PATH", advice),
    };
    advice.into_iter().map(finding).collect()
}

fn in_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

fn systemd() -> Finding {
    if Path::new("/run/systemd/system").is_dir() {
        return Finding::ok("systemd", "runs: --systemd-cgroup can be used");
    }
    Finding::limited("systemd", "does not run here", "--systemd-cgroup cannot be used; leave it out")
}

/// Enough for a dense node, or not.
fn pids() -> Finding {
    const DENSE: u64 = 100_000;
    let most = read("/proc/sys/kernel/pid_max").and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    let found = format!("kernel.pid_max is {most}");
    if most >= DENSE {
        return Finding::ok("processes", found);
    }
    Finding::limited("processes", found, "for many containers: sysctl kernel.pid_max=4194304")
}
