//! The runtime dies at any point of its work: what is left can be seen and cleaned by the next command.

use std::fs;
use std::time::Duration;

use integration_tests::{Case, under_test_only};

/// How many moments of a command are tried, and how far apart they are. No assertion depends on what happens to be under way.
const MOMENTS: u32 = 40;
const STEP: Duration = Duration::from_micros(300);

#[test]
fn killed_while_it_creates() {
    let Some(peers) = under_test_only("a create that was killed half-way leaves what delete -f can clean") else {
        return;
    };
    for runtime in peers {
        for moment in 0..MOMENTS {
            let case = Case::new(&runtime);
            // `list` refuses a root that is missing, and a create that is killed at once has made none.
            fs::create_dir_all(case.state_root()).expect("the state root");
            let id = case.id("a");
            let running =
                case.command(["create", "--bundle"]).args([case.bundle().forever().write()]).args([&id]).spawn();
            std::thread::sleep(STEP * moment);
            // Dropping kills it by its pid.
            drop(running);
            let listed = case.call(["list", "-f", "json"]).ok();
            assert!(listed.stdout.trim() == "null" || listed.stdout.contains(&id), "{}", listed.stdout);
            case.delete(&id);
            assert_ne!(case.call(["state", &id]).code, 0, "moment {moment}");
            case.finish();
        }
    }
}

#[test]
fn killed_while_it_starts_or_deletes() {
    let Some(peers) = under_test_only("a killed start or delete leaves what delete -f can clean") else { return };
    for runtime in peers {
        for moment in 0..MOMENTS {
            for verb in [&["start"][..], &["kill"], &["delete", "--force"]] {
                let case = Case::new(&runtime);
                let id = case.created(&case.bundle().forever(), "a");
                let running = case.command(verb.iter().copied()).args([&id]).spawn();
                std::thread::sleep(STEP / 2 * moment);
                drop(running);
                let status = case.status(&id);
                assert!(["created", "running", "stopped", ""].contains(&status.as_str()), "{verb:?}: {status}");
                case.delete(&id);
                case.finish();
            }
        }
    }
}

#[test]
fn killed_in_the_foreground() {
    let Some(peers) = under_test_only("a container outlives the runtime that ran it in the foreground") else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let id = case.id("a");
        let running = case.spawn(&case.bundle().forever(), &id);
        case.wait_for(&id, "running");
        drop(running);
        let _ = case.call(["kill", &id, "KILL"]).ok();
        case.wait_for(&id, "stopped");
        let _ = case.call(["delete", &id]).ok();
        case.finish();
    }
}
