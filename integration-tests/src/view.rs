//! What a container sees, in a form that two runtimes can be compared by.

use std::collections::BTreeMap;

use crate::Case;

/// A difference that is right, and why.
#[derive(Clone, Copy, Debug)]
pub struct Allowed {
    /// The section of the view.
    pub section: &'static str,
    /// What the differing line holds.
    pub line: &'static str,
    /// Why both are right.
    pub reason: &'static str,
}

/// The sections of what a container sees, normalised.
pub type View = BTreeMap<String, Vec<String>>;

/// A script that prints everything in sections; [`parse`] reads it. It must work without any capability.
#[must_use]
pub fn view_script() -> String {
    let sections = [
        ("status", "cat /proc/self/status"),
        ("mountinfo", "cat /proc/self/mountinfo"),
        ("cgroup", "cat /proc/self/cgroup"),
        ("limits", "cat /proc/self/limits"),
        ("env", "env"),
        ("id", "id"),
        ("dev", "ls -lan /dev"),
        ("fds of init", "ls -la /proc/$$/fd"),
        ("namespaces", "ls /proc/self/ns"),
        ("hostname", "hostname"),
        ("cwd", "pwd"),
        ("umask", "umask"),
        ("oom", "cat /proc/self/oom_score_adj"),
        ("links", "ip -o link"),
        ("root", "ls -lan /"),
        ("masks", "for f in /proc/keys /proc/timer_list /proc/kcore /sys/firmware/*; do head -c 1 $f | wc -c; done"),
        ("cmdline", "cat /proc/$$/cmdline; echo; cat /proc/$$/comm"),
        ("session", "cut -d' ' -f5,6,7 /proc/$$/stat"),
        ("personality", "cat /proc/$$/personality"),
        ("coredump filter", "cat /proc/$$/coredump_filter"),
    ];
    let mut script = String::new();
    for (name, command) in sections {
        use std::fmt::Write;
        let _ = writeln!(script, "echo '== {name}'; {{ {command}; }} 2>&1");
    }
    script
}

impl Case {
    /// Reads the output of [`view_script`] into normalised sections.
    #[must_use]
    pub fn view(&self, output: &str) -> View {
        let mut view = View::new();
        let mut section = String::new();
        for line in self.neutral(output).lines() {
            if let Some(name) = line.strip_prefix("== ") {
                name.clone_into(&mut section);
                view.entry(section.clone()).or_default();
            } else if let Some(line) = normal(&section, line) {
                view.entry(section.clone()).or_default().push(line);
            }
        }
        for (section, lines) in &mut view {
            // The order of independent mounts, links and variables is the runtime's own business; mounts over the
            // same point are told apart by the lines themselves.
            if ["mountinfo", "env", "cgroup"].contains(&section.as_str()) {
                lines.sort();
            }
        }
        view
    }
}

/// One line without what may differ from run to run; None when all of it may.
fn normal(section: &str, line: &str) -> Option<String> {
    const STATUS: &[&str] = &[
        "Umask",
        "Uid",
        "Gid",
        "FDSize",
        "Groups",
        "NSpgid",
        "NSsid",
        "SigPnd",
        "ShdPnd",
        "SigBlk",
        "SigIgn",
        "SigCgt",
        "CapInh",
        "CapPrm",
        "CapEff",
        "CapBnd",
        "CapAmb",
        "NoNewPrivs",
        "Seccomp",
        "Seccomp_filters",
        "THP_enabled",
        "Cpus_allowed_list",
        "Mems_allowed_list",
        "TracerPid",
        "CoreDumping",
        "Speculation_Store_Bypass",
        "SpeculationIndirectBranch",
    ];
    match section {
        "status" => {
            let name = line.split(':').next().unwrap_or_default();
            STATUS.contains(&name).then(|| line.split_whitespace().collect::<Vec<_>>().join(" "))
        }
        "mountinfo" => Some(mount(line)),
        "dev" | "root" => listing(line),
        "fds of init" => descriptor(line),
        // Interface numbers count up; the peer's index is the host's.
        "links" => line.split_once(": ").map(|(_, rest)| rest.split("link/").next().unwrap_or_default().to_owned()),
        _ => Some(line.split_whitespace().collect::<Vec<_>>().join(" ")),
    }
}

/// A mountinfo line by mount point, without ids, device numbers and peer groups; options as sorted sets.
fn mount(line: &str) -> String {
    let Some((left, right)) = line.split_once(" - ") else {
        return line.to_owned();
    };
    let left: Vec<&str> = left.split(' ').collect();
    let right: Vec<&str> = right.split(' ').collect();
    if left.len() < 6 || right.len() < 3 {
        return line.to_owned();
    }
    let sorted = |options: &str| {
        let mut options: Vec<&str> = options.split(',').collect();
        options.sort_unstable();
        options.join(",")
    };
    // A clone has the source and options of the host's mount; runc 1.1 makes a new one and resets both.
    if right[0] == "cgroup2" {
        return format!("{} root={} {} cgroup2", left[4], left[3], sorted(left[5]));
    }
    let tags: Vec<&str> = left[6..].iter().map(|tag| tag.split(':').next().unwrap_or_default()).collect();
    format!(
        "{} root={} {} [{}] {} {} {}",
        left[4],
        left[3],
        sorted(left[5]),
        tags.join(","),
        right[0],
        right[1],
        sorted(right[2])
    )
}

/// A line of `ls -la`: mode, owner, device number or size of links, name and target; no link count, size or date.
fn listing(line: &str) -> Option<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    if words.len() < 8 || words.last() == Some(&"..") {
        return None;
    }
    let device = words[0].starts_with(['c', 'b']);
    let name_at = if device { 9 } else { 8 };
    let name = words.get(name_at..)?.join(" ");
    // Pipes, sockets and files of the harness have a number of their own each.
    let name = name.split_once(":[").map_or(name.as_str(), |(kind, _)| kind);
    let name = if name.ends_with(" (deleted)") { name.split(" -> ").next().unwrap_or(name) } else { name };
    let numbers = if device { words[4..6].join("") } else { String::new() };
    Some(format!("{} {} {} {numbers} {name}", words[0], words[2], words[3]))
}

/// A descriptor's number, and its target unless that is the harness's own stdin, stdout or stderr: runc's `run`
/// copies through pipes of its own, flint passes on what it was given.
fn descriptor(line: &str) -> Option<String> {
    let line = listing(line)?;
    let (number, target) = line.split_once(" -> ").unwrap_or((&line, ""));
    let number = number.rsplit(' ').next().unwrap_or_default();
    let given = target.is_empty() || target == "pipe" || target == "/dev/null";
    Some(if given { number.to_owned() } else { format!("{number} -> {target}") })
}

/// Fails when two views differ in anything but what `allowed` names.
#[track_caller]
pub fn assert_same(left: &View, right: &View, allowed: &[Allowed]) {
    let differences = differences(left, right, allowed);
    assert!(differences.is_empty(), "the container sees other things:\n{}", differences.join("\n"));
}

/// The lines that one view alone has, but for what `allowed` names.
#[must_use]
pub fn differences(left: &View, right: &View, allowed: &[Allowed]) -> Vec<String> {
    let mut differences = Vec::new();
    let sections: std::collections::BTreeSet<&String> = left.keys().chain(right.keys()).collect();
    let empty = Vec::new();
    for section in sections {
        let a = left.get(section).unwrap_or(&empty);
        let b = right.get(section).unwrap_or(&empty);
        let only = |here: &[String], there: &[String]| -> Vec<String> {
            here.iter().filter(|line| !there.contains(line)).cloned().collect()
        };
        for (mark, lines) in [("first only ", only(a, b)), ("second only", only(b, a))] {
            for line in lines {
                if !allowed.iter().any(|known| known.section == section && line.contains(known.line)) {
                    differences.push(format!("[{section}] {mark}: {line}"));
                }
            }
        }
        if a.len() != b.len() && only(a, b).is_empty() && only(b, a).is_empty() {
            differences.push(format!("[{section}] {} lines against {}", a.len(), b.len()));
        }
    }
    differences
}
