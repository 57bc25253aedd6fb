//! Calls of the shim that are not waited for, and its death: so clients that leave and shims that are killed are made.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::ttrpc::proto::{Codec as _, Request, Response};
use containerd_shim_protos::ttrpc::{Code, get_status};
use rustix::process::{Pid, Signal, kill_process};

use crate::leaks::is_alive;
use crate::{Shim, TASK_V3, wait_until};

/// Of a request, in ttrpc's header.
const REQUEST: u8 = 1;
/// No answer takes so long.
const PATIENCE: Duration = Duration::from_secs(120);

/// A call on a connection of its own. Dropped, the client has left.
#[derive(Debug)]
pub struct Pending {
    stream: UnixStream,
}

/// What a call was answered with.
pub type Answer = Result<Vec<u8>, (Code, String)>;

impl Pending {
    /// Waits for the answer; None when the shim has died.
    #[track_caller]
    #[must_use]
    pub fn answer(mut self) -> Option<Answer> {
        self.stream.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
        let mut header = [0; 10];
        self.stream.read_exact(&mut header).ok()?;
        let length = u32::from_be_bytes([header[0], header[1], header[2], header[3]]);
        let mut bytes = vec![0; length as usize];
        self.stream.read_exact(&mut bytes).ok()?;
        let response = Response::decode(&bytes).expect("a response");
        let status = response.status.into_option().unwrap_or_else(|| get_status(Code::OK, ""));
        Some(if status.code() == Code::OK {
            Ok(response.payload)
        } else {
            Err((status.code(), status.message().to_owned()))
        })
    }

    /// Whether there is no answer yet.
    #[track_caller]
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.stream.set_nonblocking(true).expect("prepare a connection");
        let mut byte = [std::mem::MaybeUninit::uninit()];
        let peeked = rustix::net::recv(&self.stream, &mut byte, rustix::net::RecvFlags::PEEK);
        self.stream.set_nonblocking(false).expect("prepare a connection");
        matches!(peeked, Err(rustix::io::Errno::AGAIN))
    }
}

impl Shim {
    /// Begins a call of the task API.
    #[track_caller]
    #[must_use]
    pub fn begin(&self, method: &str, request: &impl Message) -> Pending {
        self.begin_service(TASK_V3, method, request)
    }

    /// Begins a call of any service.
    #[track_caller]
    #[must_use]
    pub fn begin_service(&self, service: &str, method: &str, request: &impl Message) -> Pending {
        let payload = request.write_to_bytes().expect("encode a request");
        let request = Request {
            service: service.to_owned(),
            method: method.to_owned(),
            payload,
            timeout_nano: 0,
            ..Request::default()
        };
        let request = request.encode().expect("encode a request");
        let length = u32::try_from(request.len()).expect("a short request");
        // Length, stream, kind, flags.
        let header = [&length.to_be_bytes()[..], &1_u32.to_be_bytes(), &[REQUEST, 0]].concat();
        let mut stream = UnixStream::connect(self.socket()).expect("connect to the shim");
        stream.write_all(&[header, request].concat()).expect("write a request");
        Pending { stream }
    }

    /// The path of its socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        Path::new(self.address().trim_start_matches("unix://"))
    }

    /// Kills it, and returns when it is gone.
    #[track_caller]
    pub fn die(&self, pid: i32) {
        kill_process(Pid::from_raw(pid).expect("a pid"), Signal::KILL).expect("kill the shim");
        wait_until("the shim is gone", || !is_alive(pid));
    }

    /// States of containers that are left, whoever made them.
    #[must_use]
    pub fn states(&self, namespace: &str) -> Vec<PathBuf> {
        let folder = self.state_root.join(namespace);
        std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
    }
}
