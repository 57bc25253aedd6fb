//! Configs made at random, each run under flint and under runc: what the container sees, whether it runs at all, and the exit
//! code must be the same. What differs and may is in docs/compatibility.md; `DIFFERENCES` has one narrow rule for each row there.
//!
//! `FLINT_DIFFERENTIAL=500` runs so many (25), `FLINT_DIFFERENTIAL_SEED=N` chooses them (1), `FLINT_DIFFERENTIAL_ONLY=N`
//! runs one number again and prints what both saw.

use std::fs;

use integration_tests::{Allowed, Case, Generated, Output, Runtime, View, differences, peers, view_script};

/// The last line of a container that ran to its end.
const END: &str = "== end";

/// The exit code of a container that ran to its end.
const CODE: i32 = 7;

/// A difference that docs/compatibility.md explains.
struct Known {
    /// What the row there starts with.
    row: &'static str,
    /// For which configs it may be seen.
    applies: fn(&Generated) -> bool,
    /// What may differ.
    what: What,
}

enum What {
    /// A line of the view.
    Line(Allowed),
    /// Words in lines of this section, which are left out of both.
    Words { section: &'static str, words: &'static [&'static str] },
    /// A section, which is left out.
    Section(&'static str),
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

/// Whether a tmpfs with a mode goes to a folder of the image.
fn has_mode(config: &Generated) -> bool {
    let image = ["/tmp", "/var", "/home/user", "/root", "/etc", "/bin/.."];
    (config.has_mount_option("mode=0711") || config.has_mount_option("mode=1777"))
        && config.has_mount("tmpfs", |place| image.contains(&place))
}

const DIFFERENCES: &[Known] = &[
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
    Known { row: "The `mode` of a tmpfs on a folder of the image", applies: has_mode, what: What::Section("tries") },
    Known { row: "The `mode` of a tmpfs on a folder of the image", applies: has_mode, what: What::Section("root") },
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
        row: "Access times of a bind in a user namespace",
        applies: |config| config.has_namespace("user") && config.has_mount_option("nodiratime"),
        what: What::RuncRefuses("operation not permitted"),
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

/// What one runtime made of a config.
struct Seen {
    output: Output,
    /// None when the container did not run to its end.
    view: Option<View>,
}

impl Seen {
    /// Whether its program ran: the script to its end, or another one.
    fn ran(&self) -> bool {
        self.view.is_some() || self.output.code == 0
    }
}

/// What the container prints: the view of the other tests, and more.
fn script() -> String {
    let more = [
        ("below dev", "find /dev -path /dev/extra -prune -o -exec stat -c '%n %A %u %g %t:%T' {} + | sort"),
        ("kinds", "readlink /proc/self/ns/* | cut -d: -f1"),
        (
            "sysctls",
            "cd /proc/sys; for f in kernel/msgmax kernel/shmmni kernel/sem fs/mqueue/msg_max net/ipv4/ip_forward \
             net/ipv4/ping_group_range net/ipv4/ip_unprivileged_port_start net/core/somaxconn kernel/domainname; \
             do echo $f $(cat $f); done",
        ),
        (
            "cgroup files",
            "cd /sys/fs/cgroup; for f in memory/memory.limit_in_bytes memory/memory.soft_limit_in_bytes \
             memory/memory.memsw.limit_in_bytes memory/memory.swappiness memory/memory.oom_control pids/pids.max \
             cpu/cpu.shares cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us cpuset/cpuset.cpus cpuset/cpuset.mems \
             blkio/blkio.weight blkio/blkio.bfq.weight hugetlb/hugetlb.2MB.limit_in_bytes devices/devices.list; \
             do echo $f $(cat $f | sort); done",
        ),
        (
            "tries",
            "t=/tmp/try; mkdir $t && echo made; chmod 700 $t && echo changed; mknod $t/null c 1 3 && echo node; \
             ln /etc/passwd $t/link && echo linked; sync && echo synced; \
             for d in / /m/* /tmp /var /etc /home/user /proc/sys $t; do echo x >$d/.try && echo \"$d written\"; \
             stat -c '%A %u %g %n' $d; done",
        ),
    ];
    let more = more.map(|(name, command)| format!("echo '== {name}'; {{ {command}; }} 2>&1\n")).concat();
    format!("{}{more}echo '{END}'; exit {CODE}\n", view_script())
}

fn run(config: &Generated, runtime: &Runtime) -> (Seen, Case) {
    let case = Case::new(runtime);
    let data = case.path().join("data");
    fs::create_dir_all(data.join("sub")).expect("make a volume");
    fs::write(data.join("file"), "in the volume\n").expect("fill it");
    let bundle = case.bundle().spec(config.spec(&case.path().display().to_string()));
    let output = case.run(&bundle);
    let view = output.stdout.contains(END).then(|| without_neighbours(config, case.view(&output.stdout)));
    (Seen { output, view }, case)
}

/// Without what other processes of the machine change, where the config shares it with them.
fn without_neighbours(config: &Generated, mut view: View) -> View {
    if !config.has_namespace("network") {
        view.remove("links");
    }
    if !config.has_namespace("pid") {
        view.remove("session");
        if let Some(status) = view.get_mut("status") {
            status.retain(|line| !line.starts_with("NSpgid") && !line.starts_with("NSsid"));
        }
        for line in view.get_mut("mountinfo").into_iter().flatten() {
            let without_pid = |word: &str| word.replace(|letter: char| letter.is_ascii_digit(), "");
            if line.contains("/environ ") {
                *line = without_pid(line);
            }
        }
    }
    view
}

/// How flint and runc differ on `config`, in sentences; none when they do not.
fn compare(config: &Generated, [flint, runc]: &[Runtime; 2], verbose: bool) -> Vec<String> {
    let ((ours, our_case), (theirs, their_case)) = (run(config, flint), run(config, runc));
    if verbose {
        for (name, seen) in [("flint", &ours), ("runc", &theirs)] {
            println!("{name}: exit code {}\n{}{}", seen.output.code, seen.output.stdout, seen.output.stderr);
        }
    }
    our_case.finish();
    their_case.finish();
    let known = || DIFFERENCES.iter().filter(|known| (known.applies)(config));
    let (Some(mut our_view), Some(mut their_view)) = (ours.view.clone(), theirs.view.clone()) else {
        let told = |name: &str, seen: &Seen| match seen.view {
            Some(_) => format!("{name} runs it, "),
            None => format!("{name} exits with {} ({}), ", seen.output.code, seen.output.stderr.trim()),
        };
        let is_known = known().any(|known| match known.what {
            What::RuncRefuses(text) => ours.ran() && theirs.output.code == 1 && theirs.output.stderr.contains(text),
            What::FlintRefuses(text) => theirs.ran() && ours.output.code == 1 && ours.output.stderr.contains(text),
            _ => false,
        });
        let same = ours.view.is_some() == theirs.view.is_some() && ours.output.code == theirs.output.code;
        return if same || is_known { vec![] } else { vec![told("flint", &ours) + &told("runc", &theirs)] };
    };
    let mut found = Vec::new();
    if ours.output.code != theirs.output.code {
        found.push(format!("exit code {} against runc's {}", ours.output.code, theirs.output.code));
    }
    let lines = known().filter_map(|known| match &known.what {
        What::Line(allowed) => Some(*allowed),
        _ => None,
    });
    for known in known() {
        for view in [&mut our_view, &mut their_view] {
            match known.what {
                What::Words { section, words } => {
                    for line in view.entry(section.to_owned()).or_default() {
                        for word in words {
                            *line = line.replace(word, "");
                        }
                    }
                }
                What::Section(section) => drop(view.remove(section)),
                _ => {}
            }
        }
    }
    found.extend(differences(&our_view, &their_view, &lines.collect::<Vec<_>>()));
    found
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} must be a number, and is {text:?}")))
}

#[test]
fn generated_configs_are_seen_the_same() {
    let Some(peers) = peers() else { return };
    let script = script();
    let seed = number("FLINT_DIFFERENTIAL_SEED").unwrap_or(1);
    let only = number("FLINT_DIFFERENTIAL_ONLY");
    let numbers = only.map_or(0..number("FLINT_DIFFERENTIAL").unwrap_or(25), |one| one..one + 1);
    let (mut ran, mut failures) = (0, Vec::new());
    for number in numbers.clone() {
        let config = Generated::new(seed, number, &script);
        let found = compare(&config, &peers, only.is_some());
        ran += 1;
        if !found.is_empty() {
            failures.push(format!(
                "config {number} of seed {seed} (flint is \"first\", runc \"second\"; again with \
                 FLINT_DIFFERENTIAL_SEED={seed} FLINT_DIFFERENTIAL_ONLY={number}):\n  {}\n  {}",
                config.changes(),
                found.join("\n  ")
            ));
        }
    }
    println!("{ran} configs of seed {seed}: {} differ", failures.len());
    assert!(failures.is_empty(), "{} of {ran} configs differ\n{}", failures.len(), failures.join("\n"));
}

/// Each rule has its row, and no row is without a rule.
#[test]
fn known_differences_are_written_down() {
    let text = include_str!("../../../docs/compatibility.md");
    let section = "## Seen from inside a container: differences from runc";
    let section = text.split(section).nth(1).expect("the section").split("\n## ").next().unwrap_or_default();
    let rows: Vec<&str> = section
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" | ").next())
        .filter(|cell| *cell != "what" && !cell.starts_with('-'))
        .collect();
    for known in DIFFERENCES {
        assert!(rows.contains(&known.row), "docs/compatibility.md has no row {:?}: {rows:?}", known.row);
    }
    for row in rows {
        assert!(DIFFERENCES.iter().any(|known| known.row == row), "no rule for the row {row:?}");
    }
}
