//! The shim is killed at any moment: `delete`, which containerd then calls, takes away what it left, and another shim may take
//! its place.

use std::fs;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use containerd_shim_protos::api::{
    CreateTaskRequest, DeleteRequest, DeleteResponse, ExecProcessRequest, KillRequest, PauseRequest, ResumeRequest,
    StartRequest,
};
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{Message as _, MessageField};
use containerd_shim_protos::types::mount::Mount;
use integration_tests::{
    Bundle, Case, EventListener, EventServer, Pending, Random, Shim, Streams, shim_case, shim_delete, shim_namespace,
    wait_until,
};
use serde_json::json;

/// Far above the 5 s that containerd waits for `delete`, which a busy machine makes slow: one that hangs is a failure.
const CLEANUP: Duration = Duration::from_secs(30);
/// A call that is killed in its middle: at most this long after it was begun, whatever it took before.
const LONGEST: Duration = Duration::from_millis(500);
const EXEC: &str = "e";

/// The calls of a life, in their order. What `Wait` waits for is told by how the next call goes.
const CALLS: [&str; 10] =
    ["Create", "Start", "Exec", "Start e", "Pause", "Resume", "Kill e", "Delete e", "Kill", "Delete"];

/// A container whose shim will be killed.
struct Doomed {
    case: Case,
    program: PathBuf,
    events: EventServer,
    _listener: EventListener,
    _bundle: Bundle,
    folder: PathBuf,
    id: String,
    shim: Shim,
    shim_pid: i32,
    create: CreateTaskRequest,
}

impl Doomed {
    /// With a root filesystem that Create mounts; `shares_pids`: without a pid namespace of its own.
    fn new(shares_pids: bool) -> Option<Self> {
        let (case, program, events, listener) = shim_case()?;
        let script = "busybox setsid sleep 1000 & trap 'exit 0' TERM; while :; do sleep 1000 & wait $!; done";
        let kinds = ["ipc", "uts", "mount", "network", "pid"].into_iter().filter(|kind| !shares_pids || *kind != "pid");
        let namespaces: Vec<_> = kinds.map(|kind| json!({"type": kind})).collect();
        let bundle = case.bundle().shell(script).edit(json!({"linux": {"namespaces": namespaces}}));
        let id = case.id("a");
        let folder = case.path().join("task");
        fs::create_dir(&folder).expect("make a bundle");
        fs::copy(bundle.write().join("config.json"), folder.join("config.json")).expect("copy config.json");
        let shim = Shim::start_in(&case, &program, &folder, &id, &events);
        let rootfs = Mount {
            type_: "bind".to_owned(),
            source: bundle.rootfs().display().to_string(),
            options: vec!["rbind".to_owned(), "rw".to_owned()],
            ..Mount::default()
        };
        let create =
            CreateTaskRequest { rootfs: vec![rootfs], ..shim.create_request(&id, &folder, &Streams::default()) };
        let shim_pid = shim.pid();
        Some(Self { case, program, events, _listener: listener, _bundle: bundle, folder, id, shim, shim_pid, create })
    }

    fn begin(&self, call: &str) -> Pending {
        let (id, shim) = (self.id.clone(), &self.shim);
        let (method, exec_id) = match call.split_once(' ') {
            Some((method, exec)) => (method, exec.to_owned()),
            None => (call, String::new()),
        };
        match method {
            "Create" => shim.begin(method, &self.create),
            "Start" => shim.begin(method, &StartRequest { id, exec_id, ..StartRequest::default() }),
            "Exec" => {
                let process =
                    json!({"args": ["sleep", "1000"], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}});
                let spec = MessageField::some(Any { value: process.to_string().into_bytes(), ..Any::default() });
                shim.begin(method, &ExecProcessRequest { id, exec_id: EXEC.to_owned(), spec, ..Default::default() })
            }
            "Pause" => shim.begin(method, &PauseRequest { id, ..PauseRequest::default() }),
            "Resume" => shim.begin(method, &ResumeRequest { id, ..ResumeRequest::default() }),
            "Kill" => shim.begin(method, &KillRequest { id, exec_id, signal: 9, ..KillRequest::default() }),
            "Delete" => {
                self.shim.wait(&id, &exec_id).expect("wait");
                shim.begin(method, &DeleteRequest { id, exec_id, ..DeleteRequest::default() })
            }
            other => unreachable!("{other}"),
        }
    }

    #[track_caller]
    fn done(&self, call: &str) {
        let answer = self.begin(call).answer().expect("an answer");
        assert!(answer.is_ok(), "{call}: {answer:?}");
    }

    /// What containerd does then, twice as it may; and a new life of the same name after it.
    #[track_caller]
    fn clean(self, when: &str) {
        self.shim.die(self.shim_pid);
        for _ in 0..2 {
            let begun = Instant::now();
            let output = shim_delete(&self.case, &self.program, &self.folder, &self.id);
            assert!(begun.elapsed() < CLEANUP, "{when}: delete took {:?}", begun.elapsed());
            assert_eq!((output.code, output.stderr.as_str()), (0, ""), "{when}");
            let told = DeleteResponse::parse_from_bytes(&output.stdout_bytes).expect("a DeleteResponse");
            assert_eq!(told.exit_status, 137, "{when}");
        }
        assert_eq!(self.left(), Vec::<PathBuf>::new(), "{when}");
        let shim = Shim::start_in(&self.case, &self.program, &self.folder, &self.id, &self.events);
        let next = Self { shim_pid: shim.pid(), shim, ..self };
        for call in CALLS {
            next.done(call);
        }
        next.shim.shutdown();
        next.case.finish();
    }

    /// Its socket, state, and what a container's bundle must not keep.
    fn left(&self) -> Vec<PathBuf> {
        let mut left = self.shim.states(&shim_namespace(&self.case));
        left.extend(Some(self.shim.socket().to_owned()).filter(|socket| socket.exists()));
        let entries = fs::read_dir(&self.folder).expect("read the bundle").flatten();
        let odd = |path: &Path| {
            path.symlink_metadata().is_ok_and(|found| found.file_type().is_fifo() || found.file_type().is_socket())
        };
        left.extend(entries.map(|entry| entry.path()).filter(|path| odd(path)));
        left
    }
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// Between each two calls: also between `start` and Create, and between Create and Start.
#[test]
fn killed_between_two_calls() {
    for shares_pids in [false, true] {
        for count in 0..=CALLS.len() {
            let Some(doomed) = Doomed::new(shares_pids) else { return };
            for call in &CALLS[..count] {
                doomed.done(call);
            }
            doomed.clean(&format!("before {:?}, shared pids: {shares_pids}", CALLS.get(count)));
        }
    }
}

/// In the middle of each call, at moments that a seed chooses: `FLINT_SHIM_KILLS` of each, from `FLINT_SHIM_KILLS_SEED`.
#[test]
fn killed_in_the_middle_of_a_call() {
    let (kills, seed) = (number("FLINT_SHIM_KILLS", 3), number("FLINT_SHIM_KILLS_SEED", 1));
    for (at, call) in CALLS.iter().enumerate() {
        let mut random = Random::new(seed, at as u64);
        // How long it takes is asked of one that is not killed.
        let mut taken = LONGEST;
        for kill in 0..=kills {
            let Some(doomed) = Doomed::new(kill % 2 == 1) else { return };
            for call in &CALLS[..at] {
                doomed.done(call);
            }
            let pending = doomed.begin(call);
            let begun = Instant::now();
            if kill == 0 {
                assert!(pending.answer().is_some_and(|answer| answer.is_ok()), "{call}");
                taken = begun.elapsed().min(LONGEST);
                doomed.clean(&format!("after {call}"));
                continue;
            }
            let micros = taken.as_micros() as usize;
            let delay = Duration::from_micros(random.below(micros.max(1)) as u64);
            std::thread::sleep(delay);
            doomed.clean(&format!("{delay:?} after {call} was begun, of {taken:?}; seed {seed}, kill {kill}"));
            drop(pending);
        }
    }
}

/// All that share a shim end with it, and nobody else does.
#[test]
fn a_killed_shim_costs_its_group_and_no_other() {
    let Some((case, program, events, _listener)) = shim_case() else { return };
    let ids = ["a", "b", "other"].map(|name| case.id(name));
    let bundles: Vec<Bundle> = (ids.iter().enumerate())
        .map(|(number, _)| {
            let group = case.id(if number < 2 { "group" } else { "other-group" });
            case.bundle().forever().edit(json!({"annotations": {"io.containerd.runc.v2.group": group}}))
        })
        .collect();
    let shims: Vec<Shim> =
        ids.iter().zip(&bundles).map(|(id, bundle)| Shim::start(&case, &program, bundle, id, &events)).collect();
    assert!(shims[0].address() == shims[1].address() && shims[0].address() != shims[2].address());
    for ((id, bundle), shim) in ids.iter().zip(&bundles).zip(&shims) {
        shim.create(id, bundle.path(), &Streams::default()).expect("create");
        shim.run(id, "").expect("start");
    }
    shims[0].die(shims[0].pid());
    for (id, bundle) in ids.iter().zip(&bundles).take(2) {
        let output = shim_delete(&case, &program, bundle.path(), id);
        assert_eq!((output.code, output.stderr.as_str()), (0, ""));
        wait_until("its processes have ended", || {
            // The other shim's command line does not hold this id.
            integration_tests::processes_with(id).is_empty()
        });
    }
    assert!(!shims[0].socket().exists(), "its socket is left");
    assert!(shims[2].state(&ids[2], "").expect("state").pid > 0);
    shims[2].kill(&ids[2], "", 9).expect("kill");
    assert_eq!(shims[2].wait(&ids[2], "").expect("wait"), 137);
    shims[2].delete(&ids[2], "").expect("delete");
    let mut shims = shims;
    shims.pop().expect("the other shim").shutdown();
    case.finish();
}
