//! `exec --cgroup`, and sockets of a systemd socket unit.

use integration_tests::{Case, Command, under_test_only};

const PIDS: &str = "grep ':pids:' /proc/self/cgroup";

#[test]
fn exec_goes_into_a_cgroup_below() {
    let Some([runtime]) = under_test_only("runc 1.1 wants the cgroup for every controller") else { return };
    if !std::path::Path::new("/sys/fs/cgroup/pids").is_dir() {
        integration_tests::skip("no v1 hierarchy of pids");
        return;
    }
    let case = Case::new(&runtime);
    let id = case.detached(&case.bundle().forever(), "a");
    let own = case.exec(&id, &["sh", "-c", PIDS]).ok().stdout;
    let path = own.trim().rsplit(':').next().expect("a path");
    let below = std::path::Path::new("/sys/fs/cgroup/pids").join(path.trim_start_matches('/')).join("below");
    if std::fs::create_dir(&below).is_err() {
        integration_tests::skip("no v1 hierarchy of pids to make a cgroup in");
        case.delete(&id);
        return;
    }
    let exec = |place: &str| case.call(["exec", "--cgroup", place, &id, "sh", "-c", PIDS]);
    assert_eq!(exec("pids:below").ok().stdout.trim(), format!("{}/below", own.trim()));
    for (place, words) in [
        ("pids:../x", "must not leave"),
        ("pids:missing", "no such file"),
        ("nonsense:below", "unknown controller nonsense"),
    ] {
        let output = exec(place);
        assert_eq!(output.code, 255, "{place}");
        assert!(output.stderr.contains(words), "{place}: {}", output.stderr);
    }
    case.delete(&id);
    case.finish();
}

#[test]
fn sockets_of_systemd_are_passed_on() {
    let Some([runtime]) = under_test_only("the environment is compared with the specification of sd_listen_fds") else {
        return;
    };
    let case = Case::new(&runtime);
    let bundle = case.bundle().shell("echo $LISTEN_FDS $LISTEN_PID; cat <&3; ls /proc/self/fd | wc -l").write();
    let file = case.path().join("socket");
    std::fs::write(&file, "third\n").expect("write");
    let script = format!(
        "exec 3< {}; LISTEN_FDS=1 exec {} --root {} run --bundle {} {}",
        file.display(),
        runtime.path.display(),
        case.state_root().display(),
        bundle.display(),
        case.id("a"),
    );
    let output = Command::new("sh").args(["-c", &script]).output().ok();
    // stdio, the one that was passed, and the one that ls reads the folder with.
    assert_eq!(output.stdout, "1 1\nthird\n5\n");
    case.finish();
}
