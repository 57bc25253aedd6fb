//! podman of an ordinary user, and of root with user namespaces, with flint as its runtime.
#![forbid(unsafe_code)]

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use integration_tests::{Case, Command, Output, Rootless, missing, under_test_only};

/// Removes what podman keeps, as the user who owns it.
const RESET: &[&str] = &["system", "reset", "--force"];

/// podman with flint, storage of its own and no cgroups but by files.
fn podman(command: Command, runtime: &Path, storage: &Path) -> Command {
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

/// An image of busybox alone, imported from a tar archive: no registry is asked.
fn archive(case: &Case) -> Vec<u8> {
    let bundle = case.bundle();
    let output =
        std::process::Command::new("tar").arg("-C").arg(bundle.rootfs()).args(["-c", "."]).output().expect("tar");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn a_life(call: &dyn Fn(&[&str]) -> Output, name: &str) {
    let _ = call(&["run", "--detach", "--name", name, "--network", "none", "flint/busybox", "sleep", "1000"]).ok();
    assert_eq!(call(&["exec", name, "id", "-u"]).ok().stdout, "0\n");
    assert!(call(&["ps"]).ok().stdout.contains(name));
    assert!(call(&["top", name]).ok().stdout.contains("sleep"));
    let _ = call(&["stop", "--time", "0", name]).ok();
    let _ = call(&["rm", name]).ok();
    assert!(!call(&["ps", "--all"]).ok().stdout.contains(name));
}

#[test]
fn a_user_runs_containers_by_podman() {
    let Some(flint) = under_test_only("podman calls what it is told to") else { return };
    if missing(&["podman", "conmon", "newuidmap"]) {
        return;
    }
    let Some(rootless) = Rootless::new(&flint[0]) else { return };
    let storage = rootless.user.home().to_owned();
    let program = integration_tests::find_program("podman").expect("podman");
    let call = |arguments: &[&str]| {
        podman(rootless.user.command(&program), &rootless.program, &storage).args(arguments.iter().copied()).output()
    };
    let import = podman(rootless.user.command(&program), &rootless.program, &storage);
    let _ = import.args(["import", "-", "flint/busybox"]).input(archive(&rootless.case)).output().ok();

    a_life(&call, &rootless.case.id("a"));
    let run = |options: &[&str], script: &str| {
        let mut arguments = vec!["run", "--rm", "--network", "none"];
        arguments.extend(options);
        arguments.extend(["flint/busybox", "sh", "-c", script]);
        call(&arguments).ok().stdout
    };
    let uid = rootless.user.uid;
    assert_eq!(run(&["--userns", "keep-id"], "id -u"), format!("{uid}\n"));
    assert_eq!(run(&["--user", "1000"], "id -u"), "1000\n");
    let volume = storage.join("volume");
    std::fs::create_dir(&volume).expect("make a volume");
    rootless.user.own(&volume);
    let shared = format!("{}:/v", volume.display());
    assert_eq!(run(&["--volume", &shared], "echo x > /v/file && stat -c %u /v/file"), "0\n");
    assert_eq!(std::fs::metadata(volume.join("file")).expect("the file").uid(), uid);
    let failed = call(&["run", "--rm", "--network", "none", "flint/busybox", "sh", "-c", "exit 3"]);
    assert_eq!(failed.code, 3, "{}", failed.stderr);
    let _ = call(RESET).ok();
    rootless.case.finish();
}

#[test]
fn root_runs_containers_in_user_namespaces_by_podman() {
    let Some(flint) = under_test_only("podman calls what it is told to") else { return };
    if missing(&["podman", "conmon"]) {
        return;
    }
    let case = Case::new(&flint[0]);
    let storage = case.path().join("podman");
    let call = |arguments: &[&str]| {
        podman(Command::new("podman"), &case.runtime.path, &storage).args(arguments.iter().copied()).output()
    };
    let import = podman(Command::new("podman"), &case.runtime.path, &storage);
    let _ = import.args(["import", "-", "flint/busybox"]).input(archive(&case)).output().ok();
    let map = ["--uidmap", "0:200000:5000", "--gidmap", "0:300000:5000"];
    let mut arguments = vec!["run", "--rm", "--network", "none"];
    arguments.extend(map);
    arguments.extend([
        "flint/busybox",
        "sh",
        "-c",
        "cat /proc/self/uid_map /proc/self/gid_map; id -u; stat -c %u /bin",
    ]);
    let output = call(&arguments).ok();
    let words: Vec<&str> = output.stdout.split_ascii_whitespace().collect();
    assert_eq!(words, ["0", "200000", "5000", "0", "300000", "5000", "0", "0"]);
    let name = case.id("a");
    let mut arguments = vec!["run", "--detach", "--name", &name, "--network", "none"];
    arguments.extend(map);
    arguments.extend(["flint/busybox", "sleep", "1000"]);
    let _ = call(&arguments).ok();
    assert_eq!(call(&["exec", "--user", "1000", &name, "id", "-u"]).ok().stdout, "1000\n");
    let _ = call(&["rm", "--force", "--time", "0", &name]).ok();
    let _ = call(RESET).ok();
    case.finish();
}
