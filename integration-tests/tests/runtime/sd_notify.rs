//! sd_notify(3): a container that says READY=1 makes the service ready that flint was started as. The test is the
//! service manager.

use std::fs;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use integration_tests::{Bundle, Case, Command, Runtime, missing, peers, under_test_only};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::json;

/// What ends the manager, sent by the test itself.
const ENOUGH: &str = "enough";

/// A service manager's socket: what it was told, up to a barrier.
struct Manager {
    socket: PathBuf,
    told: JoinHandle<Vec<String>>,
}

impl Manager {
    fn listen(case: &Case) -> Self {
        let path = case.path().join("manager");
        let socket = UnixDatagram::bind(&path).expect("bind the manager's socket");
        Self { socket: path, told: std::thread::spawn(move || listen(&socket)) }
    }

    /// What was told, each message without its last newline; a descriptor that came along is told of.
    fn told(self) -> Vec<String> {
        let _ = UnixDatagram::unbound().expect("a socket").send_to(ENOUGH.as_bytes(), &self.socket);
        fs::remove_file(&self.socket).expect("remove the manager's socket");
        self.told.join().expect("the manager listens")
    }
}

fn listen(socket: &UnixDatagram) -> Vec<String> {
    let mut told = Vec::new();
    loop {
        let mut text = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let message =
            recvmsg(socket, &mut [IoSliceMut::new(&mut text)], &mut ancillary, RecvFlags::CMSG_CLOEXEC).expect("hear");
        // Dropped, and so closed, before the next message: this answers the barrier.
        let fds = ancillary.drain().map(|part| match part {
            RecvAncillaryMessage::ScmRights(received) => received.count(),
            _ => 0,
        });
        let fds = fds.sum::<usize>();
        let text = String::from_utf8_lossy(&text[..message.bytes]).trim_end().to_owned();
        match text.as_str() {
            ENOUGH => return told,
            _ if fds > 0 => told.push(format!("{text} and {fds} descriptor")),
            _ => told.push(text),
        }
    }
}

/// A bundle whose `notify` tells its argument; it has the host's perl, busybox has no datagram sockets.
fn bundle(case: &Case, script: &str) -> Bundle {
    let send = "#!/usr/bin/perl\nuse Socket;\nsocket(my $s, AF_UNIX, SOCK_DGRAM, 0) or die $!;\n\
                send($s, \"$ARGV[0]\\n\", 0, pack_sockaddr_un($ENV{NOTIFY_SOCKET})) or die $!;\n";
    let bundle = case.bundle().file("bin/notify", send, 0o755).shell(script);
    for name in ["lib", "lib64"] {
        symlink(format!("usr/{name}"), bundle.rootfs().join(name)).expect("link the libraries");
    }
    let usr = json!({"destination": "/usr", "source": "/usr", "options": ["rbind", "ro"]});
    bundle.push("/mounts", usr)
}

fn command(case: &Case, manager: &Path, verb: &[&str], bundle: Option<&Bundle>, id: &str) -> Command {
    let command = case.command(verb.iter().copied()).env("NOTIFY_SOCKET", manager);
    let command = match bundle {
        Some(bundle) => command.args(["--bundle".into(), bundle.write()]),
        None => command,
    };
    command.args([id])
}

/// runc has the barrier only since a version later than Debian's.
#[track_caller]
fn assert_ready(runtime: &Runtime, told: &[String], pid: &str) {
    let expected = ["READY=1".to_owned(), format!("MAINPID={pid}"), "BARRIER=1 and 1 descriptor".to_owned()];
    let without_barrier = runtime.is_runc() && told.len() == 2;
    assert_eq!(told, if without_barrier { &expected[..2] } else { &expected[..] }, "{}", runtime.name);
}

fn both() -> Option<[Runtime; 2]> {
    if missing(&["perl"]) { None } else { peers() }
}

#[test]
fn detached_until_ready() {
    let Some(peers) = both() else { return };
    for runtime in &peers {
        let case = Case::new(runtime);
        let (manager, id) = (Manager::listen(&case), case.id("a"));
        let script = "sleep 0.2; touch /tmp/late; notify READY=1; while :; do sleep 1000; done";
        let bundle = bundle(&case, script).writable();
        let _ = command(&case, &manager.socket, &["run", "--detach"], Some(&bundle), &id).output().ok();
        assert!(bundle.rootfs().join("tmp/late").exists(), "{}: it did not wait", runtime.name);
        let pid = case.state(&id)["pid"].to_string();
        assert_ready(runtime, &manager.told(), &pid);
        case.delete(&id);
        case.finish();
    }
}

#[test]
fn start_waits_for_a_created_one() {
    let Some(peers) = both() else { return };
    for runtime in &peers {
        let case = Case::new(runtime);
        let (manager, id) = (Manager::listen(&case), case.id("a"));
        let bundle = bundle(&case, "sleep 0.2; notify READY=1; while :; do sleep 1000; done");
        let _ = command(&case, &manager.socket, &["create"], Some(&bundle), &id).output().ok();
        let pid = case.state(&id)["pid"].to_string();
        let _ = command(&case, &manager.socket, &["start"], None, &id).output().ok();
        assert_ready(runtime, &manager.told(), &pid);
        case.delete(&id);
        case.finish();
    }
}

/// The service's process is the runtime, whose exit code is the container's.
#[test]
fn in_the_foreground_the_runtime_is_the_main_process() {
    let Some(peers) = both() else { return };
    for runtime in &peers {
        let case = Case::new(runtime);
        let manager = Manager::listen(&case);
        let bundle = bundle(&case, "notify READY=1; sleep 0.5; exit 7");
        let running = command(&case, &manager.socket, &["run"], Some(&bundle), &case.id("a")).spawn();
        let pid = running.pid().to_string();
        let _ = running.finish("run").exits(7);
        assert_ready(runtime, &manager.told(), &pid);
        case.finish();
    }
}

/// runc 1.1 waits for init to leave /proc, which it does not while nobody reaps it.
#[test]
fn the_end_without_a_word_ends_the_wait() {
    let Some([flint]) = under_test_only("a wait that an unreaped init ends") else { return };
    if missing(&["perl"]) {
        return;
    }
    let case = Case::new(&flint);
    let (manager, id) = (Manager::listen(&case), case.id("a"));
    let bundle = bundle(&case, "notify STATUS=never; exit 3");
    let _ = command(&case, &manager.socket, &["run", "--detach"], Some(&bundle), &id).output().ok();
    assert_eq!(manager.told(), [""; 0]);
    case.delete(&id);
    case.finish();
}

/// runc 1.1 waits for READY=1 in the foreground for ever.
#[test]
fn the_end_without_a_word_ends_the_foreground() {
    let Some([flint]) = under_test_only("a foreground that ends without READY=1") else { return };
    if missing(&["perl"]) {
        return;
    }
    let case = Case::new(&flint);
    let manager = Manager::listen(&case);
    let bundle = bundle(&case, "exit 3");
    let _ = command(&case, &manager.socket, &["run"], Some(&bundle), &case.id("a")).output().exits(3);
    assert_eq!(manager.told(), [""; 0]);
    case.finish();
}

/// The socket's mount is the only one then that the host opens in init's mount namespace.
#[test]
fn the_socket_is_there_in_a_user_namespace_without_other_binds() {
    let Some([flint]) = under_test_only("a mount for a user namespace by a barrier of flint's own") else { return };
    let case = Case::new(&flint);
    let manager = Manager::listen(&case);
    let maps = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
    let bundle = case
        .bundle()
        .writable()
        .shell("stat -c %F $NOTIFY_SOCKET")
        .push("/linux/namespaces", json!({"type": "user"}))
        .edit(json!({"linux": {"uidMappings": maps.clone(), "gidMappings": maps}}));
    std::os::unix::fs::chown(bundle.rootfs(), Some(100_000), Some(100_000)).expect("chown");
    let run = command(&case, &manager.socket, &["run"], Some(&bundle), &case.id("a"));
    assert_eq!(run.output().ok().stdout, "socket\n");
    let _ = manager.told();
    case.finish();
}

const LOOK: &str = "echo $NOTIFY_SOCKET; stat -c %a:%F $NOTIFY_SOCKET; grep -o ' /run/notify [^ ]*' /proc/self/mountinfo; \
                    touch /run/notify/x 2>&1; notify READY=1";

#[test]
fn the_container_sees_its_own_socket_and_no_other() {
    let Some(peers) = both() else { return };
    let seen = peers.each_ref().map(|runtime| {
        let case = Case::new(runtime);
        let manager = Manager::listen(&case);
        let edit = json!({"process": {"user": {"uid": 1000, "gid": 1000}}});
        let bundle = bundle(&case, LOOK).push("/process/env", json!("NOTIFY_SOCKET=/not/this")).edit(edit);
        let run = command(&case, &manager.socket, &["run"], Some(&bundle), &case.id("a"));
        let output = run.output().ok();
        assert!(output.stdout.starts_with("/run/notify/notify.sock\n777:socket\n /run/notify ro,nosuid,nodev,noexec"));
        assert!(output.stdout.contains("Read-only file system"), "{}", output.stdout);
        let told = manager.told();
        assert_eq!(told.first().map(String::as_str), Some("READY=1"), "{}: {told:?}", runtime.name);
        // Without a service manager: nothing of it.
        let plain = case.bundle().shell("echo [$NOTIFY_SOCKET]; ls -d /run/notify 2>&1");
        assert!(case.run(&plain).stdout.starts_with("[]\nls: /run/notify: No such file"));
        case.finish();
        output.stdout
    });
    assert_eq!(seen[0], seen[1]);
}

#[test]
fn from_a_user_namespace() {
    let Some([flint]) = under_test_only("a rootfs that is not mapped") else { return };
    if missing(&["perl"]) {
        return;
    }
    let case = Case::new(&flint);
    let (manager, id) = (Manager::listen(&case), case.id("a"));
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
    let bundle = bundle(&case, "notify READY=1; while :; do sleep 1000; done")
        .push("/linux/namespaces", json!({"type": "user"}))
        .edit(json!({"linux": {"uidMappings": map, "gidMappings": map}}));
    fs::create_dir_all(bundle.rootfs().join("usr")).expect("make /usr");
    fs::create_dir_all(bundle.rootfs().join("run/notify")).expect("make /run/notify");
    let _ = command(&case, &manager.socket, &["run", "--detach"], Some(&bundle), &id).output().ok();
    let pid = case.state(&id)["pid"].to_string();
    assert_ready(&flint, &manager.told(), &pid);
    case.delete(&id);
    case.finish();
}

/// A manager that is gone is no reason not to run.
#[test]
fn a_manager_that_does_not_listen_is_a_warning() {
    let Some([flint]) = under_test_only("the warning's words") else { return };
    if missing(&["perl"]) {
        return;
    }
    let case = Case::new(&flint);
    let gone = case.path().join("gone");
    let bundle = bundle(&case, "notify READY=1; exit 5");
    let output = command(&case, &gone, &["run"], Some(&bundle), &case.id("a")).output().exits(5);
    assert!(output.stderr.contains(&format!("connect to NOTIFY_SOCKET {}", gone.display())), "{}", output.stderr);
    case.finish();
}
