//! Ports and volumes, as docker's run takes them.

use serde_json::{Value, json};

/// A port of the host that leads to the pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Port {
    address: Option<String>,
    host: u16,
    pod: u16,
    protocol: &'static str,
}

/// A folder or a named volume, and where the pod has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Volume {
    source: String,
    destination: String,
    read_only: bool,
}

impl Port {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no port like 8080:80, 127.0.0.1:8080:80 or 53:53/udp");
        let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let protocol = match protocol {
            "tcp" => "TCP",
            "udp" => "UDP",
            "sctp" => "SCTP",
            _ => return Err(wrong()),
        };
        let (rest, pod) = ports.rsplit_once(':').ok_or_else(wrong)?;
        let (address, host) = match rest.rsplit_once(':') {
            Some((address, host)) => (Some(address.trim_matches(['[', ']'])), host),
            None => (None, rest),
        };
        if address.is_some_and(|address| address.parse::<std::net::IpAddr>().is_err()) {
            return Err(wrong());
        }
        let number = |text: &str| text.parse().ok().filter(|port| *port > 0).ok_or_else(wrong);
        Ok(Self { address: address.map(str::to_owned), host: number(host)?, pod: number(pod)?, protocol })
    }
}

impl Volume {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no volume like /srv/data:/data, data:/data or /etc/x:/x:ro");
        let parts: Vec<&str> = text.split(':').collect();
        let (source, destination, read_only) = match parts.as_slice() {
            [source, destination] | [source, destination, "rw"] => (*source, *destination, false),
            [source, destination, "ro"] => (*source, *destination, true),
            _ => return Err(wrong()),
        };
        if source.is_empty() || !destination.starts_with('/') || (source.contains('/') && !source.starts_with('/')) {
            return Err(wrong());
        }
        Ok(Self { source: source.to_owned(), destination: destination.to_owned(), read_only })
    }
}

impl Port {
    pub(super) fn manifest(&self) -> Value {
        let mut port = json!({"containerPort": self.pod, "hostPort": self.host, "protocol": self.protocol});
        if let Some(address) = &self.address {
            port["hostIP"] = json!(address);
        }
        port
    }
}

impl Volume {
    pub(super) fn mount(&self, index: usize) -> Value {
        json!({"name": format!("volume-{index}"), "mountPath": self.destination, "readOnly": self.read_only})
    }

    pub(super) fn source(&self, index: usize) -> Value {
        let name = format!("volume-{index}");
        if self.source.starts_with('/') {
            json!({"name": name, "hostPath": {"path": self.source}})
        } else {
            json!({"name": name, "persistentVolumeClaim": {"claimName": self.source}})
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_ports_and_volumes_are_told() {
        for wrong in ["80", "0:80", "80:x", "host:80:80", "80:80/icmp", ":80"] {
            assert!(Port::parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(Port::parse("[::1]:1:2").unwrap().address.as_deref(), Some("::1"));
        for wrong in ["/a", "a/b:/c", "/a:b", ":/b", "/a:/b:xx"] {
            assert!(Volume::parse(wrong).is_err(), "{wrong}");
        }
    }
}
