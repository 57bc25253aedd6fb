//! create, start, state, kill, delete, exec, list, ps: a container's life, one command at a time and two at once.

use std::fs;

use integration_tests::{Case, Command, peers, processes_with, under_test_only, wait_until};
use serde_json::{Value, json};

#[test]
fn create_then_start() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let bundle = case.bundle().shell("echo started > /tmp/x; exec sleep 1000").writable();
        let id = case.created(&bundle, "a");
        assert_eq!(case.status(&id), "created");
        assert!(!bundle.rootfs().join("tmp/x").exists(), "create runs nothing");
        let _ = case.call(["start", &id]).ok();
        assert_eq!(case.status(&id), "running");
        wait_until("the program runs", || bundle.rootfs().join("tmp/x").exists());
        assert_ne!(case.call(["start", &id]).code, 0, "a second start is refused");
        assert_ne!(case.call(["delete", &id]).code, 0, "a running container is not deleted without force");
        let _ = case.call(["kill", &id, "KILL"]).ok();
        case.wait_for(&id, "stopped");
        assert_ne!(case.call(["kill", &id]).code, 0, "a stopped container cannot be killed");
        assert_ne!(case.call(["start", &id]).code, 0, "a stopped container cannot be started");
        let _ = case.call(["delete", &id]).ok();
        assert_ne!(case.call(["state", &id]).code, 0);
        case.finish();
    }
}

#[test]
fn state_tells_everything() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let bundle = case.bundle().forever().edit(json!({"annotations": {"org.example": "value"}}));
        let id = case.detached(&bundle, "a");
        let output = case.call(["state", &id]).ok();
        assert_eq!(output.stderr, "");
        assert!(output.stdout.starts_with("{\n  \"ociVersion\""), "{}", output.stdout);
        let state: Value = serde_json::from_str(&output.stdout).expect("JSON");
        assert_eq!(state["id"], json!(id));
        assert_eq!(state["status"], "running");
        assert_eq!(state["bundle"], json!(bundle.path()));
        assert_eq!(state["rootfs"], json!(bundle.rootfs()));
        assert_eq!(state["annotations"]["org.example"], "value");
        // runc leaves it empty here and names root in `list`.
        assert!([json!(""), json!("root")].contains(&state["owner"]), "{state}");
        assert!(state["created"].as_str().is_some_and(|time| time.contains('T') && time.ends_with('Z')), "{state}");
        assert!(state["ociVersion"].as_str().is_some_and(|version| version.starts_with("1.")), "{state}");
        let pid = state["pid"].as_i64().expect("a pid");
        assert!(processes_with(&case.prefix).contains(&i32::try_from(pid).expect("a pid")));
        let _ = case.call(["kill", &id, "SIGKILL"]).ok();
        case.wait_for(&id, "stopped");
        assert_eq!(case.state(&id)["pid"], 0);
        case.delete(&id);
        case.finish();
    }
}

#[test]
fn kill_knows_names_and_numbers() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let script = "for s in HUP INT USR1 USR2 TERM; do trap \"echo $s >> /tmp/seen\" $s; done; : > /tmp/seen; \
                      while :; do sleep 0.05; done";
        let bundle = case.bundle().shell(script).writable();
        let id = case.detached(&bundle, "a");
        let seen = || fs::read_to_string(bundle.rootfs().join("tmp/seen")).unwrap_or_default();
        wait_until("the traps are set", || bundle.rootfs().join("tmp/seen").exists());
        for (signal, name) in [("1", "HUP"), ("INT", "INT"), ("SIGUSR1", "USR1"), ("12", "USR2")] {
            let _ = case.call(["kill", &id, signal]).ok();
            wait_until(&format!("{signal} arrives"), || seen().lines().any(|line| line == name));
        }
        let _ = case.call(["kill", &id]).ok();
        wait_until("TERM, the default, arrives", || seen().contains("TERM"));
        assert_ne!(case.call(["kill", &id, "NOSUCH"]).code, 0);
        assert_ne!(case.call(["kill", &id, "999"]).code, 0);
        case.delete(&id);
        case.finish();
    }
}

#[test]
fn kill_all_and_processes_that_outlive_init() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        // Without a pid namespace of its own the kernel does not end the others with init.
        let namespaces = json!([{"type": "mount"}, {"type": "ipc"}, {"type": "uts"}, {"type": "network"}]);
        let bundle = case
            .bundle()
            .shell("sleep 1000 & sleep 1000 & wait")
            .edit(json!({"linux": {"namespaces": namespaces, "maskedPaths": null, "readonlyPaths": null}}));
        let id = case.detached(&bundle, "a");
        wait_until("all three run", || processes_with(&case.prefix).len() == 3);
        let _ = case.call(["kill", "--all", &id, "KILL"]).ok();
        wait_until("all three are gone", || processes_with(&case.prefix).is_empty());
        case.delete(&id);
        case.finish();
    }
}

#[test]
fn delete_force_ends_what_runs_and_forgives_what_is_not() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let running = case.detached(&case.bundle().forever(), "running");
        let created = case.created(&case.bundle().forever(), "created");
        case.delete(&running);
        case.delete(&created);
        let _ = case.call(["delete", "--force", &case.id("never")]).ok();
        let missing = case.call(["delete", &case.id("never")]);
        assert_ne!(missing.code, 0);
        assert!(missing.stderr.contains("does not exist"), "{}", missing.stderr);
        case.finish();
    }
}

#[test]
fn list_and_ps() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        fs::create_dir_all(case.state_root()).expect("the state root");
        assert_eq!(case.call(["list", "--format", "json"]).ok().stdout.trim(), "null", "{}", runtime.name);
        let one = case.detached(&case.bundle().forever(), "one");
        let two = case.created(&case.bundle().forever(), "two");
        let list: Value = serde_json::from_str(&case.call(["list", "-f", "json"]).ok().stdout).expect("JSON");
        let ids: Vec<_> = list.as_array().expect("an array").iter().map(|state| state["id"].clone()).collect();
        assert_eq!(ids, [json!(one), json!(two)]);
        assert_eq!(case.call(["list", "-q"]).ok().stdout, format!("{one}\n{two}\n"));
        let table = case.call(["list"]).ok().stdout;
        let head: Vec<&str> = table.lines().next().unwrap_or_default().split_whitespace().collect();
        assert_eq!(head, ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
        assert!(table.contains("created") && table.contains("running"), "{table}");
        let pids: Vec<i64> =
            serde_json::from_str(&case.call(["ps", "--format", "json", &one]).ok().stdout).expect("JSON");
        assert!(pids.contains(&case.state(&one)["pid"].as_i64().expect("a pid")), "{pids:?}");
        let table = case.call(["ps", &one, "-o", "pid,args"]).ok().stdout;
        assert!(table.contains("sleep 1000"), "{table}");
        case.delete(&one);
        case.delete(&two);
        case.finish();
    }
}

/// Go reads no time in "", and then nothing of the whole list.
#[test]
fn a_container_without_a_record_has_a_time_and_is_listed_only_when_its_maker_is_gone() {
    let Some([runtime]) = under_test_only("a container of which nothing is recorded is not shown by runc") else {
        return;
    };
    let case = Case::new(&runtime);
    let id = case.id("half-made");
    let folder = case.state_root().join(&id);
    fs::create_dir_all(&folder).expect("mkdir");
    let list = || -> Value { serde_json::from_str(&case.call(["list", "-f", "json"]).ok().stdout).expect("JSON") };
    let timed = |state: &Value, status: &str| {
        assert_eq!(state["status"], status);
        assert_eq!(state["ociVersion"], "1.3.0");
        let created = state["created"].as_str().unwrap_or_default();
        assert!(created.len() == 30 && created.starts_with("20") && created.ends_with('Z'), "{state}");
    };
    // Just made, and not locked yet.
    assert_eq!(list(), Value::Null);
    let _ = Command::new("touch").args(["-d", "2026-01-02"]).args([&folder]).output().ok();
    let maker = fs::File::open(&folder).expect("open");
    rustix::fs::flock(&maker, rustix::fs::FlockOperation::LockExclusive).expect("lock");
    assert_eq!(list(), Value::Null);
    timed(&case.state(&id), "creating");
    // Its maker is killed.
    drop(maker);
    timed(&case.state(&id), "stopped");
    timed(&list()[0], "stopped");
    case.delete(&id);
    assert!(!folder.exists());
    case.finish();
}

#[test]
fn ids_are_unique_and_well_formed() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let good = format!("{}A_b+c.9-", case.prefix);
        let bundle = case.bundle().forever();
        let _ = case.command(["run", "-d", "--bundle"]).args([bundle.write()]).args([&good]).output().ok();
        let again = case.command(["run", "-d", "--bundle"]).args([bundle.write()]).args([&good]).output();
        assert_ne!(again.code, 0);
        assert!(again.stderr.contains("exists"), "{}", again.stderr);
        assert_eq!(case.status(&good), "running", "the first one is not touched");
        case.delete(&good);
        case.finish();
    }
}

#[test]
fn the_pid_file_is_written() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let (id, file) = (case.id("a"), case.path().join("pid"));
        let bundle = case.bundle().forever();
        let command = case.command(["create", "--pid-file"]).args([&file]).args(["--bundle"]).args([bundle.write()]);
        let _ = command.args([&id]).output().ok();
        let text = fs::read_to_string(&file).expect("the pid file");
        assert_eq!(text, case.state(&id)["pid"].to_string(), "digits and no newline");
        let _ = case.call(["start", &id]).ok();
        let exec = case.path().join("exec-pid");
        let command = case.command(["exec", "--detach", "--pid-file"]).args([&exec]);
        let _ = command.args([id.as_str(), "sleep", "1000"]).output().ok();
        let pid = fs::read_to_string(&exec).expect("the pid file");
        // execve closes what tells of it before it has set the arguments.
        let line = || fs::read_to_string(format!("/proc/{pid}/cmdline")).expect("cmdline");
        wait_until("it is the program's", || line() == "sleep\u{0}1000\u{0}");
        case.delete(&id);
        case.finish();
    }
}

#[test]
fn a_container_that_ends_by_itself_is_stopped() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let id = case.detached(&case.bundle().args(&["/bin/true"]), "a");
        case.wait_for(&id, "stopped");
        assert_ne!(case.exec(&id, &["true"]).code, 0, "no exec in a stopped container");
        let _ = case.call(["delete", &id]).ok();
        case.finish();
    }
}

#[test]
fn two_creates_of_one_id_at_once() {
    let Some(peers) = under_test_only("exactly one of several creates at once succeeds") else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let bundle = case.bundle().forever();
        let dir = bundle.write();
        let id = case.id("a");
        let running: Vec<_> =
            (0..4).map(|_| case.command(["create", "--bundle"]).args([&dir]).args([&id]).spawn()).collect();
        let outputs: Vec<_> = running.into_iter().map(|one| one.finish("create")).collect();
        let made = outputs.iter().filter(|output| output.code == 0).count();
        assert_eq!(made, 1, "{}: {outputs:?}", runtime.name);
        assert_eq!(case.status(&id), "created");
        case.delete(&id);
        case.finish();
    }
}

#[test]
fn commands_of_all_kinds_at_once() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let id = case.detached(&case.bundle().forever(), "a");
        let mut running = Vec::new();
        for _ in 0..3 {
            running.push(case.command(["state", &id]).spawn());
            running.push(case.command(["exec", &id, "true"]).spawn());
            running.push(case.command(["list"]).spawn());
            running.push(case.command(["ps", &id]).spawn());
        }
        for one in running {
            let _ = one.finish("a command beside others").ok();
        }
        let deletes: Vec<_> = (0..4).map(|_| case.command(["delete", "--force", &id]).spawn()).collect();
        // One of them deletes; the others find it gone, or wait, or get a clear error.
        let outputs: Vec<_> = deletes.into_iter().map(|one| one.finish("delete --force")).collect();
        assert!(outputs.iter().any(|output| output.code == 0), "{outputs:?}");
        assert!(outputs.iter().all(|output| !output.stderr.contains("panic")), "{outputs:?}");
        let _ = case.call(["delete", "--force", &id]).ok();
        case.finish();
    }
}
