//! The messages, as protobuf has them: numbers are never given to another field.

use std::collections::BTreeMap;

use prost::{Enumeration, Message};

/// Why an item failed.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Failure {
    /// ttrpc's (gRPC's) code: 3 invalid argument, 5 not found, 6 already exists, 9 wrong state, 2 anything else.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// One sentence: step, object, error.
    #[prost(string, tag = "2")]
    pub message: String,
}

/// How many of something are kept ready: the shim moves between these as it is asked for more or less.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Bounds {
    /// Always so many.
    #[prost(uint32, tag = "1")]
    pub least: u32,
    /// Never more; 0: none are kept.
    #[prost(uint32, tag = "2")]
    pub most: u32,
}

/// Settings, all of them each time. They hold for what is made afterwards.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ConfigureRequest {
    /// Network namespaces that are kept ready, each with its loopback device up.
    #[prost(message, optional, tag = "1")]
    pub networks: Option<Bounds>,
    /// Below it, in a folder of the shim's containerd namespace, is the containers' state. Empty: `/run/containerd/flint`.
    #[prost(string, tag = "2")]
    pub state_root: String,
    /// Let systemd make cgroups.
    #[prost(bool, tag = "3")]
    pub systemd_cgroups: bool,
}

/// Nothing.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ConfigureResponse {}

/// Nothing.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct StatusRequest {}

/// How a warm pool does.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Pool {
    /// Ready now.
    #[prost(uint32, tag = "1")]
    pub ready: u32,
    /// How many the shim wants ready now.
    #[prost(uint32, tag = "2")]
    pub wanted: u32,
    /// Given from the pool, since the shim's start.
    #[prost(uint64, tag = "3")]
    pub hits: u64,
    /// Made on demand.
    #[prost(uint64, tag = "4")]
    pub misses: u64,
}

/// Numbers of a shim.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct StatusResponse {
    /// The shim's process.
    #[prost(uint32, tag = "1")]
    pub pid: u32,
    /// Network namespaces.
    #[prost(message, optional, tag = "2")]
    pub networks: Option<Pool>,
    /// Tasks, ended ones too.
    #[prost(uint32, tag = "3")]
    pub containers: u32,
    /// Sandboxes.
    #[prost(uint32, tag = "4")]
    pub sandboxes: u32,
    /// Bytes of the shim's memory that nobody shares (Private_Dirty).
    #[prost(uint64, tag = "5")]
    pub private_bytes: u64,
    /// Its part of all memory it has mapped, in bytes (PSS).
    #[prost(uint64, tag = "6")]
    pub proportional_bytes: u64,
    /// Open descriptors.
    #[prost(uint32, tag = "7")]
    pub descriptors: u32,
    /// Events that wait until they are taken.
    #[prost(uint64, tag = "8")]
    pub events_waiting: u64,
    /// Lines of containers' output that were lost since the shim's start, since their log could not be written.
    #[prost(uint64, tag = "9")]
    pub lines_dropped: u64,
}

/// Which network a sandbox has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum Network {
    /// The host's.
    Host = 0,
    /// A namespace of its own, from the pool or new, bound at [`Sandbox::network_path`], where it outlives the shim.
    Own = 1,
    /// The namespace that somebody else has bound at [`Sandbox::network_path`], and takes away.
    Path = 2,
}

/// A pod's sandbox: what its containers share.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Sandbox {
    /// Its id, by which containers name it.
    #[prost(string, tag = "1")]
    pub id: String,
    /// A folder for the shim's files of it (`sandbox.json`, `shm`); there already, and removed by the caller.
    #[prost(string, tag = "2")]
    pub folder: String,
    /// The name in a UTS namespace of its own. Empty: the host's UTS namespace.
    #[prost(string, tag = "3")]
    pub hostname: String,
    /// Its network.
    #[prost(enumeration = "Network", tag = "4")]
    pub network: i32,
    /// Where its network namespace is bound: an absolute path. Made where it is missing.
    #[prost(string, tag = "5")]
    pub network_path: String,
    /// Whether all containers share a pid namespace, with a process 1 that reaps.
    #[prost(bool, tag = "6")]
    pub share_pids: bool,
    /// The host's IPC namespace instead of one of its own.
    #[prost(bool, tag = "7")]
    pub host_ipc: bool,
    /// Sysctls of its own namespaces, with dots.
    #[prost(btree_map = "string, string", tag = "8")]
    pub sysctls: BTreeMap<String, String>,
    /// Bytes of a tmpfs that all containers have at /dev/shm, unless they mount something there. 0: each has its own.
    #[prost(uint64, tag = "9")]
    pub shm_bytes: u64,
    /// The cgroup that its containers' are below: an absolute path in each hierarchy. The first of them makes it, and it is
    /// removed with the sandbox. Empty: none.
    #[prost(string, tag = "10")]
    pub cgroup: String,
}

/// Sandboxes that shall be there. One that is, from this shim or one that died, is taken over as it is.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct MakeSandboxesRequest {
    /// Which.
    #[prost(message, repeated, tag = "1")]
    pub sandboxes: Vec<Sandbox>,
}

/// What became of each.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct MakeSandboxesResponse {
    /// In the order of the request.
    #[prost(message, repeated, tag = "1")]
    pub sandboxes: Vec<SandboxMade>,
}

/// What became of a sandbox. The shim puts its namespaces into the config.json of a container that names it; who else wants
/// to enter one finds it here, while the shim lives.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct SandboxMade {
    /// Its id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Nothing was made, and nothing is left.
    #[prost(message, optional, tag = "2")]
    pub failure: Option<Failure>,
    /// Process 1 of its shared pid namespace; 0 without.
    #[prost(uint32, tag = "3")]
    pub pid: u32,
    /// Its IPC namespace; empty: the host's.
    #[prost(string, tag = "4")]
    pub ipc: String,
    /// Its UTS namespace; empty: the host's.
    #[prost(string, tag = "5")]
    pub uts: String,
    /// Its network namespace; empty: the host's.
    #[prost(string, tag = "6")]
    pub network: String,
    /// Whether the network namespace was ready.
    #[prost(bool, tag = "7")]
    pub was_ready: bool,
    /// Whether it was there before this call.
    #[prost(bool, tag = "8")]
    pub was_there: bool,
}

/// Sandboxes that shall not be there. Their containers were removed before.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RemoveSandboxesRequest {
    /// Which: id and folder count. The shim need not know them: what is in the folder tells what is to be taken away.
    #[prost(message, repeated, tag = "1")]
    pub sandboxes: Vec<Sandbox>,
}

/// What became of each.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RemoveSandboxesResponse {
    /// In the order of the request.
    #[prost(message, repeated, tag = "1")]
    pub sandboxes: Vec<SandboxRemoved>,
}

/// What became of a sandbox.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct SandboxRemoved {
    /// Its id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Something is left; it can be removed again.
    #[prost(message, optional, tag = "2")]
    pub failure: Option<Failure>,
}

/// A mount of a root filesystem, as mount(8) has it.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Mount {
    /// The file system's type.
    #[prost(string, tag = "1")]
    pub kind: String,
    /// What is mounted.
    #[prost(string, tag = "2")]
    pub source: String,
    /// Options.
    #[prost(string, repeated, tag = "3")]
    pub options: Vec<String>,
}

/// A container that shall be made or adopted.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Container {
    /// Its id: of the task, and in the runtime.
    #[prost(string, tag = "1")]
    pub id: String,
    /// The folder with config.json.
    #[prost(string, tag = "2")]
    pub bundle: String,
    /// The sandbox whose namespaces it has; empty: those of config.json.
    #[prost(string, tag = "3")]
    pub sandbox: String,
    /// A fifo; empty: none.
    #[prost(string, tag = "4")]
    pub stdin: String,
    /// As in the task API, and `cri-log:///PATH?max-size=BYTES&max-files=N&delay=MILLISECONDS`.
    #[prost(string, tag = "5")]
    pub stdout: String,
    /// The same; not looked at with a terminal.
    #[prost(string, tag = "6")]
    pub stderr: String,
    /// A terminal instead of three streams.
    #[prost(bool, tag = "7")]
    pub terminal: bool,
    /// Mounted on the bundle's `rootfs`, and unmounted when it is deleted. None: the bundle brings its own.
    #[prost(message, repeated, tag = "8")]
    pub rootfs: Vec<Mount>,
}

/// Containers that shall be made. An id that is there is refused (6, already exists).
#[derive(Clone, PartialEq, Eq, Message)]
pub struct CreateRequest {
    /// Which.
    #[prost(message, repeated, tag = "1")]
    pub containers: Vec<Container>,
    /// Start each as soon as it is made. One whose start fails is removed again.
    #[prost(bool, tag = "2")]
    pub start: bool,
    /// How many are made at a time; 0: the shim chooses by the number of CPUs.
    #[prost(uint32, tag = "3")]
    pub concurrency: u32,
}

/// What became of each.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct CreateResponse {
    /// In the order of the request.
    #[prost(message, repeated, tag = "1")]
    pub containers: Vec<Created>,
}

/// What became of a container.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Created {
    /// Its id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Nothing is left of it then.
    #[prost(message, optional, tag = "2")]
    pub failure: Option<Failure>,
    /// Its init.
    #[prost(uint32, tag = "3")]
    pub pid: u32,
}

/// Containers whose shim has died. One that this shim has already is told as it is.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct AdoptRequest {
    /// Which, as they were made.
    #[prost(message, repeated, tag = "1")]
    pub containers: Vec<Container>,
}

/// What became of each.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct AdoptResponse {
    /// In the order of the request.
    #[prost(message, repeated, tag = "1")]
    pub containers: Vec<ContainerState>,
}

/// How far a container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum Phase {
    /// There is no such container, or one that was left half made: it has to be made (again).
    Absent = 0,
    /// It waits for its start.
    Created = 1,
    /// It runs.
    Running = 2,
    /// It has ended, and waits to be removed.
    Stopped = 3,
}

/// A container as it is.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ContainerState {
    /// Its id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// It could not be adopted.
    #[prost(message, optional, tag = "2")]
    pub failure: Option<Failure>,
    /// How far it is.
    #[prost(enumeration = "Phase", tag = "3")]
    pub phase: i32,
    /// Its init; 0: none, or not known any more.
    #[prost(uint32, tag = "4")]
    pub pid: u32,
    /// How it ended. None while it runs; and if nobody saw it.
    #[prost(uint32, optional, tag = "5")]
    pub exit_status: Option<u32>,
    /// When it was seen to have ended, in nanoseconds since 1970; 0: it has not.
    #[prost(int64, tag = "6")]
    pub exited_at: i64,
    /// Whether another shim made it.
    #[prost(bool, tag = "7")]
    pub adopted: bool,
    /// Whether it is paused.
    #[prost(bool, tag = "8")]
    pub paused: bool,
    /// Its bundle.
    #[prost(string, tag = "9")]
    pub bundle: String,
    /// Its sandbox; empty: none.
    #[prost(string, tag = "10")]
    pub sandbox: String,
    /// Of an adopted one: whether the kernel had taken a process of it for want of memory before.
    #[prost(bool, tag = "11")]
    pub oom: bool,
}

/// Nothing.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ListRequest {}

/// All that a shim has: for a supervisor that comes back.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ListResponse {
    /// Its containers, by id.
    #[prost(message, repeated, tag = "1")]
    pub containers: Vec<ContainerState>,
    /// Its sandboxes, by id.
    #[prost(message, repeated, tag = "2")]
    pub sandboxes: Vec<SandboxState>,
}

/// A sandbox as it is.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct SandboxState {
    /// Its id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Its folder.
    #[prost(string, tag = "2")]
    pub folder: String,
    /// Process 1 of its shared pid namespace; 0 without.
    #[prost(uint32, tag = "3")]
    pub pid: u32,
}

/// Containers that shall not be there: killed if they run, and deleted.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RemoveRequest {
    /// Which. Of one that this shim does not have, bundle and id tell what is left of it.
    #[prost(message, repeated, tag = "1")]
    pub containers: Vec<Container>,
    /// How many are removed at a time; 0: the shim chooses.
    #[prost(uint32, tag = "2")]
    pub concurrency: u32,
}

/// What became of each.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RemoveResponse {
    /// In the order of the request.
    #[prost(message, repeated, tag = "1")]
    pub containers: Vec<Removed>,
}

/// What became of a container.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Removed {
    /// Its id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Something is left; it can be removed again.
    #[prost(message, optional, tag = "2")]
    pub failure: Option<Failure>,
    /// How it ended; none: nobody saw it.
    #[prost(uint32, optional, tag = "3")]
    pub exit_status: Option<u32>,
    /// When, in nanoseconds since 1970; 0: not known.
    #[prost(int64, tag = "4")]
    pub exited_at: i64,
}
