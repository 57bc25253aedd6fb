//! What is left by a crash is repaired; addresses are given once.

use std::collections::HashSet;
use std::net::IpAddr;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use flintd::desired::{Key, Network, Protocol};
use flintd::network::{Attach, Networks};
use integration_tests::{processes_with, wait_until};

use super::place::{Host, Space, port};

const FOLDER: &str = "FLINT_NETWORK_CHILD_FOLDER";
const SPACES: &str = "FLINT_NETWORK_CHILD_SPACES";

#[test]
fn a_second_attach_and_a_new_flintd_change_nothing() {
    let Some(host) = Host::new() else { return };
    let networks = host.networks();
    let ports = [port(0, 80, Protocol::Tcp)];
    let pod = host.pod(&networks, "pod", &ports);
    pod.space.answer(80);
    let at = format!("192.0.2.1:{}", pod.attached.ports.first().expect("a port").host);
    let before = pod.space.shell("ip -o link show eth0");
    assert_eq!(host.attach(&networks, "pod", &pod.space, &Network::Node, &ports).expect("attach again"), pod.attached);
    drop(networks);
    assert!(host.outside.tcp(&at).is_ok(), "pods are reached while flintd is away");
    let networks = host.networks();
    host.retain(&networks, &["pod"]);
    assert_eq!(host.attach(&networks, "pod", &pod.space, &Network::Node, &ports).expect("attach again"), pod.attached);
    assert_eq!(pod.space.shell("ip -o link show eth0"), before, "its device is the same");
    assert!(host.outside.tcp(&at).is_ok());
    let other = host.pod(&networks, "other", &[]);
    assert!(other.attached.addresses.iter().all(|address| !pod.attached.addresses.contains(address)));
    host.finish(&networks);
}

#[test]
fn what_somebody_removed_is_made_again() {
    let Some(host) = Host::new() else { return };
    let networks = host.networks();
    let ports = [port(8080, 80, Protocol::Tcp)];
    let pod = host.pod(&networks, "pod", &ports);
    pod.space.answer(80);
    let reached = || host.outside.tcp("192.0.2.1:8080").is_ok() && host.outside.tcp("[2001:db8::1]:8080").is_ok();
    assert!(reached());
    // A restart of nftables.service does this. The node finds it by itself, or with the next pod that has ports.
    host.space.shell("nft flush ruleset");
    host.retain(&networks, &["pod"]);
    assert!(reached());
    host.space.shell("nft flush ruleset");
    host.pod(&networks, "other", &[port(8081, 80, Protocol::Tcp)]);
    assert!(reached());
    for broken in ["ip route del default", "ip address flush dev eth0", "ip link set eth0 down", "ip link del eth0"] {
        pod.space.shell(broken);
        let attached = host.attach(&networks, "pod", &pod.space, &Network::Node, &ports);
        assert_eq!(attached.expect(broken), pod.attached, "{broken}");
        assert!(reached(), "{broken}");
    }
    // The pod's namespace is another one: the sandbox was made anew.
    let new = Space::new();
    host.attach(&networks, "pod", &new, &Network::Node, &ports).expect("attach");
    new.answer(80);
    assert!(reached());
    host.finish(&networks);
}

/// The other process of the test below; alone it does nothing.
#[test]
fn child() {
    let (Ok(folder), Ok(spaces)) = (std::env::var(FOLDER), std::env::var(SPACES)) else { return };
    let networks = Networks::open(&Host::settings(), &PathBuf::from(folder)).expect("open");
    let spaces: Vec<PathBuf> = spaces.split(' ').map(PathBuf::from).collect();
    let end = Instant::now() + Duration::from_secs(10);
    while Instant::now() < end {
        for (index, netns) in spaces.iter().enumerate() {
            let uid = format!("pod-{index}");
            let key = Key::new("default", &uid);
            let ports = [port(9000 + index as u16, 80, Protocol::Tcp)];
            let pod = Attach {
                uid: &uid,
                key: &key,
                netns,
                network: &Network::Node,
                ports: &ports,
                hostname: &uid,
                after: None,
            };
            networks.attach(&pod).expect("attach");
            if index % 2 == 0 {
                networks.detach(&uid, netns).expect("detach");
            }
        }
        networks.retain(&HashSet::new()).expect("retain");
    }
}

/// SIGKILL at moments that differ from round to round; the next flintd goes on from whatever is there.
#[test]
fn a_kill_at_any_moment_is_repaired() {
    let Some(host) = Host::new() else { return };
    let spaces: Vec<Space> = (0..4).map(|_| Space::new()).collect();
    let paths: Vec<String> = spaces.iter().map(|space| space.path().display().to_string()).collect();
    let mut leftovers = 0;
    for round in 0..12_u64 {
        host.space.within(|| {
            let mut child = Command::new(std::env::current_exe().expect("this program"))
                .args(["--exact", "network::repair::child", "--test-threads=1"])
                .env(FOLDER, host.folder())
                .env(SPACES, paths.join(" "))
                .stdout(std::process::Stdio::null())
                .process_group(0)
                .spawn()
                .expect("start the child");
            // From the first record on, in steps of 7 ms: a round of the child takes about 100 ms.
            let started = Instant::now();
            while std::fs::read_dir(host.folder()).map_or(0, Iterator::count) == 0 {
                assert!(started.elapsed() < Duration::from_secs(60), "the child makes no record");
                std::thread::sleep(Duration::from_millis(1));
            }
            std::thread::sleep(Duration::from_millis(round * 7 % 80));
            child.kill().expect("kill");
            child.wait().expect("wait");
            // An `nft` that it has started goes on, and writes its table when it comes to it.
            let folder = host.folder().display().to_string();
            wait_until("what it has started has ended", || processes_with(&folder).is_empty());
        });
        leftovers += std::fs::read_dir(host.folder()).map_or(0, Iterator::count);
        let networks = host.networks();
        if round % 3 == 0 {
            // The pods are still wanted.
            let attached: Vec<_> = (0..spaces.len())
                .map(|index| {
                    let ports = [port(9000 + index as u16, 80, Protocol::Tcp)];
                    let space = spaces.get(index).expect("a namespace");
                    host.attach(&networks, &format!("pod-{index}"), space, &Network::Node, &ports).expect("attach")
                })
                .collect();
            let addresses: HashSet<IpAddr> = attached.iter().flat_map(|attached| attached.addresses.clone()).collect();
            assert_eq!(addresses.len(), 2 * spaces.len(), "{attached:?}");
            let text = host.space.shell("nft list map inet flint any4");
            assert!((9000..9004).all(|port| text.contains(&format!("tcp . {port} :"))), "{text}");
        }
        host.finish(&networks);
        for space in &spaces {
            assert_eq!(space.shell("ip -o link | wc -l").trim(), "1", "round {round}");
        }
    }
    assert!(leftovers > 0, "no kill left anything to repair");
}

/// Makes many attachments, in the number that `FLINT_NETWORK_PODS` says, and tells what one costs: docs/network.md has the
/// figures. With the few it shows that addresses differ and the last pod works as the first does.
#[test]
fn many_pods() {
    let Some(host) = Host::new() else { return };
    let count: usize = std::env::var("FLINT_NETWORK_PODS").ok().and_then(|text| text.parse().ok()).unwrap_or(24);
    let networks = host.networks();
    let spaces: Vec<Space> = (0..count).map(|_| Space::new()).collect();
    let mut addresses = HashSet::new();
    let mut times = Vec::new();
    host.space.within(|| {
        for (index, space) in spaces.iter().enumerate() {
            let uid = format!("pod-{index}");
            let (key, netns) = (Key::new("default", &uid), space.path());
            let ports = [port(10_000 + index as u16, 80, Protocol::Tcp)];
            let pod = Attach {
                uid: &uid,
                key: &key,
                netns: &netns,
                network: &Network::Node,
                ports: &ports,
                hostname: &uid,
                after: None,
            };
            let start = Instant::now();
            let attached = networks.attach(&pod).expect("attach");
            times.push(start.elapsed());
            addresses.extend(attached.addresses);
        }
    });
    assert_eq!(addresses.len(), 2 * count);
    let last = spaces.last().expect("a pod");
    last.answer(80);
    let start = Instant::now();
    for _ in 0..100 {
        assert!(host.outside.tcp(&format!("192.0.2.1:{}", 10_000 + count - 1)).is_ok());
    }
    let connections = start.elapsed();
    let start = Instant::now();
    host.space.within(|| {
        for (index, space) in spaces.iter().enumerate() {
            networks.detach(&format!("pod-{index}"), &space.path()).expect("detach");
        }
    });
    let removal = start.elapsed();
    let tenth = count.div_ceil(10);
    let mean = |times: &[Duration]| times.iter().sum::<Duration>() / times.len().max(1) as u32;
    println!(
        "{count} pods: attach {:?} (the first {tenth}), {:?} (the last {tenth}); detach {:?}; connection to the last pod's host port {:?}",
        mean(times.get(..tenth).unwrap_or(&[])),
        mean(times.get(count - tenth..).unwrap_or(&[])),
        removal / count as u32,
        connections / 100
    );
    host.finish(&networks);
}
