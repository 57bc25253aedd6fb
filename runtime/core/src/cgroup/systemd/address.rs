//! Where systemd is reached: its own socket where we may, else the bus (D-Bus specification, "Server Addresses").
//!
//! Its own socket spares the way through the bus daemon, there and back, and needs none to be installed.

use std::ffi::OsString;
use std::path::PathBuf;

/// What answers at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// systemd itself: no names, all signals.
    Peer,
    /// A message bus, where systemd has a name.
    Bus,
}

/// A unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) endpoint: Endpoint,
    pub(super) path: PathBuf,
    pub(super) abstract_name: Option<Vec<u8>>,
}

impl Address {
    pub(super) fn new(endpoint: Endpoint, path: impl Into<PathBuf>) -> Self {
        Self { endpoint, path: path.into(), abstract_name: None }
    }

    /// The unix sockets of a list of addresses: `unix:path=/run/bus,guid=1;unix:abstract=x`.
    pub(super) fn parse_list(list: &str) -> Vec<Self> {
        let parse = |address: &str| {
            let keys = address.trim().strip_prefix("unix:")?;
            let value = |wanted: &str| {
                keys.split(',')
                    .find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == wanted))
                    .map(|(_, value)| unescape(value))
            };
            let path = value("path").map(|path| PathBuf::from(String::from_utf8_lossy(&path).into_owned()));
            let abstract_name = value("abstract");
            (path.is_some() || abstract_name.is_some()).then(|| Self {
                endpoint: Endpoint::Bus,
                path: path.unwrap_or_default(),
                abstract_name,
            })
        };
        list.split(';').filter_map(parse).collect()
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.abstract_name {
            Some(name) => write!(f, "@{}", String::from_utf8_lossy(name)),
            None => write!(f, "{}", self.path.display()),
        }
    }
}

/// `%20` for all but some harmless characters.
fn unescape(value: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = value.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        let code = behind.get(..2).filter(|_| first == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = code.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        rest = if byte.is_some() { &behind[2..] } else { behind };
        bytes.push(byte.unwrap_or(first));
    }
    bytes
}

/// Where the system's manager may be, best first. `variable` reads the environment.
pub(super) fn of_system(variable: impl Fn(&str) -> Option<OsString>, is_root: bool) -> Vec<Address> {
    let mut addresses = Vec::new();
    // Somebody said it.
    if let Some(list) = variable("DBUS_SYSTEM_BUS_ADDRESS") {
        addresses.extend(Address::parse_list(&list.to_string_lossy()));
    }
    if is_root {
        addresses.push(Address::new(Endpoint::Peer, "/run/systemd/private"));
    }
    addresses.push(Address::new(Endpoint::Bus, "/run/dbus/system_bus_socket"));
    addresses
}

/// Where the user's own manager may be.
pub(super) fn of_user(variable: impl Fn(&str) -> Option<OsString>) -> Vec<Address> {
    let mut addresses = Vec::new();
    if let Some(list) = variable("DBUS_SESSION_BUS_ADDRESS") {
        addresses.extend(Address::parse_list(&list.to_string_lossy()));
    }
    if let Some(folder) = variable("XDG_RUNTIME_DIR").filter(|folder| !folder.is_empty()).map(PathBuf::from) {
        addresses.push(Address::new(Endpoint::Peer, folder.join("systemd/private")));
        addresses.push(Address::new(Endpoint::Bus, folder.join("bus")));
    }
    addresses
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::{Address, Endpoint, of_system, of_user};

    #[test]
    fn lists_of_addresses() {
        let list = "tcp:host=x;unix:path=/a%20b,guid=12;unix:abstract=/tmp/x;unix:tmpdir=/tmp";
        let shown: Vec<String> = Address::parse_list(list).iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["/a b", "@/tmp/x"]);
        assert_eq!(Address::parse_list("unix:path=/%zz%2")[0].to_string(), "/%zz%2");
    }

    #[test]
    fn managers_are_sought_where_the_environment_says() {
        let nothing = |_: &str| None;
        let shown = |addresses: Vec<Address>| addresses.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(shown(of_system(nothing, true)), ["/run/systemd/private", "/run/dbus/system_bus_socket"]);
        assert_eq!(shown(of_system(nothing, false)), ["/run/dbus/system_bus_socket"]);
        assert!(of_user(nothing).is_empty());
        let user = |name: &str| match name {
            "DBUS_SESSION_BUS_ADDRESS" => Some(OsString::from("unix:path=/s")),
            "XDG_RUNTIME_DIR" => Some(OsString::from("/r")),
            _ => None,
        };
        assert_eq!(shown(of_user(user)), ["/s", "/r/systemd/private", "/r/bus"]);
        assert_eq!(of_user(user)[1].endpoint, Endpoint::Peer);
    }
}
