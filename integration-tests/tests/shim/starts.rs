//! `start` at bad moments: killed in any of its steps, or while the shim that it finds is ending.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use containerd_shim_protos::api::{Empty, ShutdownRequest};
use containerd_shim_protos::ttrpc::{Code, Error as RpcError};
use integration_tests::{
    Bundle, Case, EventServer, Shim, Streams, processes_with, shim_case, shim_command, shim_delete, shim_namespace,
    strace, wait_until,
};

use crate::delays::LIFE;

/// The system calls that `start` is killed at: the address is not in the bundle yet; there is no socket; it is bound; it listens;
/// there is no shim yet; there is one; containerd has been answered.
const STEPS: [&str; 7] = ["/^rename", "bind", "listen", "/^f?chmod", "/^clone", "getppid", "exit_group"];

struct Starting {
    case: Case,
    program: PathBuf,
    events: EventServer,
    strace: PathBuf,
    bundle: Bundle,
    _listener: integration_tests::EventListener,
}

impl Starting {
    fn new() -> Option<Self> {
        let strace = strace()?;
        let (case, program, events, listener) = shim_case()?;
        let bundle = case.bundle().args(&["true"]);
        let _ = bundle.write();
        Some(Self { case, program, events, strace, bundle, _listener: listener })
    }

    /// A container's folder, in which `start` was killed as it entered a system call. The shim that it has started ends after so
    /// many seconds in which nobody needs it.
    fn killed_at(&self, step: usize, id: &str, forgotten_after: &str) -> PathBuf {
        let folder = self.case.path().join(id);
        fs::create_dir(&folder).expect("make a bundle");
        let config = fs::read_to_string(self.bundle.path().join("config.json")).expect("config.json");
        // The root filesystem is another's.
        let mut config: serde_json::Value = serde_json::from_str(&config).expect("JSON");
        config["root"]["path"] = self.bundle.rootfs().display().to_string().into();
        fs::write(folder.join("config.json"), config.to_string()).expect("write config.json");
        let call = STEPS[step];
        let status = Command::new(&self.strace)
            .args([format!("--trace={call}"), format!("--inject={call}:signal=KILL"), "--output=/dev/null".to_owned()])
            .arg(&self.program)
            .args(["-namespace", &shim_namespace(&self.case), "-id", id])
            .args(["-address", &self.case.path().join("containerd.sock").display().to_string()])
            .args(["-publish-binary", "/bin/false", "start"])
            .env("TTRPC_ADDRESS", self.events.address())
            .env("FLINT_SHIM_FORGOTTEN_AFTER", forgotten_after)
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .expect("run strace");
        // strace ends as what it traced.
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "{call}: {status}");
        folder
    }

    #[track_caller]
    fn lives(&self, shim: Shim, id: &str, folder: &Path) {
        shim.create(id, folder, &Streams::default()).expect("create");
        shim.run(id, "").expect("start");
        assert_eq!(shim.wait(id, "").expect("wait"), 0);
        shim.delete(id, "").expect("delete");
        self.events.wait_for(id, &LIFE);
        shim.shutdown();
    }
}

/// Whatever is there then, the next `start` of the container works.
#[test]
fn a_killed_start_is_followed_by_one_that_works() {
    let Some(starting) = Starting::new() else { return };
    for step in 0..STEPS.len() {
        let id = starting.case.id(&format!("s{step}"));
        // It must not end between the next `start` and the container.
        let folder = starting.killed_at(step, &id, "30");
        let shim = Shim::start_in(&starting.case, &starting.program, &folder, &id, &starting.events);
        starting.lives(shim, &id, &folder);
    }
    starting.case.finish();
}

/// Nobody comes again: no socket is left, nor a shim.
#[test]
fn a_killed_start_leaves_nothing_to_its_delete() {
    let Some(starting) = Starting::new() else { return };
    for (step, name) in STEPS.iter().enumerate() {
        let id = starting.case.id(&format!("s{step}"));
        let folder = starting.killed_at(step, &id, "1");
        let socket = fs::read_to_string(folder.join("address")).ok();
        assert_eq!(socket.is_none(), step == 0, "{name:?}: where its socket is");
        let output = shim_delete(&starting.case, &starting.program, &folder, &id);
        assert_eq!((output.code, output.stderr.as_str()), (0, ""), "{name:?}");
        // One that was started is forgotten after a second, and takes its socket with it.
        wait_until("no shim is left", || processes_with(&id).is_empty());
        let left = socket.filter(|url| Path::new(url.trim_start_matches("unix://")).exists());
        assert_eq!(left, None, "{name:?}");
    }
    starting.case.finish();
}

/// containerd has told it to end, and it waits for its events to be taken: the next container of the group gets another shim, and
/// what comes to the old one nevertheless is refused, not lost.
#[test]
fn a_shim_that_ends_is_not_found_and_takes_no_container() {
    let Some((case, program, events, listener)) = shim_case() else { return };
    let (one, two) = (case.id("one"), case.id("two"));
    let bundle = case.bundle().args(&["true"]);
    let old = Shim::start(&case, &program, &bundle, &one, &events);
    let pid = old.pid();
    drop(listener);
    old.create(&one, bundle.path(), &Streams::default()).expect("create");
    old.run(&one, "").expect("start");
    assert_eq!(old.wait(&one, "").expect("wait"), 0);
    old.delete(&one, "").expect("delete");
    let _: Empty = old.call("Shutdown", &ShutdownRequest::default()).expect("shutdown");
    assert!(!old.socket().exists(), "start would find it");
    match old.create(&two, bundle.path(), &Streams::default()) {
        Err(RpcError::RpcStatus(status)) => assert_eq!(status.code(), Code::UNAVAILABLE, "{status:?}"),
        // It has ended by now.
        Err(_) => {}
        Ok(pid) => panic!("it has made {pid}, and ends"),
    }
    let new = Shim::start_in(&case, &program, bundle.path(), &one, &events);
    assert_eq!(new.address(), old.address());
    assert_ne!(new.pid(), pid);
    drop(old);
    wait_until("the old one has ended", || !Path::new(&format!("/proc/{pid}")).exists());
    let _listener = events.listen();
    // Its socket is the new one's: found by all who come.
    let answer = shim_command(&case, &program, bundle.path(), &one, "start").output().ok();
    assert_eq!(answer.stdout, new.address());
    let found = Shim::connect(&case, new.address());
    assert_eq!(found.pid(), new.pid());
    found.create(&two, bundle.path(), &Streams::default()).expect("create");
    found.run(&two, "").expect("start");
    assert_eq!(found.wait(&two, "").expect("wait"), 0);
    found.delete(&two, "").expect("delete");
    events.wait_for(&two, &LIFE);
    drop(new);
    found.shutdown();
    case.finish();
}
