//! One connection to systemd, shared by all threads of the program: calls, and the ends of systemd's jobs.
//!
//! ```text
//!  thread A: call ---- writes ----> systemd           whoever waits and finds nobody reading reads, for all;
//!  thread B: call ---- writes ---->    |              it hands the messages out and wakes the others
//!  thread A: reads <- reply B, JobRemoved A, reply A
//!  thread B: woken
//! ```
//!
//! There is no thread of its own, and every wait has a deadline. The end of a job may arrive before the reply that names the job:
//! while anybody waits for a job, all ends are kept.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{self, AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr};

use super::address::{Address, Endpoint};
use super::message::{Call, ERROR, Front, METHOD_RETURN, Message, SIGNAL};
use super::value::Value;

pub(super) const SYSTEMD: &str = "org.freedesktop.systemd1";
pub(super) const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
pub(super) const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const BUS: &str = "org.freedesktop.DBus";

/// Why a call has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// systemd said no: the error's name and its text.
    Refused(String, String),
    /// Nothing came within the time.
    Late,
    /// The connection is of no use any more.
    Broken(String),
}

impl Failure {
    pub(super) fn is(&self, name: &str) -> bool {
        matches!(self, Self::Refused(own, _) if own == name)
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(name, text) if text.is_empty() => f.write_str(name),
            Self::Refused(name, text) => write!(f, "{text} ({name})"),
            Self::Late => f.write_str("systemd did not answer in time"),
            Self::Broken(what) => write!(f, "the connection to systemd broke: {what}"),
        }
    }
}

#[derive(Debug)]
pub(super) struct Connection {
    socket: OwnedFd,
    endpoint: Endpoint,
    /// For every wait, in all.
    pub(super) patience: Duration,
    /// Messages go out whole.
    writing: Mutex<()>,
    state: Mutex<State>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct State {
    serial: u32,
    /// What arrived and is no whole message yet.
    buffer: Vec<u8>,
    reading: bool,
    /// Calls whose reply somebody waits for.
    awaited: HashSet<u32>,
    replies: HashMap<u32, Message>,
    /// How many wait for a job's end; while they do, all ends are kept: the job's path and sender to its result.
    watchers: usize,
    ended: HashMap<(String, String), String>,
    broken: Option<String>,
}

/// While it lives, no end of a job is lost.
#[derive(Debug)]
pub(super) struct Watch<'a>(&'a Connection);

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.watchers -= 1;
        if state.watchers == 0 {
            state.ended.clear();
        }
    }
}

impl Connection {
    /// Connects, proves who we are, and on a bus asks for the ends of jobs.
    pub(super) fn open(address: &Address, patience: Duration) -> Result<Self, Failure> {
        let deadline = Instant::now() + patience;
        let socket = connect(address, deadline).map_err(|error| broken(&error))?;
        let connection = Self {
            socket,
            endpoint: address.endpoint,
            patience,
            writing: Mutex::default(),
            state: Mutex::default(),
            arrived: Condvar::new(),
        };
        connection.authenticate(deadline)?;
        if connection.endpoint == Endpoint::Bus {
            connection.ask_bus("Hello", &[])?;
            let rule = format!(
                "type='signal',sender='{SYSTEMD}',path='{MANAGER_PATH}',interface='{MANAGER}',member='JobRemoved'"
            );
            connection.ask_bus("AddMatch", &[Value::Text(rule)])?;
            // A peer gets all signals anyway.
            connection.call(MANAGER_PATH, MANAGER, "Subscribe", &[])?;
        }
        Ok(connection)
    }

    /// EXTERNAL without a name: the other side takes the user that the kernel tells it, which is right in a user namespace too.
    ///
    /// All in one, as systemd's own clients do: what systemd reads together with BEGIN it looks at only when more comes. A call
    /// that followed BEGIN before a busy systemd had read it went unanswered.
    fn authenticate(&self, deadline: Instant) -> Result<(), Failure> {
        self.send(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n", deadline)?;
        for expected in ["DATA", "OK"] {
            let line = self.line(deadline)?;
            if !line.starts_with(expected) {
                return Err(Failure::Broken(format!("it refuses us (SASL EXTERNAL): {line}")));
            }
        }
        Ok(())
    }

    fn line(&self, deadline: Instant) -> Result<String, Failure> {
        loop {
            let mut state = self.state();
            if let Some(end) = state.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let line = String::from_utf8_lossy(&state.buffer[..end]).into_owned();
                state.buffer.drain(..end + 2);
                return Ok(line);
            }
            if state.buffer.len() > 16 << 10 {
                return Err(Failure::Broken("it does not speak D-Bus".to_owned()));
            }
            drop(state);
            let bytes = self.receive(deadline)?;
            self.state().buffer.extend(bytes);
        }
    }

    fn ask_bus(&self, member: &str, arguments: &[Value]) -> Result<Message, Failure> {
        let call = Call { destination: Some(BUS), path: "/org/freedesktop/DBus", interface: BUS, member, arguments };
        self.exchange(&call, Instant::now() + self.patience)
    }

    /// Calls a method of systemd and waits for its reply.
    pub(super) fn call(
        &self,
        path: &str,
        interface: &str,
        member: &str,
        arguments: &[Value],
    ) -> Result<Message, Failure> {
        let destination = (self.endpoint == Endpoint::Bus).then_some(SYSTEMD);
        self.exchange(&Call { destination, path, interface, member, arguments }, Instant::now() + self.patience)
    }

    fn exchange(&self, call: &Call<'_>, deadline: Instant) -> Result<Message, Failure> {
        let serial = {
            let mut state = self.state();
            state.serial = state.serial.checked_add(1).unwrap_or(1);
            let serial = state.serial;
            state.awaited.insert(serial);
            serial
        };
        let reply = self
            .send(&call.encode(serial), deadline)
            .and_then(|()| self.wait(deadline, |state| state.replies.remove(&serial)));
        let mut state = self.state();
        state.awaited.remove(&serial);
        state.replies.remove(&serial);
        drop(state);
        let reply = reply?;
        if reply.kind == ERROR { Err(Failure::Refused(reply.error.clone(), reply.text())) } else { Ok(reply) }
    }

    /// From now on the ends of jobs are kept. To be called before the call that makes the job.
    pub(super) fn watch(&self) -> Watch<'_> {
        self.state().watchers += 1;
        Watch(self)
    }

    /// Waits for the end of the job that `reply` names: `done`, `failed`, `canceled`, `timeout`, `dependency`, `skipped`.
    pub(super) fn job_result(&self, _: &Watch<'_>, reply: &Message) -> Result<String, Failure> {
        let Some(Value::Text(job)) = reply.values().unwrap_or_default().into_iter().next() else {
            return Err(Failure::Broken("a reply names no job".to_owned()));
        };
        // Only what comes from systemd itself counts: anybody may send signals to anybody on a bus.
        let key = (job, reply.sender.clone());
        self.wait(Instant::now() + self.patience, |state| state.ended.get(&key).cloned())
    }

    /// Waits until `found` finds what it looks for.
    fn wait<T>(&self, deadline: Instant, found: impl Fn(&mut State) -> Option<T>) -> Result<T, Failure> {
        let mut state = self.state();
        loop {
            if let Some(found) = found(&mut state) {
                return Ok(found);
            }
            if let Some(broken) = &state.broken {
                return Err(Failure::Broken(broken.clone()));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Failure::Late);
            }
            if state.reading {
                (state, _) = self.arrived.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.reading = true;
            drop(state);
            let bytes = self.receive(deadline);
            state = self.state();
            state.reading = false;
            match bytes {
                Ok(bytes) => state.take(&bytes),
                Err(Failure::Late) => {}
                Err(failure) => state.broken = Some(failure.to_string()),
            }
            self.arrived.notify_all();
        }
    }

    /// Whether another connection has to be made.
    pub(super) fn is_broken(&self) -> bool {
        // A bus that went away is seen here, before something is sent into the void.
        let mut ready = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        let hung_up = poll(&mut ready, PollTimeout::ZERO).is_ok()
            && ready[0].revents().is_some_and(|events| events.intersects(PollFlags::POLLHUP | PollFlags::POLLERR));
        hung_up || self.state().broken.is_some()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, mut bytes: &[u8], deadline: Instant) -> Result<(), Failure> {
        let _alone = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        while !bytes.is_empty() {
            match socket::send(self.socket.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL) {
                Ok(count) => bytes = &bytes[count..],
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => {
                    if let Err(failure) = self.ready(PollFlags::POLLOUT, deadline) {
                        // Half a message is out: nobody can go on behind it.
                        self.state().broken = Some(failure.to_string());
                        return Err(failure);
                    }
                }
                Err(errno) => {
                    let failure = broken(&errno.into());
                    self.state().broken = Some(failure.to_string());
                    return Err(failure);
                }
            }
        }
        Ok(())
    }

    fn receive(&self, deadline: Instant) -> Result<Vec<u8>, Failure> {
        let mut bytes = vec![0; 16 << 10];
        loop {
            match socket::recv(self.socket.as_raw_fd(), &mut bytes, MsgFlags::empty()) {
                Ok(0) => return Err(Failure::Broken("the other side closed it".to_owned())),
                Ok(count) => {
                    bytes.truncate(count);
                    return Ok(bytes);
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => self.ready(PollFlags::POLLIN, deadline)?,
                Err(errno) => return Err(broken(&errno.into())),
            }
        }
    }

    fn ready(&self, events: PollFlags, deadline: Instant) -> Result<(), Failure> {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(self.socket.as_fd(), events)], timeout) {
            Ok(0) if deadline <= Instant::now() => Err(Failure::Late),
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(broken(&errno.into())),
        }
    }
}

impl State {
    fn take(&mut self, bytes: &[u8]) {
        self.buffer.extend(bytes);
        let mut start = 0;
        loop {
            match Message::decode(&self.buffer[start..]) {
                Ok(Front::Part) => break,
                Ok(Front::Whole(message, length)) => {
                    start += length;
                    self.sort(*message);
                }
                Err(what) => {
                    self.broken = Some(what);
                    break;
                }
            }
        }
        self.buffer.drain(..start);
    }

    fn sort(&mut self, message: Message) {
        match message.kind {
            METHOD_RETURN | ERROR if self.awaited.contains(&message.reply_to) => {
                self.replies.insert(message.reply_to, message);
            }
            // JobRemoved(u id, o job, s unit, s result)
            SIGNAL if self.watchers > 0 && message.interface == MANAGER && message.member == "JobRemoved" => {
                if let Ok([_, Value::Text(job), _, Value::Text(result)]) = message.values().as_deref() {
                    self.ended.insert((job.clone(), message.sender.clone()), result.clone());
                }
            }
            _ => {}
        }
    }
}

fn broken(error: &io::Error) -> Failure {
    match error.raw_os_error() {
        Some(errno) => Failure::Broken(crate::error::errno_text(errno)),
        None => Failure::Broken(error.to_string()),
    }
}

/// A full queue of connections (EAGAIN) is waited for: a hundred containers may want one at once.
fn connect(address: &Address, deadline: Instant) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    let unix = match &address.abstract_name {
        Some(name) => UnixAddr::new_abstract(name)?,
        None => UnixAddr::new(&address.path)?,
    };
    let mut pause = Duration::from_millis(1);
    loop {
        match socket::connect(socket.as_raw_fd(), &unix) {
            Ok(()) => return Ok(socket),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) if Instant::now() < deadline => {
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(50));
            }
            Err(errno) => return Err(errno.into()),
        }
    }
}
