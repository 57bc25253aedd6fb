//! The node's own network.

use std::io::ErrorKind;

use flintd::desired::{Network, Protocol};

use super::place::{Host, Space, port};

fn address(attached: &flintd::network::Attached, index: usize) -> String {
    attached.addresses.get(index).expect("an address").to_string()
}

#[test]
fn pods_reach_each_other_the_host_and_others() {
    let Some(host) = Host::new() else { return };
    let networks = host.networks();
    let (one, two) = (host.pod(&networks, "one", &[]), host.pod(&networks, "two", &[]));
    assert_eq!(one.attached.addresses.len(), 2, "{:?}", one.attached);
    two.space.answer(80);
    let (one4, one6) = (address(&one.attached, 0), address(&one.attached, 1));
    let (two4, two6) = (address(&two.attached, 0), address(&two.attached, 1));
    // From pod to pod, with the pod's own address.
    assert_eq!(one.space.tcp(&format!("{two4}:80")).as_deref(), Ok(one4.as_str()));
    assert_eq!(one.space.tcp(&format!("[{two6}]:80")).as_deref(), Ok(one6.as_str()));
    assert_eq!(one.space.udp(&format!("{two4}:80")).as_deref(), Ok(one4.as_str()));
    // A pod reaches itself, by its loopback device and its address.
    assert_eq!(two.space.tcp("127.0.0.1:80").as_deref(), Ok("127.0.0.1"));
    assert_eq!(two.space.tcp(&format!("[{two6}]:80")).as_deref(), Ok(two6.as_str()));
    // The host reaches pods, from its address among them.
    assert_eq!(host.space.tcp(&format!("{two4}:80")).as_deref(), Ok("10.66.0.1"));
    assert_eq!(host.space.tcp(&format!("[{two6}]:80")).as_deref(), Ok("fd00:66::1"));
    // Pods reach what is outside, which sees the host.
    host.outside.answer(81);
    assert_eq!(one.space.tcp("192.0.2.2:81").as_deref(), Ok("192.0.2.1"));
    assert_eq!(one.space.tcp("[2001:db8::2]:81").as_deref(), Ok("2001:db8::1"));
    assert_eq!(one.space.udp("192.0.2.2:81").as_deref(), Ok("192.0.2.1"));
    // Nobody outside reaches pods without a host port, even with a route to them.
    host.outside.shell("ip route add 10.66.0.0/16 via 192.0.2.1; ip route add fd00:66::/64 via 2001:db8::1");
    host.outside.within(|| {
        for target in [format!("{two4}:80"), format!("[{two6}]:80")] {
            let target = target.parse().expect("an address");
            let error = std::net::TcpStream::connect_timeout(&target, std::time::Duration::from_millis(300));
            assert_eq!(error.map_err(|error| error.kind()).expect_err("not reached"), ErrorKind::TimedOut, "{target}");
        }
    });
    // Packets to an address without a pod are refused on the spot.
    assert_eq!(one.space.tcp("10.66.9.9:80").expect_err("nobody is there"), ErrorKind::HostUnreachable);
    host.space.within(|| networks.detach("one", &one.space.path())).expect("detach");
    host.space.within(|| networks.detach("one", &one.space.path())).expect("detach again");
    assert_eq!(one.space.shell("ip -o link | wc -l").trim(), "1", "only its loopback device is left");
    drop(two);
    host.finish(&networks);
}

#[test]
fn host_ports_lead_to_pods() {
    let Some(host) = Host::new() else { return };
    let networks = host.networks();
    let ports = [port(8080, 80, Protocol::Tcp), port(8080, 80, Protocol::Udp), port(0, 80, Protocol::Tcp)];
    let web = host.pod(&networks, "web", &ports);
    let other = host.pod(&networks, "other", &[]);
    let chosen = web.attached.ports.get(2).expect("the third port").host;
    assert!(chosen > 1023 && chosen != 8080, "{chosen}");
    web.space.answer(80);
    let (web4, web6) = (address(&web.attached, 0), address(&web.attached, 1));
    // From outside, with the client's address.
    assert_eq!(host.outside.tcp("192.0.2.1:8080").as_deref(), Ok("192.0.2.2"));
    assert_eq!(host.outside.tcp(&format!("192.0.2.1:{chosen}")).as_deref(), Ok("192.0.2.2"));
    assert_eq!(host.outside.tcp("[2001:db8::1]:8080").as_deref(), Ok("2001:db8::2"));
    assert_eq!(host.outside.udp("192.0.2.1:8080").as_deref(), Ok("192.0.2.2"));
    assert_eq!(host.outside.udp("[2001:db8::1]:8080").as_deref(), Ok("2001:db8::2"));
    // From the host, by its own addresses and by its loopback device.
    for at in
        ["192.0.2.1:8080", "127.0.0.1:8080", "127.1.2.3:8080", "[2001:db8::1]:8080", "[::1]:8080", "10.66.0.1:8080"]
    {
        assert!(host.space.tcp(at).is_ok(), "{at}: {:?}", host.space.tcp(at));
        assert!(host.space.udp(at).is_ok(), "{at}: {:?}", host.space.udp(at));
    }
    // From another pod, and from the pod itself.
    let other4 = address(&other.attached, 0);
    assert_eq!(other.space.tcp("192.0.2.1:8080").as_deref(), Ok(other4.as_str()));
    assert_eq!(other.space.tcp("10.66.0.1:8080").as_deref(), Ok(other4.as_str()));
    assert_eq!(web.space.tcp("192.0.2.1:8080").as_deref(), Ok("10.66.0.1"), "hairpin, web is {web4}");
    assert_eq!(web.space.tcp("[2001:db8::1]:8080").as_deref(), Ok("fd00:66::1"), "hairpin, web is {web6}");
    assert_eq!(web.space.udp("192.0.2.1:8080").as_deref(), Ok("10.66.0.1"));
    // Once the pod is gone, nobody answers, and a program of the host can have the port.
    host.space.within(|| networks.detach("web", &web.space.path())).expect("detach");
    assert_eq!(host.outside.tcp("192.0.2.1:8080"), Err(ErrorKind::ConnectionRefused));
    host.space.answer(8080);
    assert_eq!(host.outside.tcp("192.0.2.1:8080").as_deref(), Ok("192.0.2.2"));
    assert_eq!(host.outside.udp("192.0.2.1:8080").as_deref(), Ok("192.0.2.2"));
    let taken = host.attach(&networks, "web", &web.space, &Network::Node, &ports).expect_err("taken").to_string();
    assert!(taken.contains("8080/tcp: a program of the host has it"), "{taken}");
    host.retain(&networks, &[]);
}

/// The kernel remembers where datagrams of a client went for as long as they come: to a pod that is gone, or to nobody.
#[test]
fn a_client_of_a_udp_port_that_goes_on_sending_reaches_the_pods_to_come() {
    let Some(host) = Host::new() else { return };
    let networks = host.networks();
    let ports = [port(5353, 53, Protocol::Udp)];
    let client = |at: &str, own: &str| {
        let socket = host.outside.within(|| std::net::UdpSocket::bind(own).expect("bind"));
        socket.connect(at).expect("connect");
        socket.set_read_timeout(Some(std::time::Duration::from_millis(100))).expect("a timeout");
        socket
    };
    let clients = [client("192.0.2.1:5353", "192.0.2.2:40000"), client("[2001:db8::1]:5353", "[2001:db8::2]:40000")];
    // More often than the kernel forgets (30 s); errors are what ICMP says.
    let answers = |client: &std::net::UdpSocket| {
        (0..50).any(|_| client.send(b"?").and_then(|_| client.recv(&mut [0; 64])).is_ok())
    };
    for client in &clients {
        assert!(client.send(b"?").and_then(|_| client.recv(&mut [0; 64])).is_err(), "nobody is there yet");
    }
    for uid in ["one", "two"] {
        let pod = host.pod(&networks, uid, &ports);
        pod.space.answer(53);
        for client in &clients {
            assert!(answers(client), "{uid} hears nothing of {client:?}");
        }
        host.space.within(|| networks.detach(uid, &pod.space.path())).expect("detach");
    }
    host.finish(&networks);
}

/// CVE-2020-8558: devices that let packets from the host's loopback address through must not let any to it.
#[test]
fn pods_do_not_reach_the_hosts_loopback_address() {
    let Some(host) = Host::new() else { return };
    let networks = host.networks();
    let pod = host.pod(&networks, "pod", &[port(8080, 80, Protocol::Tcp)]);
    host.space.answer(9000);
    let get = || {
        let target = "127.0.0.1:9000".parse().expect("an address");
        let connect = || std::net::TcpStream::connect_timeout(&target, std::time::Duration::from_secs(5));
        pod.space.within(connect).map(drop).map_err(|error| error.kind())
    };
    // What a pod with NET_ADMIN and NET_RAW can do: send packets for 127.0.0.1 to the host's end of its pair.
    pod.space.shell(
        "echo 1 >/proc/sys/net/ipv4/conf/eth0/route_localnet; ip address del 127.0.0.1/8 dev lo; \
         ip route add 127.0.0.1 via 10.66.0.1 dev eth0 onlink src $(ip -4 -o address show eth0 | sed 's/.*inet \\([0-9.]*\\).*/\\1/')",
    );
    assert_eq!(get(), Err(ErrorKind::TimedOut));
    // That it is the rule that keeps it out: without it the attack works.
    host.space.shell("nft flush chain inet flint raw");
    assert_eq!(get(), Ok(()));
    host.retain(&networks, &["pod"]);
    host.retain(&networks, &[]);
}

/// A pod cannot send with another's address.
#[test]
fn pods_send_from_their_own_address_only() {
    let Some(host) = Host::new() else { return };
    let networks = host.networks();
    let (one, two) = (host.pod(&networks, "one", &[]), host.pod(&networks, "two", &[]));
    host.outside.answer(80);
    let (one4, two4) = (address(&one.attached, 0), address(&two.attached, 0));
    one.space.shell(&format!("ip address add {two4}/32 dev eth0; ip address del {one4}/32 dev eth0; ip route replace default via 10.66.0.1 dev eth0 onlink"));
    let reached = one.space.within(|| {
        let target = "192.0.2.2:80".parse().expect("an address");
        std::net::TcpStream::connect_timeout(&target, std::time::Duration::from_millis(300))
            .map(drop)
            .map_err(|error| error.kind())
    });
    assert_eq!(reached, Err(ErrorKind::TimedOut));
    // That it is the rule that keeps it out: without it the first packet arrives outside.
    host.space.shell("nft flush chain inet flint raw; echo 0 >/proc/sys/net/ipv4/conf/all/rp_filter");
    host.finish(&networks);
}

#[test]
fn a_pod_may_have_no_network_or_the_hosts() {
    let Some(host) = Host::new() else { return };
    let networks = host.networks();
    let space = Space::new();
    let nothing = host.attach(&networks, "none", &space, &Network::None, &[]).expect("attach");
    assert_eq!(nothing, flintd::network::Attached::default());
    space.answer(80);
    assert_eq!(space.tcp("127.0.0.1:80").as_deref(), Ok("127.0.0.1"));
    assert_eq!(space.tcp("[::1]:80").as_deref(), Ok("::1"));
    let refused = host.attach(&networks, "none", &space, &Network::None, &[port(1, 1, Protocol::Tcp)]);
    assert!(refused.expect_err("refused").is_refusal());
    let ports = [port(8080, 8080, Protocol::Tcp)];
    let with_host = host.attach(&networks, "host", &host.space, &Network::Host, &ports).expect("attach");
    assert_eq!(with_host.ports, ports);
    for uid in ["none", "host", "never"] {
        host.space.within(|| networks.detach(uid, &space.path())).expect("detach");
    }
    host.finish(&networks);
}
