//! What an administrator can say about the node's networks.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{Error, Result};

/// Where the node's identity is, from which its IPv6 prefix comes.
const MACHINE_ID: &str = "/etc/machine-id";

/// A network of the Internet Protocol: an address and how many of its bits are the network's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnet {
    /// Its first address.
    pub address: IpAddr,
    /// The network's bits.
    pub prefix: u8,
}

/// Settings of all networks of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// What the nftables table and the host's devices are called after: at most 8 of `[a-z0-9-]`. Two supervisors in one
    /// network namespace need two names.
    pub name: String,
    /// Addresses of pods. The first is the host's own among them.
    pub ipv4: Subnet,
    /// IPv6 addresses of pods; none: the prefix is made from the machine's id, as RFC 4193 asks for random ones.
    pub ipv6: Option<Subnet>,
    /// Whether pods get IPv6 addresses.
    pub with_ipv6: bool,
    /// The largest packet of pods' devices; none: that of the device of the host's default route.
    pub mtu: Option<u32>,
    /// The program `nft`, which makes the table once at the start.
    pub nft: PathBuf,
    /// Plugins of CNI.
    pub cni: Cni,
}

/// Where plugins of CNI and their configuration lists are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cni {
    /// Configuration lists (`*.conflist`, `*.conf`).
    pub configurations: PathBuf,
    /// Folders of plugins, searched in their order.
    pub plugins: Vec<PathBuf>,
    /// How long one plugin may take, in seconds.
    pub timeout: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            name: "flint".to_owned(),
            // Neither docker's (172.17), podman's (10.88), kind's and flannel's (10.244), nor libvirt's (192.168.122).
            ipv4: Subnet { address: Ipv4Addr::new(10, 66, 0, 0).into(), prefix: 16 },
            ipv6: None,
            with_ipv6: true,
            mtu: None,
            nft: PathBuf::from("nft"),
            cni: Cni::default(),
        }
    }
}

impl Default for Cni {
    fn default() -> Self {
        Self {
            configurations: PathBuf::from("/etc/cni/net.d"),
            plugins: vec![
                PathBuf::from("/opt/cni/bin"),
                PathBuf::from("/usr/lib/cni"),
                PathBuf::from("/usr/libexec/cni"),
            ],
            timeout: 60,
        }
    }
}

impl Settings {
    /// Checks what no use could be made of.
    ///
    /// # Errors
    ///
    /// [`Error::Settings`] with the field.
    pub(super) fn check(&self) -> Result<()> {
        let bad = |text: String| Err(Error::Settings(text));
        let letters = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if self.name.is_empty() || self.name.len() > 8 || !self.name.bytes().all(letters) {
            return bad(format!("name {:?}: 1 to 8 of the letters a-z, 0-9 and - are needed", self.name));
        }
        if !matches!(self.ipv4, Subnet { address: IpAddr::V4(_), prefix: 8..=28 }) {
            return bad(format!("ipv4 {}: an IPv4 network of 8 to 28 bits is needed", self.ipv4));
        }
        match self.ipv6 {
            None | Some(Subnet { address: IpAddr::V6(_), prefix: 32..=96 }) => Ok(()),
            Some(other) => bad(format!("ipv6 {other}: an IPv6 network of 32 to 96 bits is needed")),
        }
    }

    /// The IPv6 network of pods; none: they have IPv4 only.
    pub(super) fn ipv6_subnet(&self) -> Option<Subnet> {
        let unique = || unique_local(&std::fs::read(Path::new(MACHINE_ID)).unwrap_or_default(), &self.name);
        self.with_ipv6.then(|| self.ipv6.unwrap_or_else(unique))
    }
}

/// A /64 of fd00::/8 that is this machine's own: the id itself is confidential (machine-id(5)), so it is hashed.
fn unique_local(machine: &[u8], name: &str) -> Subnet {
    let hash = Sha256::new().chain_update(b"flint network").chain_update(name).chain_update(machine).finalize();
    let mut bytes = [0; 16];
    bytes[0] = 0xfd;
    bytes[1..8].copy_from_slice(&hash[..7]);
    Subnet { address: Ipv6Addr::from(bytes).into(), prefix: 64 }
}

impl Subnet {
    /// The address at a distance from the first one; the caller keeps the distance within the network.
    pub(super) fn at(&self, offset: u32) -> IpAddr {
        match self.address {
            IpAddr::V4(first) => Ipv4Addr::from_bits(first.to_bits().wrapping_add(offset)).into(),
            IpAddr::V6(first) => Ipv6Addr::from_bits(first.to_bits().wrapping_add(u128::from(offset))).into(),
        }
    }

    /// Whether two networks share an address.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        let shorter = self.prefix.min(other.prefix);
        match (self.address, other.address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                let shift = 32_u32.saturating_sub(u32::from(shorter));
                a.to_bits().checked_shr(shift).unwrap_or(0) == b.to_bits().checked_shr(shift).unwrap_or(0)
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                let shift = 128_u32.saturating_sub(u32::from(shorter));
                a.to_bits().checked_shr(shift).unwrap_or(0) == b.to_bits().checked_shr(shift).unwrap_or(0)
            }
            _ => false,
        }
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let parsed = text
            .split_once('/')
            .and_then(|(address, prefix)| Some(Self { address: address.parse().ok()?, prefix: prefix.parse().ok()? }));
        let subnet = parsed.ok_or_else(|| format!("{text:?}: an address, a slash and a number of bits are needed"))?;
        let most = if subnet.address.is_ipv4() { 32 } else { 128 };
        if subnet.prefix > most {
            return Err(format!("{text:?}: an address of its kind has {most} bits"));
        }
        let first = match subnet.address {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(subnet.prefix)).unwrap_or(0);
                Ipv4Addr::from_bits(address.to_bits() & mask).into()
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(subnet.prefix)).unwrap_or(0);
                Ipv6Addr::from_bits(address.to_bits() & mask).into()
            }
        };
        Ok(Self { address: first, ..subnet })
    }
}

impl TryFrom<String> for Subnet {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        text.parse()
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> Self {
        subnet.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().expect(text)
    }

    #[test]
    fn networks_are_read_with_their_first_address() {
        for (text, first) in [
            ("10.66.3.4/16", "10.66.0.0/16"),
            ("1.2.3.4/0", "0.0.0.0/0"),
            ("fd00:1:2:3::9/64", "fd00:1:2:3::/64"),
            ("::1/128", "::1/128"),
        ] {
            assert_eq!(subnet(text).to_string(), first);
        }
        for text in ["", "10.0.0.0", "10.0.0.0/33", "fd00::/129", "10.0.0/8", "a/8", "10.0.0.0/-1"] {
            text.parse::<Subnet>().expect_err(text);
        }
    }

    #[test]
    fn networks_that_share_addresses_are_found() {
        for (one, other, shared) in [
            ("10.66.0.0/16", "10.66.5.0/24", true),
            ("10.66.0.0/16", "10.67.0.0/16", false),
            ("10.66.0.0/16", "0.0.0.0/0", true),
            ("10.66.0.0/16", "fd00::/8", false),
            ("fd00::/64", "fd00:0:0:1::/64", false),
            ("fd00::/64", "fd00::/8", true),
        ] {
            assert_eq!(subnet(one).overlaps(&subnet(other)), shared, "{one} {other}");
            assert_eq!(subnet(other).overlaps(&subnet(one)), shared, "{other} {one}");
        }
    }

    #[test]
    fn each_machine_has_its_own_prefix() {
        let one = unique_local(b"one", "flint");
        assert_ne!(one, unique_local(b"two", "flint"));
        assert_ne!(one, unique_local(b"one", "other"));
        assert_eq!(one, unique_local(b"one", "flint"));
        assert!(one.overlaps(&subnet("fd00::/8")), "{one}");
    }

    #[test]
    fn bad_settings_name_their_field() {
        Settings::default().check().expect("the default");
        let refused = |change: fn(&mut Settings)| {
            let mut settings = Settings::default();
            change(&mut settings);
            settings.check().expect_err("refused").to_string()
        };
        assert!(refused(|settings| settings.name = "too-long-a-name".to_owned()).contains("name"));
        assert!(refused(|settings| settings.name = "a\"; drop".to_owned()).contains("name"));
        assert!(refused(|settings| settings.ipv4 = subnet("10.0.0.0/30")).contains("ipv4"));
        assert!(refused(|settings| settings.ipv4 = subnet("fd00::/64")).contains("ipv4"));
        assert!(refused(|settings| settings.ipv6 = Some(subnet("10.0.0.0/24"))).contains("ipv6"));
    }
}
