//! Images go when their disk gets full.

use integration_tests::wait_until;
use rustix::process::Signal;

use super::rig::{IMAGE, Node, Setup};

/// Of two images of which no pod is made, and of three that pods need: one runs, one rests between two tries, one is stopped.
#[test]
fn images_that_no_pod_needs_go_and_others_never() {
    let setup = Setup {
        // From a quarter of it on, down to nothing, so that all that may go goes.
        keys: "images.gc-high-threshold = 25\nimages.gc-low-threshold = 0\nimages.gc-period = 1\nimages.minimum-gc-age = 0\n",
        small: &[("store", "128m")],
        ..Setup::default()
    };
    let Some(mut node) = Node::start_with(&setup) else { return };
    node.import_as("tests/rests:1", 1 << 20);
    node.import_as("tests/stopped:1", 1 << 20);
    let of = |manifest: String, image: &str| manifest.replace(IMAGE, image);
    node.apply(&node.manifest("runs", "", "while true; do sleep 0.1; done"));
    node.apply(&of(node.manifest("rests", "", "exit 1"), "tests/rests:1"));
    node.apply(&of(node.manifest("stopped", "", "while true; do sleep 0.1; done"), "tests/stopped:1"));
    node.wait_for("runs", "Running");
    node.wait_for("stopped", "Running");
    let _ = node.ctl(["stop", "stopped"]).ok();
    wait_until("it rests", || node.state("rests")["waiting"]["word"] == "CrashLoopBackOff");
    wait_until("it is stopped", || node.state("stopped")["exited"].is_object());
    // Not before, or what pods are going to need would be unused, too.
    node.end(Signal::TERM);
    node.import_as("tests/unused:1", 8 << 20);
    node.import_as("tests/unused:2", 8 << 20);
    node.launch();
    let unused = |node: &Node| node.images().iter().filter(|name| name.contains("unused")).count();
    wait_until("unused images are gone", || unused(&node) == 0);
    let images = node.images();
    for name in [IMAGE, "tests/rests:1", "tests/stopped:1"] {
        assert!(images.iter().any(|image| image.ends_with(name)), "{name} is gone: {images:?}");
    }
    let told = || node.events().into_iter().find(|(word, _)| word == "ImagesRemoved");
    wait_until("it is told", || told().is_some());
    let told = told().expect("it is told");
    assert!(told.1.contains("tests/unused:1"), "{told:?}");
    // What is kept can be used: the stopped pod's image is whole.
    let _ = node.ctl(["restart", "stopped"]).ok();
    node.wait_for("stopped", "Running");
    for name in ["runs", "rests", "stopped"] {
        let _ = node.ctl(["rm", name]).ok();
    }
    for name in ["runs", "rests", "stopped"] {
        node.wait_gone(name);
    }
    node.finish();
}

/// Thresholds of the collection itself are off: it is the want of disk that removes images, and no pod goes for it.
#[test]
fn want_of_disk_removes_images_before_pods() {
    let setup = Setup {
        keys: "images.gc-high-threshold = 100\nimages.minimum-gc-age = 0\neviction.monitoring-interval = 1\n\
               eviction.pressure-transition-period = 2\neviction.hard = {\"imagefs.available\" = \"50%\", \
               \"nodefs.available\" = \"0%\", \"nodefs.inodesFree\" = \"0%\"}\n",
        small: &[("store", "64m")],
        ..Setup::default()
    };
    let Some(node) = Node::start_with(&setup) else { return };
    node.apply(&node.manifest("runs", "", "while true; do sleep 0.1; done"));
    node.wait_for("runs", "Running");
    let pid = node.status("runs")["containers"]["main"]["pid"].clone();
    for name in ["tests/unused:1", "tests/unused:2"] {
        node.import_as(name, 8 << 20);
    }
    let unused = || node.images().iter().filter(|name| name.contains("unused")).count();
    wait_until("unused images are gone", || unused() == 0);
    wait_until("the pressure is over", || node.events().iter().any(|(word, _)| word == "NodeHasNoDiskPressure"));
    let words: Vec<String> = node.events().into_iter().map(|(word, _)| word).collect();
    assert!(words.iter().any(|word| word == "NodeHasDiskPressure"), "{words:?}");
    assert!(!words.iter().any(|word| word == "Evicted"), "{words:?}");
    assert_eq!(node.status("runs")["containers"]["main"]["pid"], pid, "it was left alone");
    let _ = node.ctl(["rm", "runs"]).ok();
    node.wait_gone("runs");
    node.finish();
}
