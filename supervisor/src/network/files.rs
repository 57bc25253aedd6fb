//! The texts of a pod's /etc/hosts, /etc/resolv.conf and /etc/hostname, in the form that Kubernetes gives them.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;

use crate::desired::{Dns, HostAlias};

/// glibc reads no more servers (MAXNS of resolv.h), and Kubernetes writes no more.
const MOST_SERVERS: usize = 3;
/// Kubernetes' limits of a search line.
const MOST_SEARCHES: usize = 32;
const MOST_SEARCH_BYTES: usize = 2048;

/// What /etc/hosts of a pod says. `addresses` are the pod's own; without any it is the host's network's pod or one without a
/// network, and `host` is the host's file, if it is the former.
#[must_use]
pub fn hosts(hostname: &str, addresses: &[IpAddr], aliases: &[HostAlias], host: Option<&str>) -> String {
    let mut text = match host {
        Some(host) => format!("# The host's file, as flintd found it.\n{}\n", host.trim_end()),
        None => "# Written by flintd.\n\
                 127.0.0.1\tlocalhost\n\
                 ::1\tlocalhost ip6-localhost ip6-loopback\n\
                 fe00::0\tip6-localnet\n\
                 fe00::0\tip6-mcastprefix\n\
                 fe00::1\tip6-allnodes\n\
                 fe00::2\tip6-allrouters\n"
            .to_owned(),
    };
    for address in addresses {
        let _ = writeln!(text, "{address}\t{hostname}");
    }
    if host.is_none() && addresses.is_empty() {
        // Without a network the name still has to mean the pod itself.
        let _ = writeln!(text, "127.0.1.1\t{hostname}");
    }
    if !aliases.is_empty() {
        text.push_str("\n# Entries added by host aliases.\n");
        for alias in aliases {
            let _ = writeln!(text, "{}\t{}", alias.ip, alias.names.join("\t"));
        }
    }
    text
}

/// What /etc/hostname of a pod says.
#[must_use]
pub fn hostname(name: &str) -> String {
    format!("{name}\n")
}

/// The host's resolv.conf as pods can use it: where it leads to systemd-resolved on a loopback address, which pods do not
/// reach, the file that names the real servers is taken. `root` is `/`, or a folder that stands for it.
#[must_use]
pub fn host_resolv_conf(root: &Path) -> String {
    let text_of = |name: &str| std::fs::read_to_string(root.join(name)).unwrap_or_default();
    let text = text_of("etc/resolv.conf");
    let servers = values(&text, "nameserver");
    let is_stub = |server: &String| matches!(server.as_str(), "127.0.0.53" | "127.0.0.54");
    if !servers.is_empty() && servers.iter().all(is_stub) {
        let real = text_of("run/systemd/resolve/resolv.conf");
        if !real.is_empty() {
            return real;
        }
    }
    text
}

/// What /etc/resolv.conf of a pod says. With servers of its own it is the pod's alone. Else it has the host's servers, the
/// host's searches before its own, and the host's options, of which its own replace those of the same name. `host` is
/// [`host_resolv_conf`]; `own_network` is false only for a pod in the host's network namespace.
#[must_use]
pub fn resolv_conf(dns: &Dns, host: &str, own_network: bool) -> String {
    let of_host = |keyword: &str| if dns.servers.is_empty() { values(host, keyword) } else { Vec::new() };
    let mut text = String::new();
    let mut servers = of_host("nameserver");
    let found = servers.len();
    if own_network {
        servers.retain(|server| !is_loopback(server));
    }
    if found > 0 && servers.is_empty() {
        text.push_str(
            "# The host's servers listen on its loopback device, which a pod does not reach: give dns.servers.\n",
        );
    }
    servers.extend(dns.servers.iter().cloned());
    for server in servers.iter().take(MOST_SERVERS) {
        let _ = writeln!(text, "nameserver {server}");
    }
    let mut searches: Vec<String> = Vec::new();
    for search in
        of_host("search").iter().flat_map(|line| line.split_whitespace()).chain(dns.searches.iter().map(String::as_str))
    {
        let length: usize = searches.iter().map(|search| search.len() + 1).sum();
        if searches.len() < MOST_SEARCHES
            && length + search.len() <= MOST_SEARCH_BYTES
            && !searches.iter().any(|other| other == search)
        {
            searches.push(search.to_owned());
        }
    }
    if !searches.is_empty() {
        let _ = writeln!(text, "search {}", searches.join(" "));
    }
    let name = |option: &str| option.split(':').next().unwrap_or_default().to_owned();
    let mut options: Vec<String> = Vec::new();
    for option in
        of_host("options").iter().flat_map(|line| line.split_whitespace()).chain(dns.options.iter().map(String::as_str))
    {
        options.retain(|other| name(other) != name(option));
        options.push(option.to_owned());
    }
    if !options.is_empty() {
        let _ = writeln!(text, "options {}", options.join(" "));
    }
    text
}

/// What stands behind a keyword, line by line (`search` and `domain` replace what came before, resolv.conf(5); the last
/// line then counts).
fn values(text: &str, keyword: &str) -> Vec<String> {
    let lines = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let first = words.next()?;
        let same = first == keyword || (keyword == "search" && first == "domain");
        same.then(|| words.take_while(|word| !word.starts_with(['#', ';'])).collect::<Vec<_>>().join(" "))
    });
    let all: Vec<String> = lines.filter(|value| !value.is_empty()).collect();
    if keyword == "search" { all.into_iter().next_back().into_iter().collect() } else { all }
}

fn is_loopback(server: &str) -> bool {
    let address = server.split('%').next().unwrap_or_default();
    address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dns(servers: &[&str], searches: &[&str], options: &[&str]) -> Dns {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        Dns { servers: owned(servers), searches: owned(searches), options: owned(options) }
    }

    const HOST: &str = "# text\nnameserver 192.0.2.1\nnameserver 2001:db8::1 ; text\ndomain old.example\n\
                        search a.example b.example\noptions ndots:1 edns0\n";

    #[test]
    fn resolv_conf_says_what_the_host_says() {
        let all = "nameserver 192.0.2.1\nnameserver 2001:db8::1\nsearch a.example b.example\noptions ndots:1 edns0\n";
        assert_eq!(resolv_conf(&Dns::default(), HOST, true), all);
        assert_eq!(
            resolv_conf(&dns(&[], &["c.example", "a.example"], &["ndots:5", "rotate"]), HOST, true),
            "nameserver 192.0.2.1\nnameserver 2001:db8::1\nsearch a.example b.example c.example\noptions edns0 ndots:5 rotate\n"
        );
        assert_eq!(resolv_conf(&dns(&["192.0.2.9"], &["x"], &[]), HOST, true), "nameserver 192.0.2.9\nsearch x\n");
        assert_eq!(
            resolv_conf(&dns(&["1.1.1.1", "1.1.1.2", "1.1.1.3", "1.1.1.4"], &[], &[]), "", true).lines().count(),
            3
        );
    }

    #[test]
    fn servers_that_a_pod_does_not_reach_are_left_out() {
        let local = "nameserver 127.0.0.1\nnameserver ::1\n";
        let text = resolv_conf(&Dns::default(), local, true);
        assert!(text.starts_with("# ") && !text.contains("nameserver"), "{text}");
        assert_eq!(resolv_conf(&Dns::default(), local, false), local);
        let mixed = "nameserver 127.0.0.1\nnameserver 192.0.2.1\n";
        assert_eq!(resolv_conf(&Dns::default(), mixed, true), "nameserver 192.0.2.1\n");
    }

    #[test]
    fn the_stub_of_systemd_is_replaced() {
        let root = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("mkdir");
            std::fs::write(path, text).expect("write");
        };
        write("etc/resolv.conf", "nameserver 127.0.0.53\noptions edns0\n");
        assert_eq!(host_resolv_conf(root.path()), "nameserver 127.0.0.53\noptions edns0\n", "nothing better is known");
        write("run/systemd/resolve/resolv.conf", "nameserver 192.0.2.7\n");
        assert_eq!(host_resolv_conf(root.path()), "nameserver 192.0.2.7\n");
        write("etc/resolv.conf", "nameserver 127.0.0.1\n");
        assert_eq!(host_resolv_conf(root.path()), "nameserver 127.0.0.1\n");
    }

    #[test]
    fn search_lines_have_an_end() {
        let many: Vec<String> = (0..40).map(|number| format!("s{number}.example")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let text = resolv_conf(&dns(&["192.0.2.1"], &many, &[]), "", true);
        assert_eq!(text.lines().nth(1).map(|line| line.split(' ').count()), Some(33));
    }

    #[test]
    fn hosts_names_the_pod_and_its_aliases() {
        let addresses = ["10.66.0.2".parse().expect("an address"), "fd00::2".parse().expect("an address")];
        let aliases = [HostAlias { ip: addresses[0], names: vec!["one".to_owned(), "two.example".to_owned()] }];
        let text = hosts("web", &addresses, &aliases, None);
        assert!(text.contains("\n127.0.0.1\tlocalhost\n") || text.contains("127.0.0.1\tlocalhost\n"), "{text}");
        assert!(text.contains("\n10.66.0.2\tweb\nfd00::2\tweb\n"), "{text}");
        assert!(text.ends_with("\n10.66.0.2\tone\ttwo.example\n"), "{text}");
        assert!(hosts("web", &[], &[], None).contains("127.0.1.1\tweb\n"));
        assert_eq!(
            hosts("web", &[], &[], Some("127.0.0.1 box\n")),
            "# The host's file, as flintd found it.\n127.0.0.1 box\n"
        );
        assert_eq!(hostname("web"), "web\n");
    }
}
