//! What a container asks for, and may use at most.

use super::fields::{RESIZE_POLICY, RESOURCE_REQUIREMENTS};
use super::quantity::Quantity;
use super::reading::Fields;
use crate::desired::Resources;

/// One column of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Amounts {
    pub(super) cpu: Option<Quantity>,
    pub(super) memory: Option<Quantity>,
    pub(super) storage: Option<Quantity>,
}

/// Requests and limits. A request that is not given is the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Demands {
    pub(super) requests: Amounts,
    pub(super) limits: Amounts,
}

impl Demands {
    pub(super) fn read(container: &Fields<'_>) -> Self {
        for policy in container.each("resizePolicy", &RESIZE_POLICY) {
            policy.needed("resourceName");
            policy.word("restartPolicy", &[("NotRequired", ())]);
        }
        let Some(fields) = container.fields("resources", &RESOURCE_REQUIREMENTS) else { return Self::default() };
        let limits = amounts(&fields, "limits");
        let asked = amounts(&fields, "requests");
        for (name, request, limit) in [
            ("cpu", asked.cpu, limits.cpu),
            ("memory", asked.memory, limits.memory),
            ("ephemeral-storage", asked.storage, limits.storage),
        ] {
            if let (Some(request), Some(limit)) = (request, limit)
                && request > limit
            {
                fields.at.below("requests").below(name).refuse("is more than the limit");
            }
        }
        let requests = Amounts {
            cpu: asked.cpu.or(limits.cpu),
            memory: asked.memory.or(limits.memory),
            storage: asked.storage.or(limits.storage),
        };
        Self { requests, limits }
    }

    pub(super) fn resources(&self) -> Resources {
        // A limit of nothing is none, as it is to the kernel.
        let some = |amount: Option<Quantity>| amount.filter(|amount| !amount.is_zero());
        Resources {
            cpu_request: some(self.requests.cpu).map(Quantity::milli),
            cpu_limit: some(self.limits.cpu).map(Quantity::milli),
            memory_request: some(self.requests.memory).map(Quantity::whole),
            memory_limit: some(self.limits.memory).map(Quantity::whole),
            storage_request: some(self.requests.storage).map(Quantity::whole),
            storage_limit: some(self.limits.storage).map(Quantity::whole),
            pids_limit: None,
        }
    }
}

fn amounts(fields: &Fields<'_>, name: &str) -> Amounts {
    let mut found = Amounts::default();
    let Some((at, value)) = fields.get(name) else { return found };
    for (resource, value) in at.entries(value) {
        let at = at.below(resource);
        let place = match resource {
            "cpu" => &mut found.cpu,
            "memory" => &mut found.memory,
            "ephemeral-storage" => &mut found.storage,
            _ if resource.starts_with("hugepages-") => {
                at.refuse("huge pages are not given to containers by themselves: ask for none");
                continue;
            }
            _ if resource.contains('/') => {
                at.refuse("devices of plugins are not offered by a node alone");
                continue;
            }
            _ => {
                at.refuse("unknown resource: there are cpu, memory and ephemeral-storage");
                continue;
            }
        };
        *place = Quantity::read(&at, value);
    }
    found
}
