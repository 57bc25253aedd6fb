//! A pod, and what a kubelet does with it.

use std::path::Path;

use super::{
    ContainerConfig, ContainerMetadata, ContainerStatus, ContainerStatusRequest, CreateContainerRequest, Cri,
    ExecSyncRequest, ExecSyncResponse, ImageSpec, LinuxContainerConfig, LinuxContainerResources,
    LinuxContainerSecurityContext, LinuxPodSandboxConfig, LinuxSandboxSecurityContext, NamespaceOption, Node,
    PodSandboxConfig, PodSandboxMetadata, PodSandboxStatus, PodSandboxStatusRequest, RemoveContainerRequest,
    RemovePodSandboxRequest, RunPodSandboxRequest, StartContainerRequest, Status, StopContainerRequest,
    StopPodSandboxRequest, container_state, namespace_mode,
};
use crate::containerd::IMAGE;
use crate::process::becomes_true;
use crate::{processes_with, wait_until};

/// A pod that runs. [`Self::remove`] it at the end; a failed test leaves it to its place.
#[derive(Debug)]
pub struct Pod<'a> {
    node: &'a Node,
    /// A client of its own.
    pub cri: Cri,
    /// The sandbox.
    pub id: String,
    config: PodSandboxConfig,
    containers: Vec<String>,
}

/// A container's configuration: a shell that runs a script.
#[must_use]
pub(super) fn shell(name: &str, script: &str) -> ContainerConfig {
    ContainerConfig {
        metadata: Some(ContainerMetadata { name: name.to_owned() }),
        image: Some(ImageSpec { image: IMAGE.to_owned() }),
        command: ["sh", "-c", script].map(str::to_owned).to_vec(),
        log_path: format!("{name}.log"),
        linux: Some(LinuxContainerConfig::default()),
        ..ContainerConfig::default()
    }
}

impl<'a> Pod<'a> {
    /// RunPodSandbox with a `runtime_handler` (what a RuntimeClass names) and namespaces.
    #[track_caller]
    #[must_use]
    pub fn run(node: &'a Node, handler: &str, namespaces: NamespaceOption) -> Self {
        let cri = node.client();
        let place = node.containerd.place();
        let name = node.containerd.id();
        let logs = place.path().join("logs").join(&name);
        std::fs::create_dir_all(&logs).expect("make a folder of logs");
        // As a kubelet does: the host's network comes with the host's name.
        let hostname = if namespaces.network == namespace_mode::NODE { "" } else { "pod" };
        let security = LinuxSandboxSecurityContext { namespace_options: Some(namespaces) };
        let config = PodSandboxConfig {
            metadata: Some(PodSandboxMetadata { uid: name.clone(), namespace: "flint".to_owned(), name }),
            hostname: hostname.to_owned(),
            log_directory: logs.display().to_string(),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: format!("/{}pods", place.prefix()),
                security_context: Some(security),
            }),
        };
        let request = RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: handler.to_owned() };
        let id = cri.get(request).pod_sandbox_id;
        Self { node, cri, id, config, containers: Vec::new() }
    }

    /// Creates and starts a container; its id.
    #[track_caller]
    pub fn container(&mut self, name: &str, script: &str) -> String {
        self.container_with(name, script, LinuxContainerResources::default(), |_| {})
    }

    /// The same with limits, and with what `edit` does to it.
    #[track_caller]
    pub fn container_with(
        &mut self,
        name: &str,
        script: &str,
        resources: LinuxContainerResources,
        edit: impl FnOnce(&mut ContainerConfig),
    ) -> String {
        let mut config = shell(name, script);
        let sandbox = self.config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
        config.linux = Some(LinuxContainerConfig {
            resources: Some(resources),
            security_context: Some(LinuxContainerSecurityContext {
                namespace_options: sandbox.and_then(|context| context.namespace_options.clone()),
            }),
        });
        edit(&mut config);
        let id = self
            .cri
            .get(CreateContainerRequest {
                pod_sandbox_id: self.id.clone(),
                config: Some(config),
                sandbox_config: Some(self.config.clone()),
            })
            .container_id;
        self.containers.push(id.clone());
        let _ = self.cri.get(StartContainerRequest { container_id: id.clone() });
        id
    }

    /// ExecSync of a script; `timeout` in seconds, 0 for none.
    ///
    /// # Errors
    ///
    /// The plugin's.
    pub fn exec(&self, container: &str, script: &str, timeout: i64) -> Result<ExecSyncResponse, Status> {
        let cmd = ["sh", "-c", script].map(str::to_owned).to_vec();
        self.cri.call(ExecSyncRequest { container_id: container.to_owned(), cmd, timeout })
    }

    /// What a script in a container prints, which must succeed.
    #[track_caller]
    #[must_use]
    pub fn sh(&self, container: &str, script: &str) -> String {
        let response = self.exec(container, script, 0).unwrap_or_else(|status| panic!("exec: {status}"));
        let stderr = String::from_utf8_lossy(&response.stderr).into_owned();
        assert_eq!(response.exit_code, 0, "{script}: {stderr}");
        String::from_utf8_lossy(&response.stdout).into_owned()
    }

    /// ContainerStatus.
    #[track_caller]
    #[must_use]
    pub fn status(&self, container: &str) -> ContainerStatus {
        let request = ContainerStatusRequest { container_id: container.to_owned() };
        self.cri.get(request).status.expect("a status")
    }

    /// Waits for the end of a container; its status.
    #[track_caller]
    #[must_use]
    pub fn ended(&self, container: &str) -> ContainerStatus {
        wait_until("the container ends", || self.status(container).state == container_state::EXITED);
        self.status(container)
    }

    /// StopContainer with a grace of so many seconds; the status afterwards.
    #[track_caller]
    #[must_use]
    pub fn stop(&self, container: &str, timeout: i64) -> ContainerStatus {
        let _ = self.cri.get(StopContainerRequest { container_id: container.to_owned(), timeout });
        self.ended(container)
    }

    /// PodSandboxStatus.
    #[track_caller]
    #[must_use]
    pub fn sandbox(&self) -> PodSandboxStatus {
        let request = PodSandboxStatusRequest { pod_sandbox_id: self.id.clone() };
        self.cri.get(request).status.expect("a status")
    }

    /// The log of a container, in CRI's format.
    #[must_use]
    pub fn log(&self, name: &str) -> String {
        let path = Path::new(&self.config.log_directory).join(format!("{name}.log"));
        std::fs::read_to_string(path).unwrap_or_default()
    }

    /// Waits until the log of a container holds a text.
    #[track_caller]
    pub fn wait_for_log(&self, name: &str, text: &str) {
        let found = becomes_true(|| self.log(name).contains(text));
        assert!(found, "no {text:?} in the log of {name}: {:?}", self.log(name));
    }

    /// Pids of the shims that serve a container of this pod or its sandbox.
    #[must_use]
    pub fn shims(&self) -> Vec<i32> {
        let ids: Vec<&String> = self.containers.iter().chain([&self.id]).collect();
        let is_shim = |pid: &i32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
            words.contains(&b"-socket".as_slice()) && ids.iter().any(|id| words.contains(&id.as_bytes()))
        };
        processes_with(self.node.containerd.place().prefix()).into_iter().filter(is_shim).collect()
    }

    /// RemoveContainer.
    #[track_caller]
    pub fn remove_container(&mut self, container: &str) {
        let _ = self.cri.get(RemoveContainerRequest { container_id: container.to_owned() });
        self.node.containerd.assert_gone(container);
        self.containers.retain(|id| id != container);
    }

    /// StopPodSandbox and RemovePodSandbox; nothing may be left of the pod and its containers.
    #[track_caller]
    pub fn remove(self) {
        let place = self.node.containerd.place();
        let task = format!("{}/state/io.containerd.runtime.v2.task/k8s.io/{}", place.path().display(), self.id);
        let address = std::fs::read_to_string(place.outside(&format!("{task}/address"))).unwrap_or_default();
        let socket = place.outside(address.trim_start_matches("unix://"));
        let shims = self.shims();
        let _ = self.cri.get(StopPodSandboxRequest { pod_sandbox_id: self.id.clone() });
        // A second time is no error.
        let _ = self.cri.get(StopPodSandboxRequest { pod_sandbox_id: self.id.clone() });
        let _ = self.cri.get(RemovePodSandboxRequest { pod_sandbox_id: self.id.clone() });
        for id in self.containers.iter().chain([&self.id]) {
            self.node.containerd.assert_gone(id);
        }
        wait_until("the shim ends", || shims.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists()));
        assert!(address.is_empty() || !socket.exists(), "the shim's socket is left");
    }
}
