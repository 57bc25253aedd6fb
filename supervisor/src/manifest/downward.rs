//! What a pod is told of itself (the downward API).

use super::container::find_container;
use super::context::Context;
use super::fields::{OBJECT_FIELD_SELECTOR, RESOURCE_FIELD_SELECTOR};
use super::metadata::Metadata;
use super::quantity::Quantity;
use super::reading::{Fields, shortened};
use super::resources::Demands;
use crate::desired::Late;

/// A pod, as far as its own fields are asked for.
pub(super) struct Myself<'a> {
    pub(super) metadata: &'a Metadata,
    pub(super) uid: &'a str,
    pub(super) account: &'a str,
    pub(super) context: &'a Context<'a>,
    /// What each container asks for, by its name.
    pub(super) demands: &'a [(String, Demands)],
}

impl Myself<'_> {
    /// A `fieldRef` of a variable.
    pub(super) fn variable(&self, reference: &Fields<'_>) -> Option<String> {
        let path = self.field_path(reference)?;
        let late = match path {
            "status.podIP" => Some(Late::PodIp),
            "status.podIPs" => Some(Late::PodIps),
            "status.hostIP" => Some(Late::HostIp),
            "status.hostIPs" => Some(Late::HostIps),
            _ => None,
        };
        if let Some(late) = late {
            return Some(late.mark().to_owned());
        }
        match path {
            "spec.nodeName" => Some(self.context.node.hostname.clone()),
            "spec.serviceAccountName" => Some(self.account.to_owned()),
            _ => self.common(path).or_else(|| {
                reference.refuse("fieldPath", format!("{:?} is nothing that a variable can have", shortened(path)));
                None
            }),
        }
    }

    /// A `fieldRef` of a file.
    pub(super) fn file(&self, reference: &Fields<'_>) -> Option<String> {
        let path = self.field_path(reference)?;
        let lines = |of: &std::collections::BTreeMap<String, String>| {
            let lines: Vec<String> = of.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
            lines.join("\n")
        };
        match path {
            "metadata.labels" => Some(lines(&self.metadata.labels)),
            "metadata.annotations" => Some(lines(&self.metadata.annotations)),
            _ => self.common(path).or_else(|| {
                reference.refuse("fieldPath", format!("{:?} is nothing that a file can have", shortened(path)));
                None
            }),
        }
    }

    fn field_path<'f>(&self, reference: &Fields<'f>) -> Option<&'f str> {
        debug_assert!(!self.uid.is_empty());
        reference.word("apiVersion", &[("v1", ())]);
        reference.needed("fieldPath")
    }

    fn common(&self, path: &str) -> Option<String> {
        let subscript = |of: &str| {
            let key = path.strip_prefix(of)?.strip_prefix("['")?.strip_suffix("']")?;
            Some(key.to_owned())
        };
        match path {
            "metadata.name" => Some(self.metadata.name.clone()),
            "metadata.namespace" => Some(self.metadata.namespace.clone()),
            "metadata.uid" => Some(self.uid.to_owned()),
            _ => {
                // What is not there is empty, as in Kubernetes.
                let (of, key) = match subscript("metadata.labels") {
                    Some(key) => (&self.metadata.labels, key),
                    None => (&self.metadata.annotations, subscript("metadata.annotations")?),
                };
                Some(of.get(&key).cloned().unwrap_or_default())
            }
        }
    }

    /// A `resourceFieldRef`; `own` is the container that a variable is of.
    pub(super) fn resource(&self, reference: &Fields<'_>, own: Option<&str>) -> Option<String> {
        let name = reference.string("containerName").or(own);
        let Some(name) = name else {
            reference.refuse("containerName", "is missing: a file is of no container");
            return None;
        };
        let Some(demands) = find_container(self.demands, name) else {
            reference.refuse("containerName", format!("there is no container {:?}", shortened(name)));
            return None;
        };
        let resource = reference.needed("resource")?;
        let node = self.context.node;
        let found = match resource {
            "limits.cpu" => demands.limits.cpu.unwrap_or(Quantity::thousandths(node.milli_cpus)),
            "limits.memory" => demands.limits.memory.unwrap_or(Quantity::whole_number(node.memory)),
            "requests.cpu" => demands.requests.cpu.unwrap_or(Quantity::whole_number(0)),
            "requests.memory" => demands.requests.memory.unwrap_or(Quantity::whole_number(0)),
            "limits.ephemeral-storage" => {
                if demands.limits.storage.is_none() {
                    reference.refuse("resource", "the container has no such limit, and the node's is not known");
                }
                demands.limits.storage?
            }
            "requests.ephemeral-storage" => demands.requests.storage.unwrap_or(Quantity::whole_number(0)),
            _ => {
                reference.refuse("resource", format!("{:?} is not known here", shortened(resource)));
                return None;
            }
        };
        let divisor = match reference.get("divisor") {
            Some((at, value)) => Quantity::read(&at, value)?,
            None => Quantity::whole_number(1),
        };
        let divisor = if divisor.is_zero() { Quantity::whole_number(1) } else { divisor };
        found.per(divisor).map(|number| number.to_string())
    }

    /// The one of both that a variable or file has.
    pub(super) fn of_file(&self, item: &Fields<'_>) -> Option<String> {
        match (
            item.fields("fieldRef", &OBJECT_FIELD_SELECTOR),
            item.fields("resourceFieldRef", &RESOURCE_FIELD_SELECTOR),
        ) {
            (Some(reference), None) => self.file(&reference),
            (None, Some(reference)) => self.resource(&reference, None),
            _ => {
                item.at.refuse("needs one of fieldRef and resourceFieldRef");
                None
            }
        }
    }
}
