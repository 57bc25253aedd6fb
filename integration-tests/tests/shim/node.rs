//! Many pods in one shim, as flintd asks for them: sandboxes, batches of containers, the pool of network namespaces.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use flint_shim_protocol::{
    ListRequest, ListResponse, MakeSandboxesRequest, MakeSandboxesResponse, Network, Phase, Sandbox,
};
use integration_tests::{Node, wait_until};

use crate::pods::assert_confined;

const FOREVER: &str = "trap 'exit 0' TERM; while :; do sleep 1000 & wait $!; done";

fn namespace(process: &str, kind: &str) -> PathBuf {
    fs::read_link(format!("/proc/{process}/ns/{kind}")).expect("read a namespace")
}

/// As the link of a process in it.
fn bound(path: &str) -> PathBuf {
    let inode = std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).expect("look at a namespace"));
    format!("net:[{inode}]").into()
}

fn is_bound(path: &str) -> bool {
    fs::read_to_string("/proc/self/mountinfo").expect("read the mounts").contains(&format!(" {path} "))
}

#[test]
fn pods_of_one_shim_share_nothing_and_their_containers_what_a_pod_shares() {
    let Some(node) = Node::start(FOREVER) else { return };
    let web = Sandbox { shm_bytes: 1 << 20, ..node.sandbox("web") };
    let web = Sandbox { sysctls: [("net.ipv4.ip_default_ttl".to_owned(), "77".to_owned())].into(), ..web };
    let host =
        Sandbox { network: Network::Host.into(), host_ipc: true, hostname: String::new(), ..node.sandbox("host") };
    let pids = Sandbox { share_pids: true, ..node.sandbox("pids") };
    let sandboxes = [web, host, pids];
    let made = node.make(&sandboxes);
    assert!(is_bound(&sandboxes[0].network_path) && !is_bound(&sandboxes[1].network_path));
    assert_eq!((made[1].ipc.as_str(), made[1].uts.as_str(), made[1].pid), ("", "", 0));
    assert!(made[2].pid > 0, "{made:?}");
    assert_confined(made[2].pid);
    assert_eq!(
        namespace(&made[2].pid.to_string(), "net"),
        bound(&sandboxes[2].network_path),
        "process 1 is on the pod's network"
    );
    // Again is no change.
    let again = node.make(&sandboxes);
    assert!(again.iter().all(|made| made.was_there) && again[2].pid == made[2].pid, "{again:?}");
    let script = format!(
        "hostname; cat /proc/sys/net/ipv4/ip_default_ttl; ip addr show lo | grep -c UP; echo x > /dev/shm/x; {FOREVER}"
    );
    let containers: Vec<_> = [("w1", 0), ("w2", 0), ("h1", 1), ("p1", 2), ("p2", 2)]
        .map(|(name, sandbox)| {
            let container = node.container(name, (name == "w1").then_some(script.as_str()));
            let stdout = format!("file://{}/out", container.bundle);
            flint_shim_protocol::Container { sandbox: sandboxes[sandbox].id.clone(), stdout, ..container }
        })
        .to_vec();
    let inits = node.run(&containers);
    let of = |container: usize, kind: &str| namespace(&inits[container].to_string(), kind);
    let own = |kind: &str| namespace("self", kind);
    for kind in ["net", "ipc", "uts"] {
        assert_eq!(of(0, kind), of(1, kind), "{kind} of one pod");
        assert_eq!(of(2, kind), own(kind), "{kind} of the host");
        assert_eq!(BTreeSet::from([of(0, kind), of(3, kind), own(kind)]).len(), 3, "{kind} of two pods and the host");
    }
    assert_eq!(of(3, "pid"), of(4, "pid"));
    assert_eq!(of(3, "pid"), namespace(&made[2].pid.to_string(), "pid"));
    assert_ne!(of(0, "pid"), of(1, "pid"));
    let out = Path::new(&containers[0].bundle).join("out");
    wait_until("the container has told", || fs::read_to_string(&out).is_ok_and(|text| text == "web\n77\n1\n"));
    wait_until("memory is shared", || fs::read(node.case.path().join("web/shm/x")).is_ok());
    // A container of a sandbox that is not there is not made.
    let lost = flint_shim_protocol::Container { sandbox: "nobody".to_owned(), ..node.container("lost", None) };
    let refused = node.create(&[lost], true).remove(0).failure.expect("a failure");
    assert!(refused.code == 9 && refused.message.contains("nobody"), "{refused:?}");
    let removed = node.remove(&containers);
    assert!(removed.iter().all(|removed| removed.exit_status == Some(137) && removed.exited_at > 0), "{removed:?}");
    node.remove_sandboxes(&sandboxes);
    node.remove_sandboxes(&sandboxes);
    assert!(!Path::new(&sandboxes[0].network_path).exists());
    node.end();
}

#[test]
fn a_batch_of_fifty_is_made_started_told_in_order_and_removed() {
    let Some(node) = Node::start(FOREVER) else { return };
    let mut containers: Vec<_> = (0..50).map(|number| node.container(&format!("c{number}"), None)).collect();
    // Two that cannot be: they take no other along.
    containers[7].bundle = "/nowhere".to_owned();
    fs::write(Path::new(&containers[8].bundle).join("config.json"), "{").expect("spoil a bundle");
    containers[9] = node.container("c9", Some("exit 3"));
    let created = node.create(&containers, true);
    assert_eq!(
        created.iter().map(|created| &created.id).collect::<Vec<_>>(),
        containers.iter().map(|c| &c.id).collect::<Vec<_>>()
    );
    let failed: Vec<_> = created.iter().filter_map(|created| created.failure.as_ref()).collect();
    assert_eq!(failed.len(), 2, "{failed:?}");
    assert!(failed[0].message.contains("/nowhere") && failed[1].message.contains("config.json"), "{failed:?}");
    for (container, created) in containers.iter().zip(&created) {
        if created.failure.is_none() {
            wait_until("create and start are told", || node.events.of(&container.id).len() >= 2);
            assert_eq!(node.events.of(&container.id)[..2], ["create", "start"]);
        }
    }
    node.events.wait_for(&containers[9].id, &["create", "start", "exit"]);
    // Who comes back is told of all.
    let list: ListResponse = node.call("List", &ListRequest {}).expect("list");
    assert_eq!(list.containers.len(), 48);
    let ended = list.containers.iter().find(|state| state.id == containers[9].id).expect("the ended one");
    assert_eq!((ended.phase(), ended.exit_status), (Phase::Stopped, Some(3)));
    assert_eq!(list.containers.iter().filter(|state| state.phase() == Phase::Running).count(), 47);
    let refused = node.create(&containers[..1], true).remove(0).failure.expect("a failure");
    assert_eq!(refused.code, 6, "{refused:?}");
    // Those that are not there are fine, too.
    containers[7].bundle = node.case.path().join("c7").display().to_string();
    let removed = node.remove(&containers);
    assert_eq!(removed[9].exit_status, Some(3));
    assert_eq!(removed.iter().filter(|removed| removed.exit_status == Some(137)).count(), 47, "{removed:?}");
    node.events.wait_for(&containers[0].id, &["create", "start", "exit", "delete"]);
    node.end();
}

#[test]
fn created_ones_wait_for_their_start_and_failed_starts_leave_nothing() {
    let Some(node) = Node::start(FOREVER) else { return };
    let container = node.container("waits", Some("exit 4"));
    let created = node.create(std::slice::from_ref(&container), false).remove(0);
    assert!(created.failure.is_none() && created.pid > 0, "{created:?}");
    assert_eq!(node.shim.run(&container.id, "").expect("start"), created.pid);
    assert_eq!(node.shim.wait(&container.id, "").expect("wait"), 4);
    node.events.wait_for(&container.id, &["create", "start", "exit"]);
    let mut broken = node.container("broken", None);
    let config = Path::new(&broken.bundle).join("config.json");
    let text = fs::read_to_string(&config).expect("read").replace("/bin/sh", "/bin/nothing");
    fs::write(&config, text).expect("write");
    broken.stdout = format!("cri-log://{}/log", broken.bundle);
    let failure = node.create(&[broken.clone()], true).remove(0).failure.expect("a failure");
    assert!(failure.message.contains("/bin/nothing"), "{failure:?}");
    assert_eq!(node.events.of(&broken.id), [""; 0]);
    node.remove(&[container, broken]);
    node.end();
}

#[test]
fn networks_come_from_the_pool_and_the_pool_keeps_its_bounds() {
    let Some(node) = Node::start(FOREVER) else { return };
    let pool = || node.status().networks.expect("a pool");
    node.configure(3, 4);
    wait_until("the pool is filled", || pool().ready == 3);
    let sandboxes: Vec<_> = (0..6).map(|number| node.sandbox(&format!("s{number}"))).collect();
    let made = node.make(&sandboxes[..3]);
    assert!(made.iter().all(|made| made.was_ready), "{made:?}");
    assert!(pool().hits == 3 && pool().misses == 0, "{:?}", pool());
    // Without a pool each is made when it is asked for.
    node.configure(0, 0);
    wait_until("the pool is empty", || pool().ready == 0);
    let made = node.make(&sandboxes[3..]);
    assert!(made.iter().all(|made| !made.was_ready), "{made:?}");
    assert_eq!((pool().misses, pool().wanted), (3, 0));
    let networks: BTreeSet<_> = sandboxes.iter().map(|sandbox| inode(&sandbox.network_path)).collect();
    assert_eq!(networks.len(), 6);
    // It grows with what is missed, up to its bound.
    node.remove_sandboxes(&sandboxes);
    node.configure(0, 2);
    node.make(&sandboxes[..2]);
    wait_until("the pool has grown", || pool().ready > 0 && pool().ready <= 2);
    node.remove_sandboxes(&sandboxes);
    node.end();
}

fn inode(path: &str) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata(path).expect("a bound namespace").ino()
}

#[test]
fn wrong_sandboxes_are_refused_one_by_one_and_leave_nothing() {
    let Some(node) = Node::start(FOREVER) else { return };
    let good = node.sandbox("good");
    let sysctls = [("kernel.panic".to_owned(), "1".to_owned())].into();
    let wrong = [
        good.clone(),
        Sandbox { sysctls, ..node.sandbox("sysctl") },
        Sandbox { network_path: String::new(), ..node.sandbox("path") },
        Sandbox { folder: "relative".to_owned(), ..node.sandbox("folder") },
        Sandbox { network: 9, ..node.sandbox("network") },
    ];
    let request = MakeSandboxesRequest { sandboxes: wrong.to_vec() };
    let made: MakeSandboxesResponse = node.call("MakeSandboxes", &request).expect("an answer");
    let failures: Vec<_> =
        made.sandboxes.iter().map(|made| made.failure.as_ref().map(|failure| failure.code)).collect();
    assert_eq!(failures, [None, Some(3), Some(3), Some(3), Some(3)]);
    assert!(!Path::new(&wrong[1].network_path).exists(), "the network of the one that failed is left");
    assert_eq!(node.status().sandboxes, 1);
    node.remove_sandboxes(&[good]);
    node.end();
}
