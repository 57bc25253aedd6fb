//! Networks by Debian's plugins of CNI.

use std::fs;
use std::path::Path;

use flintd::desired::{Network, Protocol};
use flintd::network::{Cni, Settings};

use super::place::{Host, Space, port};

/// A bridge with addresses by host-local and host ports by portmap. (Not ipMasq: bridge 1.1.1 forgets its rules when the pod has
/// lost its device.) What host-local knows is in a folder of the test's.
fn configuration(data: &Path) -> String {
    format!(
        r#"{{"cniVersion":"1.0.0","name":"net","plugins":[
            {{"type":"bridge","bridge":"cbr0","isGateway":true,"hairpinMode":true,
              "ipam":{{"type":"host-local","dataDir":"{}","ranges":[[{{"subnet":"10.77.0.0/24"}}]],
                       "routes":[{{"dst":"0.0.0.0/0"}}]}}}},
            {{"type":"portmap","capabilities":{{"portMappings":true}}}}]}}"#,
        data.display()
    )
}

#[test]
fn a_list_of_plugins_makes_a_network() {
    let Some(host) = Host::new() else { return };
    let plugins = Path::new("/usr/lib/cni");
    if !plugins.join("bridge").exists() {
        integration_tests::skip("the package containernetworking-plugins is not installed");
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let data = dir.path().join("data");
    fs::write(dir.path().join("net.conflist"), configuration(&data)).expect("write");
    let cni = Cni { configurations: dir.path().to_owned(), plugins: vec![plugins.to_owned()], timeout: 60 };
    let settings = Settings { cni, ..Host::settings() };
    let networks = host.networks_with(&settings);
    let network = Network::Cni("net".to_owned());
    host.space.shell("echo 1 >/proc/sys/net/ipv4/ip_forward");
    let ports = [port(8080, 80, Protocol::Tcp)];
    let (one, two) = (Space::new(), Space::new());
    let attached = host.attach(&networks, "one", &one, &network, &ports).expect("attach");
    let address = attached.addresses.first().expect("an address").to_string();
    assert!(address.starts_with("10.77.0."), "{attached:?}");
    assert_eq!(attached.gateway.map(|gateway| gateway.to_string()).as_deref(), Some("10.77.0.1"));
    host.attach(&networks, "two", &two, &network, &[]).expect("attach");
    one.answer(80);
    assert!(two.tcp(&format!("{address}:80")).is_ok());
    assert_eq!(host.outside.tcp("192.0.2.1:8080").as_deref(), Ok("192.0.2.2"));
    // Again, and by a new flintd: it is as it was.
    assert_eq!(host.attach(&networks, "one", &one, &network, &ports).expect("attach again"), attached);
    drop(networks);
    let networks = host.networks_with(&settings);
    assert_eq!(host.attach(&networks, "one", &one, &network, &ports).expect("attach again"), attached);
    // What is broken is made anew.
    one.shell("ip link del eth0");
    let again = host.attach(&networks, "one", &one, &network, &ports).expect("attach again");
    assert!(two.tcp(&format!("{}:80", again.addresses.first().expect("an address"))).is_ok());
    // Its configuration is gone and its namespace, too: what was kept of it is enough.
    fs::remove_file(dir.path().join("net.conflist")).expect("remove");
    drop(two);
    host.retain(&networks, &["one"]);
    host.space.within(|| networks.detach("one", &one.path())).expect("detach");
    let left: Vec<_> = fs::read_dir(data.join("net"))
        .expect("host-local's folder")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with("10."))
        .collect();
    assert_eq!(left, Vec::<String>::new(), "addresses are given back");
    let unknown = host.attach(&networks, "one", &one, &network, &[]).expect_err("no such network").to_string();
    assert!(unknown.contains("\"net\"") && unknown.contains("no file in"), "{unknown}");
    host.space.shell(
        "ip link del cbr0; for t in nat filter; do iptables -t $t -F; iptables -t $t -X; done; nft flush ruleset",
    );
    host.finish(&networks);
}

#[test]
fn a_plugin_that_fails_leaves_nothing() {
    let Some(host) = Host::new() else { return };
    if !Path::new("/usr/lib/cni/bridge").exists() {
        integration_tests::skip("the package containernetworking-plugins is not installed");
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let data = dir.path().join("data");
    // `tuning` cannot set what no kernel has.
    let text = configuration(&data).replace(
        r#"{"type":"portmap","capabilities":{"portMappings":true}}"#,
        r#"{"type":"tuning","sysctl":{"net.ipv4.flint.none":"1"}}"#,
    );
    fs::write(dir.path().join("net.conflist"), text).expect("write");
    let cni = Cni { configurations: dir.path().to_owned(), plugins: vec!["/usr/lib/cni".into()], timeout: 60 };
    let networks = host.networks_with(&Settings { cni, ..Host::settings() });
    let space = Space::new();
    let error =
        host.attach(&networks, "one", &space, &Network::Cni("net".to_owned()), &[port(8080, 80, Protocol::Tcp)]);
    let error = error.expect_err("it fails").to_string();
    assert!(error.contains("ADD of plugin tuning"), "{error}");
    assert_eq!(space.shell("ip -o link | wc -l").trim(), "1");
    host.space.shell("ip link del cbr0; iptables -t nat -F; iptables -t nat -X; nft flush ruleset");
    host.finish(&networks);
}
