//! A client of the shim's private service for flintd (`flint.shim.v1.Node`), and sandboxes as flintd makes them.

use std::fs;
use std::path::{Path, PathBuf};

use containerd_shim_protos::ttrpc::proto::Request;
use containerd_shim_protos::ttrpc::{Error as RpcError, Result as RpcResult};
use flint_shim_protocol::{
    AdoptRequest, AdoptResponse, Bounds, ConfigureRequest, ConfigureResponse, Container, ContainerState, CreateRequest,
    CreateResponse, Created, MakeSandboxesRequest, MakeSandboxesResponse, Network, RemoveRequest, RemoveResponse,
    RemoveSandboxesRequest, RemoveSandboxesResponse, Removed, Sandbox, SandboxMade, StatusRequest, StatusResponse,
};
use prost::Message;
use rustix::process::{Pid, Signal, kill_process};

use crate::process::patience_nanos;
use crate::shim::shim_command;
use crate::{Bundle, Case, EventListener, EventServer, Shim, shim_case, wait_until};

/// A shim as flintd has it: for no container in particular.
pub struct Node {
    /// Its case; state and bundles are below it.
    pub case: Case,
    /// Its events.
    pub events: EventServer,
    /// The client of its task API.
    pub shim: Shim,
    program: PathBuf,
    bundle: Bundle,
    listener: Option<EventListener>,
}

impl Node {
    /// Starts one; None after a skip. Its containers run `script`, unless another one is given to them.
    #[must_use]
    pub fn start(script: &str) -> Option<Self> {
        let mut node = Self::start_alone(script)?;
        node.listen();
        Some(node)
    }

    /// The same while nobody takes events.
    #[must_use]
    pub fn start_alone(script: &str) -> Option<Self> {
        let (case, program, _, _) = shim_case()?;
        fs::create_dir(case.path().join("events")).expect("make a folder for the events' socket");
        let events = EventServer::new(&case.path().join("events"));
        let bundle = case.bundle().shell(script);
        fs::create_dir(case.path().join("shim-folder")).expect("make the shim's folder");
        let shim = Self::start_shim(&case, &program, &events);
        let node = Self { case, events, shim, program, bundle, listener: None };
        node.configure(0, 0);
        Some(node)
    }

    /// There is no config.json in its folder: its id is its group.
    fn start_shim(case: &Case, program: &Path, events: &EventServer) -> Shim {
        let folder = case.path().join("shim-folder");
        let started = shim_command(case, program, &folder, &case.id("shim"), "start");
        let started = started.env("TTRPC_ADDRESS", events.address()).output().ok();
        Shim::connect(case, started.stdout.trim())
    }

    /// Calls the service.
    ///
    /// # Errors
    ///
    /// The shim's.
    pub fn call<R: Message + Default>(&self, method: &str, request: &impl Message) -> RpcResult<R> {
        let request = Request {
            service: flint_shim_protocol::SERVICE.to_owned(),
            method: method.to_owned(),
            payload: request.encode_to_vec(),
            timeout_nano: patience_nanos(),
            ..Request::default()
        };
        let response = self.shim.client().request(request)?;
        R::decode(response.payload.as_slice()).map_err(|error| RpcError::Others(error.to_string()))
    }

    /// Sets the pool of network namespaces.
    #[track_caller]
    pub fn configure(&self, least: u32, most: u32) {
        let request = ConfigureRequest {
            networks: Some(Bounds { least, most }),
            state_root: self.case.path().join("shim").display().to_string(),
            systemd_cgroups: false,
        };
        self.call::<ConfigureResponse>("Configure", &request).expect("configure");
    }

    /// Its numbers.
    #[track_caller]
    #[must_use]
    pub fn status(&self) -> StatusResponse {
        self.call("Status", &StatusRequest {}).expect("status")
    }

    /// A sandbox that is not made yet, with a network namespace of its own.
    #[must_use]
    pub fn sandbox(&self, name: &str) -> Sandbox {
        let folder = self.case.path().join(name);
        fs::create_dir_all(&folder).expect("make the sandbox's folder");
        Sandbox {
            id: self.case.id(name),
            network_path: folder.join("netns").display().to_string(),
            folder: folder.display().to_string(),
            hostname: name.to_owned(),
            network: Network::Own.into(),
            ..Sandbox::default()
        }
    }

    /// Makes sandboxes; none may fail.
    #[track_caller]
    pub fn make(&self, sandboxes: &[Sandbox]) -> Vec<SandboxMade> {
        let request = MakeSandboxesRequest { sandboxes: sandboxes.to_vec() };
        let made = self.call::<MakeSandboxesResponse>("MakeSandboxes", &request).expect("make sandboxes").sandboxes;
        assert!(made.iter().all(|made| made.failure.is_none()), "{made:?}");
        made
    }

    /// Removes sandboxes; none may fail.
    #[track_caller]
    pub fn remove_sandboxes(&self, sandboxes: &[Sandbox]) {
        let request = RemoveSandboxesRequest { sandboxes: sandboxes.to_vec() };
        let removed = self.call::<RemoveSandboxesResponse>("RemoveSandboxes", &request).expect("remove sandboxes");
        assert!(removed.sandboxes.iter().all(|removed| removed.failure.is_none()), "{removed:?}");
    }

    /// A container that is not made yet, in a bundle of its own with the root filesystem of all.
    #[must_use]
    pub fn container(&self, name: &str, script: Option<&str>) -> Container {
        let folder = self.case.path().join(name);
        fs::create_dir_all(&folder).expect("make a bundle");
        let text = fs::read(self.bundle.write().join("config.json")).expect("read config.json");
        let mut config: serde_json::Value = serde_json::from_slice(&text).expect("a config.json");
        config["root"]["path"] = self.bundle.rootfs().display().to_string().into();
        if let Some(script) = script {
            config["process"]["args"] = serde_json::json!(["/bin/sh", "-c", script]);
        }
        fs::write(folder.join("config.json"), config.to_string()).expect("write config.json");
        Container { id: self.case.id(name), bundle: folder.display().to_string(), ..Container::default() }
    }

    /// Creates containers, and starts them if told to.
    #[track_caller]
    pub fn create(&self, containers: &[Container], start: bool) -> Vec<Created> {
        let request = CreateRequest { containers: containers.to_vec(), start, concurrency: 0 };
        self.call::<CreateResponse>("Create", &request).expect("create").containers
    }

    /// Creates and starts containers; none may fail.
    #[track_caller]
    pub fn run(&self, containers: &[Container]) -> Vec<u32> {
        let created = self.create(containers, true);
        assert!(created.iter().all(|created| created.failure.is_none()), "{created:?}");
        created.iter().map(|created| created.pid).collect()
    }

    /// Adopts containers.
    #[track_caller]
    pub fn adopt(&self, containers: &[Container]) -> Vec<ContainerState> {
        let request = AdoptRequest { containers: containers.to_vec() };
        self.call::<AdoptResponse>("Adopt", &request).expect("adopt").containers
    }

    /// Removes containers; none may fail.
    #[track_caller]
    pub fn remove(&self, containers: &[Container]) -> Vec<Removed> {
        let request = RemoveRequest { containers: containers.to_vec(), concurrency: 0 };
        let removed = self.call::<RemoveResponse>("Remove", &request).expect("remove").containers;
        assert!(removed.iter().all(|removed| removed.failure.is_none()), "{removed:?}");
        removed
    }

    /// Kills the shim, and returns when it is gone.
    #[track_caller]
    pub fn kill_shim(&self) {
        let pid = self.shim.pid();
        kill_process(Pid::from_raw(pid).expect("a pid"), Signal::KILL).expect("kill the shim");
        let folder = PathBuf::from(format!("/proc/{pid}"));
        wait_until("the shim is gone", || {
            // Its other threads may still have its socket open when the first is a zombie.
            let threads = || fs::read_dir(folder.join("task")).map_or(0, Iterator::count);
            let stat = fs::read_to_string(folder.join("stat"));
            stat.map_or(true, |stat| stat.contains(") Z ") && threads() <= 1)
        });
    }

    /// Starts another one in its place.
    #[track_caller]
    pub fn start_again(&mut self) {
        self.shim = Self::start_shim(&self.case, &self.program, &self.events);
        self.configure(0, 0);
    }

    /// Takes events from now on.
    pub fn listen(&mut self) {
        self.listener = Some(self.events.listen());
    }

    /// Ends it: nothing may be left.
    #[track_caller]
    pub fn end(self) {
        self.shim.shutdown();
        self.case.finish();
    }
}
