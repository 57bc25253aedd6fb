//! Thousands of tasks in one shim: each is told in its order, and the shim is as it was. `FLINT_SHIM_TASKS=10000` for the
//! long run.

use std::fs;
use std::path::{Path, PathBuf};

use containerd_shim_protos::api::WaitRequest;
use containerd_shim_protos::ttrpc::Code;
use integration_tests::{
    Case, EventListener, EventServer, Fifo, Shim, Streams, children_of, refused, shim_case, wait_until,
};
use serde_json::json;

const LIFE: [&str; 4] = ["create", "start", "exit", "delete"];
/// So many come first: what they touch, an allocator keeps.
const WARM: usize = 100;
/// What a row may have grown by, in KiB, however long it is: over 10,000 tasks it comes and goes by 124, by what lies where when
/// it is looked at.
const ROW: u64 = 256;

struct Many {
    case: Case,
    events: EventServer,
    _listener: EventListener,
    folder: PathBuf,
    shim: Shim,
    pid: i32,
}

/// What a shim has at a moment.
#[derive(Clone, Copy, Debug)]
struct Has {
    fds: usize,
    /// KiB that are its own alone.
    memory: u64,
}

fn count() -> usize {
    std::env::var("FLINT_SHIM_TASKS").map_or(200, |count| count.parse().expect("FLINT_SHIM_TASKS is a number"))
}

impl Many {
    fn new() -> Option<Self> {
        let (case, program, events, listener) = shim_case()?;
        let bundle = case.bundle().args(&["true"]);
        let shim = Shim::start(&case, &program, &bundle, &case.id("first"), &events);
        let folder = bundle.path().to_owned();
        let pid = shim.pid();
        Some(Self { case, events, _listener: listener, folder, shim, pid })
    }

    fn entries(&self, folder: &str) -> usize {
        fs::read_dir(format!("/proc/{}/{folder}", self.pid)).expect("the shim's").count()
    }

    /// Once its threads have ended, which idle for a moment, and its descriptors are those of before, if there is one.
    #[track_caller]
    fn has(&self, children: usize, before: Option<Has>) -> Has {
        wait_until("its children have ended", || children_of(self.pid.cast_unsigned()).len() == children);
        wait_until("its threads have ended", || self.entries("task") <= 3);
        wait_until("its descriptors are as before", || {
            before.is_none_or(|before| self.entries("fd") <= before.fds + 2)
        });
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid)).expect("its memory");
        let line = text.lines().find(|line| line.starts_with("Private_Dirty:")).expect("Private_Dirty");
        let memory = line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number");
        Has { fds: self.entries("fd"), memory }
    }

    /// Create, Start, Wait, Delete.
    #[track_caller]
    fn live(&self, id: &str, folder: &Path, streams: &Streams) {
        self.shim.create(id, folder, streams).expect("create");
        self.shim.run(id, "").expect("start");
        assert_eq!(self.shim.wait(id, "").expect("wait"), 0);
        assert_eq!(self.shim.delete(id, "").expect("delete").exit_status, 0);
    }

    fn ids(&self, way: &str, count: usize) -> Vec<String> {
        (0..count).map(|number| self.case.id(&format!("{way}{number}"))).collect()
    }

    /// Events that nobody has taken yet are kept, and what comes and goes meanwhile lies around them: that is no leak.
    #[track_caller]
    fn settled(&self, ids: &[String]) {
        for id in ids {
            self.events.wait_for(id, &LIFE);
        }
    }

    fn finish(self) {
        self.shim.shutdown();
        self.case.finish();
    }
}

#[test]
fn a_row_leaves_nothing() {
    let Some(many) = Many::new() else { return };
    let live = |ids: &[String]| {
        for id in ids {
            many.live(id, &many.folder, &Streams::default());
        }
        many.settled(ids);
    };
    live(&many.ids("w", WARM));
    let before = many.has(0, None);
    for part in many.ids("r", count()).chunks(1000) {
        live(part);
        println!("{} more in a row: {:?} after {before:?}", part.len(), many.has(0, Some(before)));
    }
    let grown = many.has(0, Some(before)).memory.saturating_sub(before.memory);
    assert!(grown <= ROW, "{grown} KiB more");
    many.finish();
}

#[test]
fn many_at_a_time_leave_nothing() {
    let Some(many) = Many::new() else { return };
    let at_once = |ids: &[String]| {
        std::thread::scope(|scope| {
            for part in ids.chunks(ids.len().div_ceil(50)) {
                let many = &many;
                scope.spawn(move || part.iter().for_each(|id| many.live(id, &many.folder, &Streams::default())));
            }
        });
        many.settled(ids);
    };
    at_once(&many.ids("w", WARM));
    let before = many.has(0, None);
    for part in many.ids("t", count()).chunks(1000) {
        at_once(part);
        println!("{} more at a time: {:?} after {before:?}", part.len(), many.has(0, Some(before)));
    }
    let grown = many.has(0, Some(before)).memory.saturating_sub(before.memory);
    // How they lie to each other differs each time. A hundred bytes a task would be a leak in the long run.
    let allowed = 1024 + count() as u64 / 10;
    assert!(grown < allowed, "{grown} KiB more");
    many.finish();
}

/// Execs, terminals, fifos, failures, clients that leave: of each kind many, in one container that goes on.
#[test]
fn execs_and_failures_leave_nothing() {
    let Some(many) = Many::new() else { return };
    let (shim, id) = (&many.shim, many.case.id("stays"));
    let forever = many.case.bundle().forever();
    shim.create(&id, &forever.write(), &Streams::default()).expect("create");
    shim.run(&id, "").expect("start");
    let broken = many.case.bundle().args(&["no-such-program"]);
    let broken = broken.write();
    let wait = WaitRequest { id: id.clone(), ..WaitRequest::default() };
    let round = |number: usize| {
        let exec = format!("e{number}");
        let out = Fifo::new(&many.case, &format!("out{number}"));
        let read = out.read_all();
        let terminal = number % 2 == 1;
        let process = json!({"args": ["echo", "x"], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0},
                             "terminal": terminal});
        let streams = Streams { terminal, stdout: out.path(), ..Streams::default() };
        shim.exec(&id, &exec, &process, &streams).expect("exec");
        shim.run(&id, &exec).expect("start");
        let leaves = shim.begin("Wait", &wait);
        assert_eq!(shim.wait(&id, &exec).expect("wait"), 0);
        shim.delete(&id, &exec).expect("delete");
        assert_eq!(read.join().unwrap().trim_end(), "x");
        fs::remove_file(out.path()).expect("remove the fifo");
        assert_eq!(refused(shim.state(&id, &exec)).0, Code::NOT_FOUND);
        let failed = shim.create(&many.case.id(&exec), &broken, &Streams::default());
        assert_eq!(refused(failed).0, Code::UNKNOWN);
        drop(leaves);
    };
    (0..WARM).for_each(round);
    // The container's init is its child.
    let before = many.has(1, None);
    for number in WARM..WARM + count() {
        round(number);
        if (number - WARM + 1).is_multiple_of(1000) {
            println!("after {}: {:?} after {before:?}", number - WARM + 1, many.has(1, Some(before)));
        }
    }
    let grown = many.has(1, Some(before)).memory.saturating_sub(before.memory);
    assert!(grown <= ROW, "{grown} KiB more");
    shim.kill(&id, "", 9).expect("kill");
    assert_eq!(shim.wait(&id, "").expect("wait"), 137);
    shim.delete(&id, "").expect("delete");
    many.finish();
}
