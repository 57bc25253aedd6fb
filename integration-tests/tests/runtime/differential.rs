//! Configs made at random, each run under flint and under runc: what the container sees, whether it runs at all, and the exit
//! code must be the same. What differs and may is in docs/compatibility.md; `DIFFERENCES` has one narrow rule for each row there.
//!
//! `FLINT_DIFFERENTIAL=500` runs so many (25), `FLINT_DIFFERENTIAL_SEED=N` chooses them (1), `FLINT_DIFFERENTIAL_ONLY=N`
//! runs one number again and prints what both saw.

mod known;

use std::fs;

use integration_tests::{Case, Generated, Output, Runtime, View, differences, peers, view_script};

use known::{DIFFERENCES, What};

/// The last line of a container that ran to its end.
const END: &str = "== end";

/// The exit code of a container that ran to its end.
const CODE: i32 = 7;

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
             rm -f $d/.try 2>/dev/null; stat -c '%A %u %g %n' $d; done",
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

/// Whether a line of this section is about one of `places` or what the script tried below it.
fn tells_of(section: &str, line: &str, places: &[String]) -> bool {
    places.iter().any(|place| {
        if section == "root" {
            // `ls` of /, which has names, and a dot for / itself.
            let name = if place == "/" { "." } else { &place[1..] };
            return line.split(' ').next_back() == Some(name);
        }
        let words = line.split([' ', ':', '\'']);
        let mut rest = words.filter_map(|word| word.strip_prefix(place.as_str()));
        let is_below = |rest: &str| rest.is_empty() || rest.starts_with('/');
        // The tries without a path are those in /tmp.
        rest.any(is_below) || (place == "/tmp" && !line.contains('/') && line != "synced")
    })
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
                What::MountWords { places, words } => {
                    let starts = places(config).into_iter().map(|place| place + " ").collect::<Vec<_>>();
                    let lines = view.entry("mountinfo".to_owned()).or_default().iter_mut();
                    for line in lines.filter(|line| starts.iter().any(|start| line.starts_with(start))) {
                        for word in words {
                            *line = line.replace(word, "");
                        }
                    }
                }
                What::Places { section, places } => {
                    let places = places(config);
                    view.entry(section.to_owned()).or_default().retain(|line| !tells_of(section, line, &places));
                }
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
