//! A network namespace that stands for the host, and others for pods and for what is outside: nothing of the machine's own
//! network is touched, and all of it is gone with the last thread and descriptor.

use std::collections::HashSet;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use flintd::desired::{HostPort, Key, Network, Protocol};
use flintd::network::{Attach, Attached, Networks, Settings};
use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace.
pub(crate) struct Space {
    file: File,
}

impl Space {
    /// A new one, with its loopback device down.
    pub(crate) fn new() -> Self {
        let made = || {
            unshare(CloneFlags::CLONE_NEWNET).expect("unshare the network");
            File::open("/proc/thread-self/ns/net").expect("open the namespace")
        };
        Self { file: std::thread::scope(|scope| scope.spawn(made).join()).expect("a thread") }
    }

    /// A path by which it can be joined, as long as this process lives.
    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd()))
    }

    /// Does something in it; programs started there are in it, too.
    pub(crate) fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let name = integration_tests::test_name();
        let joined = || {
            setns(&self.file, CloneFlags::CLONE_NEWNET).expect("join the network");
            work()
        };
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name(name).spawn_scoped(scope, joined).expect("a thread");
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs lines of the shell in it; what they print.
    pub(crate) fn shell(&self, script: &str) -> String {
        let output = self.within(|| Command::new("sh").args(["-ec", script]).output().expect("run sh"));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{script}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }

    /// Answers every TCP connection, and every datagram, to a port with its peer's address; until the process ends or all
    /// devices are gone.
    pub(crate) fn answer(&self, port: u16) {
        let (listener, datagrams) = self.within(|| {
            let at = SocketAddr::new(std::net::Ipv6Addr::UNSPECIFIED.into(), port);
            (TcpListener::bind(at).expect("listen"), UdpSocket::bind(at).expect("bind"))
        });
        std::thread::spawn(move || {
            while let Ok((mut stream, peer)) = listener.accept() {
                let _ = stream.write_all(peer.ip().to_canonical().to_string().as_bytes());
            }
        });
        std::thread::spawn(move || {
            let mut bytes = [0; 16];
            while let Ok((_, peer)) = datagrams.recv_from(&mut bytes) {
                let _ = datagrams.send_to(peer.ip().to_canonical().to_string().as_bytes(), peer);
            }
        });
    }

    /// What a TCP server says, or why there is none.
    pub(crate) fn tcp(&self, at: &str) -> Result<String, std::io::ErrorKind> {
        let at: SocketAddr = at.parse().expect("an address");
        self.within(|| {
            let mut stream = TcpStream::connect_timeout(&at, Duration::from_secs(5)).map_err(|error| error.kind())?;
            let mut text = String::new();
            stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
            stream.read_to_string(&mut text).map_err(|error| error.kind())?;
            Ok(text)
        })
    }

    /// What a UDP server says. Datagrams may be lost while neighbours are looked for, so it is asked again.
    pub(crate) fn udp(&self, at: &str) -> Result<String, std::io::ErrorKind> {
        let at: SocketAddr = at.parse().expect("an address");
        let from = if at.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        self.within(|| {
            let socket = UdpSocket::bind(from).expect("bind");
            socket.connect(at).map_err(|error| error.kind())?;
            socket.set_read_timeout(Some(Duration::from_millis(500))).expect("a timeout");
            let mut bytes = [0; 64];
            let mut last = std::io::ErrorKind::TimedOut;
            for _ in 0..6 {
                match socket.send(b"?").and_then(|_| socket.recv(&mut bytes)) {
                    Ok(length) => return Ok(String::from_utf8_lossy(bytes.get(..length).unwrap_or(&[])).into_owned()),
                    Err(error) => last = error.kind(),
                }
            }
            Err(last)
        })
    }
}

/// A host with a network of its own, and a neighbour outside of it.
pub(crate) struct Host {
    /// The host.
    pub(crate) space: Space,
    /// Who is outside: 192.0.2.2 and 2001:db8::2; the host is .1 and ::1.
    pub(crate) outside: Space,
    dir: tempfile::TempDir,
}

/// A pod of a test.
pub(crate) struct Pod {
    /// Its namespace.
    pub(crate) space: Space,
    /// What it has got.
    pub(crate) attached: Attached,
}

impl Host {
    /// Makes both, connected; None after a skip.
    pub(crate) fn new() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            integration_tests::skip("network namespaces need root");
            return None;
        }
        if integration_tests::missing(&["nft", "ip"]) {
            return None;
        }
        let host = Self { space: Space::new(), outside: Space::new(), dir: tempfile::tempdir().expect("a folder") };
        host.space.shell(&format!(
            "ip link set lo up; ip link add up0 type veth peer name up0 netns {0}; ip link set up0 up; \
             ip address add 192.0.2.1/24 dev up0; ip address add 2001:db8::1/64 dev up0 nodad",
            host.outside.path().display()
        ));
        host.outside.shell(
            "ip link set lo up; ip link set up0 up; ip address add 192.0.2.2/24 dev up0; \
             ip address add 2001:db8::2/64 dev up0 nodad",
        );
        Some(host)
    }

    /// The settings of its networks.
    pub(crate) fn settings() -> Settings {
        Settings { ipv6: Some("fd00:66::/64".parse().expect("a network")), ..Settings::default() }
    }

    /// Its networks, as flintd opens them at its start.
    pub(crate) fn networks(&self) -> Networks {
        self.networks_with(&Self::settings())
    }

    /// The same with other settings.
    pub(crate) fn networks_with(&self, settings: &Settings) -> Networks {
        self.space.within(|| Networks::open(settings, &self.folder())).expect("open the networks")
    }

    /// Where the records are.
    pub(crate) fn folder(&self) -> PathBuf {
        self.dir.path().join("network")
    }

    /// Attaches a new namespace to the node's network.
    pub(crate) fn pod(&self, networks: &Networks, uid: &str, ports: &[HostPort]) -> Pod {
        let space = Space::new();
        let attached = self.attach(networks, uid, &space, &Network::Node, ports).expect("attach");
        Pod { space, attached }
    }

    /// The same for a pod that takes the place of another one.
    pub(crate) fn pod_after(&self, networks: &Networks, uid: &str, ports: &[HostPort], after: &str) -> Pod {
        let (space, key) = (Space::new(), Key::new("default", uid));
        let (netns, network) = (space.path(), &Network::Node);
        let pod = Attach { uid, key: &key, netns: &netns, network, ports, hostname: uid, after: Some(after) };
        let attached = self.space.within(|| networks.attach(&pod)).expect("attach");
        Pod { space, attached }
    }

    /// Attaches a namespace.
    pub(crate) fn attach(
        &self,
        networks: &Networks,
        uid: &str,
        space: &Space,
        network: &Network,
        ports: &[HostPort],
    ) -> flintd::network::Result<Attached> {
        let (key, netns) = (Key::new("default", uid), space.path());
        let pod = Attach { uid, key: &key, netns: &netns, network, ports, hostname: uid, after: None };
        self.space.within(|| networks.attach(&pod))
    }

    /// Keeps these pods only.
    pub(crate) fn retain(&self, networks: &Networks, uids: &[&str]) {
        let uids: HashSet<String> = uids.iter().map(|uid| (*uid).to_owned()).collect();
        self.space.within(|| networks.retain(&uids)).expect("retain");
    }

    /// Takes all pods away, and fails if anything of the network is left.
    pub(crate) fn finish(&self, networks: &Networks) {
        self.retain(networks, &[]);
        self.assert_clean();
    }

    /// Fails if a device, route, table, record or held port is there.
    pub(crate) fn assert_clean(&self) {
        let left = self.space.shell(
            "ip -o link | grep -v -e ' lo:' -e ' up0@' || true; ip route | grep -v 'dev up0' || true; \
             ip -6 route | grep -v -e 'dev up0' -e '^unreachable' || true; ip -6 route | grep fd00 || true; \
             nft list ruleset; ss -Hnltu",
        );
        assert_eq!(left, "", "left on the host");
        let files = std::fs::read_dir(self.folder()).map(Iterator::count).unwrap_or_default();
        assert_eq!(files, 0, "records are left");
    }
}

/// A host port on all addresses.
pub(crate) fn port(host: u16, pod: u16, protocol: Protocol) -> HostPort {
    HostPort { address: None, host, pod, protocol }
}
