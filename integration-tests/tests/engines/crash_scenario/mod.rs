//! containerd, and shims, that end by SIGKILL: what ran goes on, what ended is told, and nothing is left.

mod calls;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use containerd_shim_protos::api::{Empty, PauseRequest, ResumeRequest};
use integration_tests::{Case, Containerd, Shim, Streams, flint, processes_with, wait_until, whole_output};
use rustix::process::{Pid, Signal, kill_process};

pub(crate) use calls::containerd_dies_after_each_call;

const FOREVER: &str = "trap 'exit 7' TERM; while :; do sleep 1000 & wait $!; done";
const IMAGE: &str = "localhost/flint-it:busybox";
/// The longest that is waited for a moment in a call, which may have passed unseen.
const MOMENT: Duration = Duration::from_secs(2);

fn run(containerd: &Containerd, id: &str, program: &str) {
    let shim = containerd.place().shim().expect("a shim").display().to_string();
    let args = ["run", "--detach", "--null-io", "--runtime", &shim, IMAGE, id, "sh", "-c", program];
    let _ = containerd.ctr(&args).ok();
}

/// Pid and status of a task, as `ctr task ls` has them.
fn task(containerd: &Containerd, id: &str) -> Option<(i32, String)> {
    let list = containerd.ctr(&["task", "ls"]).ok().stdout;
    let line = list.lines().find(|line| line.starts_with(id))?;
    let mut words = line.split_whitespace().skip(1);
    Some((words.next()?.parse().ok()?, words.next()?.to_owned()))
}

fn has_status(containerd: &Containerd, id: &str, status: &str) -> bool {
    task(containerd, id).is_some_and(|(_, found)| found == status)
}

/// The processes of a shim that serves this container.
fn shims(id: &str) -> Vec<i32> {
    let is_shim = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|word| word == b"-socket")
    };
    processes_with(id).into_iter().filter(is_shim).collect()
}

fn kill(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).expect("a pid"), signal).expect("kill");
}

fn is_there(pid: i32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// Takes a container away, in whatever state it is.
#[track_caller]
fn remove(containerd: &Containerd, id: &str) {
    wait_until("it can be removed", || {
        let _ = containerd.ctr(&["task", "rm", "--force", id]);
        let _ = containerd.ctr(&["container", "rm", id]);
        task(containerd, id).is_none() && !containerd.ctr(&["container", "ls", "-q"]).ok().stdout.contains(id)
    });
}

/// No process, mount and cgroup of these containers, and no socket and no state of any.
#[track_caller]
fn nothing_is_left(containerd: &Containerd, ids: &[String]) {
    for id in ids {
        containerd.assert_gone(id);
    }
    let state = format!("/run/containerd/flint/{}", containerd.namespace());
    for folder in ["/run/containerd/s", &state] {
        let outside = containerd.place().outside(folder);
        let entries = || -> Vec<PathBuf> {
            std::fs::read_dir(&outside).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
        };
        wait_until("no socket and no state is left", || entries().is_empty());
    }
}

/// Ends containerd as soon as `moment` holds while a call of `ctr` is under way, and starts it again.
fn crash_at(containerd: &mut Containerd, args: &[&str], moment: impl Fn() -> bool) {
    let client = containerd.spawn(args);
    let deadline = Instant::now() + MOMENT;
    while !moment() && Instant::now() < deadline {
        std::thread::yield_now();
    }
    containerd.crash();
    containerd.restart();
    // It fails, or goes on with the new one: both is well.
    let _ = client.finish("ctr");
}

/// After each call: create and start, exec, an exit, a deletion.
pub(crate) fn a_container_outlives_containerd(containerd: &mut Containerd) {
    let id = containerd.id();
    run(containerd, &id, FOREVER);
    let (pid, _) = task(containerd, &id).expect("a task");
    let shim = shims(&id);
    assert_eq!(shim.len(), 1, "{shim:?}");
    let again = |containerd: &mut Containerd| {
        containerd.crash();
        containerd.restart();
    };

    again(containerd);
    assert_eq!(task(containerd, &id), Some((pid, "RUNNING".to_owned())));
    let exec = |containerd: &Containerd, options: &[&str], name: &str, program: &[&str]| {
        let mut args = vec!["task", "exec", "--exec-id", name];
        args.extend_from_slice(options);
        args.push(&id);
        args.extend_from_slice(program);
        containerd.ctr(&args)
    };
    let inside = || exec(containerd, &[], "e", &["echo", "in"]).ok();
    assert_eq!(whole_output(inside, |stdout| !stdout.is_empty()).stdout, "in\n");

    let _ = exec(containerd, &["--detach"], "stays", &["sleep", "3000"]).ok();
    again(containerd);
    assert_eq!(containerd.ctr(&["task", "ps", &id]).ok().stdout.matches("stays").count(), 1);
    let _ = containerd.ctr(&["task", "kill", "--signal", "KILL", "--exec-id", "stays", &id]).ok();
    wait_until("the exec is gone", || !containerd.ctr(&["task", "ps", &id]).ok().stdout.contains("stays"));

    let _ = containerd.ctr(&["task", "pause", &id]).ok();
    again(containerd);
    assert!(has_status(containerd, &id, "PAUSED"));
    let _ = containerd.ctr(&["task", "resume", &id]).ok();

    // It ends while nobody is there.
    let inside = processes_with(&id).into_iter().find(|pid| parent(*pid) == Some(shim[0])).expect("its init");
    containerd.crash();
    kill(inside, Signal::TERM);
    wait_until("it has ended", || !is_there(inside));
    containerd.restart();
    assert_eq!(shims(&id), shim, "the same shim");
    wait_until("the exit is known", || has_status(containerd, &id, "STOPPED"));
    let removed = containerd.ctr(&["task", "rm", &id]).ok();
    assert!(removed.stderr.contains("exit code 7"), "{}", removed.stderr);
    again(containerd);
    remove(containerd, &id);
    nothing_is_left(containerd, &[id]);
}

fn parent(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// In the midst of calls: at what each of them makes or takes away, and at moments that a seed chooses.
pub(crate) fn containerd_dies_within_calls(containerd: &mut Containerd) {
    let bystander = containerd.id();
    run(containerd, &bystander, FOREVER);
    let before = task(containerd, &bystander);
    let shim = containerd.place().shim().expect("a shim").display().to_string();
    let bundles = containerd.place().path().join("state/io.containerd.runtime.v2.task").join(containerd.namespace());
    let states = containerd.place().outside(&format!("/run/containerd/flint/{}", containerd.namespace()));

    let made: [&dyn Fn(&str) -> PathBuf; 3] =
        [&|id| bundles.join(id), &|id| bundles.join(id).join("address"), &|id| states.join(id)];
    let mut ids = vec![bystander.clone()];
    let mut new = |containerd: &Containerd| {
        ids.push(containerd.id());
        ids.last().cloned().unwrap_or_default()
    };
    for file in made {
        let id = new(containerd);
        let args = ["run", "--detach", "--null-io", "--runtime", &shim, IMAGE, &id, "sh", "-c", FOREVER];
        crash_at(containerd, &args, || file(&id).exists());
        remove(containerd, &id);
    }
    let gone: [&dyn Fn(&str) -> PathBuf; 2] = [&|id| states.join(id), &|id| bundles.join(id)];
    for file in gone {
        let id = new(containerd);
        run(containerd, &id, FOREVER);
        crash_at(containerd, &["task", "rm", "--force", &id], || !file(&id).exists());
        remove(containerd, &id);
    }
    let seeds =
        std::env::var("FLINT_SHIM_KILLS").map_or(SEEDS, |text| text.parse().expect("FLINT_SHIM_KILLS is a number"));
    for seed in 1..=seeds {
        let id = new(containerd);
        let all: [&[&str]; 4] = [
            &["run", "--detach", "--null-io", "--runtime", &shim, IMAGE, &id, "sh", "-c", FOREVER],
            &["task", "exec", "--exec-id", "e", &id, "sleep", "1"],
            &["task", "kill", "--signal", "KILL", &id],
            &["task", "rm", "--force", &id],
        ];
        let args = all[seed as usize % all.len()];
        if args[0] != "run" {
            run(containerd, &id, FOREVER);
        }
        // Numerical Recipes' generator; up to 60 ms.
        let delay = Duration::from_micros(u64::from(seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223) % 60_000));
        let start = Instant::now();
        crash_at(containerd, args, || start.elapsed() >= delay);
        remove(containerd, &id);
    }
    assert_eq!(task(containerd, &bystander), before, "another container");
    remove(containerd, &bystander);
    nothing_is_left(containerd, &ids);
}

/// The topics of events of tasks that containerd took, behind a place in its log.
fn forwarded(containerd: &Containerd, told: usize) -> Vec<String> {
    let log = containerd.log();
    let forwarded = log[told..].lines().filter(|line| line.contains("\"event forwarded\""));
    forwarded.filter_map(|line| Some(line.split_once("topic=/tasks/")?.1.split(' ').next()?.to_owned())).collect()
}

/// What happens while containerd is away is told when it is back, in its order.
pub(crate) fn events_wait_for_containerd(containerd: &mut Containerd) {
    let id = containerd.id();
    let told = containerd.log().len();
    run(containerd, &id, FOREVER);
    // It is told after the client has its answer.
    wait_until("its start is told", || forwarded(containerd, told).iter().any(|topic| topic == "start"));
    let bundle = containerd.place().path().join("state/io.containerd.runtime.v2.task").join(containerd.namespace());
    let address = std::fs::read_to_string(bundle.join(&id).join("address")).expect("the shim's address");
    containerd.crash();
    let told = containerd.log().len();

    let case = Case::new(&flint());
    let socket = containerd.place().outside(address.trim_start_matches("unix://"));
    let shim = Shim::connect(&case, &format!("unix://{}", socket.display()));
    let _: Empty = shim.call("Pause", &PauseRequest { id: id.clone(), ..PauseRequest::default() }).expect("pause");
    let _: Empty = shim.call("Resume", &ResumeRequest { id: id.clone(), ..ResumeRequest::default() }).expect("resume");
    let process = serde_json::json!({"args": ["true"], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}});
    shim.exec(&id, "e", &process, &Streams::default()).expect("exec");
    shim.run(&id, "e").expect("start the exec");
    assert_eq!(shim.wait(&id, "e"), Ok(0));
    shim.kill(&id, "", 15).expect("kill");
    assert_eq!(shim.wait(&id, ""), Ok(7));
    // The longer, the more attempts to deliver have failed.
    let away = std::env::var("FLINT_AWAY_SECONDS").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(3);
    std::thread::sleep(Duration::from_secs(away));

    containerd.restart();
    let expected = ["paused", "resumed", "exec-added", "exec-started", "exit", "exit"];
    wait_until("all events are delivered", || forwarded(containerd, told).len() >= expected.len());
    assert_eq!(forwarded(containerd, told), expected);
    let removed = containerd.ctr(&["task", "rm", &id]).ok();
    assert!(removed.stderr.contains("exit code 7"), "{}", removed.stderr);
    remove(containerd, &id);
    drop(shim);
    nothing_is_left(containerd, &[id]);
    case.finish();
}

/// How many moments are chosen by a seed, if `FLINT_SHIM_KILLS` does not say it.
const SEEDS: u32 = 8;

/// containerd calls `delete` for the container of a shim that was killed.
pub(crate) fn a_killed_shim_leaves_nothing(containerd: &mut Containerd) {
    let (id, other) = (containerd.id(), containerd.id());
    run(containerd, &id, FOREVER);
    run(containerd, &other, FOREVER);
    let before = task(containerd, &other);
    let shim = shims(&id);
    let inside = processes_with(&id).into_iter().find(|pid| parent(*pid) == Some(shim[0])).expect("its init");
    kill(shim[0], Signal::KILL);
    wait_until("its container has ended", || !is_there(inside));
    wait_until("`delete` has cleaned", || containerd.place().left_of(&id, &[]).is_empty());
    assert_eq!(task(containerd, &other), before, "a container of another shim");
    remove(containerd, &id);

    // And while containerd is away: found at its start.
    containerd.crash();
    kill(shims(&other)[0], Signal::KILL);
    containerd.restart();
    remove(containerd, &other);
    nothing_is_left(containerd, &[id, other]);
}
