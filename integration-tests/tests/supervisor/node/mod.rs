//! flintd as a whole, with real shims.

mod collection;
mod damage;
mod eviction;
mod kills;
mod life;
pub(crate) mod rig;
mod secrecy;
mod stall;

use integration_tests::wait_until;
use rustix::process::Signal;

use rig::Node;

/// Says something, and ends with status 3 when it is told to end.
const SERVICE: &str = "echo begun; trap 'exit 3' TERM; while true; do sleep 0.1; done";

#[test]
fn a_pod_runs_is_stopped_and_leaves_nothing() {
    let Some(node) = Node::start() else { return };
    // Its own status is wanted: it must not be killed before it has come to its trap.
    let manifest = node.manifest("one", "", SERVICE);
    node.apply(&manifest.replace("terminationGracePeriodSeconds: 5", "terminationGracePeriodSeconds: 60"));
    node.wait_for("one", "Running");
    wait_until("its output is in its log", || node.ctl(["logs", "one"]).stdout == "begun\n");
    let ran = node.ctl(["exec", "one", "--", "/bin/echo", "inside"]).ok();
    assert_eq!(ran.stdout, "inside\n");
    let _ = node.ctl(["stop", "one"]).ok();
    wait_until("it has ended", || node.state("one")["exited"]["status"] == 3);
    let _ = node.ctl(["rm", "one"]).ok();
    node.wait_gone("one");
    node.finish();
}

#[test]
fn containers_that_end_are_started_again_or_are_not() {
    let Some(node) = Node::start() else { return };
    node.apply(&node.manifest("once", "  restartPolicy: Never\n", "exit 7"));
    node.apply(&node.manifest("well", "  restartPolicy: OnFailure\n", "exit 0"));
    node.apply(&node.manifest("again", "", "exit 1"));
    node.wait_for("once", "Failed");
    assert_eq!(node.state("once")["exited"]["status"], 7);
    node.wait_for("well", "Succeeded");
    wait_until("it rests before its second restart", || {
        let status = node.status("again");
        status["containers"]["main"]["restarts"] == 1 && node.state("again")["waiting"]["word"] == "CrashLoopBackOff"
    });
    for name in ["once", "well", "again"] {
        let _ = node.ctl(["rm", name]).ok();
        node.wait_gone(name);
    }
    node.finish();
}

#[test]
fn flintds_death_ends_nothing_and_loses_nothing() {
    let Some(mut node) = Node::start() else { return };
    node.apply(&node.manifest("stays", "", SERVICE));
    node.apply(&node.manifest(
        "ends",
        "  restartPolicy: Never\n",
        "while [ ! -e /dev/shm/end ]; do sleep 0.1; done; exit 9",
    ));
    node.apply(&node.manifest("goes", "", SERVICE));
    for name in ["stays", "ends", "goes"] {
        node.wait_for(name, "Running");
    }
    let pid = node.status("stays")["containers"]["main"]["pid"].clone();
    let ending = node.status("ends")["containers"]["main"]["pid"].as_u64().expect("a pid");
    node.end(Signal::KILL);
    std::fs::write(format!("/proc/{ending}/root/dev/shm/end"), "").expect("tell it to end");
    wait_until("it has ended while nobody looked", || {
        std::fs::read_to_string(format!("/proc/{ending}/stat")).map_or(true, |stat| stat.contains(") Z "))
    });
    node.launch();
    assert_eq!(node.status("stays")["containers"]["main"]["pid"], pid, "it is the same process");
    assert_eq!(node.status("stays")["containers"]["main"]["restarts"], 0);
    node.wait_for("ends", "Failed");
    assert_eq!(node.state("ends")["exited"]["status"], 9, "its exit status is not lost");
    for name in ["stays", "ends", "goes"] {
        let _ = node.ctl(["rm", name]).ok();
    }
    // A removal that was acknowledged is done by the next flintd.
    node.end(Signal::KILL);
    node.launch();
    for name in ["stays", "ends", "goes"] {
        node.wait_gone(name);
    }
    node.finish();
}

#[test]
fn a_container_is_told_its_address() {
    let Some(node) = Node::start() else { return };
    let script = "[ -n \"$HOST_IP\" ] && [ \"$POD_IP\" = \"$HOST_IP\" ] && echo equal";
    let env = "    env:\n    - {name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}\n    \
               - {name: HOST_IP, valueFrom: {fieldRef: {fieldPath: status.hostIP}}}\n    command:";
    let manifest = node.manifest("told", "  restartPolicy: Never\n", script).replace("    command:", env);
    node.apply(&manifest);
    wait_until("it has ended", || node.state("told")["exited"]["status"].is_u64());
    assert_eq!(node.state("told")["exited"]["status"], 0, "both are there, and on the host's network the same");
    let _ = node.ctl(["rm", "told"]).ok();
    node.wait_gone("told");
    node.finish();
}
