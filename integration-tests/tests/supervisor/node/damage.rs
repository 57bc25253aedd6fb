//! A store that is damaged as a whole, one that cannot be written, and a container's state that cannot be read for a while.

use std::fs;

use integration_tests::wait_until;
use rustix::process::{Pid, Signal, kill_process};

use super::rig::{Node, Setup};

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
    let begun = || fs::read_to_string(out.join("followed")).expect("what it wrote").lines().count();
    wait_until("the second has begun", || begun() >= 2);
    assert_eq!(begun(), 2, "once by each flintd");
    node.apply(&applied);
    node.wait_for("applied", "Running");
    fs::remove_file(node.path().join("manifests/followed.yaml")).expect("remove a manifest");
    let _ = node.ctl(["rm", "applied"]).ok();
    for name in ["applied", "followed"] {
        node.wait_gone(name);
    }
    node.finish();
}

#[test]
fn a_container_that_cannot_be_taken_over_is_tried_again_until_it_can() {
    let Some(mut node) = Node::start() else { return };
    for name in ["hidden", "plain"] {
        node.apply(&node.manifest(name, "", "while true; do sleep 0.1; done"));
        node.wait_for(name, "Running");
    }
    let main = |node: &Node| node.status("hidden")["containers"]["main"].clone();
    let pid = main(&node)["pid"].as_u64().expect("a pid");
    let plain = node.status("plain")["containers"]["main"]["pid"].as_u64().expect("a pid");
    let states = node.path().join("run/state").join(format!("{}ns", node.prefix));
    let id = format!("{}hidden.main.1", node.prefix);
    let state = fs::read_dir(states.join(id)).expect("its state").flatten().map(|entry| entry.path());
    let state = state.into_iter().find(|path| path.extension().is_some_and(|kind| kind == "json")).expect("its state");
    let aside = node.path().join("aside.json");
    node.end(Signal::KILL);
    for shim in node.shims() {
        kill_process(Pid::from_raw(shim).expect("a pid"), Signal::KILL).expect("end the shim");
    }
    fs::copy(&state, &aside).expect("keep the state");
    fs::write(&state, "{").expect("damage the state");
    node.launch();
    let log = || fs::read_to_string(node.log()).expect("the log");
    wait_until("it is told", || log().contains("hidden.main.1: "));
    // An end is heard of, as only one is of what was taken over.
    let kill = |pid: u64| kill_process(Pid::from_raw(pid as i32).expect("a pid"), Signal::KILL).expect("end its init");
    kill(plain);
    wait_until("the others are taken over", || node.status("plain")["containers"]["main"]["restarts"] == 1);
    fs::copy(&aside, &state).expect("mend the state");
    kill(pid);
    wait_until("it has been started again", || {
        main(&node)["restarts"] == 1 && main(&node)["state"]["running"].is_object()
    });
    for name in ["hidden", "plain"] {
        let _ = node.ctl(["rm", name]).ok();
    }
    for name in ["hidden", "plain"] {
        node.wait_gone(name);
    }
    node.finish();
}

#[test]
fn what_could_not_be_written_is_not_promised_and_is_once_there_is_room() {
    let setup = Setup { small: &[("root", "16m")], ..Setup::default() };
    let Some(mut node) = Node::start_with(&setup) else { return };
    let pod = |name: &str, bytes: usize| {
        let labels = format!("name: {name}, annotations: {{filler: {}}}, ", "x".repeat(bytes));
        let manifest = node.manifest(name, "", "trap 'exit 0' TERM; while true; do sleep 0.1; done");
        manifest.replace(&format!("name: {name}, "), &labels)
    };
    node.apply(&pod("stays", 200_000));
    node.wait_for("stays", "Running");
    let filler = node.path().join("root/filler");
    let _full = fs::write(&filler, vec![1; 16 << 20]).expect_err("the disk is full");
    let more = node.path().join("more.yaml");
    let add = |number: usize| {
        fs::write(&more, pod(&format!("more-{number}"), 200_000)).expect("write a manifest");
        node.ctl(["apply", "-f", &more.display().to_string()])
    };
    // Until the store's file would have to grow.
    let refused = (0..100).map(add).find(|output| output.code != 0).expect("it is full in the end");
    assert!(refused.stderr.contains("No space left on device"), "{}", refused.stderr);
    for _ in 0..3 {
        let refused = node.ctl(["rm", "stays"]);
        assert_ne!(refused.code, 0, "what is not written is not promised");
        assert!(!refused.stderr.contains("re-open"), "the cause is told: {}", refused.stderr);
    }
    // With room again it goes on by itself.
    fs::remove_file(&filler).expect("make room");
    let _ = node.ctl(["rm", "stays"]).ok();
    node.wait_gone("stays");
    for pod in node.pods() {
        let _ = node.ctl(["rm", pod["status"]["key"]["name"].as_str().expect("a name")]).ok();
    }
    wait_until("all are gone", || node.pods().is_empty());
    node.end(Signal::KILL);
    node.launch();
    assert!(node.pods().is_empty(), "all of it is written down: {:?}", node.pods());
    node.finish();
}
