//! Networks by plugins of CNI (containernetworking.io, specification 0.3.1 to 1.1.0).
//!
//! ```text
//!  list of plugins ─> ADD one after the other, each with the result of the one before ─> result, kept in the record
//!                     one fails ─> DEL of all, in the reverse order
//!  detach          ─> DEL in the reverse order, with the configuration and result of the record: the file may be gone
//! ```

mod configuration;
mod plugin;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value, json};

pub(super) use configuration::List;

use super::ports::protocol_name;
use super::settings::Cni as Settings;
use super::{Attached, Error, Result, namespace};
use crate::desired::{HostPort, Key};

/// The pod's device.
pub(super) const DEVICE: &str = "eth0";

/// Plugins, and where they and their lists are.
#[derive(Debug)]
pub(super) struct Plugins {
    settings: Settings,
}

/// A pod, as plugins are told of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Container<'a> {
    pub(super) uid: &'a str,
    pub(super) key: &'a Key,
    pub(super) netns: &'a Path,
    pub(super) ports: &'a [HostPort],
}

impl Plugins {
    pub(super) fn new(settings: &Settings) -> Self {
        Self { settings: settings.clone() }
    }

    /// The list of that name.
    pub(super) fn list(&self, network: &str) -> Result<List> {
        List::find(&self.settings.configurations, network)
    }

    /// Makes the network; after an error what was made of it is removed.
    pub(super) fn add(&self, list: &List, pod: &Container<'_>) -> Result<Value> {
        let mut result = Value::Null;
        for plugin in &list.plugins {
            match self.call("ADD", list, plugin, pod, &result) {
                Ok(next) => result = next,
                Err(error) => {
                    return Err(match self.delete(list, pod, &result) {
                        Ok(()) => error,
                        Err(other) => Error::Plugin {
                            network: list.name.clone(),
                            step: "ADD, and DEL after it".to_owned(),
                            reason: format!("{error}; {other}"),
                        },
                    });
                }
            }
        }
        Ok(result)
    }

    /// Asks plugins whether the network is as it was made; lists that cannot be checked are taken to be.
    pub(super) fn check(&self, list: &List, pod: &Container<'_>, result: &Value) -> Result<()> {
        if !list.can_check() {
            return Ok(());
        }
        list.plugins.iter().try_for_each(|plugin| self.call("CHECK", list, plugin, pod, result).map(drop))
    }

    /// Removes the network; all plugins are called, and the first error is told.
    pub(super) fn delete(&self, list: &List, pod: &Container<'_>, result: &Value) -> Result<()> {
        let call = |plugin| self.call("DEL", list, plugin, pod, result).map(drop);
        list.plugins.iter().rev().map(call).fold(Ok(()), Result::and)
    }

    /// Lets plugins remove what belongs to no pod of these uids.
    pub(super) fn collect(&self, list: &List, uids: &[String]) -> Result<()> {
        if !list.can_collect() {
            return Ok(());
        }
        let valid: Vec<Value> = uids.iter().map(|uid| json!({"containerID": uid, "ifname": DEVICE})).collect();
        for plugin in &list.plugins {
            let mut configuration = list.of(plugin);
            configuration.insert("cni.dev/valid-attachments".to_owned(), valid.clone().into());
            let call = plugin::Call {
                verb: "GC",
                environment: Vec::new(),
                folders: &self.settings.plugins,
                timeout: Duration::from_secs(self.settings.timeout),
            };
            call.run(list, plugin, &Value::Object(configuration))?;
        }
        Ok(())
    }

    fn call(
        &self,
        verb: &'static str,
        list: &List,
        plugin: &Map<String, Value>,
        pod: &Container<'_>,
        result: &Value,
    ) -> Result<Value> {
        let mut configuration = list.of(plugin);
        if !result.is_null() {
            configuration.insert("prevResult".to_owned(), result.clone());
        }
        let mappings = mappings(pod.ports);
        if List::has_capability(plugin, "portMappings") && !mappings.is_empty() {
            configuration.insert("runtimeConfig".to_owned(), json!({"portMappings": mappings}));
        }
        // A namespace that is gone is told as none (specification, DEL).
        let netns = if verb != "DEL" || namespace::is_there(pod.netns) { pod.netns.to_owned() } else { PathBuf::new() };
        let Key { namespace, name } = pod.key;
        let arguments = format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name};K8S_POD_INFRA_CONTAINER_ID={uid};K8S_POD_UID={uid}",
            uid = pod.uid
        );
        let call = plugin::Call {
            verb,
            environment: vec![
                ("CNI_CONTAINERID", pod.uid.into()),
                ("CNI_NETNS", netns.into()),
                ("CNI_IFNAME", DEVICE.into()),
                ("CNI_ARGS", arguments.into()),
            ],
            folders: &self.settings.plugins,
            timeout: Duration::from_secs(self.settings.timeout),
        };
        call.run(list, plugin, &Value::Object(configuration))
    }
}

/// Host ports as the capability `portMappings` has them.
fn mappings(ports: &[HostPort]) -> Vec<Value> {
    let mapping = |port: &HostPort| {
        let mut mapping = json!({
            "hostPort": port.host, "containerPort": port.pod, "protocol": protocol_name(port.protocol),
        });
        if let (Some(address), Some(mapping)) = (port.address, mapping.as_object_mut()) {
            mapping.insert("hostIP".to_owned(), address.to_string().into());
        }
        mapping
    };
    ports.iter().map(mapping).collect()
}

/// What a result says of the pod.
pub(super) fn attached(result: &Value, ports: &[HostPort]) -> Attached {
    let interfaces = result.get("interfaces").and_then(Value::as_array);
    let in_pod = |ip: &&Value| {
        let index = ip.get("interface").and_then(Value::as_u64);
        let interface = index.and_then(|index| interfaces?.get(index as usize));
        // Addresses of the host's devices are told, too.
        interface.is_none_or(|interface| {
            interface.get("sandbox").and_then(Value::as_str).is_some_and(|path| !path.is_empty())
        })
    };
    let ips: Vec<&Value> = result.get("ips").and_then(Value::as_array).into_iter().flatten().filter(in_pod).collect();
    let address =
        |ip: &Value, field: &str| -> Option<IpAddr> { ip.get(field)?.as_str()?.split('/').next()?.parse().ok() };
    let mut addresses: Vec<IpAddr> = ips.iter().filter_map(|ip| address(ip, "address")).collect();
    addresses.sort_by_key(IpAddr::is_ipv6);
    let mut gateways: Vec<IpAddr> = ips.iter().filter_map(|ip| address(ip, "gateway")).collect();
    gateways.sort_by_key(IpAddr::is_ipv6);
    Attached {
        addresses,
        ports: ports.to_vec(),
        gateway: gateways.first().copied(),
        interface: Some(DEVICE.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::Protocol;

    #[test]
    fn results_tell_addresses_of_the_pod_alone() {
        let result = json!({
            "cniVersion": "1.0.0",
            "interfaces": [{"name": "br"}, {"name": "eth0", "sandbox": "/run/netns/x"}],
            "ips": [
                {"interface": 1, "address": "fd00::2/64", "gateway": "fd00::1"},
                {"interface": 1, "address": "10.1.0.2/24", "gateway": "10.1.0.1"},
                {"interface": 0, "address": "10.1.0.1/24"},
            ],
        });
        let attached = attached(&result, &[]);
        let texts: Vec<String> = attached.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["10.1.0.2", "fd00::2"]);
        assert_eq!(attached.gateway.map(|gateway| gateway.to_string()).as_deref(), Some("10.1.0.1"));
        assert_eq!(super::attached(&Value::Null, &[]).addresses, Vec::<IpAddr>::new());
    }

    #[test]
    fn ports_are_told_as_the_capability_wants_them() {
        let port =
            HostPort { address: Some(IpAddr::from([127, 0, 0, 1])), host: 8080, pod: 80, protocol: Protocol::Udp };
        let wanted = json!({"hostPort": 8080, "containerPort": 80, "protocol": "udp", "hostIP": "127.0.0.1"});
        assert_eq!(mappings(&[port]), [wanted]);
    }
}
