//! A client of the shim itself, without containerd: it starts one as containerd does, speaks the task API to it and takes its
//! events.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use containerd_shim_protos::api::{
    CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskRequest, CreateTaskResponse, DeleteRequest,
    DeleteResponse, Empty, ExecProcessRequest, KillRequest, ShutdownRequest, StartRequest, StartResponse, StateRequest,
    StateResponse, WaitRequest, WaitResponse,
};
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{Message, MessageField};
use containerd_shim_protos::shim::oci::Options;
use containerd_shim_protos::shim_sync::Client;
use containerd_shim_protos::ttrpc::proto::{Codec as _, Request};
use containerd_shim_protos::ttrpc::{Code, Error as RpcError, Result as RpcResult};
use serde_json::Value;

use crate::leaks::is_alive;
use crate::process::patience_nanos;
use crate::{Bundle, Case, Command, EventListener, EventServer, Output, skip, under_test_only, wait_until};

/// The service since containerd 2.0.
pub const TASK_V3: &str = "containerd.task.v3.Task";
/// The service before it: the same messages.
pub const TASK_V2: &str = "containerd.task.v2.Task";
pub(crate) const PROGRAM: &str = "containerd-shim-flint-v1";

/// The shim under test: `FLINT_SHIM`, else that of `FLINT_DIST`, else target/dist's; None after a skip.
#[must_use]
pub fn shim_program() -> Option<PathBuf> {
    let found = find_shim();
    if found.is_none() {
        skip("no shim: build it with `cargo xtask dist` or name it in FLINT_SHIM");
    }
    found
}

pub(crate) fn find_shim() -> Option<PathBuf> {
    let dist = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/dist");
    let candidates = [
        std::env::var_os("FLINT_SHIM").map(PathBuf::from),
        std::env::var_os("FLINT_DIST").map(|dist| Path::new(&dist).join(PROGRAM)),
        Some(dist.join(PROGRAM)),
    ];
    candidates.into_iter().flatten().find(|path| path.exists()).and_then(|path| path.canonicalize().ok())
}

/// A case, the shim under test, and a server that takes events from the beginning; None after a skip.
#[must_use]
pub fn shim_case() -> Option<(Case, PathBuf, EventServer, EventListener)> {
    let ([flint], program) = (under_test_only("a shim")?, shim_program()?);
    let case = Case::new(&flint);
    let events = EventServer::new(case.path());
    let listener = events.listen();
    Some((case, program, events, listener))
}

/// A shim that was started for a bundle.
pub struct Shim {
    pub(crate) state_root: PathBuf,
    binary: String,
    address: String,
    service: &'static str,
    client: Client,
}

/// The streams of a request.
#[derive(Clone, Debug, Default)]
pub struct Streams {
    /// A terminal instead of three streams.
    pub terminal: bool,
    /// Empty for none, as the others.
    pub stdin: String,
    /// A path or URI.
    pub stdout: String,
    /// A path or URI.
    pub stderr: String,
}

/// The namespace of a case's containers.
#[must_use]
pub fn shim_namespace(case: &Case) -> String {
    case.id("ns")
}

/// `containerd-shim-flint-v1 ... ACTION` in a bundle.
#[must_use]
pub fn shim_command(case: &Case, program: &Path, bundle: &Path, id: &str, action: &str) -> Command {
    let address = case.path().join("containerd.sock").display().to_string();
    Command::new(program)
        .args(["-namespace".to_owned(), shim_namespace(case), "-id".to_owned(), id.to_owned()])
        .args(["-address".to_owned(), address, "-publish-binary".to_owned(), "/bin/false".to_owned()])
        .args([action.to_owned()])
        .dir(bundle)
}

impl Shim {
    /// Starts one as containerd 1.6 does, for the bundle of a container `id`.
    #[track_caller]
    #[must_use]
    pub fn start(case: &Case, program: &Path, bundle: &Bundle, id: &str, events: &EventServer) -> Self {
        Self::start_with_path(case, program, bundle, id, events, &[])
    }

    /// The same, with these folders in front of its PATH.
    #[track_caller]
    #[must_use]
    pub fn start_with_path(
        case: &Case,
        program: &Path,
        bundle: &Bundle,
        id: &str,
        events: &EventServer,
        folders: &[&Path],
    ) -> Self {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = folders.iter().map(|folder| folder.to_path_buf()).chain(std::env::split_paths(&path));
        let path = std::env::join_paths(folders).expect("a PATH");
        let start = shim_command(case, program, &bundle.write(), id, "start").env("PATH", path);
        Self::start_by(case, start, events)
    }

    /// The same, for a bundle that is written already.
    #[track_caller]
    #[must_use]
    pub fn start_in(case: &Case, program: &Path, folder: &Path, id: &str, events: &EventServer) -> Self {
        Self::start_by(case, shim_command(case, program, folder, id, "start"), events)
    }

    #[track_caller]
    fn start_by(case: &Case, start: Command, events: &EventServer) -> Self {
        let started = start.env("TTRPC_ADDRESS", events.address()).output().ok();
        assert_eq!(started.stderr, "", "start writes to stderr");
        Self::connect(case, started.stdout.trim())
    }

    /// Connects to one by its address.
    #[track_caller]
    #[must_use]
    pub fn connect(case: &Case, address: &str) -> Self {
        let client = Client::connect(address).expect("connect to the shim");
        let state_root = case.path().join("shim");
        Self { state_root, binary: String::new(), address: address.to_owned(), service: TASK_V3, client }
    }

    /// Calls this service from now on: [`TASK_V2`] or [`TASK_V3`], which is what it calls without.
    #[must_use]
    pub fn speaking(mut self, service: &'static str) -> Self {
        self.service = service;
        self
    }

    /// The OCI runtime that runc's shim calls.
    #[must_use]
    pub fn calling(mut self, binary: &str) -> Self {
        binary.clone_into(&mut self.binary);
        self
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The connection.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// One call of the task API, for what has no method here.
    ///
    /// # Errors
    ///
    /// The shim's.
    pub fn call<Response: Message>(&self, method: &str, request: &impl Message) -> RpcResult<Response> {
        self.call_service(self.service, method, request)
    }

    /// One call of any service.
    ///
    /// # Errors
    ///
    /// The shim's; an answer that is not of this kind.
    pub fn call_service<Response: Message>(
        &self,
        service: &str,
        method: &str,
        request: &impl Message,
    ) -> RpcResult<Response> {
        let request = Request {
            service: service.to_owned(),
            method: method.to_owned(),
            payload: request.encode().expect("encode a request"),
            timeout_nano: patience_nanos(),
            ..Request::default()
        };
        let response = self.client.request(request)?;
        Response::parse_from_bytes(&response.payload).map_err(|error| RpcError::Others(error.to_string()))
    }

    /// Create; the state goes below the case's folder.
    ///
    /// # Errors
    ///
    /// The shim's.
    pub fn create(&self, id: &str, bundle: &Path, streams: &Streams) -> RpcResult<u32> {
        self.create_from(id, bundle, streams, None)
    }

    /// Create, of a checkpoint's folder if one is named.
    ///
    /// # Errors
    ///
    /// The shim's.
    pub fn create_from(&self, id: &str, bundle: &Path, streams: &Streams, checkpoint: Option<&Path>) -> RpcResult<u32> {
        let request = CreateTaskRequest {
            checkpoint: checkpoint.map(|folder| folder.display().to_string()).unwrap_or_default(),
            ..self.create_request(id, bundle, streams)
        };
        self.call("Create", &request).map(|response: CreateTaskResponse| response.pid)
    }

    /// The request of Create.
    #[must_use]
    pub fn create_request(&self, id: &str, bundle: &Path, streams: &Streams) -> CreateTaskRequest {
        let options = Options {
            root: self.state_root.display().to_string(),
            binary_name: self.binary.clone(),
            ..Options::default()
        };
        let options = Any {
            type_url: "containerd.runc.v1.Options".to_owned(),
            value: options.write_to_bytes().expect("encode options"),
            ..Any::default()
        };
        CreateTaskRequest {
            id: id.to_owned(),
            bundle: bundle.display().to_string(),
            terminal: streams.terminal,
            stdin: streams.stdin.clone(),
            stdout: streams.stdout.clone(),
            stderr: streams.stderr.clone(),
            options: MessageField::some(options),
            ..CreateTaskRequest::default()
        }
    }

    /// Exec.
    ///
    /// # Errors
    ///
    /// The shim's.
    pub fn exec(&self, id: &str, exec: &str, process: &Value, streams: &Streams) -> RpcResult<Empty> {
        let spec = Any { value: process.to_string().into_bytes(), ..Any::default() };
        let request = ExecProcessRequest {
            id: id.to_owned(),
            exec_id: exec.to_owned(),
            terminal: streams.terminal,
            stdin: streams.stdin.clone(),
            stdout: streams.stdout.clone(),
            stderr: streams.stderr.clone(),
            spec: MessageField::some(spec),
            ..ExecProcessRequest::default()
        };
        self.call("Exec", &request)
    }

    /// Start; the pid.
    ///
    /// # Errors
    ///
    /// The shim's.
    pub fn run(&self, id: &str, exec: &str) -> RpcResult<u32> {
        let request = StartRequest { id: id.to_owned(), exec_id: exec.to_owned(), ..StartRequest::default() };
        self.call("Start", &request).map(|response: StartResponse| response.pid)
    }

    /// Wait; the exit status.
    ///
    /// # Errors
    ///
    /// The shim's.
    pub fn wait(&self, id: &str, exec: &str) -> RpcResult<u32> {
        let request = WaitRequest { id: id.to_owned(), exec_id: exec.to_owned(), ..WaitRequest::default() };
        self.call("Wait", &request).map(|response: WaitResponse| response.exit_status)
    }

    /// Kill.
    ///
    /// # Errors
    ///
    /// The shim's.
    pub fn kill(&self, id: &str, exec: &str, signal: u32) -> RpcResult<Empty> {
        let request = KillRequest { id: id.to_owned(), exec_id: exec.to_owned(), signal, ..KillRequest::default() };
        self.call("Kill", &request)
    }

    /// Delete.
    ///
    /// # Errors
    ///
    /// The shim's.
    pub fn delete(&self, id: &str, exec: &str) -> RpcResult<DeleteResponse> {
        let request = DeleteRequest { id: id.to_owned(), exec_id: exec.to_owned(), ..DeleteRequest::default() };
        self.call("Delete", &request)
    }

    /// State.
    ///
    /// # Errors
    ///
    /// The shim's.
    pub fn state(&self, id: &str, exec: &str) -> RpcResult<StateResponse> {
        let request = StateRequest { id: id.to_owned(), exec_id: exec.to_owned(), ..StateRequest::default() };
        self.call("State", &request)
    }

    /// CloseIO.
    ///
    /// # Errors
    ///
    /// The shim's.
    pub fn close_stdin(&self, id: &str, exec: &str) -> RpcResult<Empty> {
        let request =
            CloseIORequest { id: id.to_owned(), exec_id: exec.to_owned(), stdin: true, ..CloseIORequest::default() };
        self.call("CloseIO", &request)
    }

    /// The shim's own pid.
    #[track_caller]
    #[must_use]
    pub fn pid(&self) -> i32 {
        let response: ConnectResponse = self.call("Connect", &ConnectRequest::default()).expect("connect");
        i32::try_from(response.shim_pid).expect("a pid")
    }

    /// Shutdown; returns when the process and its socket are gone.
    #[track_caller]
    pub fn shutdown(self) {
        let pid = self.pid();
        // containerd's own shims may be gone before they have answered.
        if let Err(RpcError::RpcStatus(status)) = self.call::<Empty>("Shutdown", &ShutdownRequest::default()) {
            panic!("shutdown: {status:?}");
        }
        drop(self.client);
        wait_until("the shim ends", || !is_alive(pid));
        let socket = self.address.trim_start_matches("unix://");
        assert!(!Path::new(socket).exists(), "its socket is left");
    }
}

/// The code of a refused call.
#[track_caller]
pub fn refused<T: std::fmt::Debug>(result: RpcResult<T>) -> (Code, String) {
    match result {
        Err(RpcError::RpcStatus(status)) => (status.code(), status.message().to_owned()),
        other => panic!("not refused: {other:?}"),
    }
}

/// mkfifo(3).
pub fn make_fifo(path: &Path) {
    rustix::fs::mkfifoat(rustix::fs::CWD, path.as_os_str().as_bytes(), rustix::fs::Mode::from(0o700))
        .expect("make a fifo");
}

/// A fifo, read or written by a thread of the test.
#[derive(Debug)]
pub struct Fifo(PathBuf);

impl Fifo {
    /// Makes one.
    #[must_use]
    pub fn new(case: &Case, name: &str) -> Self {
        let path = case.path().join(name);
        make_fifo(&path);
        Self(path)
    }

    /// Its path, as requests have it.
    #[must_use]
    pub fn path(&self) -> String {
        self.0.display().to_string()
    }

    /// Reads it to its end, in a thread: what was read. It is open when this returns: a writer that comes and goes at once is heard,
    /// too.
    #[must_use]
    pub fn read_all(&self) -> std::thread::JoinHandle<String> {
        let mut options = std::fs::OpenOptions::new();
        let flag = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let file = std::os::unix::fs::OpenOptionsExt::custom_flags(options.read(true), flag).open(&self.0);
        let file = file.expect("open a fifo");
        std::thread::spawn(move || {
            // Until there is a writer, reading would find the end.
            let mut fds = [rustix::event::PollFd::new(&file, rustix::event::PollFlags::IN)];
            while rustix::event::poll(&mut fds, None) == Err(rustix::io::Errno::INTR) {}
            rustix::io::ioctl_fionbio(&file, false).expect("prepare a fifo");
            std::io::read_to_string(file).expect("read a fifo")
        })
    }
}

/// `delete` of a shim that is gone.
#[track_caller]
#[must_use]
pub fn shim_delete(case: &Case, program: &Path, bundle: &Path, id: &str) -> Output {
    shim_command(case, program, bundle, id, "delete").output()
}
