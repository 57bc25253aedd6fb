//! A store that is damaged as a whole.

use std::fs;

use integration_tests::wait_until;
use rustix::process::Signal;

use super::rig::Node;

#[test]
fn a_damaged_store_is_set_aside_and_no_container_runs_twice() {
    let Some(mut node) = Node::start() else { return };
    let out = node.folder("out");
    let script = "echo begun >> /out/$0; while true; do echo alive > /out/$0.alive; sleep 0.1; done";
    let pod = |name: &str| {
        let volumes = format!("  volumes: [{{name: out, hostPath: {{path: {}}}}}]\n", out.display());
        let mounts = "    volumeMounts: [{name: out, mountPath: /out}]\n    command:";
        node.manifest(name, &volumes, &script.replace("$0", name)).replace("    command:", mounts)
    };
    let (applied, followed) = (pod("applied"), pod("followed"));
    fs::write(node.path().join("manifests/followed.yaml"), followed).expect("write a manifest");
    node.apply(&applied);
    for name in ["applied", "followed"] {
        node.wait_for(name, "Running");
    }
    let pid = |node: &Node, name: &str| node.status(name)["containers"]["main"]["pid"].as_u64().expect("a pid");
    let before = [pid(&node, "applied"), pid(&node, "followed")];
    node.end(Signal::KILL);
    fs::write(node.path().join("root/flintd.redb"), "no database".repeat(1000)).expect("damage the store");
    node.launch();
    let (_, told) = node.events().into_iter().find(|(word, _)| word == "DamagedStore").expect("it is told");
    assert!(told.contains("flintd.redb.damaged-"), "{told}");
    node.wait_for("followed", "Running");
    assert!(node.status("applied").is_null(), "nobody wants it any more");
    for pid in before {
        wait_until("what ran before has ended", || {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'))
        });
    }
    let begun = fs::read_to_string(out.join("followed")).expect("what it wrote");
    assert_eq!(begun.lines().count(), 2, "once by each flintd");
    node.apply(&applied);
    node.wait_for("applied", "Running");
    fs::remove_file(node.path().join("manifests/followed.yaml")).expect("remove a manifest");
    let _ = node.ctl(["rm", "applied"]).ok();
    for name in ["applied", "followed"] {
        node.wait_gone(name);
    }
    node.finish();
}
