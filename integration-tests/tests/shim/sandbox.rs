//! A pod without a pause container: the shim's Sandbox service, as containerd's `sandboxer = "shim"` calls it.

use std::fs;
use std::path::{Path, PathBuf};

use containerd_shim_protos::api::{Empty, ShutdownRequest, StartRequest};
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{Message, MessageField};
use containerd_shim_protos::sandbox_api::{
    CreateSandboxRequest, CreateSandboxResponse, PlatformRequest, PlatformResponse, SandboxStatusRequest,
    SandboxStatusResponse, ShutdownSandboxRequest, ShutdownSandboxResponse, StartSandboxRequest, StartSandboxResponse,
    StopSandboxRequest, StopSandboxResponse, WaitSandboxRequest, WaitSandboxResponse,
};
use containerd_shim_protos::ttrpc::Code;
use integration_tests::{
    Bundle, Case, EventListener, Fifo, Shim, Streams, processes_with, refused, shim_case, shim_command, shim_program,
    wait_until,
};
use serde_json::json;

use crate::pods::assert_confined;

const SERVICE: &str = "containerd.runtime.sandbox.v1.Sandbox";
/// Kubernetes' NamespaceMode.
const POD: u8 = 0;
const CONTAINER: u8 = 1;

struct Pod {
    case: Case,
    _events: EventListener,
    shim: Shim,
    folder: PathBuf,
    id: String,
}

/// A field of a protobuf message.
fn part(number: u8, bytes: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, u8::try_from(bytes.len()).expect("a short field")], bytes].concat()
}

impl Pod {
    fn new() -> Option<Self> {
        let (case, program, events, listener) = shim_case()?;
        let id = case.id("pod");
        // containerd makes it so: there is no config.json in it.
        let folder = case.path().join("pod");
        fs::create_dir(&folder).expect("make the pod's bundle");
        let started = shim_command(&case, &program, &folder, &id, "start").env("TTRPC_ADDRESS", events.address());
        let shim = Shim::connect(&case, started.output().ok().stdout.trim());
        Some(Self { case, _events: listener, shim, folder, id })
    }

    fn call<Response: Message>(&self, method: &str, request: &impl Message) -> Response {
        self.shim.call_service(SERVICE, method, request).unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    fn request(&self, pids: u8) -> CreateSandboxRequest {
        let namespaces = part(2, &part(1, &[0x10, pids]));
        let sysctl = part(3, &[part(1, b"kernel.shm_rmid_forced"), part(2, b"1")].concat());
        let linux = part(8, &[namespaces, sysctl].concat());
        let value = [part(2, b"web"), part(4, &part(1, b"10.0.0.1")), linux].concat();
        let options = Any { type_url: "runtime.v1.PodSandboxConfig".to_owned(), value, ..Any::default() };
        CreateSandboxRequest {
            sandbox_id: self.id.clone(),
            bundle_path: self.folder.display().to_string(),
            options: MessageField::some(options),
            ..CreateSandboxRequest::default()
        }
    }

    fn start(&self, pids: u8) -> u32 {
        self.call::<CreateSandboxResponse>("CreateSandbox", &self.request(pids));
        let request = StartSandboxRequest { sandbox_id: self.id.clone(), ..StartSandboxRequest::default() };
        self.call::<StartSandboxResponse>("StartSandbox", &request).pid
    }

    fn state(&self) -> (String, u32) {
        let request = SandboxStatusRequest { sandbox_id: self.id.clone(), ..SandboxStatusRequest::default() };
        let status = self.call::<SandboxStatusResponse>("SandboxStatus", &request);
        (status.state, status.pid)
    }

    /// A container's bundle, as containerd's CRI plugin makes it for a pod with this pid.
    fn bundle(&self, pid: u32, script: &str, joins_pids: bool) -> Bundle {
        let join = |kind: &str, file: &str| json!({"type": kind, "path": format!("/proc/{pid}/ns/{file}")});
        let pids = if joins_pids { join("pid", "pid") } else { json!({"type": "pid"}) };
        let namespaces = json!([{"type": "mount"}, join("ipc", "ipc"), join("uts", "uts"), pids]);
        let shm = json!({"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid"]});
        let bundle = self.case.bundle().shell(script).edit(json!({"linux": {"namespaces": namespaces}}));
        bundle.edit(json!({"hostname": null})).push("/mounts", shm)
    }

    fn run(&self, name: &str, bundle: &Bundle, out: &Fifo) -> String {
        let id = self.case.id(name);
        let streams = Streams { stdout: out.path(), stderr: out.path(), ..Streams::default() };
        self.shim.create(&id, &bundle.write(), &streams).expect("create");
        self.shim.run(&id, "").expect("start");
        id
    }

    fn end(&self, pid: u32) {
        let stop = StopSandboxRequest { sandbox_id: self.id.clone(), ..StopSandboxRequest::default() };
        self.call::<StopSandboxResponse>("StopSandbox", &stop);
        // Twice is once.
        self.call::<StopSandboxResponse>("StopSandbox", &stop);
        let wait = WaitSandboxRequest { sandbox_id: self.id.clone(), ..WaitSandboxRequest::default() };
        assert!(self.call::<WaitSandboxResponse>("WaitSandbox", &wait).exited_at.seconds > 0);
        assert_eq!(self.state(), ("SANDBOX_NOTREADY".to_owned(), 0));
        assert!(!Path::new(&format!("/proc/{pid}/ns")).exists(), "its namespaces are held still");
    }

    fn shut_down(self) {
        let pid = self.shim.pid();
        let request = ShutdownSandboxRequest { sandbox_id: self.id.clone(), ..ShutdownSandboxRequest::default() };
        self.call::<ShutdownSandboxResponse>("ShutdownSandbox", &request);
        drop(self.shim);
        wait_until("the shim ends", || !Path::new(&format!("/proc/{pid}")).exists());
        self.case.finish();
    }
}

fn namespace(process: &str, kind: &str) -> PathBuf {
    fs::read_link(format!("/proc/{process}/ns/{kind}")).expect("read a namespace")
}

#[test]
fn its_containers_share_what_a_pod_shares() {
    let Some(pod) = Pod::new() else { return };
    let pid = pod.start(CONTAINER);
    assert_eq!(pod.state(), ("SANDBOX_READY".to_owned(), pid));
    for kind in ["ipc", "uts"] {
        assert_ne!(namespace(&pid.to_string(), kind), namespace("self", kind), "{kind}");
    }
    assert_eq!(namespace(&pid.to_string(), "pid"), namespace("self", "pid"));
    let platform = pod.call::<PlatformResponse>("Platform", &PlatformRequest::default()).platform;
    assert_eq!(platform.os, "linux");
    // It stays, although there is no task.
    let _: Empty = pod.shim.call("Shutdown", &ShutdownRequest::default()).expect("shutdown");
    let script = "hostname; cat /etc/hostname /etc/resolv.conf; cat /proc/sys/kernel/shm_rmid_forced; \
                  echo here > /dev/shm/note; sleep 1000";
    let out = Fifo::new(&pod.case, "first");
    let text = out.read_all();
    let first = pod.run("first", &pod.bundle(pid, script, false), &out);
    let note = pod.folder.join("shm/note");
    wait_until("the first one writes", || fs::read_to_string(&note).is_ok_and(|text| text == "here\n"));
    let out = Fifo::new(&pod.case, "second");
    let read = out.read_all();
    let second = pod.run("second", &pod.bundle(pid, "cat /dev/shm/note; echo $$", false), &out);
    assert_eq!(pod.shim.wait(&second, "").expect("wait"), 0);
    pod.shim.delete(&second, "").expect("delete");
    assert_eq!(read.join().unwrap(), "here\n1\n");
    // The host's pids in place of the pod's are nobody's.
    let bundle = pod.bundle(pid, "true", true);
    let (code, why) = refused(pod.shim.create(&pod.case.id("third"), &bundle.write(), &Streams::default()));
    assert!(code == Code::INVALID_ARGUMENT && why.contains("shares the pod's pids"), "{why}");
    pod.end(pid);
    assert_eq!(pod.shim.wait(&first, "").expect("wait"), 137);
    pod.shim.delete(&first, "").expect("delete");
    assert_eq!(text.join().unwrap(), "web\nweb\nnameserver 10.0.0.1\n1\n");
    pod.shut_down();
}

#[test]
fn shared_pids_have_a_process_1_that_reaps() {
    let Some(pod) = Pod::new() else { return };
    let pid = pod.start(POD);
    assert_ne!(namespace(&pid.to_string(), "pid"), namespace("self", "pid"));
    assert_confined(pid);
    let out = Fifo::new(&pod.case, "out");
    let read = out.read_all();
    // An orphan that ends is reaped by process 1: no zombie stays. Its pid is there until then.
    let script = "orphan=$(sleep 0.1 >/dev/null & echo $!); n=0; \
                  while [ -e /proc/$orphan ] && [ $n -lt 100 ]; do sleep 0.1; n=$((n+1)); done; \
                  grep -l zombie /proc/[0-9]*/status; tr '\\0' ' ' < /proc/1/cmdline; echo";
    let id = pod.run("first", &pod.bundle(pid, script, true), &out);
    pod.shim.wait(&id, "").expect("wait");
    pod.shim.delete(&id, "").expect("delete");
    assert_eq!(read.join().unwrap(), "/proc/self/exe pause \n");
    // What goes on in the pod ends with it.
    let out = Fifo::new(&pod.case, "again");
    let read = out.read_all();
    let id = pod.run("second", &pod.bundle(pid, "sleep 1000", true), &out);
    pod.end(pid);
    assert_eq!(pod.shim.wait(&id, "").expect("wait"), 137);
    pod.shim.delete(&id, "").expect("delete");
    assert_eq!(read.join().unwrap(), "");
    pod.shut_down();
}

/// It ends with the shim, also where that died before it could ask the kernel for this.
#[test]
fn a_process_1_whose_shim_has_died_already_ends() {
    let Some((_, program, _, _)) = shim_case() else { return };
    let (input, writer) = std::io::pipe().expect("a pipe");
    drop(writer);
    let mut child = std::process::Command::new(program).arg("pause").stdin(input).spawn().expect("run it");
    let mut ended = None;
    for _ in 0..1000 {
        ended = child.try_wait().expect("wait");
        if ended.is_some() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let _ = child.kill();
    let _ = child.wait();
    assert!(ended.is_some_and(|ended| ended.success()), "{ended:?}");
}

/// containerd gives the stop up while a container's end is held up (by a hook after its start): the pod is stopped nevertheless.
#[test]
fn a_stop_outlives_its_client() {
    let Some(pod) = Pod::new() else { return };
    let pid = pod.start(CONTAINER);
    let begin = Fifo::new(&pod.case, "begin");
    let waits = json!([{"path": "/bin/sh", "args": ["sh", "-c", format!(": < {}", begin.path())]}]);
    let bundle = pod.bundle(pid, "sleep 1000", false).edit(json!({"hooks": {"poststart": waits}}));
    let id = pod.case.id("first");
    pod.shim.create(&id, &bundle.write(), &Streams::default()).expect("create");
    let start = pod.shim.begin("Start", &StartRequest { id: id.clone(), ..StartRequest::default() });
    wait_until("the hook waits", || !processes_with(&begin.path()).is_empty());
    let fds = || fs::read_dir(format!("/proc/{}/fd", pod.shim.pid())).expect("its descriptors").count();
    let before = fds();
    let request = StopSandboxRequest { sandbox_id: pod.id.clone(), ..StopSandboxRequest::default() };
    let stop = pod.shim.begin_service(SERVICE, "StopSandbox", &request);
    wait_until("the stop is taken", || fds() > before);
    // Connecting and reading need some turns of the shim's.
    (0..3).for_each(|_| drop(pod.state()));
    assert!(stop.is_pending() && start.is_pending(), "{:?}", stop.answer());
    drop(stop);
    wait_until("the shim knows that its client has left", || fds() <= before);
    assert_eq!(pod.state().0, "SANDBOX_READY");
    let go = fs::OpenOptions::new().read(true).write(true).open(begin.path()).expect("let it go on");
    assert!(start.answer().is_some());
    drop(go);
    wait_until("the pod is stopped", || pod.state() == ("SANDBOX_NOTREADY".to_owned(), 0));
    assert_eq!(pod.shim.wait(&id, "").expect("wait"), 137);
    pod.shim.delete(&id, "").expect("delete");
    pod.shut_down();
}

#[test]
fn wrong_requests_are_refused_and_a_killed_shim_is_cleaned_up_after() {
    let Some(pod) = Pod::new() else { return };
    let (request, status) = (pod.request(CONTAINER), SandboxStatusRequest::default());
    let unknown = pod.shim.call_service::<SandboxStatusResponse>(SERVICE, "SandboxStatus", &status);
    assert_eq!(refused(unknown).0, Code::NOT_FOUND);
    let mut other = request.clone();
    other.options.mut_or_insert_default().type_url = "kata.Options".to_owned();
    let created = |request| pod.shim.call_service::<CreateSandboxResponse>(SERVICE, "CreateSandbox", request);
    assert_eq!(refused(created(&other)).0, Code::INVALID_ARGUMENT);
    let pid = pod.start(CONTAINER);
    assert_eq!(refused(created(&request)).0, Code::ALREADY_EXISTS);
    let start = StartSandboxRequest { sandbox_id: pod.id.clone(), ..StartSandboxRequest::default() };
    let again = pod.shim.call_service::<StartSandboxResponse>(SERVICE, "StartSandbox", &start);
    assert_eq!(refused(again).0, Code::FAILED_PRECONDITION);
    let own = rustix::process::Pid::from_raw(pod.shim.pid()).unwrap();
    rustix::process::kill_process(own, rustix::process::Signal::KILL).unwrap();
    wait_until("the namespaces are gone", || !Path::new(&format!("/proc/{pid}/ns")).exists());
    let program = shim_program().unwrap();
    let output = integration_tests::shim_delete(&pod.case, &program, &pod.folder, &pod.id);
    assert_eq!((output.code, output.stderr.as_str()), (0, ""));
    assert!(!Path::new(pod.shim.address().trim_start_matches("unix://")).exists(), "its socket is left");
    pod.case.finish();
}
