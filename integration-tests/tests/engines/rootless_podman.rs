//! podman of an ordinary user, and of root with user namespaces, with flint as its runtime.

use integration_tests::{Case, Command, Rootless, missing, remove_by_force, under_test_only};

use crate::rootless_scenario::{a_users_containers, archive, podman, reset};

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
    let _ = import.args(["import", "-", "flint/busybox"]).input(archive(&rootless.case.bundle())).output().ok();

    let volume = storage.join("volume");
    std::fs::create_dir(&volume).expect("make a volume");
    rootless.user.own(&volume);
    a_users_containers(&call, &rootless.case.id("a"), rootless.user.uid, &volume);
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
    let _ = import.args(["import", "-", "flint/busybox"]).input(archive(&case.bundle())).output().ok();
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
    remove_by_force(call, &name);
    reset(&call);
    case.finish();
}
