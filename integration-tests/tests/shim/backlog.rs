//! A containerd that is there and hangs: containers live and end meanwhile, and it hears of each in its order once it is back.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;

use integration_tests::{Shim, Streams, shim_case};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with};

use crate::delays::LIFE;

/// Containers that live meanwhile.
const LIVES: usize = 250;
/// What an event that waits may cost, in bytes: three times what one was seen to.
const EVENT: u64 = 1500;
/// What comes and goes by what lies where, in bytes.
const OTHER: u64 = 512 << 10;

/// A socket that nobody takes connections from.
struct Hung {
    _listening: OwnedFd,
    /// With these none fits in.
    _waiting: Vec<OwnedFd>,
}

fn socket() -> OwnedFd {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).expect("a socket")
}

impl Hung {
    fn at(path: &str, full: bool) -> Self {
        let (listening, address) = (socket(), SocketAddrUnix::new(path).expect("a short path"));
        bind(&listening, &address).expect("bind a socket");
        listen(&listening, 0).expect("listen");
        let mut waiting = Vec::new();
        if full {
            let refused = loop {
                let client = socket();
                match connect(&client, &address) {
                    Ok(()) => waiting.push(client),
                    Err(errno) => break errno,
                }
            };
            assert_eq!(refused, Errno::AGAIN, "the backlog is full");
        }
        Self { _listening: listening, _waiting: waiting }
    }
}

/// Bytes that are a process's own alone.
fn memory(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("its memory");
    let line = text.lines().find(|line| line.starts_with("Private_Dirty:")).expect("Private_Dirty");
    let kib: u64 = line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number");
    kib << 10
}

#[track_caller]
fn hang(full: bool) {
    let Some((case, program, events, listener)) = shim_case() else { return };
    drop(listener);
    let _ = fs::remove_file(events.address());
    let hung = Hung::at(events.address(), full);
    let bundle = case.bundle().args(&["true"]);
    let shim = Shim::start(&case, &program, &bundle, &case.id("first"), &events);
    let pid = shim.pid();
    let live = |id: &str| {
        shim.create(id, bundle.path(), &Streams::default()).expect("create");
        shim.run(id, "").expect("start");
        assert_eq!(shim.wait(id, "").expect("wait"), 0);
        shim.delete(id, "").expect("delete");
    };
    let ids: Vec<_> = (0..LIVES).map(|number| case.id(&format!("c{number}"))).collect();
    let (first, rest) = ids.split_at(LIVES / 5);
    for id in first {
        live(id);
    }
    let before = memory(pid);
    for id in rest {
        live(id);
    }
    let grown = memory(pid).saturating_sub(before);
    let waiting = (rest.len() * LIFE.len()) as u64;
    println!("{waiting} events that wait cost {grown} bytes, {} each", grown / waiting);
    assert!(grown < OTHER + waiting * EVENT, "{grown} bytes for {waiting} events");
    assert!(Path::new(events.address()).exists() && ids.iter().all(|id| events.of(id).is_empty()));
    drop(hung);
    fs::remove_file(events.address()).expect("remove its socket");
    let _listener = events.listen();
    for id in &ids {
        events.wait_for(id, &LIFE);
    }
    shim.shutdown();
    case.finish();
}

/// It takes no connections, and no more fit in: connecting itself would wait.
#[test]
fn a_full_backlog_costs_nobody_but_events_time() {
    hang(true);
}

/// A connection is made, and a call is never answered.
#[test]
fn a_containerd_that_never_answers_costs_nobody_but_events_time() {
    hang(false);
}
