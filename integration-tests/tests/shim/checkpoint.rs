//! The shim writes tasks to files and brings them back, by CRIU: their streams are other fifos then.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use containerd_shim_protos::api::{CheckpointTaskRequest, Empty, KillRequest, StartRequest, Status};
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{Message as _, MessageField};
use containerd_shim_protos::shim::oci::CheckpointOptions;
use containerd_shim_protos::ttrpc::Code;
use integration_tests::{
    Bundle, Case, EventListener, EventServer, Fifo, Shim, Streams, criu, processes_with, refused, shim_case,
    wait_until, write_program,
};

struct Saved {
    case: Case,
    events: EventServer,
    _listener: EventListener,
    shim: Shim,
    bundle: Bundle,
    id: String,
}

impl Saved {
    /// A shim that finds CRIU, and a bundle that counts on its standard output.
    fn new() -> Option<Self> {
        Self::with(|_, criu| criu)
    }

    /// The same, that finds it where `place` says.
    fn with(place: impl FnOnce(&Case, PathBuf) -> PathBuf) -> Option<Self> {
        let criu = criu()?;
        let (case, program, events, listener) = shim_case()?;
        let criu = place(&case, criu);
        let bundle = case.bundle().shell("i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done");
        let id = case.id("a");
        let shim = Shim::start_with_path(&case, &program, &bundle, &id, &events, &[&criu]);
        Some(Self { case, events, _listener: listener, shim, bundle, id })
    }

    fn images(&self) -> PathBuf {
        self.case.path().join("images")
    }

    fn checkpoint(&self, exit: bool) {
        let options = CheckpointOptions {
            exit,
            work_path: self.case.path().join("work").display().to_string(),
            ..CheckpointOptions::default()
        };
        let options = Any {
            type_url: "containerd.runc.v1.CheckpointOptions".to_owned(),
            value: options.write_to_bytes().expect("encode options"),
            ..Any::default()
        };
        let request = CheckpointTaskRequest {
            id: self.id.clone(),
            path: self.images().display().to_string(),
            options: MessageField::some(options),
            ..CheckpointTaskRequest::default()
        };
        self.shim.call::<Empty>("Checkpoint", &request).expect("checkpoint");
    }

    fn restore(&self, streams: &Streams) {
        let pid = self.shim.create_from(&self.id, self.bundle.path(), streams, Some(&self.images())).expect("create");
        assert_eq!(pid, 0, "it is not there before its start");
        assert_eq!(self.shim.state(&self.id, "").expect("state").status.unwrap(), Status::CREATED);
    }
}

/// Reads numbers from a fifo until one is above `least`; its descriptor, which keeps the fifo from being full or closed.
fn numbers(fifo: &Fifo) -> impl FnMut(u32) -> u32 + use<> {
    let file = File::options().read(true).write(true).open(fifo.path()).expect("open the fifo");
    let mut lines = BufReader::new(file).lines();
    move |least| loop {
        let line = lines.next().expect("a line").expect("read the fifo");
        let number = line.trim().parse().unwrap_or_else(|error| panic!("{error}: {line:?}"));
        if number > least {
            return number;
        }
    }
}

#[test]
fn a_counter_goes_on_into_another_fifo() {
    let Some(saved) = Saved::new() else { return };
    let (id, shim) = (&saved.id, &saved.shim);
    let streams = |fifo: &Fifo| Streams { stdout: fifo.path(), stderr: fifo.path(), ..Streams::default() };
    let first = Fifo::new(&saved.case, "first");
    let mut before_it = numbers(&first);
    shim.create(id, saved.bundle.path(), &streams(&first)).expect("create");
    shim.run(id, "").expect("start");
    before_it(3);
    // It goes on after the first, and ends with the second.
    saved.checkpoint(false);
    let before = before_it(0);
    before_it(before);
    drop(before_it);
    std::fs::remove_dir_all(saved.images()).expect("remove the first images");
    saved.checkpoint(true);
    assert_eq!(shim.wait(id, "").expect("wait"), 137);
    shim.delete(id, "").expect("delete");
    let life = ["create", "start", "checkpointed", "checkpointed", "exit", "delete"];
    saved.events.wait_for(id, &life);
    let second = Fifo::new(&saved.case, "second");
    let mut after_it = numbers(&second);
    saved.restore(&streams(&second));
    let pid = shim.run(id, "").expect("start");
    assert_ne!(pid, 0);
    assert!(after_it(0) > before, "it started over");
    drop(after_it);
    assert_eq!(refused(shim.run(id, "")).0, Code::FAILED_PRECONDITION);
    shim.kill(id, "", 9).expect("kill");
    assert_eq!(shim.wait(id, "").expect("wait"), 137);
    shim.delete(id, "").expect("delete");
    // It may be restored as often as one likes, and be given up before.
    saved.restore(&streams(&second));
    shim.kill(id, "", 9).expect("kill");
    assert_eq!(shim.wait(id, "").expect("wait"), 137);
    shim.delete(id, "").expect("delete");
    let again = ["create", "start", "exit", "delete", "create", "exit", "delete"];
    saved.events.wait_for(id, &[&life[..], &again].concat());
    saved.shim.shutdown();
    saved.case.finish();
}

#[test]
fn a_log_file_goes_on_in_another() {
    let Some(saved) = Saved::new() else { return };
    let (id, shim) = (&saved.id, &saved.shim);
    let [first, second] = ["first", "second"].map(|name| saved.case.path().join(name));
    let streams = |file: &Path| Streams { stdout: format!("file://{}", file.display()), ..Streams::default() };
    let lines = |file: &Path| std::fs::read_to_string(file).unwrap_or_default().lines().count();
    shim.create(id, saved.bundle.path(), &streams(&first)).expect("create");
    shim.run(id, "").expect("start");
    wait_until("it counts", || lines(&first) > 3);
    saved.checkpoint(true);
    let counted = lines(&first);
    shim.delete(id, "").expect("delete");
    saved.restore(&streams(&second));
    shim.run(id, "").expect("start");
    wait_until("it counts on", || lines(&second) > 3);
    let text = std::fs::read_to_string(&second).expect("read the log");
    let next = text.lines().next().and_then(|line| line.parse().ok());
    assert_eq!(next, Some(counted + 1), "{text:?}");
    shim.kill(id, "", 9).expect("kill");
    assert_eq!(shim.wait(id, "").expect("wait"), 137);
    shim.delete(id, "").expect("delete");
    saved.shim.shutdown();
    saved.case.finish();
}

/// Nobody is there yet while CRIU is at work: who kills the container then ends what comes of it, and is told so.
#[test]
fn a_kill_during_a_restore_ends_what_is_restored() {
    let held = |case: &Case, criu: PathBuf| {
        let folder = case.path().join("path");
        std::fs::create_dir(&folder).expect("make a folder");
        let script = "#!/bin/sh\n[ \"$1\" = swrk ] && [ -e FOLDER/go ] && : < FOLDER/go\nexec CRIU \"$@\"\n";
        let script = script.replace("FOLDER", &case.path().display().to_string());
        let program = folder.join("criu");
        write_program(&program, script.replace("CRIU", &criu.join("criu").display().to_string()));
        folder
    };
    let Some(saved) = Saved::with(held) else { return };
    let (id, shim) = (&saved.id, &saved.shim);
    shim.create(id, saved.bundle.path(), &Streams::default()).expect("create");
    shim.run(id, "").expect("start");
    saved.checkpoint(true);
    assert_eq!(shim.wait(id, "").expect("wait"), 137);
    shim.delete(id, "").expect("delete");
    let go = Fifo::new(&saved.case, "go");
    let request = |id: &str| StartRequest { id: id.to_owned(), ..StartRequest::default() };
    saved.restore(&Streams::default());
    let start = shim.begin("Start", &request(id));
    wait_until("CRIU is started", || !processes_with(&format!("{}/path/criu", saved.case.path().display())).is_empty());
    let kill = shim.begin("Kill", &KillRequest { id: id.clone(), signal: 9, ..KillRequest::default() });
    assert_eq!(shim.state(id, "").expect("state").status.unwrap(), Status::CREATED);
    assert!(kill.is_pending() && start.is_pending(), "{:?}", kill.answer());
    let released = File::options().read(true).write(true).open(go.path()).expect("let it go on");
    let [start, kill] = [start, kill].map(|pending| pending.answer().expect("an answer"));
    drop(released);
    assert!(start.is_ok() && kill.is_ok(), "{start:?} {kill:?}");
    assert_eq!(shim.wait(id, "").expect("wait"), 137);
    shim.delete(id, "").expect("delete");
    let life = ["create", "start", "checkpointed", "exit", "delete", "create", "start", "exit", "delete"];
    saved.events.wait_for(id, &life);
    saved.shim.shutdown();
    saved.case.finish();
}

#[test]
fn a_checkpoint_that_is_none_fails_at_start_and_is_deleted() {
    let Some(saved) = Saved::new() else { return };
    let (id, shim) = (&saved.id, &saved.shim);
    std::fs::create_dir(saved.images()).expect("make a folder");
    for way in ["started", "deleted at once"] {
        saved.restore(&Streams::default());
        if way == "started" {
            let (_, text) = refused(shim.run(id, ""));
            assert!(text.contains("restore"), "{text}");
            assert_eq!(shim.state(id, "").expect("state").status.unwrap(), Status::STOPPED);
        }
        shim.delete(id, "").expect("delete");
        assert_eq!(refused(shim.state(id, "")).0, Code::NOT_FOUND);
    }
    saved.shim.shutdown();
    saved.case.finish();
}
