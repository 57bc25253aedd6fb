//! The differences that docs/compatibility.md explains, each as a rule that is as narrow as its reason.

use std::path::Path;

use integration_tests::{Allowed, Generated};
use serde_json::Value;

/// A difference that docs/compatibility.md explains.
pub(super) struct Known {
    /// What the row there starts with.
    pub(super) row: &'static str,
    /// For which configs it may be seen.
    pub(super) applies: fn(&Generated) -> bool,
    /// What may differ.
    pub(super) what: What,
}

pub(super) enum What {
    /// A line of the view.
    Line(Allowed),
    /// Words in lines of this section, which are left out of both.
    Words { section: &'static str, words: &'static [&'static str] },
    /// Words in what the mount table says of these places, which are left out of both.
    MountWords { places: fn(&Generated) -> Vec<String>, words: &'static [&'static str] },
    /// What a section says of these paths and what is below them, which is left out of both.
    Places { section: &'static str, places: fn(&Generated) -> Vec<String> },
    /// Flint runs it and runc refuses, with this text.
    RuncRefuses(&'static str),
    /// Runc runs it and flint refuses, with this text.
    FlintRefuses(&'static str),
}

/// A line that may differ.
const fn line(section: &'static str, line: &'static str) -> What {
    What::Line(Allowed { section, line, reason: "docs/compatibility.md" })
}

fn is_shared(config: &Generated) -> bool {
    config.at("/linux/rootfsPropagation").as_str().is_some_and(|name| name.ends_with("shared"))
}

fn has_option(mount: &Value, is_such: fn(&str) -> bool) -> bool {
    mount["options"].as_array().into_iter().flatten().filter_map(Value::as_str).any(is_such)
}

fn has_mode(mount: &Value) -> bool {
    has_option(mount, |option| option.starts_with("mode="))
}

/// A path without empty words and dots.
fn normal(path: &str) -> String {
    let mut words = Vec::new();
    for word in path.split('/') {
        match word {
            "" | "." => {}
            ".." => drop(words.pop()),
            word => words.push(word),
        }
    }
    format!("/{}", words.join("/"))
}

/// The folders that such a tmpfs goes to and that were there before: of the image, of an earlier mount, or made for one.
fn covered_by_tmpfs(config: &Generated, is_such: fn(&Value) -> bool) -> Vec<String> {
    let mut there = ["/", "/tmp", "/var", "/home/user", "/root", "/etc"].map(str::to_owned).to_vec();
    let mut covered = Vec::new();
    for mount in config.at("/mounts").as_array().into_iter().flatten() {
        let Some(place) = mount["destination"].as_str().map(normal) else { continue };
        let is_at_or_above = |known: &String| Path::new(known).starts_with(&place);
        if is_such(mount) && there.iter().any(is_at_or_above) {
            covered.push(place.clone());
        }
        there.push(place);
    }
    covered
}

/// The places of mounts for which, with an earlier mount and its place, `is_such` holds of the later mount and its place.
fn covering(config: &Generated, is_such: fn((&Value, &str), (&Value, &str)) -> bool) -> Vec<String> {
    let (mut earlier, mut places) = (Vec::new(), Vec::new());
    for mount in config.at("/mounts").as_array().into_iter().flatten() {
        let Some(place) = mount["destination"].as_str().map(normal) else { continue };
        if earlier.iter().any(|(lower, at): &(&Value, String)| is_such((*lower, at.as_str()), (mount, place.as_str())))
        {
            places.push(place.clone());
        }
        earlier.push((mount, place));
    }
    places
}

fn is_readonly_tmpfs(mount: &Value) -> bool {
    mount["type"] == "tmpfs" && has_option(mount, |option| option == "ro")
}

fn over_a_readonly_tmpfs(config: &Generated) -> Vec<String> {
    covering(config, |(lower, at), (_, place)| at == place && is_readonly_tmpfs(lower))
}

fn above_a_readonly_tmpfs(config: &Generated) -> Vec<String> {
    covering(config, |(lower, at), (_, place)| {
        at != place && Path::new(at).starts_with(place) && is_readonly_tmpfs(lower)
    })
}

/// Where a tmpfs copies what a devpts has.
fn copies_a_devpts(config: &Generated) -> Vec<String> {
    covering(config, |(lower, at), (mount, place)| {
        at == place && lower["type"] == "devpts" && has_option(mount, |option| option == "tmpcopyup")
    })
}

/// Where a file system that the kernel has but once is mounted on itself.
fn twice_at_one_place(config: &Generated) -> Vec<String> {
    covering(config, |(lower, at), (mount, place)| {
        at == place && lower["type"] == mount["type"] && (mount["type"] == "sysfs" || mount["type"] == "mqueue")
    })
}

fn with_a_mode(config: &Generated) -> Vec<String> {
    covered_by_tmpfs(config, |mount| mount["type"] == "tmpfs" && has_mode(mount))
}

fn without_a_mode(config: &Generated) -> Vec<String> {
    covered_by_tmpfs(config, |mount| mount["type"] == "tmpfs" && !has_mode(mount))
}

pub(super) const DIFFERENCES: &[Known] = &[
    Known { row: "Ignored signals", applies: |_| true, what: line("status", "SigIgn:") },
    Known {
        row: "`oomScoreAdj` below the caller's, without the right to it",
        applies: |config| config.at("/process/oomScoreAdj").as_i64().is_some_and(|score| score < 0),
        what: What::RuncRefuses("failed to update /proc/self/oom_score_adj: Permission denied"),
    },
    Known {
        row: "The mount option `defaults`",
        applies: |config| config.has_mount_option("defaults"),
        what: What::RuncRefuses("defaults"),
    },
    Known {
        row: "`hugepageLimits` on a hybrid host with hugetlb on v2",
        applies: |config| !config.at("/linux/resources/hugepageLimits").is_null(),
        what: What::RuncRefuses("cannot set hugetlb limit"),
    },
    Known {
        row: "`rootfsPropagation` shared",
        applies: is_shared,
        what: What::Words { section: "mountinfo", words: &["shared,", "shared", "unbindable"] },
    },
    Known {
        row: "`rootfsPropagation` slave, the root filesystem on another mount than `/`",
        applies: |config| config.at("/linux/rootfsPropagation") == "slave",
        what: What::Words { section: "mountinfo", words: &["master"] },
    },
    Known {
        row: "`rootfsPropagation` unbindable",
        applies: |config| {
            config.at("/linux/rootfsPropagation").as_str().is_some_and(|name| name.ends_with("unbindable"))
        },
        what: What::RuncRefuses("error preparing rootfs: mount "),
    },
    Known {
        row: "Seccomp `flags`",
        applies: |config| config.at("/linux/seccomp/flags").as_array().is_some_and(|flags| !flags.is_empty()),
        what: What::RuncRefuses("seccomp flags are not yet supported by runc"),
    },
    Known {
        row: "The `mode` of a tmpfs on a folder that is there",
        applies: |config| !with_a_mode(config).is_empty(),
        what: What::Places { section: "tries", places: with_a_mode },
    },
    Known {
        row: "The `mode` of a tmpfs on a folder that is there",
        applies: |config| !with_a_mode(config).is_empty(),
        what: What::Places { section: "root", places: with_a_mode },
    },
    Known {
        row: "A tmpfs without a `mode` on a folder that is there",
        applies: |_| true,
        // Such are the modes of the image's folders and of what the generator mounts.
        what: What::MountWords {
            places: without_a_mode,
            words: &["mode=755,", "mode=555,", "mode=711,", "mode=1777,"],
        },
    },
    Known {
        row: "A program's name without a PATH",
        applies: |config| {
            let mut environment = config.at("/process/env").as_array().into_iter().flatten().filter_map(Value::as_str);
            !environment.any(|variable| variable.starts_with("PATH="))
        },
        what: What::RuncRefuses("executable file not found in $PATH"),
    },
    Known {
        row: "A mount over a read-only tmpfs",
        applies: |_| true,
        what: What::MountWords {
            places: over_a_readonly_tmpfs,
            words: &["nosuid,", "nodev,", "noexec,", "noatime,", "nodiratime,", "relatime,", "ro [", "rw ["],
        },
    },
    Known {
        row: "A mount over a read-only tmpfs",
        applies: |config| !over_a_readonly_tmpfs(config).is_empty(),
        what: What::Places { section: "tries", places: over_a_readonly_tmpfs },
    },
    Known {
        row: "A mount over a read-only tmpfs",
        applies: |config| !above_a_readonly_tmpfs(config).is_empty(),
        what: What::RuncRefuses("during container init: mount /"),
    },
    Known {
        row: "sysfs or mqueue twice at one place",
        applies: |config| !twice_at_one_place(config).is_empty(),
        what: What::RuncRefuses("device or resource busy"),
    },
    Known {
        row: "Kernel parameters where /proc is read-only",
        applies: |config| {
            config.at("/mounts/0/options").to_string().contains(r#""ro""#) && config.at("/linux/sysctl").is_object()
        },
        what: What::RuncRefuses("during container init: open /proc/sys/"),
    },
    Known {
        row: "`tmpcopyup` of a folder with devices",
        applies: |config| !copies_a_devpts(config).is_empty(),
        what: What::RuncRefuses("tmpcopyup: failed to copy"),
    },
    Known {
        row: "The group of mqueue in a user namespace",
        applies: |config| config.has_namespace("user"),
        what: line("dev", " mqueue"),
    },
    Known {
        row: "The group of mqueue in a user namespace",
        applies: |config| config.has_namespace("user"),
        what: line("below dev", "/dev/mqueue "),
    },
    Known {
        row: "The group of mqueue in a user namespace",
        applies: |config| config.has_namespace("user") && config.has_mount("mqueue", |place| place != "/dev/mqueue"),
        what: line("tries", "drwxrwxrwt "),
    },
    Known {
        row: "The group of mqueue in a user namespace",
        applies: |config| config.has_namespace("user") && config.has_mount("mqueue", |place| place != "/dev/mqueue"),
        what: line("root", "drwxrwxrwt "),
    },
    Known {
        row: "Mounts on a procfs that is not at /proc",
        applies: |config| config.has_mount("proc", |place| place != "/proc"),
        what: What::FlintRefuses("target is inside procfs"),
    },
    Known {
        row: "An /etc/passwd that is a folder",
        applies: |config| config.at("/process/cwd") == "/etc/passwd",
        what: What::RuncRefuses("read /etc/passwd: is a directory"),
    },
    Known {
        row: "A relative path of a device",
        applies: |config| config.at("/linux/devices").to_string().contains(r#""path":"relative""#),
        what: What::FlintRefuses("the path must be absolute"),
    },
    Known {
        row: "Relative `maskedPaths`",
        applies: |config| config.at("/linux/maskedPaths/0").as_str().is_some_and(|path| !path.starts_with('/')),
        what: What::FlintRefuses("must be absolute"),
    },
    Known {
        row: "A limit that is listed twice",
        applies: |config| config.at("/process/rlimits").as_array().is_some_and(|limits| limits.len() > 1),
        what: What::FlintRefuses("is listed twice"),
    },
    Known {
        row: "A null device that cannot be opened",
        applies: |config| {
            let rules = config.at("/linux/resources/devices").to_string();
            rules.contains(r#""access":"w","allow":false"#) || config.has_mount_option("nodev")
        },
        what: What::RuncRefuses("error reopening /dev/null inside container: open /dev/null: "),
    },
    Known {
        row: "Masked files where /dev is read-only",
        applies: |config| config.at("/mounts/1/options").to_string().contains(r#""ro""#),
        what: line("mountinfo", " root=/null "),
    },
    Known {
        row: "`tmpcopyup` onto a shared mount",
        applies: |config| {
            let shared = config.has_mount_option("shared") || config.has_mount_option("rshared");
            shared && config.has_mount_option("tmpcopyup")
        },
        what: What::Words { section: "mountinfo", words: &["shared"] },
    },
];
