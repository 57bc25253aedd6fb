//! The one nftables table of the node's network: its text, and the elements of one pod.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

use crate::desired::HostPort;
use crate::network::nftables::{Element, Part};
use crate::network::settings::Subnet;

/// The maps and sets, and their types.
const MAPS: [(&str, &str); 6] = [
    ("any4", "map any4 { type inet_proto . inet_service : ipv4_addr . inet_service; }"),
    ("at4", "map at4 { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }"),
    ("hairpin4", "set hairpin4 { type ipv4_addr . ipv4_addr; }"),
    ("any6", "map any6 { type inet_proto . inet_service : ipv6_addr . inet_service; }"),
    ("at6", "map at6 { type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service; }"),
    ("hairpin6", "set hairpin6 { type ipv6_addr . ipv6_addr; }"),
];

/// What `nft -f -` replaces the table by, in one transaction.
///
/// - `raw`: a pod sends from its own address only, and never to the host's loopback addresses: devices of pods with host ports
///   let these through (route_localnet), which would open what listens on them (CVE-2020-8558).
/// - `ports`: packets to a port of the host, from outside, from pods or from the host itself, go to the pod that has it.
/// - `forward`: pods are reached from outside by host ports alone, though the host routes.
/// - `postrouting`: pods' packets to others get the host's address there. Those of a pod to itself by way of a host port, and those
///   from the host's loopback address, get the host's address among pods: their answers would not come back else.
pub(super) fn text(table: &str, ipv4: Subnet, ipv6: Option<Subnet>, elements: &[Element]) -> String {
    let pods = format!("{table}-*");
    let sets: String = MAPS.iter().fold(String::new(), |mut text, (_, line)| {
        let _ = writeln!(text, "    {line}");
        text
    });
    let host4 = ipv4.at(1);
    let v6 = ipv6.map_or(String::new(), |ipv6| {
        let host = ipv6.at(1);
        format!(
            "    ip6 saddr . ip6 daddr @hairpin6 snat ip6 to {host}\n    \
             ip6 saddr {ipv6} ip6 daddr != {ipv6} masquerade\n    \
             oifname \"{pods}\" ip6 saddr ::1 snat ip6 to {host}\n"
        )
    });
    let mut text = format!(
        r#"table inet {table} {{ }}
delete table inet {table}
table inet {table} {{
{sets}
  chain raw {{
    type filter hook prerouting priority raw; policy accept;
    iifname != "{pods}" accept
    ip daddr 127.0.0.0/8 drop
    ip6 daddr ::1 drop
    ip6 saddr {{ fe80::/10, :: }} accept
    fib saddr . iif oif missing drop
  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    fib daddr type local jump ports
  }}
  chain output {{
    type nat hook output priority -100; policy accept;
    fib daddr type local jump ports
  }}
  chain ports {{
    meta l4proto != {{ tcp, udp, sctp }} return
    dnat ip to ip daddr . meta l4proto . th dport map @at4
    dnat ip to meta l4proto . th dport map @any4
    dnat ip6 to ip6 daddr . meta l4proto . th dport map @at6
    dnat ip6 to meta l4proto . th dport map @any6
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    iifname "{pods}" accept
    oifname != "{pods}" accept
    ct status dnat accept
    ct state new drop
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr . ip daddr @hairpin4 snat ip to {host4}
    ip saddr {ipv4} ip daddr != {ipv4} masquerade
    oifname "{pods}" ip saddr 127.0.0.0/8 snat ip to {host4}
{v6}  }}
}}
"#
    );
    let mut by_set: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for element in elements {
        by_set.entry(element.set).or_default().push(element.text());
    }
    for (set, elements) in by_set {
        let _ = writeln!(text, "add element inet {table} {set} {{ {} }}", elements.join(", "));
    }
    text
}

/// The elements of a pod with these addresses and ports.
pub(super) fn elements(addresses: &[IpAddr], ports: &[HostPort]) -> Vec<Element> {
    let mut elements = Vec::new();
    for &pod in addresses {
        let sets = if pod.is_ipv4() { ("any4", "at4", "hairpin4") } else { ("any6", "at6", "hairpin6") };
        let mut any = false;
        for port in ports {
            let service = [Part::Protocol(port.protocol), Part::Port(port.host)];
            let value = vec![Part::Address(pod), Part::Port(port.pod)];
            match port.address {
                Some(at) if at.is_ipv4() != pod.is_ipv4() => continue,
                Some(at) if !at.is_unspecified() => {
                    let key = [Part::Address(at)].into_iter().chain(service).collect();
                    elements.push(Element { set: sets.1, key, value });
                }
                _ => elements.push(Element { set: sets.0, key: service.to_vec(), value }),
            }
            any = true;
        }
        if any {
            elements.push(Element {
                set: sets.2,
                key: vec![Part::Address(pod), Part::Address(pod)],
                value: Vec::new(),
            });
        }
    }
    elements
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::Protocol;

    fn port(address: Option<&str>, host: u16, protocol: Protocol) -> HostPort {
        HostPort { address: address.map(|address| address.parse().expect("an address")), host, pod: 80, protocol }
    }

    fn of(ports: &[HostPort]) -> Vec<String> {
        let addresses = ["10.66.0.2".parse().expect("an address"), "fd00::2".parse().expect("an address")];
        elements(&addresses, ports).iter().map(|element| format!("{} {}", element.set, element.text())).collect()
    }

    #[test]
    fn ports_are_elements_of_maps() {
        assert!(of(&[]).is_empty());
        assert_eq!(
            of(&[port(None, 8080, Protocol::Tcp), port(Some("127.0.0.1"), 53, Protocol::Udp)]),
            [
                "any4 tcp . 8080 : 10.66.0.2 . 80",
                "at4 127.0.0.1 . udp . 53 : 10.66.0.2 . 80",
                "hairpin4 10.66.0.2 . 10.66.0.2",
                "any6 tcp . 8080 : fd00::2 . 80",
                "hairpin6 fd00::2 . fd00::2",
            ]
        );
        assert_eq!(
            of(&[port(Some("::"), 1, Protocol::Sctp)]),
            ["any6 sctp . 1 : fd00::2 . 80", "hairpin6 fd00::2 . fd00::2"]
        );
        assert_eq!(of(&[port(Some("0.0.0.0"), 1, Protocol::Tcp)]).len(), 2);
    }

    #[test]
    fn the_table_is_replaced_in_one_step() {
        let elements = elements(&["10.66.0.2".parse().expect("an address")], &[port(None, 8080, Protocol::Tcp)]);
        let text = text("flint", "10.66.0.0/16".parse().expect("a network"), None, &elements);
        let order =
            ["table inet flint { }", "delete table inet flint", "map any4", "chain raw", "add element inet flint any4"];
        let places: Vec<_> = order.iter().map(|line| text.find(line).expect(line)).collect();
        assert!(places.is_sorted(), "{text}");
        assert!(text.contains("add element inet flint any4 { tcp . 8080 : 10.66.0.2 . 80 }"), "{text}");
        assert!(!text.contains("masquerade\n    ip6"), "no IPv6 is translated without it");
    }
}
