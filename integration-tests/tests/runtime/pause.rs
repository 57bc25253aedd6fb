//! Pause and resume: nobody runs in between, and what other verbs do to a paused container.

use std::fs;

use integration_tests::{Bundle, Case, on_v2, peers, under_test_only, wait_until};

/// A program that writes a letter every hundredth of a second.
fn ticking(case: &Case) -> Bundle {
    case.bundle().writable().shell("while :; do printf x >> /tmp/ticks; sleep 0.01; done")
}

fn ticks(bundle: &Bundle) -> u64 {
    fs::metadata(bundle.rootfs().join("tmp/ticks")).map_or(0, |file| file.len())
}

#[test]
fn nobody_runs_while_it_is_paused() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let bundle = ticking(&case);
        let id = case.detached(&bundle, "a");
        wait_until("it ticks", || ticks(&bundle) > 3);
        case.pause(&id);
        assert_eq!(case.status(&id), "paused", "{}", runtime.name);
        let listed = case.call(["list"]).ok().stdout;
        assert!(listed.contains("paused"), "{}: {listed}", runtime.name);
        let at_pause = ticks(&bundle);
        std::thread::sleep(std::time::Duration::from_millis(150));
        assert_eq!(ticks(&bundle), at_pause, "{}", runtime.name);
        let _ = case.call(["resume", &id]).ok();
        assert_eq!(case.status(&id), "running", "{}", runtime.name);
        wait_until("it ticks again", || ticks(&bundle) > at_pause);
        case.delete(&id);
        case.finish();
    }
}

#[test]
fn wrong_states_are_refused() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let id = case.detached(&case.bundle().forever(), "a");
        let refused = |args: &[&str], words: &str| {
            let output = case.call(args.iter().copied());
            assert_ne!(output.code, 0, "{}: {args:?}", runtime.name);
            assert!(output.stderr.contains(words), "{}: {args:?}: {}", runtime.name, output.stderr);
        };
        refused(&["resume", &id], "not paused");
        case.pause(&id);
        refused(&["pause", &id], "container not running");
        refused(&["pause", "flint-it-nobody"], "does not exist");
        refused(&["delete", &id], "paused");
        let exec = case.exec(&id, &["true"]);
        assert_eq!(exec.code, 255, "{}", runtime.name);
        assert!(exec.stderr.contains("cannot exec in a paused container"), "{}: {}", runtime.name, exec.stderr);
        case.delete(&id);
        case.finish();
    }
}

#[test]
fn exec_waits_in_a_paused_container_when_it_is_told_to() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let id = case.detached(&case.bundle().forever(), "a");
        case.pause(&id);
        let exec = case.command(["exec", "--ignore-paused", &id, "echo", "went on"]).spawn();
        std::thread::sleep(std::time::Duration::from_millis(200));
        let _ = case.call(["resume", &id]).ok();
        assert_eq!(exec.finish("exec in the container that was paused").ok().stdout, "went on\n", "{}", runtime.name);
        case.delete(&id);
        case.finish();
    }
}

#[test]
fn a_paused_container_can_be_killed_and_deleted() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        for kill in [true, false] {
            let id = case.detached(&case.bundle().forever(), "a");
            case.pause(&id);
            if kill {
                let _ = case.call(["kill", &id, "KILL"]).ok();
                case.wait_for(&id, "stopped");
            }
            case.delete(&id);
        }
        case.finish();
    }
}

#[test]
fn a_created_container_can_be_paused() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let id = case.created(&case.bundle().forever(), "a");
        case.pause(&id);
        assert_eq!(case.status(&id), "paused", "{}", runtime.name);
        assert_ne!(case.call(["start", &id]).code, 0, "{}", runtime.name);
        let _ = case.call(["resume", &id]).ok();
        assert_eq!(case.status(&id), "created", "{}", runtime.name);
        let _ = case.call(["start", &id]).ok();
        case.delete(&id);
        case.finish();
    }
}

#[test]
fn on_cgroup_v2() {
    let Some([runtime]) = under_test_only("cgroup v2 in a mount namespace") else { return };
    let case = Case::new(&runtime);
    let bundle = case.bundle().forever().write();
    let id = case.id("a");
    let script = format!(
        "f() {{ $FLINT --root $ROOT \"$@\"; }}; state() {{ f state {id} | grep -o '\"status\": \"[a-z]*'; }}; \
         f run --detach --bundle {} {id} > /dev/null; f pause {id}; state; \
         grep frozen $(find /sys/fs/cgroup -name {id})/cgroup.events; f exec {id} true || echo refused; \
         f resume {id}; state; f exec {id} echo inside; \
         f pause {id}; f kill {id} KILL; while state | grep -q paused; do sleep 0.01; done; state; f delete {id}; \
         f run --detach --bundle {} {id} > /dev/null; f pause {id}; f delete --force {id}; echo end",
        bundle.display(),
        bundle.display(),
    );
    let output = on_v2(&case, &script).ok();
    let expected = [
        "\"status\": \"paused",
        "frozen 1",
        "refused",
        "\"status\": \"running",
        "inside",
        "\"status\": \"stopped",
        "end",
    ];
    assert_eq!(output.stdout.lines().collect::<Vec<_>>(), expected, "{}", output.stderr);
    case.finish();
}
