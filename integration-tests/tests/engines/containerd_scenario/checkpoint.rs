//! A task of containerd's that counts, by CRIU into an image and back.

use integration_tests::{Containerd, Output, wait_until};

/// How often it has counted; 0 when it does not tell.
pub(crate) fn count(containerd: &Containerd, id: &str) -> u32 {
    let output = containerd.ctr(&["task", "exec", "--exec-id", &containerd.id(), id, "cat", "/tmp/count"]);
    output.stdout.trim().parse().unwrap_or(0)
}

/// `run` starts a detached task with this id and program. Skips where CRIU does not work.
pub(crate) fn to_an_image_and_back(containerd: &Containerd, run: impl Fn(&str, &[&str]) -> Output) {
    if !containerd.place().has_criu() {
        return;
    }
    let (id, image) = (containerd.id(), format!("localhost/{}", containerd.id()));
    let _ = run(&id, &["sh", "-c", integration_tests::COUNTING]).ok();
    wait_until("it counts", || count(containerd, &id) > 3);
    let _ = containerd.ctr(&["container", "checkpoint", "--rw", "--image", "--task", &id, &image]).ok();
    assert_eq!(containerd.task_status(&id), "RUNNING", "it goes on");
    let before = count(containerd, &id);
    let _ = containerd.ctr(&["task", "rm", "--force", &id]).ok();
    let _ = containerd.ctr(&["container", "rm", &id]).ok();
    containerd.assert_gone(&id);
    let restored = containerd.id();
    let client = containerd.spawn(&["container", "restore", "--rw", "--live", &restored, &image]);
    wait_until("it runs again", || containerd.task_status(&restored) == "RUNNING");
    let after = count(containerd, &restored);
    assert!(after > 3 && after < before + 1000, "{before}, then {after}");
    wait_until("it counts on", || count(containerd, &restored) > after);
    let _ = containerd.ctr(&["task", "kill", "--signal", "KILL", &restored]).ok();
    let _ = client.finish("ctr container restore");
    wait_until("the task is deleted", || {
        let _ = containerd.ctr(&["task", "rm", "--force", &restored]);
        containerd.task_status(&restored).is_empty()
    });
    let _ = containerd.ctr(&["container", "rm", &restored]).ok();
    let _ = containerd.ctr(&["image", "rm", &image]).ok();
    containerd.assert_gone(&restored);
}
