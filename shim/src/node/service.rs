//! The service: each call does its work to the end, also when its client has gone meanwhile.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use async_trait::async_trait;
use flint_shim_protocol::{
    AdoptRequest, AdoptResponse, ConfigureRequest, ConfigureResponse, CreateRequest, CreateResponse, ListRequest,
    ListResponse, MakeSandboxesRequest, MakeSandboxesResponse, Node as Api, RemoveRequest, RemoveResponse,
    RemoveSandboxesRequest, RemoveSandboxesResponse, StatusRequest, StatusResponse,
};
use ttrpc::r#async::Service;

use super::{Node, batch};
use crate::options::Options;
use crate::service::detached;
use crate::stdio;
use crate::task::{Task, blocking};

pub(crate) fn service(node: Arc<Node>) -> HashMap<String, Service> {
    flint_shim_protocol::service(Arc::new(NodeService(node)))
}

struct NodeService(Arc<Node>);

#[async_trait]
impl Api for NodeService {
    async fn configure(&self, request: ConfigureRequest) -> ttrpc::Result<ConfigureResponse> {
        let options = Options {
            root: Some(request.state_root).filter(|root| !root.is_empty()).map(Into::into),
            systemd_cgroup: request.systemd_cgroups,
            ..Options::default()
        };
        *self.0.options.write().unwrap_or_else(PoisonError::into_inner) = options;
        self.0.networks.configure(request.networks.unwrap_or_default());
        // Who configures is back, and takes events again.
        self.0.shared.events.hurry();
        Ok(ConfigureResponse {})
    }

    async fn status(&self, _: StatusRequest) -> ttrpc::Result<StatusResponse> {
        let (private_bytes, proportional_bytes, descriptors) = blocking(|| Ok(used())).await?;
        Ok(StatusResponse {
            pid: std::process::id(),
            networks: Some(self.0.networks.status()),
            containers: self.0.tasks.count() as u32,
            sandboxes: self.0.pods.count() as u32,
            private_bytes,
            proportional_bytes,
            descriptors,
            events_waiting: self.0.shared.events.waiting(),
            lines_dropped: stdio::lines_dropped(),
        })
    }

    async fn list(&self, _: ListRequest) -> ttrpc::Result<ListResponse> {
        let mut tasks = self.0.tasks.all();
        tasks.sort_unstable_by(|one, other| one.id.cmp(&other.id));
        let containers = tasks.iter().map(Task::told).collect();
        Ok(ListResponse { containers, sandboxes: self.0.pods.states() })
    }

    async fn make_sandboxes(&self, request: MakeSandboxesRequest) -> ttrpc::Result<MakeSandboxesResponse> {
        let node = self.0.clone();
        detached(async move {
            let runtime = node.runtime()?;
            let make = |wanted| node.pods.make(wanted, runtime.clone());
            Ok(MakeSandboxesResponse { sandboxes: batch::each(request.sandboxes, 0, make).await })
        })
        .await
    }

    async fn remove_sandboxes(&self, request: RemoveSandboxesRequest) -> ttrpc::Result<RemoveSandboxesResponse> {
        let node = self.0.clone();
        detached(async move {
            let runtime = node.runtime()?;
            let remove = |sandbox| node.pods.remove(sandbox, runtime.clone());
            Ok(RemoveSandboxesResponse { sandboxes: batch::each(request.sandboxes, 0, remove).await })
        })
        .await
    }

    async fn create(&self, request: CreateRequest) -> ttrpc::Result<CreateResponse> {
        let node = self.0.clone();
        detached(async move {
            let create = |container| node.create(container, request.start);
            Ok(CreateResponse { containers: batch::each(request.containers, request.concurrency, create).await })
        })
        .await
    }

    async fn adopt(&self, request: AdoptRequest) -> ttrpc::Result<AdoptResponse> {
        let node = self.0.clone();
        detached(async move {
            let adopt = |container| node.adopt(container);
            Ok(AdoptResponse { containers: batch::each(request.containers, 0, adopt).await })
        })
        .await
    }

    async fn remove(&self, request: RemoveRequest) -> ttrpc::Result<RemoveResponse> {
        let node = self.0.clone();
        detached(async move {
            let remove = |container| node.remove(container);
            Ok(RemoveResponse { containers: batch::each(request.containers, request.concurrency, remove).await })
        })
        .await
    }
}

/// Private and proportional bytes of this process, and how many descriptors it has open. 0 is what cannot be read.
fn used() -> (u64, u64, u32) {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let field = |name: &str| {
        let line = rollup.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) << 10
    };
    let descriptors = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    (field("Private_Dirty:"), field("Pss:"), descriptors as u32)
}
