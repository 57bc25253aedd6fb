//! `containerd.runtime.sandbox.v1.Sandbox`: requests are decoded here, and answers encoded.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use containerd_shim_protos::sandbox_api::{
    CreateSandboxRequest, CreateSandboxResponse, PingRequest, PingResponse, PlatformRequest, PlatformResponse,
    SandboxMetricsRequest, SandboxMetricsResponse, SandboxStatusRequest, SandboxStatusResponse, ShutdownSandboxRequest,
    ShutdownSandboxResponse, StartSandboxRequest, StartSandboxResponse, StopSandboxRequest, StopSandboxResponse,
    WaitSandboxRequest, WaitSandboxResponse,
};
use containerd_shim_protos::sandbox_async::{Sandbox as Api, create_sandbox};
use containerd_shim_protos::types::platform::Platform;
use protobuf::MessageField;
use ttrpc::r#async::{Service, TtrpcContext};
use ttrpc::{Code, get_status};

use super::{Phase, Pod, PodConfig, Sandbox, locked};
use crate::clock;
use crate::error::{Error, Result};
use crate::serve::End;
use crate::service::detached;
use crate::task::blocking;
use crate::tasks::Tasks;

/// As Go's GOARCH.
const ARCHITECTURE: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };

pub(crate) struct SandboxService {
    pub(crate) pod: Arc<Pod>,
    pub(crate) tasks: Arc<Tasks>,
    pub(crate) end: Arc<End>,
}

pub(crate) fn service(service: SandboxService) -> HashMap<String, Service> {
    create_sandbox(Arc::new(service))
}

impl SandboxService {
    /// # Errors
    ///
    /// `NotFound`: another id, or none was created.
    fn sandbox(&self, id: &str) -> Result<Arc<Sandbox>> {
        let found = locked(&self.pod).as_ref().filter(|sandbox| sandbox.id == id).cloned();
        found.ok_or_else(|| Error::not_found(format!("sandbox {id} is not in this shim")))
    }
}

/// Ends the pod's containers, then the pod.
async fn stop(sandbox: Arc<Sandbox>, tasks: Arc<Tasks>) -> Result<()> {
    for task in tasks.all() {
        // One that has ended is fine.
        let _ = task.kill("", nix::libc::SIGKILL, true).await;
        task.init.ended().await;
    }
    blocking(move || {
        sandbox.stop();
        Ok(())
    })
    .await
}

#[async_trait]
impl Api for SandboxService {
    async fn create_sandbox(
        &self,
        _: &TtrpcContext,
        request: CreateSandboxRequest,
    ) -> ttrpc::Result<CreateSandboxResponse> {
        if !request.rootfs.is_empty() {
            return Err(Error::invalid("a sandbox of this shim has no root filesystem: it runs no container").into());
        }
        let config = PodConfig::decode(request.options.as_ref())?;
        let pod = self.pod.clone();
        detached(blocking(move || {
            let mut pod = locked(&pod);
            if let Some(there) = pod.as_ref() {
                return Err(Error::new(Code::ALREADY_EXISTS, format!("sandbox {} is in this shim", there.id)));
            }
            let bundle = std::path::Path::new(&request.bundle_path);
            *pod = Some(Arc::new(Sandbox::create(&request.sandbox_id, bundle, &request.netns_path, config)?));
            Ok(())
        }))
        .await?;
        Ok(CreateSandboxResponse::default())
    }

    async fn start_sandbox(
        &self,
        _: &TtrpcContext,
        request: StartSandboxRequest,
    ) -> ttrpc::Result<StartSandboxResponse> {
        let sandbox = self.sandbox(&request.sandbox_id)?;
        let created_at = clock::timestamp(sandbox.created);
        let pid = detached(blocking(move || sandbox.start())).await?;
        Ok(StartSandboxResponse { pid, created_at, ..StartSandboxResponse::default() })
    }

    async fn platform(&self, _: &TtrpcContext, _: PlatformRequest) -> ttrpc::Result<PlatformResponse> {
        let platform =
            Platform { os: "linux".to_owned(), architecture: ARCHITECTURE.to_owned(), ..Platform::default() };
        Ok(PlatformResponse { platform: MessageField::some(platform), ..PlatformResponse::default() })
    }

    async fn stop_sandbox(&self, _: &TtrpcContext, request: StopSandboxRequest) -> ttrpc::Result<StopSandboxResponse> {
        detached(stop(self.sandbox(&request.sandbox_id)?, self.tasks.clone())).await?;
        Ok(StopSandboxResponse::default())
    }

    async fn wait_sandbox(&self, _: &TtrpcContext, request: WaitSandboxRequest) -> ttrpc::Result<WaitSandboxResponse> {
        let at = self.sandbox(&request.sandbox_id)?.stopped().await;
        Ok(WaitSandboxResponse { exited_at: clock::timestamp(at), ..WaitSandboxResponse::default() })
    }

    async fn sandbox_status(
        &self,
        _: &TtrpcContext,
        request: SandboxStatusRequest,
    ) -> ttrpc::Result<SandboxStatusResponse> {
        let sandbox = self.sandbox(&request.sandbox_id)?;
        let phase = *sandbox.phase.borrow();
        let (state, exited_at) = match phase {
            Phase::Ready => ("SANDBOX_READY", MessageField::none()),
            Phase::Created => ("SANDBOX_NOTREADY", MessageField::none()),
            Phase::Stopped(at) => ("SANDBOX_NOTREADY", clock::timestamp(at)),
        };
        Ok(SandboxStatusResponse {
            sandbox_id: request.sandbox_id,
            pid: sandbox.pid(),
            state: state.to_owned(),
            created_at: clock::timestamp(sandbox.created),
            exited_at,
            ..SandboxStatusResponse::default()
        })
    }

    async fn ping_sandbox(&self, _: &TtrpcContext, request: PingRequest) -> ttrpc::Result<PingResponse> {
        self.sandbox(&request.sandbox_id)?;
        Ok(PingResponse::default())
    }

    async fn shutdown_sandbox(
        &self,
        _: &TtrpcContext,
        request: ShutdownSandboxRequest,
    ) -> ttrpc::Result<ShutdownSandboxResponse> {
        // containerd shuts down also what it failed to create.
        let sandbox = self.sandbox(&request.sandbox_id).ok();
        let (pod, tasks, end) = (self.pod.clone(), self.tasks.clone(), self.end.clone());
        detached(async move {
            if let Some(sandbox) = sandbox {
                stop(sandbox, tasks).await?;
                locked(&pod).take();
            }
            end.tell();
            Ok(())
        })
        .await?;
        Ok(ShutdownSandboxResponse::default())
    }

    async fn sandbox_metrics(
        &self,
        _: &TtrpcContext,
        _: SandboxMetricsRequest,
    ) -> ttrpc::Result<SandboxMetricsResponse> {
        // The pod's cgroup is the kubelet's, and none of its processes is the sandbox's.
        let status = get_status(Code::UNIMPLEMENTED, "a sandbox uses nothing beside its containers: ask for theirs");
        Err(ttrpc::Error::RpcStatus(status))
    }
}
