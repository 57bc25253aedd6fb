//! Seccomp notifications: an agent gets the listener with the state in one message and answers them, for create and
//! start, run and exec. Debian's runc can do so too: what the agent is told is compared.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use integration_tests::{Bundle, Case, peers, under_test_only};
use libseccomp::{ScmpNotifReq, ScmpNotifResp, ScmpNotifRespFlags, ScmpSyscall};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::{Value, json};

/// `ENOMEDIUM`: nothing else in a container gives it.
const NO_MEDIUM: i32 = 123;

/// An agent: mkdir has no medium, everything else goes on as if it had not been asked.
struct Agent {
    path: PathBuf,
    states: Receiver<(Value, usize)>,
}

impl Agent {
    fn new(folder: &Path) -> Self {
        let path = folder.join("agent.sock");
        let listener = UnixListener::bind(&path).expect("listen for runtimes");
        let (sender, states) = channel();
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let (state, descriptors) = receive(&OwnedFd::from(stream));
                let _ = sender.send((state, descriptors.len()));
                for descriptor in descriptors {
                    std::thread::spawn(move || answer(&descriptor));
                }
            }
        });
        Self { path, states }
    }

    /// The next message: its JSON, and how many descriptors came with it.
    fn state(&self) -> (Value, usize) {
        self.states.recv_timeout(Duration::from_secs(20)).expect("a message to the agent")
    }
}

fn receive(stream: &OwnedFd) -> (Value, Vec<OwnedFd>) {
    let mut text = vec![0_u8; 64 << 10];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let message = recvmsg(stream, &mut [IoSliceMut::new(&mut text)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)
        .expect("receive from the runtime");
    let descriptors = ancillary.drain().filter_map(|part| match part {
        RecvAncillaryMessage::ScmRights(received) => Some(received),
        _ => None,
    });
    let descriptors = descriptors.flatten().collect();
    (serde_json::from_slice(&text[..message.bytes]).expect("JSON in one message"), descriptors)
}

fn answer(listener: &OwnedFd) {
    let mkdir = [ScmpSyscall::from_name("mkdir"), ScmpSyscall::from_name("mkdirat")].map(|call| call.expect("a call"));
    loop {
        let mut fds = [PollFd::new(listener, PollFlags::IN)];
        if poll(&mut fds, None).is_err() || fds[0].revents().contains(PollFlags::HUP) {
            return;
        }
        // The one who asked may have been killed since.
        let Ok(request) = ScmpNotifReq::receive(listener.as_raw_fd()) else { continue };
        let response = if mkdir.contains(&request.data.syscall) {
            ScmpNotifResp::new_error(request.id, -NO_MEDIUM, ScmpNotifRespFlags::empty())
        } else {
            ScmpNotifResp::new_continue(request.id, ScmpNotifRespFlags::CONTINUE)
        };
        let _ = response.respond(listener.as_raw_fd());
    }
}

fn asking(bundle: Bundle, agent: &Path, calls: &[&str], no_new_privileges: bool) -> Bundle {
    bundle.edit(json!({
        "process": {"noNewPrivileges": no_new_privileges},
        "linux": {"seccomp": {
            "defaultAction": "SCMP_ACT_ALLOW",
            "listenerPath": agent, "listenerMetadata": "some words",
            "syscalls": [{"names": calls, "action": "SCMP_ACT_NOTIFY"}],
        }},
    }))
}

const MKDIR: &[&str] = &["mkdir", "mkdirat"];

#[test]
fn an_agent_answers_for_run_start_and_exec() {
    let Some(peers) = peers() else { return };
    let told = peers.map(|runtime| {
        let case = Case::new(&runtime);
        let agent = Agent::new(case.path());
        let script = "mkdir /dev/shm/x 2>&1; test ! -e /dev/shm/x";
        for no_new_privileges in [false, true] {
            let bundle = asking(case.bundle().shell(script), &agent.path, MKDIR, no_new_privileges);
            let output = case.run(&bundle).ok();
            assert!(output.stdout.contains("No medium found"), "{}: {}", runtime.name, output.stdout);
            let (state, descriptors) = agent.state();
            assert_eq!((&state["fds"], descriptors), (&json!(["seccompFd"]), 1), "{state}");
        }
        // What the agent is to know is with it as soon as the container is created.
        let id = case.created(&asking(case.bundle().forever(), &agent.path, MKDIR, true), "a");
        let (mut start, _) = agent.state();
        let _ = case.call(["start", &id]).ok();
        let pid = case.state(&id)["pid"].clone();
        assert_eq!((&start["pid"], &start["state"]["pid"]), (&pid, &pid));
        let output = case.exec(&id, &["sh", "-c", script]).ok();
        assert!(output.stdout.contains("No medium found"), "{}: {}", runtime.name, output.stdout);
        let (mut exec, _) = agent.state();
        assert!(exec["state"]["pid"] == pid && exec["pid"] != pid, "{exec}");
        assert_eq!(exec["state"]["id"], json!(id));
        for state in [&mut start, &mut exec] {
            for pointer in ["/pid", "/state/pid", "/state/id", "/state/bundle"] {
                *state.pointer_mut(pointer).expect("a member") = json!(pointer);
            }
            assert_eq!(state["metadata"], "some words");
        }
        // runc adds labels of its own.
        for state in [&mut start, &mut exec] {
            state["state"].as_object_mut().expect("an object").remove("annotations");
        }
        case.delete(&id);
        case.finish();
        [start, exec]
    });
    assert_eq!(told[0], told[1], "flint (left) against runc");
}

/// Where the filter asks about what a created container waits by, it comes with `start`: nobody but the agent need answer
/// for a container that is only created.
#[test]
fn an_agent_that_would_be_asked_about_waiting_hears_from_start() {
    let Some([flint]) = under_test_only("it waits by other calls") else { return };
    let case = Case::new(&flint);
    let agent = Agent::new(case.path());
    let bundle = asking(case.bundle().forever(), &agent.path, &["accept4", "ppoll", "mkdir"], true);
    let id = case.created(&bundle, "late");
    assert!(agent.states.try_recv().is_err(), "the filter is in force already");
    let _ = case.call(["start", &id]).ok();
    assert_eq!(agent.state().0["state"]["status"], "created");
    case.delete(&id);
    case.finish();
}

/// What init itself calls behind the filter may be asked about too, but for write.
#[test]
fn calls_of_init_are_asked_about() {
    let Some([flint]) = under_test_only("it waits by other calls") else { return };
    let case = Case::new(&flint);
    let agent = Agent::new(case.path());
    let calls = ["execve", "openat", "open", "read", "close", "fcntl", "sendmsg", "recvfrom", "capset", "setresuid"];
    for no_new_privileges in [false, true] {
        let bundle = asking(case.bundle().args(&["/bin/true"]), &agent.path, &calls, no_new_privileges);
        let _ = case.run(&bundle).ok();
    }
    case.finish();
}

#[test]
fn what_cannot_work_fails_and_leaves_nothing() {
    let Some([flint]) = under_test_only("its words differ") else { return };
    let case = Case::new(&flint);
    let nobody = case.path().join("nobody.sock");
    let program = || case.bundle().args(&["/bin/true"]);
    let output = case.run(&asking(program(), &nobody, MKDIR, true)).exits(1);
    assert!(output.stderr.contains("failed to connect with seccomp agent"), "{}", output.stderr);
    // No agent at start: init does not stay behind, waiting for an answer.
    let id = case.created(&asking(program(), &nobody, &["mkdir", "read"], true), "a");
    let output = case.call(["start", &id]).exits(1);
    assert!(output.stderr.contains("failed to connect with seccomp agent"), "{}", output.stderr);
    case.wait_for(&id, "stopped");
    case.delete(&id);

    let output = case.run(&asking(program(), Path::new(""), MKDIR, true)).exits(1);
    assert!(output.stderr.contains("listenerPath is not set"), "{}", output.stderr);
    let output = case.run(&asking(program(), &nobody, &["write"], true)).exits(1);
    assert!(output.stderr.contains("SCMP_ACT_NOTIFY cannot be used for the write syscall"), "{}", output.stderr);
    let everything = json!({"linux": {"seccomp": {"defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": nobody}}});
    let output = case.run(&program().edit(everything)).exits(1);
    assert!(output.stderr.contains("SCMP_ACT_NOTIFY cannot be used as default action"), "{}", output.stderr);
    case.finish();
}
