//! Messages of Kubernetes' container runtime interface, `runtime.v1` (cri-api's api.proto): the fields that the tests set
//! or look at, with their numbers. What is not listed is left out when sent and skipped when received.
#![allow(missing_docs, reason = "api.proto explains them, under the same names")]

use std::collections::HashMap;

/// A request: the method that takes it, and what comes back.
pub trait Call: prost::Message + 'static {
    /// The path of the method.
    const METHOD: &'static str;
    /// The answer.
    type Response: prost::Message + Default + 'static;
}

macro_rules! messages {
    ($($name:ident { $($(#[$field:meta])* $member:ident: $type:ty,)* })*) => {$(
        #[derive(Clone, PartialEq, prost::Message)]
        pub struct $name {
            $($(#[$field])* pub $member: $type,)*
        }
    )*};
}

macro_rules! calls {
    ($service:literal: $($method:literal $request:ty => $response:ty,)*) => {$(
        impl Call for $request {
            const METHOD: &'static str = concat!("/runtime.v1.", $service, "/", $method);
            type Response = $response;
        }
    )*};
}

calls! { "RuntimeService":
    "RunPodSandbox" RunPodSandboxRequest => PodSandboxId,
    "StopPodSandbox" StopPodSandboxRequest => Nothing,
    "RemovePodSandbox" RemovePodSandboxRequest => Nothing,
    "PodSandboxStatus" PodSandboxStatusRequest => PodSandboxStatusResponse,
    "CreateContainer" CreateContainerRequest => ContainerId,
    "StartContainer" StartContainerRequest => Nothing,
    "StopContainer" StopContainerRequest => Nothing,
    "RemoveContainer" RemoveContainerRequest => Nothing,
    "ContainerStatus" ContainerStatusRequest => ContainerStatusResponse,
    "UpdateContainerResources" UpdateContainerResourcesRequest => Nothing,
    "ExecSync" ExecSyncRequest => ExecSyncResponse,
    "Exec" ExecRequest => UrlResponse,
    "Attach" AttachRequest => UrlResponse,
    "ContainerStats" ContainerStatsRequest => ContainerStatsResponse,
    "ListContainerStats" ListContainerStatsRequest => ListContainerStatsResponse,
    "PodSandboxStats" PodSandboxStatsRequest => PodSandboxStatsResponse,
    "Status" StatusRequest => StatusResponse,
}

calls! { "ImageService":
    "ImageStatus" ImageStatusRequest => ImageStatusResponse,
}

/// `NamespaceMode`.
pub mod namespace_mode {
    /// Shared by the pod's containers.
    pub const POD: i32 = 0;
    /// Each container its own.
    pub const CONTAINER: i32 = 1;
    /// The host's.
    pub const NODE: i32 = 2;
}

/// `ContainerState`.
pub mod container_state {
    /// It runs.
    pub const RUNNING: i32 = 1;
    /// It has ended.
    pub const EXITED: i32 = 2;
}

messages! {
    Nothing {}
    PodSandboxId { #[prost(string, tag = "1")] pod_sandbox_id: String, }
    ContainerId { #[prost(string, tag = "1")] container_id: String, }
    UrlResponse { #[prost(string, tag = "1")] url: String, }
    Int64Value { #[prost(int64, tag = "1")] value: i64, }
    UInt64Value { #[prost(uint64, tag = "1")] value: u64, }

    IdMapping {
        #[prost(uint32, tag = "1")] host_id: u32,
        #[prost(uint32, tag = "2")] container_id: u32,
        #[prost(uint32, tag = "3")] length: u32,
    }
    UserNamespace {
        #[prost(int32, tag = "1")] mode: i32,
        #[prost(message, repeated, tag = "2")] uids: Vec<IdMapping>,
        #[prost(message, repeated, tag = "3")] gids: Vec<IdMapping>,
    }
    NamespaceOption {
        #[prost(int32, tag = "1")] network: i32,
        #[prost(int32, tag = "2")] pid: i32,
        #[prost(int32, tag = "3")] ipc: i32,
        #[prost(message, optional, tag = "5")] userns_options: Option<UserNamespace>,
    }
    LinuxSandboxSecurityContext {
        #[prost(message, optional, tag = "1")] namespace_options: Option<NamespaceOption>,
    }
    LinuxPodSandboxConfig {
        #[prost(string, tag = "1")] cgroup_parent: String,
        #[prost(message, optional, tag = "2")] security_context: Option<LinuxSandboxSecurityContext>,
    }
    PodSandboxMetadata {
        #[prost(string, tag = "1")] name: String,
        #[prost(string, tag = "2")] uid: String,
        #[prost(string, tag = "3")] namespace: String,
    }
    PodSandboxConfig {
        #[prost(message, optional, tag = "1")] metadata: Option<PodSandboxMetadata>,
        #[prost(string, tag = "2")] hostname: String,
        #[prost(string, tag = "3")] log_directory: String,
        #[prost(message, optional, tag = "8")] linux: Option<LinuxPodSandboxConfig>,
    }
    RunPodSandboxRequest {
        #[prost(message, optional, tag = "1")] config: Option<PodSandboxConfig>,
        #[prost(string, tag = "2")] runtime_handler: String,
    }
    StopPodSandboxRequest { #[prost(string, tag = "1")] pod_sandbox_id: String, }
    RemovePodSandboxRequest { #[prost(string, tag = "1")] pod_sandbox_id: String, }
    PodSandboxStatusRequest { #[prost(string, tag = "1")] pod_sandbox_id: String, }
    PodSandboxNetworkStatus { #[prost(string, tag = "1")] ip: String, }
    PodSandboxStatus {
        #[prost(string, tag = "1")] id: String,
        /// 0 is ready.
        #[prost(int32, tag = "3")] state: i32,
        #[prost(message, optional, tag = "5")] network: Option<PodSandboxNetworkStatus>,
        #[prost(string, tag = "9")] runtime_handler: String,
    }
    PodSandboxStatusResponse { #[prost(message, optional, tag = "1")] status: Option<PodSandboxStatus>, }

    ImageSpec { #[prost(string, tag = "1")] image: String, }
    ImageStatusRequest { #[prost(message, optional, tag = "1")] image: Option<ImageSpec>, }
    Image { #[prost(string, tag = "1")] id: String, }
    ImageStatusResponse { #[prost(message, optional, tag = "1")] image: Option<Image>, }

    Mount {
        #[prost(string, tag = "1")] container_path: String,
        #[prost(string, tag = "2")] host_path: String,
        #[prost(bool, tag = "3")] readonly: bool,
        #[prost(bool, tag = "8")] recursive_read_only: bool,
    }
    LinuxContainerResources {
        #[prost(int64, tag = "1")] cpu_period: i64,
        #[prost(int64, tag = "2")] cpu_quota: i64,
        #[prost(int64, tag = "3")] cpu_shares: i64,
        #[prost(int64, tag = "4")] memory_limit_in_bytes: i64,
        #[prost(int64, tag = "5")] oom_score_adj: i64,
    }
    LinuxContainerSecurityContext {
        #[prost(message, optional, tag = "3")] namespace_options: Option<NamespaceOption>,
    }
    LinuxContainerConfig {
        #[prost(message, optional, tag = "1")] resources: Option<LinuxContainerResources>,
        #[prost(message, optional, tag = "2")] security_context: Option<LinuxContainerSecurityContext>,
    }
    ContainerMetadata { #[prost(string, tag = "1")] name: String, }
    ContainerConfig {
        #[prost(message, optional, tag = "1")] metadata: Option<ContainerMetadata>,
        #[prost(message, optional, tag = "2")] image: Option<ImageSpec>,
        #[prost(string, repeated, tag = "3")] command: Vec<String>,
        #[prost(message, repeated, tag = "7")] mounts: Vec<Mount>,
        #[prost(string, tag = "11")] log_path: String,
        #[prost(message, optional, tag = "15")] linux: Option<LinuxContainerConfig>,
    }
    CreateContainerRequest {
        #[prost(string, tag = "1")] pod_sandbox_id: String,
        #[prost(message, optional, tag = "2")] config: Option<ContainerConfig>,
        #[prost(message, optional, tag = "3")] sandbox_config: Option<PodSandboxConfig>,
    }
    StartContainerRequest { #[prost(string, tag = "1")] container_id: String, }
    StopContainerRequest {
        #[prost(string, tag = "1")] container_id: String,
        /// Seconds.
        #[prost(int64, tag = "2")] timeout: i64,
    }
    RemoveContainerRequest { #[prost(string, tag = "1")] container_id: String, }
    ContainerStatusRequest { #[prost(string, tag = "1")] container_id: String, }
    ContainerStatus {
        #[prost(string, tag = "1")] id: String,
        #[prost(int32, tag = "3")] state: i32,
        #[prost(int64, tag = "4")] created_at: i64,
        #[prost(int64, tag = "5")] started_at: i64,
        #[prost(int64, tag = "6")] finished_at: i64,
        #[prost(int32, tag = "7")] exit_code: i32,
        #[prost(string, tag = "10")] reason: String,
        #[prost(string, tag = "11")] message: String,
    }
    ContainerStatusResponse { #[prost(message, optional, tag = "1")] status: Option<ContainerStatus>, }
    UpdateContainerResourcesRequest {
        #[prost(string, tag = "1")] container_id: String,
        #[prost(message, optional, tag = "2")] linux: Option<LinuxContainerResources>,
    }

    ExecSyncRequest {
        #[prost(string, tag = "1")] container_id: String,
        #[prost(string, repeated, tag = "2")] cmd: Vec<String>,
        /// Seconds; 0 for none.
        #[prost(int64, tag = "3")] timeout: i64,
    }
    ExecSyncResponse {
        #[prost(bytes = "vec", tag = "1")] stdout: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")] stderr: Vec<u8>,
        #[prost(int32, tag = "3")] exit_code: i32,
    }
    ExecRequest {
        #[prost(string, tag = "1")] container_id: String,
        #[prost(string, repeated, tag = "2")] cmd: Vec<String>,
        #[prost(bool, tag = "5")] stdout: bool,
    }
    AttachRequest {
        #[prost(string, tag = "1")] container_id: String,
        #[prost(bool, tag = "4")] stdout: bool,
    }

    CpuUsage { #[prost(message, optional, tag = "2")] usage_core_nano_seconds: Option<UInt64Value>, }
    MemoryUsage {
        #[prost(message, optional, tag = "2")] working_set_bytes: Option<UInt64Value>,
        #[prost(message, optional, tag = "4")] usage_bytes: Option<UInt64Value>,
        #[prost(message, optional, tag = "5")] rss_bytes: Option<UInt64Value>,
    }
    ProcessUsage { #[prost(message, optional, tag = "2")] process_count: Option<UInt64Value>, }
    ContainerAttributes { #[prost(string, tag = "1")] id: String, }
    ContainerStats {
        #[prost(message, optional, tag = "1")] attributes: Option<ContainerAttributes>,
        #[prost(message, optional, tag = "2")] cpu: Option<CpuUsage>,
        #[prost(message, optional, tag = "3")] memory: Option<MemoryUsage>,
    }
    ContainerStatsRequest { #[prost(string, tag = "1")] container_id: String, }
    ContainerStatsResponse { #[prost(message, optional, tag = "1")] stats: Option<ContainerStats>, }
    ContainerStatsFilter { #[prost(string, tag = "2")] pod_sandbox_id: String, }
    ListContainerStatsRequest { #[prost(message, optional, tag = "1")] filter: Option<ContainerStatsFilter>, }
    ListContainerStatsResponse { #[prost(message, repeated, tag = "1")] stats: Vec<ContainerStats>, }
    LinuxPodSandboxStats {
        #[prost(message, optional, tag = "1")] cpu: Option<CpuUsage>,
        #[prost(message, optional, tag = "2")] memory: Option<MemoryUsage>,
        #[prost(message, optional, tag = "4")] process: Option<ProcessUsage>,
        #[prost(message, repeated, tag = "5")] containers: Vec<ContainerStats>,
    }
    PodSandboxStats { #[prost(message, optional, tag = "2")] linux: Option<LinuxPodSandboxStats>, }
    PodSandboxStatsRequest { #[prost(string, tag = "1")] pod_sandbox_id: String, }
    PodSandboxStatsResponse { #[prost(message, optional, tag = "1")] stats: Option<PodSandboxStats>, }

    StatusRequest { #[prost(bool, tag = "1")] verbose: bool, }
    RuntimeHandlerFeatures {
        #[prost(bool, tag = "1")] recursive_read_only_mounts: bool,
        #[prost(bool, tag = "2")] user_namespaces: bool,
    }
    RuntimeHandler {
        #[prost(string, tag = "1")] name: String,
        #[prost(message, optional, tag = "2")] features: Option<RuntimeHandlerFeatures>,
    }
    RuntimeCondition {
        #[prost(string, tag = "1")] r#type: String,
        #[prost(bool, tag = "2")] status: bool,
        #[prost(string, tag = "4")] message: String,
    }
    RuntimeStatus { #[prost(message, repeated, tag = "1")] conditions: Vec<RuntimeCondition>, }
    StatusResponse {
        #[prost(message, optional, tag = "1")] status: Option<RuntimeStatus>,
        #[prost(map = "string, string", tag = "2")] info: HashMap<String, String>,
        #[prost(message, repeated, tag = "3")] runtime_handlers: Vec<RuntimeHandler>,
    }
}
