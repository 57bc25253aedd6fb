//! The root and the mounts of a generated config.

use serde_json::{Value, json};

use super::Random;

/// Places that a mount goes to; some are there, some are made, some lie in each other.
const PLACES: [&str; 12] = [
    "/tmp",
    "/var",
    "/m/a",
    "/m/b",
    "/m/a/inner",
    "/m/b/",
    "//m//c",
    "/home/user",
    "/root",
    "/dev/extra",
    "/bin/..",
    "/etc",
];

/// Flags that any mount may have.
const FLAGS: [&str; 20] = [
    "ro",
    "rw",
    "nosuid",
    "suid",
    "nodev",
    "dev",
    "noexec",
    "exec",
    "sync",
    "async",
    "dirsync",
    "noatime",
    "atime",
    "nodiratime",
    "diratime",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
    "silent",
];

/// How a mount is shared with others.
const PROPAGATION: [&str; 8] =
    ["private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable", "runbindable"];

/// Flags that reach the mounts below, by mount_setattr(2) (Linux 5.12). Of each list one at most: runc 1.1 hands the kernel
/// both of two that contradict each other, flint the last one.
const RECURSIVE: [&[&str]; 5] =
    [&["rro", "rrw"], &["rnosuid"], &["rnodev"], &["rnoexec"], &["rnoatime", "rstrictatime", "rrelatime"]];

pub(super) fn vary(random: &mut Random, spec: &mut Value) {
    spec["root"]["readonly"] = json!(random.percent(30));
    let mounts = spec["mounts"].as_array_mut().expect("the default has mounts");
    let droppable = ["/dev/pts", "/dev/shm", "/dev/mqueue", "/sys", "/sys/fs/cgroup"];
    mounts.retain(|mount| {
        let drops = droppable.iter().any(|place| mount["destination"] == *place);
        !(drops && random.percent(8))
    });
    for mount in mounts.iter_mut().filter(|mount| mount["destination"] != "/sys/fs/cgroup") {
        if random.percent(10) {
            let mut options = mount["options"].as_array().cloned().unwrap_or_default();
            options.extend(random.some(&FLAGS, 8).into_iter().map(|flag| json!(flag)));
            mount["options"] = json!(options);
        }
    }
    for _ in 0..random.pick(&[0, 1, 1, 2, 3]) {
        let mount = one(random);
        mounts.push(mount);
    }
}

fn one(random: &mut Random) -> Value {
    let mut options = random.some(&FLAGS, 10);
    if random.percent(25) {
        options.push(random.pick(&PROPAGATION));
    }
    if random.percent(2) {
        options.push("defaults");
    }
    let destination = random.pick(&PLACES);
    let (kind, source, more) = match random.below(16) {
        0..=5 => tmpfs(random, destination),
        6..=11 => bind(random),
        12 => ("proc", "proc", vec![]),
        13 => ("sysfs", "sysfs", vec![]),
        14 => ("mqueue", "mqueue", vec![]),
        _ => ("devpts", "devpts", random.some(&["newinstance", "ptmxmode=0666", "mode=0620", "gid=5", "max=10"], 60)),
    };
    options.extend(more);
    json!({"destination": destination, "type": kind, "source": source, "options": options})
}

fn tmpfs(random: &mut Random, destination: &str) -> (&'static str, &'static str, Vec<&'static str>) {
    let own = [
        "size=1m",
        "size=65536k",
        "mode=0711",
        "mode=1777",
        "uid=1000",
        "gid=5",
        "nr_inodes=200",
        "tmpcopyup",
        "huge=never",
    ];
    let mut options = random.some(&own, 20);
    if !destination.starts_with("/m/") && random.percent(75) {
        // A folder of the image: runc 1.1 gives its mode to the tmpfs whatever was asked for.
        options.retain(|option| !option.starts_with("mode="));
    }
    if random.percent(2) {
        options.push("no-such-option");
    }
    ("tmpfs", random.pick(&["tmpfs", "a source", "none"]), options)
}

fn bind(random: &mut Random) -> (&'static str, &'static str, Vec<&'static str>) {
    let sources = [
        "<case>/data",
        "<case>/data",
        "<case>/data/sub",
        "<case>/data/file",
        "<case>/missing",
        "/dev/null",
        "/proc/sys",
    ];
    let source = sources[if random.percent(95) { random.below(4) } else { random.below(sources.len()) }];
    let mut options = vec![random.pick(&["bind", "rbind"])];
    if random.percent(15) {
        for list in random.some(&RECURSIVE, 25) {
            options.push(random.pick(list));
        }
    }
    (random.pick(&["bind", "none"]), source, options)
}
