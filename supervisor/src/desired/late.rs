//! Values that are known only once a pod has its sandbox: addresses, in variables and arguments.
//!
//! Such a value is a mark in the text where it is going to stand, between two NUL bytes: no variable, argument or path may
//! have one, so the mark is neither mistaken for text nor passed on by a program that forgot it. `$(NAME)` copies marks as it
//! copies text.

use std::net::IpAddr;

/// What is known late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Late {
    /// The pod's first address.
    PodIp,
    /// All of the pod's addresses, with commas.
    PodIps,
    /// The node's first address.
    HostIp,
    /// The node's addresses, with commas.
    HostIps,
}

/// What has become known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Places<'a> {
    /// The pod's addresses (the node's, if it has the host's network), the preferred one first.
    pub pod: &'a [IpAddr],
    /// The node's.
    pub host: &'a [IpAddr],
}

impl Late {
    const ALL: [(Self, &'static str); 4] = [
        (Self::PodIp, "\0status.podIP\0"),
        (Self::PodIps, "\0status.podIPs\0"),
        (Self::HostIp, "\0status.hostIP\0"),
        (Self::HostIps, "\0status.hostIPs\0"),
    ];

    /// The mark in a text.
    #[must_use]
    pub fn mark(self) -> &'static str {
        Self::ALL.iter().find(|(late, _)| *late == self).map_or("", |(_, mark)| mark)
    }

    /// Whether a text waits for something.
    #[must_use]
    pub fn is_in(text: &str) -> bool {
        text.contains('\0')
    }

    /// The text with everything in place: for each value of the environment, word of entrypoint and arguments, and word of an
    /// exec check or hook, when a container is made.
    #[must_use]
    pub fn put_in(text: &str, places: Places<'_>) -> String {
        if !Self::is_in(text) {
            return text.to_owned();
        }
        let first = |addresses: &[IpAddr]| addresses.first().map(IpAddr::to_string).unwrap_or_default();
        let all = |addresses: &[IpAddr]| addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(",");
        Self::ALL.iter().fold(text.to_owned(), |text, (late, mark)| {
            if !text.contains(mark) {
                return text;
            }
            let value = match late {
                Self::PodIp => first(places.pod),
                Self::PodIps => all(places.pod),
                Self::HostIp => first(places.host),
                Self::HostIps => all(places.host),
            };
            text.replace(mark, &value)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_become_addresses_and_other_text_stays() {
        let pod = ["10.0.0.2".parse().unwrap(), "fd00::2".parse().unwrap()];
        let host = ["192.0.2.1".parse().unwrap()];
        let places = Places { pod: &pod, host: &host };
        let text = format!("http://{}:80 {} {}", Late::PodIp.mark(), Late::PodIps.mark(), Late::HostIp.mark());
        assert_eq!(Late::put_in(&text, places), "http://10.0.0.2:80 10.0.0.2,fd00::2 192.0.2.1");
        assert_eq!(Late::put_in("status.podIP", places), "status.podIP");
        assert!(Late::is_in(&text) && !Late::is_in("status.podIP"));
    }
}
