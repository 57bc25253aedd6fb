//! What a CreateSandbox request says of the pod: containerd's CRI plugin puts Kubernetes' `PodSandboxConfig` into its options.
//!
//! The numbers are those of Kubernetes' CRI, `api.proto` of runtime.v1; only what a sandbox without a container of its own
//! acts on is read.

use containerd_shim_protos::api::Empty;
use protobuf::well_known_types::any::Any;
use protobuf::{Message as _, UnknownValueRef};

use crate::error::{Error, Result};

/// `NamespaceMode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mode {
    /// One for all containers of the pod.
    #[default]
    Pod,
    /// One for each container.
    Container,
    /// The host's.
    Node,
    /// Another container's.
    Target,
}

/// `PodSandboxConfig`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PodConfig {
    pub(crate) hostname: String,
    pub(crate) dns: Dns,
    pub(crate) network: Mode,
    pub(crate) pid: Mode,
    pub(crate) ipc: Mode,
    /// Whether the pod wants a user namespace.
    pub(crate) users: bool,
    pub(crate) sysctls: Vec<(String, String)>,
}

/// `DNSConfig`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dns {
    pub(crate) servers: Vec<String>,
    pub(crate) searches: Vec<String>,
    pub(crate) options: Vec<String>,
}

const CONFIG: &str = "runtime.v1.PodSandboxConfig";

impl PodConfig {
    /// Without options a pod has a network, IPC and UTS namespace of its own, and its containers their own pids.
    ///
    /// # Errors
    ///
    /// Options of another type, or that do not decode.
    pub(crate) fn decode(options: Option<&Any>) -> Result<Self> {
        let Some(options) = options.filter(|any| !any.type_url.is_empty()) else {
            return Ok(Self { pid: Mode::Container, ..Self::default() });
        };
        if options.type_url.rsplit('/').next() != Some(CONFIG) {
            return Err(Error::invalid(format!("options of the type {} are unknown to this shim", options.type_url)));
        }
        let mut config = Self::default();
        for (number, value) in Fields::of(&options.value)?.iter() {
            match (number, value) {
                (2, UnknownValueRef::LengthDelimited(bytes)) => config.hostname = text(bytes)?,
                (4, UnknownValueRef::LengthDelimited(bytes)) => config.dns = Dns::decode(bytes)?,
                (8, UnknownValueRef::LengthDelimited(bytes)) => config.read_linux(bytes)?,
                _ => {}
            }
        }
        Ok(config)
    }

    /// `LinuxPodSandboxConfig`.
    fn read_linux(&mut self, bytes: &[u8]) -> Result<()> {
        for (number, value) in Fields::of(bytes)?.iter() {
            match (number, value) {
                (2, UnknownValueRef::LengthDelimited(context)) => {
                    for (number, value) in Fields::of(context)?.iter() {
                        if let (1, UnknownValueRef::LengthDelimited(options)) = (number, value) {
                            self.read_namespaces(options)?;
                        }
                    }
                }
                (3, UnknownValueRef::LengthDelimited(entry)) => {
                    let (mut name, mut setting) = (String::new(), String::new());
                    for (number, value) in Fields::of(entry)?.iter() {
                        match (number, value) {
                            (1, UnknownValueRef::LengthDelimited(bytes)) => name = text(bytes)?,
                            (2, UnknownValueRef::LengthDelimited(bytes)) => setting = text(bytes)?,
                            _ => {}
                        }
                    }
                    self.sysctls.push((name, setting));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// `NamespaceOption`.
    fn read_namespaces(&mut self, bytes: &[u8]) -> Result<()> {
        for (number, value) in Fields::of(bytes)?.iter() {
            match (number, value) {
                (1, UnknownValueRef::Varint(mode)) => self.network = Mode::of(mode)?,
                (2, UnknownValueRef::Varint(mode)) => self.pid = Mode::of(mode)?,
                (3, UnknownValueRef::Varint(mode)) => self.ipc = Mode::of(mode)?,
                // Its mode 0, the pod's own, is left out of the message.
                (5, UnknownValueRef::LengthDelimited(options)) => {
                    let node = |(number, value)| number == 1 && value == UnknownValueRef::Varint(2);
                    self.users = !Fields::of(options)?.iter().any(node);
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Mode {
    fn of(number: u64) -> Result<Self> {
        match number {
            0 => Ok(Self::Pod),
            1 => Ok(Self::Container),
            2 => Ok(Self::Node),
            3 => Ok(Self::Target),
            other => Err(Error::invalid(format!("{other} is no namespace mode of a pod"))),
        }
    }
}

impl Dns {
    fn decode(bytes: &[u8]) -> Result<Self> {
        let mut dns = Self::default();
        for (number, value) in Fields::of(bytes)?.iter() {
            match (number, value) {
                (1, UnknownValueRef::LengthDelimited(bytes)) => dns.servers.push(text(bytes)?),
                (2, UnknownValueRef::LengthDelimited(bytes)) => dns.searches.push(text(bytes)?),
                (3, UnknownValueRef::LengthDelimited(bytes)) => dns.options.push(text(bytes)?),
                _ => {}
            }
        }
        Ok(dns)
    }
}

/// Any message's fields: to one that has none, all are unknown.
struct Fields(Empty);

impl Fields {
    fn of(bytes: &[u8]) -> Result<Self> {
        Empty::parse_from_bytes(bytes).map(Self).map_err(|error| Error::invalid(format!("decode {CONFIG}: {error}")))
    }

    fn iter(&self) -> impl Iterator<Item = (u32, UnknownValueRef<'_>)> {
        self.0.special_fields.unknown_fields().iter()
    }
}

fn text(bytes: &[u8]) -> Result<String> {
    String::from_utf8(bytes.to_vec()).map_err(|error| Error::invalid(format!("decode {CONFIG}: {error}")))
}

#[cfg(test)]
mod tests {
    use protobuf::well_known_types::any::Any;

    use super::{CONFIG, Dns, Mode, PodConfig};

    fn part(number: u8, bytes: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, bytes.len() as u8], bytes].concat()
    }

    fn decode(value: Vec<u8>) -> Result<PodConfig, String> {
        let any = Any { type_url: CONFIG.to_owned(), value, ..Any::default() };
        PodConfig::decode(Some(&any)).map_err(|error| error.to_string())
    }

    #[test]
    fn what_kubernetes_sends() {
        let dns = [part(1, b"10.0.0.1"), part(2, b"a.b"), part(2, b"c"), part(3, b"ndots:5")].concat();
        // network = NODE, pid = CONTAINER, ipc left out, a user namespace of the pod's own.
        let namespaces = [vec![0x08, 2, 0x10, 1], part(5, &[])].concat();
        let sysctl = part(3, &[part(1, b"kernel.shm_rmid_forced"), part(2, b"1")].concat());
        let linux = part(8, &[part(2, &part(1, &namespaces)), sysctl].concat());
        let config = decode([part(2, b"web"), part(4, &dns), linux].concat()).unwrap();
        assert_eq!((config.hostname.as_str(), config.network, config.pid), ("web", Mode::Node, Mode::Container));
        assert_eq!((config.ipc, config.users), (Mode::Pod, true));
        assert_eq!(config.sysctls, [("kernel.shm_rmid_forced".to_owned(), "1".to_owned())]);
        let list = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect::<Vec<_>>();
        let dns = Dns { servers: list(&["10.0.0.1"]), searches: list(&["a.b", "c"]), options: list(&["ndots:5"]) };
        assert_eq!(config.dns, dns);
        // The host's users are asked for expressly.
        let config = decode(part(8, &part(2, &part(1, &part(5, &[0x08, 2]))))).unwrap();
        assert!(!config.users);
    }

    #[test]
    fn what_is_wrong_is_told() {
        assert_eq!(PodConfig::decode(None).unwrap().pid, Mode::Container);
        assert!(decode(vec![0xff]).unwrap_err().contains(CONFIG));
        assert!(decode(part(8, &part(2, &part(1, &[0x10, 9])))).unwrap_err().contains('9'));
        let other = Any { type_url: "kata.Options".to_owned(), ..Any::default() };
        assert!(PodConfig::decode(Some(&other)).unwrap_err().to_string().contains("kata.Options"));
    }
}
