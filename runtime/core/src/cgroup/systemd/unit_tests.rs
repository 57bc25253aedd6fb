//! Against another implementation of D-Bus (zbus) that plays systemd, as a peer on a socket of its own: the order of what it sends
//! is chosen here, so that every race is forced.

#![allow(
    clippy::needless_pass_by_value,
    clippy::unused_self,
    clippy::used_underscore_binding,
    reason = "zbus makes the calls from these signatures"
)]

use std::collections::{BTreeMap, HashMap};
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use zbus::message::Header;
use zbus::names::ErrorName;
use zbus::object_server::SignalEmitter;
use zbus::zvariant::{OwnedObjectPath, OwnedValue};

use super::super::address::{Address, Endpoint};
use super::super::connection::Connection;
use super::super::value::{Property, Value};
use super::{attach, control_group, set_properties, start, stop};
use crate::Kind;

/// How the fake systemd behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Manner {
    /// The job's end comes behind the reply.
    #[default]
    Late,
    /// Before it.
    Early,
    /// Never.
    Never,
    /// Ends badly.
    Fails,
    /// The name is taken until it is reset.
    ExistsUntilReset,
    /// The name is taken by a living unit.
    Exists,
    /// Does not know `MemoryZSwapMax`, nor a weight of 0.
    Old,
}

#[derive(Debug)]
struct Refusal(&'static str, String);

impl zbus::DBusError for Refusal {
    fn create_reply(&self, call: &Header<'_>) -> zbus::Result<zbus::Message> {
        zbus::Message::error(call, self.name())?.build(&self.1.as_str())
    }
    fn name(&self) -> ErrorName<'_> {
        ErrorName::from_static_str_unchecked(self.0)
    }
    fn description(&self) -> Option<&str> {
        Some(&self.1)
    }
}

fn show(value: &OwnedValue) -> String {
    let value: &zbus::zvariant::Value<'_> = value;
    value.to_string()
}

type Sent = Vec<(String, OwnedValue)>;

#[derive(Debug, Default)]
struct Seen {
    calls: Vec<String>,
    properties: HashMap<String, BTreeMap<String, String>>,
    reset: bool,
    jobs: u32,
}

struct Manager {
    manner: Manner,
    seen: Arc<Mutex<Seen>>,
}

impl Manager {
    fn note(&self, call: String) -> u32 {
        let mut seen = self.seen.lock().unwrap();
        seen.calls.push(call);
        seen.jobs += 1;
        seen.jobs
    }

    async fn job(&self, emitter: SignalEmitter<'_>, unit: &str, number: u32) -> OwnedObjectPath {
        let job = OwnedObjectPath::try_from(format!("/org/freedesktop/systemd1/job/{number}")).unwrap();
        let result = if self.manner == Manner::Fails { "failed" } else { "done" };
        match self.manner {
            Manner::Never => {}
            Manner::Early => Self::job_removed(&emitter, number, job.clone(), unit, result).await.unwrap(),
            _ => {
                let (emitter, job, unit) = (emitter.to_owned(), job.clone(), unit.to_owned());
                std::thread::spawn(move || {
                    std::thread::sleep(Duration::from_millis(20));
                    // Somebody else's first.
                    let other = OwnedObjectPath::try_from("/org/freedesktop/systemd1/job/9999").unwrap();
                    zbus::block_on(Self::job_removed(&emitter, 9999, other, "x.service", "canceled")).unwrap();
                    zbus::block_on(Self::job_removed(&emitter, number, job, &unit, result)).unwrap();
                });
            }
        }
        job
    }
}

#[zbus::interface(name = "org.freedesktop.systemd1.Manager")]
impl Manager {
    async fn start_transient_unit(
        &self,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
        name: String,
        mode: String,
        properties: Sent,
        _aux: Vec<(String, Sent)>,
    ) -> Result<OwnedObjectPath, Refusal> {
        let number = self.note(format!("start {name} {mode}"));
        let taken = match self.manner {
            Manner::Exists => true,
            Manner::ExistsUntilReset => !self.seen.lock().unwrap().reset,
            _ => false,
        };
        if taken {
            return Err(Refusal("org.freedesktop.systemd1.UnitExists", format!("Unit {name} was already loaded.")));
        }
        if self.manner == Manner::Old {
            for (property, value) in &properties {
                if property == "MemoryZSwapMax" {
                    let text = "Cannot set property MemoryZSwapMax, or unknown property.";
                    return Err(Refusal("org.freedesktop.DBus.Error.PropertyReadOnly", text.to_owned()));
                }
                if property == "CPUWeight" && u64::try_from(value) == Ok(0) {
                    return Err(Refusal(
                        "org.freedesktop.DBus.Error.InvalidArgs",
                        "CPUWeight= is out of range".to_owned(),
                    ));
                }
            }
        }
        let shown = properties.into_iter().map(|(name, value)| (name, show(&value))).collect();
        self.seen.lock().unwrap().properties.insert(name.clone(), shown);
        Ok(self.job(emitter, &name, number).await)
    }

    async fn stop_unit(
        &self,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
        name: String,
        mode: String,
    ) -> Result<OwnedObjectPath, Refusal> {
        let number = self.note(format!("stop {name} {mode}"));
        if name == "gone.scope" {
            return Err(Refusal("org.freedesktop.systemd1.NoSuchUnit", format!("Unit {name} not loaded.")));
        }
        Ok(self.job(emitter, &name, number).await)
    }

    fn reset_failed_unit(&self, name: String) {
        self.note(format!("reset {name}"));
        self.seen.lock().unwrap().reset = true;
    }

    fn set_unit_properties(&self, name: String, runtime: bool, properties: Sent) -> Result<(), Refusal> {
        let shown: Vec<String> = properties.iter().map(|(name, value)| format!("{name}={}", show(value))).collect();
        self.note(format!("set {name} {runtime} {}", shown.join(" ")));
        if shown.iter().any(|property| property.starts_with("Unknown")) {
            let text = "Cannot set property Unknown, or unknown property.";
            return Err(Refusal("org.freedesktop.DBus.Error.PropertyReadOnly", text.to_owned()));
        }
        Ok(())
    }

    fn attach_processes_to_unit(&self, name: String, below: String, pids: Vec<u32>) {
        self.note(format!("attach {name} {below} {pids:?}"));
    }

    #[zbus(property)]
    fn control_group(&self) -> String {
        "/user.slice/user-1.slice/user@1.service".to_owned()
    }

    #[zbus(signal)]
    async fn job_removed(
        emitter: &SignalEmitter<'_>,
        id: u32,
        job: OwnedObjectPath,
        unit: &str,
        result: &str,
    ) -> zbus::Result<()>;
}

struct ActiveUnit;

#[zbus::interface(name = "org.freedesktop.systemd1.Unit")]
impl ActiveUnit {
    #[zbus(property)]
    fn active_state(&self) -> String {
        "active".to_owned()
    }
}

/// A systemd that somebody plays, and a connection to it.
struct Stage {
    connection: Connection,
    seen: Arc<Mutex<Seen>>,
    _folder: tempfile::TempDir,
}

impl Stage {
    fn new(manner: Manner, patience: Duration) -> Self {
        let (folder, path) = place();
        let listener = UnixListener::bind(&path).unwrap();
        let seen = Arc::<Mutex<Seen>>::default();
        let manager = Manager { manner, seen: Arc::clone(&seen) };
        std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let server = zbus::blocking::connection::Builder::async_io_unix_stream(stream)
                .server(zbus::Guid::generate())
                .unwrap()
                .p2p()
                .serve_at("/org/freedesktop/systemd1", manager)
                .unwrap()
                .serve_at("/org/freedesktop/systemd1/unit/a_2escope", ActiveUnit)
                .unwrap()
                .build()
                .unwrap();
            server.monitor_activity();
            loop {
                std::thread::park();
            }
        });
        let connection = Connection::open(&Address::new(Endpoint::Peer, path), patience).unwrap();
        Self { connection, seen, _folder: folder }
    }

    fn calls(&self) -> Vec<String> {
        self.seen.lock().unwrap().calls.clone()
    }
}

fn place() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    (folder, path)
}

const PATIENT: Duration = Duration::from_secs(20);

fn limit(name: &str, value: u64) -> Property {
    Property::new(name, Value::Uint64(value))
}

#[test]
fn a_scope_is_started_however_early_its_job_ends() {
    for manner in [Manner::Late, Manner::Early] {
        let stage = Stage::new(manner, PATIENT);
        let properties = [
            Property::new("Description", Value::text("it's")),
            Property::new("Delegate", Value::Bool(true)),
            Property::new("PIDs", Value::list("u", [Value::Uint32(7)])),
            Property::new(
                "DeviceAllow",
                Value::list("(ss)", [Value::Struct(vec![Value::text("/dev/char/1:3"), Value::text("rw")])]),
            ),
            Property::new("AllowedCPUs", Value::list("y", [Value::Byte(5)])),
            Property::new("X", Value::Double(1.5)),
            Property::new("Y", Value::Int16(-2)),
            Property::new("Z", Value::list("s", [])),
        ];
        start(&stage.connection, "a.scope", &properties, &[limit("MemoryMax", u64::MAX)]).unwrap();
        assert_eq!(stage.calls(), ["start a.scope replace"], "{manner:?}");
        let seen = stage.seen.lock().unwrap();
        let all: Vec<String> =
            seen.properties["a.scope"].iter().map(|(name, value)| format!("{name}={value}")).collect();
        let expected = [
            "AllowedCPUs=[byte 0x05]",
            "Delegate=true",
            "Description=\"it's\"",
            "DeviceAllow=[(\"/dev/char/1:3\", \"rw\")]",
            "MemoryMax=uint64 18446744073709551615",
            "PIDs=[uint32 7]",
            "X=1.5",
            "Y=int16 -2",
            "Z=@as []",
        ];
        assert_eq!(all, expected);
    }
}

#[test]
fn a_job_that_never_ends_is_given_up_and_taken_back() {
    let stage = Stage::new(Manner::Never, Duration::from_millis(300));
    let begin = Instant::now();
    let error = start(&stage.connection, "a.scope", &[], &[]).unwrap_err();
    assert!(error.to_string().contains("has not started the unit a.scope within 0.3 s"), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(5));
    assert_eq!(stage.calls(), ["start a.scope replace", "stop a.scope replace", "reset a.scope"]);
    assert!(stop(&stage.connection, "a.scope").unwrap_err().to_string().contains("has not stopped"));
}

#[test]
fn a_job_that_fails_is_told() {
    let stage = Stage::new(Manner::Fails, PATIENT);
    let error = start(&stage.connection, "a.scope", &[], &[]).unwrap_err();
    assert!(error.to_string().contains("a.scope") && error.to_string().contains("failed"), "{error}");
    assert_eq!(stage.calls(), ["start a.scope replace", "reset a.scope"]);
}

#[test]
fn a_failed_unit_of_the_name_is_reset_and_a_living_one_told() {
    let stage = Stage::new(Manner::ExistsUntilReset, PATIENT);
    start(&stage.connection, "a.scope", &[], &[]).unwrap();
    assert_eq!(stage.calls(), ["start a.scope replace", "reset a.scope", "start a.scope replace"]);

    let stage = Stage::new(Manner::Exists, PATIENT);
    let error = start(&stage.connection, "a.scope", &[], &[]).unwrap_err();
    assert_eq!(error.kind(), Kind::AlreadyExists, "{error}");
    assert_eq!(stage.calls(), ["start a.scope replace", "reset a.scope", "start a.scope replace"]);
}

#[test]
fn limits_that_an_older_systemd_does_not_know_are_left_out_and_asked_properties_are_not() {
    let stage = Stage::new(Manner::Old, PATIENT);
    let limits = [limit("MemoryZSwapMax", 1), limit("CPUWeight", 0), limit("TasksMax", 9)];
    start(&stage.connection, "a.scope", &[], &limits).unwrap();
    let left: Vec<String> = stage.seen.lock().unwrap().properties["a.scope"].keys().cloned().collect();
    assert_eq!(left, ["TasksMax"]);

    let error = start(&stage.connection, "b.scope", &limits[..1], &[]).unwrap_err();
    assert!(error.kind() == Kind::Invalid && error.to_string().contains("MemoryZSwapMax"), "{error}");
}

#[test]
fn units_are_stopped_changed_and_joined() {
    let stage = Stage::new(Manner::Late, PATIENT);
    stop(&stage.connection, "a.scope").unwrap();
    stop(&stage.connection, "gone.scope").unwrap();
    set_properties(&stage.connection, "a.scope", &[limit("Unknown", 1), limit("TasksMax", 9)]).unwrap();
    attach(&stage.connection, "a.scope", 42).unwrap();
    assert_eq!(control_group(&stage.connection).unwrap(), "/user.slice/user-1.slice/user@1.service");
    let expected = [
        "stop a.scope replace",
        "reset a.scope",
        "stop gone.scope replace",
        "set a.scope true Unknown=uint64 1 TasksMax=uint64 9",
        "set a.scope true TasksMax=uint64 9",
        "attach a.scope / [42]",
    ];
    assert_eq!(stage.calls(), expected);
}

#[test]
fn one_connection_serves_many_threads_at_once() {
    let stage = Stage::new(Manner::Late, PATIENT);
    std::thread::scope(|scope| {
        for number in 0..50 {
            let connection = &stage.connection;
            scope.spawn(move || {
                let unit = format!("{number}.scope");
                start(connection, &unit, &[limit("TasksMax", number)], &[]).unwrap();
                stop(connection, &unit).unwrap();
            });
        }
    });
    let seen = stage.seen.lock().unwrap();
    assert_eq!(seen.properties.len(), 50);
    assert!(
        seen.properties
            .iter()
            .all(|(unit, all)| format!("uint64 {}", unit.trim_end_matches(".scope")) == all["TasksMax"])
    );
}

/// What accepts connections and then says nothing, closes them, or is no D-Bus at all.
#[test]
fn a_silent_or_wrong_listener_is_told_in_time() {
    for (answer, expected) in [
        (None, "did not answer in time"),
        (Some(&b""[..]), "closed"),
        (Some(b"REJECTED KERBEROS\r\n"), "REJECTED"),
        (Some(b"DATA\r\nOK 1\r\n"), "closed"),
    ] {
        let (_folder, path) = place();
        let listener = UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            match answer {
                None => std::thread::sleep(Duration::from_secs(1)),
                Some(answer) => {
                    let _ = stream.read(&mut [0; 64]);
                    let _ = stream.write_all(answer);
                }
            }
        });
        let opened = Connection::open(&Address::new(Endpoint::Peer, path), Duration::from_millis(300));
        let result = opened.and_then(|connection| connection.call("/", "a.b", "C", &[]).map(drop));
        let told = result.unwrap_err().to_string();
        assert!(
            told.contains(expected) || told.contains("reset") || told.contains("broken pipe"),
            "{answer:?}: {told}"
        );
        server.join().unwrap();
    }
}

/// As a busy systemd does, which reads late and forgets what came together with BEGIN until more comes.
#[test]
fn no_call_comes_together_with_begin() {
    let (_folder, path) = place();
    let listener = UnixListener::bind(&path).unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        loop {
            std::thread::sleep(Duration::from_millis(100));
            let mut bytes = [0; 4096];
            let count = stream.read(&mut bytes).unwrap();
            let text = String::from_utf8_lossy(&bytes[..count]).into_owned();
            if text.contains("BEGIN\r\n") {
                stream.write_all(b"DATA\r\nOK 1\r\n").unwrap();
                return text;
            }
            stream.write_all(if text.contains("AUTH") { b"DATA\r\n" } else { b"OK 1\r\n" }).unwrap();
        }
    });
    let opened = Connection::open(&Address::new(Endpoint::Peer, path), PATIENT);
    let _ = opened.and_then(|connection| connection.call("/", "a.b", "C", &[]).map(drop));
    let text = server.join().unwrap();
    assert!(text.ends_with("BEGIN\r\n"), "{text:?}");
}

#[test]
fn a_missing_socket_is_told_at_once() {
    let (_folder, path) = place();
    let begin = Instant::now();
    let failure = Connection::open(&Address::new(Endpoint::Peer, path), PATIENT).unwrap_err();
    assert!(failure.to_string().contains("no such file"), "{failure}");
    assert!(begin.elapsed() < Duration::from_secs(2));
}
