//! Clients that mean the shim no good, or cannot do better: others, and its containers, do not notice them.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use containerd_shim_protos::api::{Empty, StateRequest, WaitRequest};
use containerd_shim_protos::ttrpc::Code;
use integration_tests::{Case, Command, Shim, Streams, refused, shim_case, skip, wait_until};

/// ttrpc's largest message, in bytes.
const LARGEST: u32 = 4 << 20;
/// Of a request, in ttrpc's header.
const REQUEST: u8 = 1;

/// A shim with a running container.
fn with_shim(test: impl FnOnce(&Case, &Shim, &str)) {
    let Some((case, program, events, _listener)) = shim_case() else { return };
    let (id, bundle) = (case.id("a"), case.bundle().forever());
    let shim = Shim::start(&case, &program, &bundle, &id, &events);
    shim.create(&id, bundle.path(), &Streams::default()).expect("create");
    shim.run(&id, "").expect("start");
    test(&case, &shim, &id);
    // Whatever happened: it answers, and ends as always.
    assert!(shim.state(&id, "").expect("state").pid > 0);
    shim.kill(&id, "", 9).expect("kill");
    assert_eq!(shim.wait(&id, "").expect("wait"), 137);
    shim.delete(&id, "").expect("delete");
    shim.shutdown();
    case.finish();
}

fn connect(shim: &Shim) -> UnixStream {
    let stream = UnixStream::connect(shim.address().trim_start_matches("unix://")).expect("connect");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("set a timeout");
    stream
}

/// ttrpc's header: length, stream, kind, flags.
fn header(length: u32, stream: u32, kind: u8) -> Vec<u8> {
    [&length.to_be_bytes()[..], &stream.to_be_bytes(), &[kind, 0]].concat()
}

/// Whether the shim closes the connection.
fn is_closed(mut stream: UnixStream) -> bool {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => true,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    }
}

#[test]
fn garbage_and_frames_that_are_too_large_are_refused() {
    with_shim(|_, shim, _| {
        for bytes in
            [header(u32::MAX, 1, REQUEST), header(16, 1, 0xff), header(LARGEST + 1, 2, REQUEST), vec![0xff; 4096]]
        {
            let mut stream = connect(shim);
            stream.write_all(&bytes).expect("write");
            stream.shutdown(std::net::Shutdown::Write).expect("end");
            assert!(is_closed(stream), "{:?}", bytes.get(..10));
        }
        // One that is whole and too large is answered.
        let request = StateRequest { id: "x".repeat(LARGEST as usize), ..StateRequest::default() };
        assert!(shim.call::<Empty>("State", &request).is_err());
    });
}

#[test]
fn clients_that_stall_block_nobody() {
    with_shim(|_, shim, id| {
        let stalled: Vec<UnixStream> = (0..200)
            .map(|_| {
                let mut stream = connect(shim);
                // Half a request.
                stream.write_all(&header(100, 1, REQUEST)).expect("write");
                stream
            })
            .collect();
        for _ in 0..20 {
            assert!(shim.state(id, "").expect("state").pid > 0);
        }
        drop(stalled);
    });
}

/// The folder of the sockets is root's alone; somebody else with root's rights to files is refused by who it is.
#[test]
fn another_user_is_refused() {
    with_shim(|_, shim, _| {
        let socket = shim.address().trim_start_matches("unix://").to_owned();
        let script = "use IO::Socket::UNIX; my $s = IO::Socket::UNIX->new(Peer => $ARGV[0]) or do { print $!; exit 3 }; \
                      print defined(sysread($s, my $b, 1)) ? 'closed' : \"$!\";";
        let Some(setpriv) = integration_tests::find_program("setpriv") else { return skip("no setpriv(1)") };
        let as_user = |more: &[&str]| {
            let user = ["--reuid=1000", "--regid=1000", "--clear-groups"];
            let perl = ["perl", "-e", script, socket.as_str()];
            Command::new(Path::new(&setpriv)).args(user).args(more.iter().copied()).args(perl).output()
        };
        let output = as_user(&[]).exits(3);
        assert!(output.stdout.contains("denied"), "{output:?}");
        let rights = ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"];
        let output = as_user(&rights).ok();
        assert!(output.stdout.contains("closed") || output.stdout.contains("reset"), "{output:?}");
    });
}

#[test]
fn a_client_that_leaves_in_the_middle_of_a_call_changes_nothing() {
    with_shim(|case, shim, id| {
        let other = case.id("b");
        let bundle = case.bundle().forever();
        let _ = bundle.write();
        let wait = WaitRequest { id: id.to_owned(), ..WaitRequest::default() };
        let fds = format!("/proc/{}/fd", shim.pid());
        let fds = || std::fs::read_dir(&fds).expect("its descriptors").count();
        let before = fds();
        for _ in 0..50 {
            drop(shim.begin("Wait", &wait));
        }
        shim.create(&other, bundle.path(), &Streams::default()).expect("create");
        assert_eq!(refused(shim.create(&other, bundle.path(), &Streams::default())).0, Code::ALREADY_EXISTS);
        shim.kill(&other, "", 9).expect("kill");
        assert_eq!(shim.wait(&other, "").expect("wait"), 137);
        shim.delete(&other, "").expect("delete");
        wait_until("nothing is kept for who has left", || fds() <= before);
    });
}
