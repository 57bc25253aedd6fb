//! What takes its time stops nobody else: unmounts, loggers, programs that hold an output, clients that leave meanwhile.

use std::fs;
use std::path::{Path, PathBuf};

use containerd_shim_protos::api::{ConnectRequest, CreateTaskRequest, DeleteRequest, Empty, Status};
use containerd_shim_protos::ttrpc::{Code, Error as RpcError};
use containerd_shim_protos::types::mount::Mount;
use integration_tests::{
    Bundle, Case, EventListener, EventServer, Fifo, Pending, Shim, Streams, Tampered, children_of, processes_with,
    refused, shim_case, wait_until, write_program,
};
use serde_json::{Value, json};

pub(crate) const LIFE: [&str; 4] = ["create", "start", "exit", "delete"];

pub(crate) struct Slow {
    pub(crate) case: Case,
    pub(crate) events: EventServer,
    _listener: EventListener,
    pub(crate) bundle: Bundle,
    pub(crate) shim: Shim,
}

impl Slow {
    pub(crate) fn new() -> Option<Self> {
        let (case, program, events, listener) = shim_case()?;
        let bundle = case.bundle().forever();
        let shim = Shim::start(&case, &program, &bundle, &case.id("first"), &events);
        Some(Self { case, events, _listener: listener, bundle, shim })
    }

    /// A running container with these streams.
    pub(crate) fn run(&self, name: &str, streams: &Streams) -> String {
        let id = self.case.id(name);
        self.shim.create(&id, self.bundle.path(), streams).expect("create");
        self.shim.run(&id, "").expect("start");
        id
    }

    /// One that has ended; its root filesystem was mounted by Create.
    fn ended_on_a_mount(&self, name: &str) -> String {
        let (id, folder) = (self.case.id(name), self.case.path().join(name));
        fs::create_dir(&folder).expect("make a bundle");
        fs::copy(self.bundle.path().join("config.json"), folder.join("config.json")).expect("copy config.json");
        let rootfs = Mount {
            type_: "bind".to_owned(),
            source: self.bundle.rootfs().display().to_string(),
            options: vec!["rbind".to_owned()],
            ..Mount::default()
        };
        let request =
            CreateTaskRequest { rootfs: vec![rootfs], ..self.shim.create_request(&id, &folder, &Streams::default()) };
        let answer = self.shim.begin("Create", &request).answer().expect("an answer");
        assert!(answer.is_ok(), "{answer:?}");
        self.shim.run(&id, "").expect("start");
        self.end_it(&id);
        id
    }

    pub(crate) fn end_it(&self, id: &str) {
        self.shim.kill(id, "", 9).expect("kill");
        assert_eq!(self.shim.wait(id, "").expect("wait"), 137);
    }

    pub(crate) fn begin_delete(&self, id: &str) -> Pending {
        self.shim.begin("Delete", &DeleteRequest { id: id.to_owned(), ..DeleteRequest::default() })
    }

    /// Returns when what was sent before, by anybody, has been taken: connecting and reading need some turns of the shim's.
    pub(crate) fn taken(&self) {
        for _ in 0..3 {
            let _: Empty = self.shim.call("Connect", &ConnectRequest::default()).expect("connect");
        }
    }

    pub(crate) fn status(&self, id: &str) -> Status {
        self.shim.state(id, "").expect("state").status.unwrap()
    }

    fn is_gone(&self, id: &str) -> bool {
        matches!(self.shim.state(id, ""), Err(RpcError::RpcStatus(status)) if status.code() == Code::NOT_FOUND)
    }

    pub(crate) fn finish(self) {
        self.shim.shutdown();
        self.case.finish();
    }
}

/// Delete hangs in an unmount, its client leaves, and another one asks for the same: all others are served, and it happens once.
#[test]
fn a_slow_unmount_stops_its_own_task_alone_and_outlives_its_client() {
    let Some(slow) = Slow::new() else { return };
    let other = slow.run("other", &Streams::default());
    let id = slow.ended_on_a_mount("slow");
    let mounted = slow.case.path().join("slow/rootfs").display().to_string();
    let is_mounted = || fs::read_to_string("/proc/self/mountinfo").expect("the mounts").contains(&mounted);
    assert!(is_mounted());
    let log = slow.case.path().join("strace");
    let hold = ["--follow-forks", "--trace=umount2", "--inject=umount2:delay_enter=2000000000"];
    let Some(strace) = Tampered::attach(slow.shim.pid(), &log, &hold) else { return };
    let deletion = slow.begin_delete(&id);
    wait_until("it unmounts", || fs::read_to_string(&log).is_ok_and(|text| text.contains("umount2(")));
    drop(deletion);
    let second = slow.begin_delete(&id);
    for _ in 0..20 {
        assert_eq!((slow.status(&id), slow.status(&other)), (Status::STOPPED, Status::RUNNING));
    }
    // Not a new container, whose init unmounts, too.
    slow.shim.exec(&other, "e", &process("exit 3"), &Streams::default()).expect("exec");
    slow.shim.run(&other, "e").expect("start");
    assert_eq!(slow.shim.wait(&other, "e").expect("wait"), 3);
    slow.end_it(&other);
    slow.shim.delete(&other, "").expect("delete");
    assert!(second.is_pending() && is_mounted(), "{:?}", second.answer());
    drop(strace);
    let (code, _) = second.answer().expect("an answer").expect_err("the first one has deleted it");
    assert_eq!(code, Code::NOT_FOUND);
    assert!(slow.is_gone(&id) && !is_mounted());
    // Told once.
    slow.events.wait_for(&id, &LIFE);
    slow.finish();
}

/// A logger that takes a file's being there for the sign to begin.
fn logger(case: &Case, begins: &Path) -> (String, PathBuf) {
    let (program, logged) = (case.path().join("logger"), case.path().join("logged"));
    let script =
        "#!/bin/sh\nwhile ! [ -e \"$1\" ]; do sleep 0.02; done\nexec 5>&-\ncat <&3 > \"$2\"; echo end >> \"$2\"\n";
    write_program(&program, script);
    (format!("binary://{}?{}&{}", program.display(), begins.display(), logged.display()), logged)
}

/// containerd gives a Create up, and deletes the task: what was being made then is not left behind.
#[test]
fn a_create_that_was_given_up_is_deleted_once_it_is_there() {
    let Some(slow) = Slow::new() else { return };
    let begins = slow.case.path().join("begin");
    let (uri, _) = logger(&slow.case, &begins);
    let (id, streams) = (slow.case.id("slow"), Streams { stdout: uri.clone(), stderr: uri, ..Streams::default() });
    let creation = slow.shim.begin("Create", &slow.shim.create_request(&id, slow.bundle.path(), &streams));
    wait_until("it waits for its logger", || !processes_with(&begins.display().to_string()).is_empty());
    drop(creation);
    let again = slow.shim.create(&id, slow.bundle.path(), &Streams::default());
    assert_eq!(refused(again).0, Code::ALREADY_EXISTS);
    let other = slow.run("other", &Streams::default());
    let deletion = slow.begin_delete(&id);
    assert_eq!(slow.status(&other), Status::RUNNING);
    assert!(deletion.is_pending(), "{:?}", deletion.answer());
    // This client leaves, too.
    drop(deletion);
    fs::write(&begins, "").expect("let it begin");
    slow.events.wait_for(&id, &["create", "exit", "delete"]);
    wait_until("the task is gone", || slow.is_gone(&id));
    slow.end_it(&other);
    slow.shim.delete(&other, "").expect("delete");
    slow.finish();
}

pub(crate) fn process(script: &str) -> Value {
    json!({"args": ["sh", "-c", script], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}})
}

/// An exec's child holds its output: its deletion does not wait for it, nor does the client's end of file.
#[test]
fn who_holds_an_output_does_not_hold_the_deletion() {
    let Some(slow) = Slow::new() else { return };
    let id = slow.run("a", &Streams::default());
    let log = slow.case.path().join("log");
    for terminal in [false, true] {
        for target in ["fifo", "file"] {
            let exec = format!("{target}-{terminal}");
            let fifo = Fifo::new(&slow.case, &exec);
            let stdout = if target == "fifo" { fifo.path() } else { format!("file://{}", log.display()) };
            let streams = Streams { terminal, stdout, ..Streams::default() };
            let read = (target == "fifo").then(|| fifo.read_all());
            let mut holds = process("busybox setsid sleep 1000 & echo said");
            holds["terminal"] = json!(terminal);
            slow.shim.exec(&id, &exec, &holds, &streams).expect("exec");
            slow.shim.run(&id, &exec).expect("start");
            assert_eq!(slow.shim.wait(&id, &exec).expect("wait"), 0);
            slow.shim.delete(&id, &exec).expect("delete");
            assert_eq!(slow.status(&id), Status::RUNNING);
            if let Some(read) = read.filter(|_| terminal) {
                assert_eq!(read.join().unwrap(), "said\r\n");
            }
        }
    }
    slow.end_it(&id);
    slow.shim.delete(&id, "").expect("delete");
    assert_eq!(fs::read_to_string(&log).expect("the log"), "said\nsaid\r\n");
    slow.finish();
}

/// The same with a logger, which reads on while its writer lives: the end of the container is told meanwhile, ends the writer, and
/// so the logger, which was not killed.
#[test]
fn an_execs_logger_does_not_hold_the_end_of_its_container() {
    let Some((case, program, events, _listener)) = shim_case() else { return };
    let namespaces = json!([{"type": "mount"}, {"type": "ipc"}, {"type": "uts"}]);
    let bundle = case.bundle().forever().edit(json!({"linux": {"namespaces": namespaces}, "hostname": null}));
    let id = case.id("a");
    let shim = Shim::start(&case, &program, &bundle, &id, &events);
    shim.create(&id, bundle.path(), &Streams::default()).expect("create");
    shim.run(&id, "").expect("start");
    let begins = case.path().join("begin");
    fs::write(&begins, "").expect("let it begin");
    let (uri, logged) = logger(&case, &begins);
    let streams = Streams { stdout: uri.clone(), stderr: uri, ..Streams::default() };
    shim.exec(&id, "e", &process("busybox setsid sleep 1000 & echo said"), &streams).expect("exec");
    shim.run(&id, "e").expect("start");
    assert_eq!(shim.wait(&id, "e").expect("wait"), 0);
    let request = DeleteRequest { id: id.clone(), exec_id: "e".to_owned(), ..DeleteRequest::default() };
    let deletion = shim.begin("Delete", &request);
    let init = shim.state(&id, "").expect("state").pid;
    let init = rustix::process::Pid::from_raw(init.cast_signed()).expect("a pid");
    rustix::process::kill_process(init, rustix::process::Signal::KILL).expect("kill init");
    assert_eq!(shim.wait(&id, "").expect("wait"), 137);
    assert!(deletion.answer().expect("an answer").is_ok());
    assert_eq!(fs::read_to_string(&logged).expect("the log"), "said\nend\n");
    shim.delete(&id, "").expect("delete");
    shim.shutdown();
    case.finish();
}

/// The shim reaps the logger of a process that was not made.
#[test]
fn a_failed_start_leaves_no_logger() {
    let Some(slow) = Slow::new() else { return };
    let begins = slow.case.path().join("begin");
    fs::write(&begins, "").expect("let it begin");
    let (uri, _) = logger(&slow.case, &begins);
    let streams = Streams { stdout: uri.clone(), stderr: uri, ..Streams::default() };
    let id = slow.run("a", &Streams::default());
    let mut nothing = process("");
    nothing["args"] = json!(["no-such-program"]);
    slow.shim.exec(&id, "e", &nothing, &streams).expect("exec");
    assert!(refused(slow.shim.run(&id, "e")).1.contains("executable file not found in $PATH"));
    slow.shim.delete(&id, "e").expect("delete");
    let broken = slow.case.bundle().args(&["no-such-program"]);
    let failed = slow.shim.create(&slow.case.id("broken"), &broken.write(), &streams);
    assert!(refused(failed).1.contains("executable file not found in $PATH"));
    let pid = slow.shim.pid().cast_unsigned();
    wait_until("only the container's init is left", || children_of(pid).len() == 1);
    slow.end_it(&id);
    slow.shim.delete(&id, "").expect("delete");
    slow.finish();
}
