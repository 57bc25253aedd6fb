//! Every step of a plan and every system call of init fails once: by a flint that was built with the feature
//! `faults` (`FLINT_FAULTS_BIN`, which `cargo xtask test` builds).

use std::path::{Path, PathBuf};

use integration_tests::{Bundle, Case, Output, Runtime, skip, under_test_only, wait_until};
use serde_json::json;

/// More steps than any plan here has, more calls than any init here makes: a bound for a loop that ends earlier.
const MOST: u32 = 2000;

fn faulty_flint() -> Option<Runtime> {
    let _ = under_test_only("steps that fail on demand")?;
    let Some(path) = std::env::var_os("FLINT_FAULTS_BIN").map(PathBuf::from) else {
        skip("FLINT_FAULTS_BIN is not set: `cargo xtask test` builds it");
        return None;
    };
    Some(Runtime { name: "flint", path })
}

/// A container with a bit of everything that init does.
fn rich(case: &Case) -> Bundle {
    let volume = case.path().join("volume");
    std::fs::create_dir_all(&volume).expect("make a volume");
    case.bundle()
        .edit(json!({
            "hooks": {
                "prestart": [{"path": "/bin/true"}],
                "createRuntime": [{"path": "/bin/true"}],
                "createContainer": [{"path": "/bin/true"}],
                "startContainer": [{"path": "/bin/true", "args": ["true"]}],
            },
            "linux": {"sysctl": {"kernel.msgmax": "8192"}, "seccomp": {
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": ["chroot"], "action": "SCMP_ACT_ERRNO"}],
            }},
        }))
        .push(
            "/mounts",
            json!({"destination": "/a/b/volume", "type": "bind", "source": volume, "options": ["bind", "ro"]}),
        )
        .push("/mounts", json!({"destination": "/var", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]}))
        .shell(
            "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status; grep -c . /proc/self/mountinfo; ls /proc/self/fd; \
                grep -c ' /proc/sys ro' /proc/self/mountinfo; id; pwd",
        )
}

fn nothing_is_left(case: &Case, what: &str) {
    let listed = case.call(["list", "-q"]).ok().stdout;
    assert_eq!(listed, "", "{what} left a container");
    let processes = integration_tests::processes_with(case.prefix());
    assert!(processes.is_empty(), "{what} left processes {processes:?}");
}

#[test]
fn killed_after_every_step_of_the_host() {
    let Some(runtime) = faulty_flint() else { return };
    let case = Case::new(&runtime);
    kill_after_every_step(&case, &rich(&case).write(), &["create"], &["stopped", "created"]);
    // init goes ahead of the host, and is let go before it is ready.
    let plain = case.bundle().args(&["sleep", "1000"]).write();
    kill_after_every_step(&case, &plain, &["create"], &["stopped", "created"]);
    kill_after_every_step(&case, &plain, &["run", "--detach"], &["stopped", "running"]);
    case.finish();
}

/// `left`: the states that a container may be left in.
fn kill_after_every_step(case: &Case, bundle: &Path, verb: &[&str], left: &[&str]) {
    let id = case.id("a");
    for step in 0..MOST {
        let maker = case.command(verb.iter().chain(&["--bundle"]).copied()).args([bundle]).args([&id]);
        let output = maker.env("FLINT_FAULT_HOST_STEP", step.to_string()).output();
        if output.code == 0 {
            assert!(step > 10, "the runtime was never killed");
            case.delete(&id);
            return;
        }
        // The maker's init is cloned with the maker's lock, which it closes first thing: until then it looks at work.
        wait_until("nobody is at work on it", || case.status(&id) != "creating");
        let status = case.status(&id);
        assert!(left.contains(&status.as_str()), "{verb:?} after step {step}: {status:?}");
        let _ = case.call(["kill", &id, "KILL"]);
        let _ = case.call(["delete", "--force", &id]).ok();
        nothing_is_left(case, &format!("a kill of {verb:?} after step {step}"));
    }
    panic!("the host's lane has no end");
}

#[test]
fn every_system_call_of_init_fails_once() {
    let Some(runtime) = faulty_flint() else { return };
    let case = Case::new(&runtime);
    fail_every_call(&case, &rich(&case).write());
    // init is let go before it is ready.
    fail_every_call(&case, &case.bundle().shell("grep -E '^Cap' /proc/self/status; ls /proc/self/fd").write());
    case.finish();
}

fn fail_every_call(case: &Case, bundle: &Path) {
    let id = case.id("a");
    let run = |call: u32, errno: i32| -> Output {
        case.command(["run", "--bundle"])
            .args([bundle])
            .args([&id])
            .env("FLINT_FAULT_INIT_CALL", call.to_string())
            .env("FLINT_FAULT_ERRNO", errno.to_string())
            .output()
    };
    let good = run(0, 0).ok().stdout;
    let mut failed = 0;
    for call in 1..MOST {
        // EIO: nothing expects it, so nothing may take it for "already there" or "not supported".
        let output = run(call, 5);
        let what = format!("failing call {call}");
        if output.code == 0 {
            // Tolerated: then the container must be as good as without.
            assert_eq!(output.stdout, good, "{what}: {}", output.stderr);
        } else {
            failed += 1;
            let lines = output.error_lines().len();
            assert_eq!(lines, 1, "{what}: {}", output.stderr);
            assert!(!output.stderr.contains("not known"), "{what} has no cause: {}", output.stderr);
            assert!(!output.stdout.contains("CapEff"), "{what} failed after the program ran");
        }
        nothing_is_left(case, &what);
        if call > 300 && output.code == 0 && output.stderr.is_empty() && run(call + 1, 5).code == 0 && failed > 100 {
            let past_the_end = (call..call + 20).all(|call| run(call, 5).code == 0);
            if past_the_end {
                eprintln!("{failed} of {call} system calls fail the start, the others are tolerated");
                return;
            }
        }
    }
    panic!("init makes more than {MOST} system calls");
}
