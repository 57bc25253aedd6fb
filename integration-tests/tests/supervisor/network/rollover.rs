//! Host ports that go from one pod to the next.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use flintd::desired::Protocol;

use super::place::{Host, Space, port};

/// Says its name to whoever connects, and again for each byte that it is sent.
fn serve(space: &Space, name: &'static str) {
    let listener = space.within(|| TcpListener::bind(("0.0.0.0", 80)).expect("listen"));
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            std::thread::spawn(move || {
                let mut byte = [0];
                while stream.write_all(name.as_bytes()).is_ok() && stream.read(&mut byte).is_ok_and(|count| count > 0) {
                }
            });
        }
    });
}

/// A connection, and what it says.
fn connect(host: &Host, at: &str) -> (TcpStream, String) {
    let mut stream = host.space.within(|| TcpStream::connect(at).expect("connect"));
    let said = say(&mut stream);
    (stream, said)
}

fn say(stream: &mut TcpStream) -> String {
    let mut bytes = [0; 8];
    let count = stream.read(&mut bytes).expect("an answer");
    String::from_utf8_lossy(&bytes[..count]).into_owned()
}

#[test]
fn connections_stay_where_they_are_and_new_ones_go_to_the_next_pod() {
    let Some(host) = Host::new() else { return };
    let mut networks = host.networks();
    let ports = [port(8080, 80, Protocol::Tcp), port(0, 80, Protocol::Tcp)];
    let first = host.pod(&networks, "first", &ports);
    serve(&first.space, "first");
    let next = host.pod_after(&networks, "next", &ports, "first");
    serve(&next.space, "next");
    assert_eq!(next.attached.ports, [], "none leads to it yet");
    let chosen = format!("127.0.0.1:{}", first.attached.ports[1].host);
    let (mut kept, said) = connect(&host, "127.0.0.1:8080");
    assert_eq!(said, "first");
    // A pod that has nothing to do with it does not get the port, before and after.
    let refused =
        |networks| host.attach(networks, "other", &Space::new(), &flintd::desired::Network::Node, &ports[..1]);
    assert!(refused(&networks).expect_err("taken").to_string().contains("has it"));

    let passed = host.space.within(|| networks.take_over("next", "first")).expect("take over");
    assert_eq!(passed, first.attached.ports, "also the port that the node chose");
    for at in ["127.0.0.1:8080", "192.0.2.1:8080", &chosen] {
        assert_eq!(connect(&host, at).1, "next", "{at}");
    }
    kept.write_all(b"?").expect("ask");
    assert_eq!(say(&mut kept), "first");
    assert!(refused(&networks).expect_err("taken").to_string().contains("has it"));
    host.space.within(|| networks.take_over("next", "first")).expect("twice changes nothing");
    assert_eq!(connect(&host, "127.0.0.1:8080").1, "next");

    // Without the table, and by another flintd, the records say whose they are.
    host.space.shell("nft flush ruleset");
    drop(networks);
    networks = host.networks();
    host.retain(&networks, &["first", "next"]);
    assert_eq!(connect(&host, "127.0.0.1:8080").1, "next");
    host.space.within(|| networks.detach("first", &first.space.path())).expect("detach");
    assert_eq!(connect(&host, &chosen).1, "next", "the first one takes nothing with it");

    // One that goes before it had them leaves them where they are; a table that somebody removed is made by the one that comes.
    let third = host.pod_after(&networks, "third", &ports, "next");
    drop(third);
    host.retain(&networks, &["next"]);
    assert_eq!(connect(&host, "127.0.0.1:8080").1, "next");
    let fourth = host.pod_after(&networks, "fourth", &ports[..1], "next");
    serve(&fourth.space, "fourth");
    host.space.shell("nft flush ruleset");
    host.space.within(|| networks.take_over("fourth", "next")).expect("take over");
    assert_eq!(connect(&host, "127.0.0.1:8080").1, "fourth");
    assert!(host.space.tcp(&chosen).is_err(), "a port that the next one has not is closed");
    host.finish(&networks);
}
