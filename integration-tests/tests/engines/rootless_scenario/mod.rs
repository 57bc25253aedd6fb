//! What an ordinary user does by podman, whichever podman it is.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use integration_tests::{Bundle, Command, Output, remove_by_force, wait_until};

/// podman with this runtime, storage of its own and no cgroups but by files.
pub(crate) fn podman(command: Command, runtime: &Path, storage: &Path) -> Command {
    command.args([
        "--runtime".as_ref(),
        runtime.as_os_str(),
        "--cgroup-manager".as_ref(),
        "cgroupfs".as_ref(),
        "--events-backend".as_ref(),
        "file".as_ref(),
        "--storage-driver".as_ref(),
        "vfs".as_ref(),
        "--root".as_ref(),
        storage.join("root").as_os_str(),
        "--runroot".as_ref(),
        storage.join("runroot").as_os_str(),
        "--tmpdir".as_ref(),
        storage.join("tmp").as_os_str(),
    ])
}

/// Removes what podman keeps, as the user who owns it.
const RESET: &[&str] = &["system", "reset", "--force"];

/// An image of busybox alone, imported from a tar archive: no registry is asked.
pub(crate) fn archive(bundle: &Bundle) -> Vec<u8> {
    let output =
        std::process::Command::new("tar").arg("-C").arg(bundle.rootfs()).args(["-c", "."]).output().expect("tar");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// All of podman's goes. The clean-up of a container that has just gone may write an event into the folder that is being removed.
pub(crate) fn reset(call: &dyn Fn(&[&str]) -> Output) {
    wait_until("podman removes its storage", || {
        let done = call(RESET);
        assert!(done.code == 0 || done.stderr.contains("directory not empty"), "{}", done.stderr);
        done.code == 0
    });
}

fn a_life(call: &dyn Fn(&[&str]) -> Output, name: &str) {
    let _ = call(&["run", "--detach", "--name", name, "--network", "none", "flint/busybox", "sleep", "1000"]).ok();
    assert_eq!(call(&["exec", name, "id", "-u"]).ok().stdout, "0\n");
    assert!(call(&["ps"]).ok().stdout.contains(name));
    assert!(call(&["top", name]).ok().stdout.contains("sleep"));
    let _ = call(&["stop", "--time", "0", name]).ok();
    // See `remove_by_force`: the clean-up of conmon may have its /dev/shm still.
    wait_until("podman removes it", || {
        let removed = call(&["rm", name]);
        assert!(removed.code == 0 || removed.stderr.contains("busy"), "{}", removed.stderr);
        removed.code == 0
    });
    // By force, while it runs.
    let _ = call(&["run", "--detach", "--name", name, "--network", "none", "flint/busybox", "sleep", "1000"]).ok();
    remove_by_force(call, name);
    assert!(!call(&["ps", "--all"]).ok().stdout.contains(name));
}

/// A user's containers of the image `flint/busybox`, and at last their storage goes. `call` is podman as that user, `volume` a
/// folder of theirs.
pub(crate) fn a_users_containers(call: &dyn Fn(&[&str]) -> Output, name: &str, uid: u32, volume: &Path) {
    a_life(call, name);
    let run = |options: &[&str], script: &str| {
        let mut arguments = vec!["run", "--rm", "--network", "none"];
        arguments.extend(options);
        arguments.extend(["flint/busybox", "sh", "-c", script]);
        call(&arguments).ok().stdout
    };
    assert_eq!(run(&["--userns", "keep-id"], "id -u"), format!("{uid}\n"));
    assert_eq!(run(&["--user", "1000"], "id -u"), "1000\n");
    let shared = format!("{}:/v", volume.display());
    assert_eq!(run(&["--volume", &shared], "echo x > /v/file && stat -c %u /v/file"), "0\n");
    assert_eq!(std::fs::metadata(volume.join("file")).expect("the file").uid(), uid);
    let failed = call(&["run", "--rm", "--network", "none", "flint/busybox", "sh", "-c", "exit 3"]);
    assert_eq!(failed.code, 3, "{}", failed.stderr);
    reset(call);
}
