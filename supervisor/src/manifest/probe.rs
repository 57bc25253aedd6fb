//! Probes and hooks.

use std::collections::BTreeMap;
use std::time::Duration;

use super::fields::{
    EXEC_ACTION, GRPC_ACTION, HTTP_GET_ACTION, HTTP_HEADER, LIFECYCLE, LIFECYCLE_HANDLER, PROBE, SLEEP_ACTION,
    TCP_SOCKET_ACTION,
};
use super::names::is_port;
use super::reading::{Fields, shortened};
use crate::desired::{Check, Hook, HttpCheck, Lifecycle, Probe};

/// The ports of a container that have names.
pub(super) type NamedPorts = BTreeMap<String, u16>;

/// One of a container's three.
pub(super) fn read(container: &Fields<'_>, name: &str, ports: &NamedPorts) -> Option<Probe> {
    let fields = container.fields(name, &PROBE)?;
    let is_readiness = name == "readinessProbe";
    let seconds = |name, from, default| Duration::from_secs(fields.integer(name, from, MOST).unwrap_or(default) as u64);
    let times = |name, default| fields.integer(name, 1, MOST).unwrap_or(default) as u32;
    let success_threshold = times("successThreshold", 1);
    if success_threshold != 1 && !is_readiness {
        fields.refuse("successThreshold", "must be 1 but for a readiness probe");
    }
    let grace =
        fields.integer("terminationGracePeriodSeconds", 1, MOST).map(|seconds| Duration::from_secs(seconds as u64));
    if grace.is_some() && is_readiness {
        fields.refuse("terminationGracePeriodSeconds", "a readiness probe ends nothing");
    }
    let checks = [
        fields.fields("exec", &EXEC_ACTION).map(|exec| command(&exec).map(Check::Exec)),
        fields.fields("httpGet", &HTTP_GET_ACTION).map(|get| http(&get, ports).map(Check::Http)),
        fields.fields("tcpSocket", &TCP_SOCKET_ACTION).map(|tcp| {
            let host = tcp.string("host").map(str::to_owned);
            port(&tcp, ports).map(|port| Check::Tcp { host, port })
        }),
        fields.fields("grpc", &GRPC_ACTION).map(|grpc| {
            let service = grpc.string("service").unwrap_or_default().to_owned();
            number(&grpc).map(|port| Check::Grpc { port, service })
        }),
    ];
    let check = one_of(&fields, checks, "exec, grpc, httpGet and tcpSocket")?;
    Some(Probe {
        check,
        initial_delay: seconds("initialDelaySeconds", 0, 0),
        period: seconds("periodSeconds", 1, 10),
        timeout: seconds("timeoutSeconds", 1, 1),
        success_threshold,
        failure_threshold: times("failureThreshold", 3),
        grace,
    })
}

/// Kubernetes' numbers of seconds have 32 bits.
const MOST: i64 = i32::MAX as i64;

/// What a field means: none if it is wrong, and that was told.
type Meaning<T> = Option<T>;

/// The one that is there; none or several are a problem, and what is wrong with the one was told.
fn one_of<T, const N: usize>(fields: &Fields<'_>, found: [Option<Meaning<T>>; N], names: &str) -> Option<T> {
    let mut found: Vec<Meaning<T>> = found.into_iter().flatten().collect();
    if found.len() != 1 {
        fields.at.refuse(format!("needs one of {names}"));
        return None;
    }
    found.pop().flatten()
}

fn command(exec: &Fields<'_>) -> Option<Vec<String>> {
    let command = exec.strings("command").unwrap_or_default();
    if command.is_empty() {
        exec.refuse("command", "is empty");
        return None;
    }
    Some(command)
}

fn http(get: &Fields<'_>, ports: &NamedPorts) -> Option<HttpCheck> {
    let tls = get.word("scheme", &[("HTTP", false), ("HTTPS", true)]).unwrap_or(false);
    let path = get.string("path").unwrap_or("/");
    if path.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        get.refuse("path", "has spaces or control bytes: write them as %20");
    }
    let mut headers = Vec::new();
    for header in get.each("httpHeaders", &HTTP_HEADER) {
        let Some(name) = header.needed("name") else { continue };
        let value = header.string("value").unwrap_or_default();
        if hyper::header::HeaderName::from_bytes(name.as_bytes()).is_err() {
            header.refuse("name", "is no name of a header");
        }
        if hyper::header::HeaderValue::from_str(value).is_err() {
            header.refuse("value", "has bytes that no header may have");
        }
        headers.push((name.to_owned(), value.to_owned()));
    }
    let host = get.string("host").map(str::to_owned);
    Some(HttpCheck { host, port: port(get, ports)?, path: path.to_owned(), tls, headers })
}

/// A number, or the name of one of the container's ports.
fn port(fields: &Fields<'_>, ports: &NamedPorts) -> Option<u16> {
    let Some((at, value)) = fields.get("port") else {
        fields.refuse("port", "is missing");
        return None;
    };
    let Some(name) = value.as_str() else { return number(fields) };
    if let Some(port) = ports.get(name) {
        return Some(*port);
    }
    let why = if is_port(name) {
        "the container has no port of this name"
    } else {
        "is neither a number nor a name of a port"
    };
    at.refuse(format!("{:?}: {why}", shortened(name)));
    None
}

fn number(fields: &Fields<'_>) -> Option<u16> {
    if !fields.has("port") {
        fields.refuse("port", "is missing");
    }
    fields.integer("port", 1, 65535).and_then(|port| u16::try_from(port).ok())
}

/// What is run beside a container's life, and the signal that stops it.
pub(super) fn lifecycle(container: &Fields<'_>, ports: &NamedPorts) -> (Lifecycle, Option<String>) {
    let Some(fields) = container.fields("lifecycle", &LIFECYCLE) else { return (Lifecycle::default(), None) };
    let hook = |name| hook(&fields.fields(name, &LIFECYCLE_HANDLER)?, ports);
    let lifecycle = Lifecycle { post_start: hook("postStart"), pre_stop: hook("preStop") };
    let signal = fields.string("stopSignal").map(str::to_owned);
    if signal.as_deref().is_some_and(|signal| !is_signal(signal)) {
        fields.refuse("stopSignal", "is no name of a signal: SIGTERM, SIGRTMIN+3, ...");
    }
    (lifecycle, signal)
}

fn hook(handler: &Fields<'_>, ports: &NamedPorts) -> Option<Hook> {
    let hooks = [
        handler.fields("exec", &EXEC_ACTION).map(|exec| command(&exec).map(Hook::Exec)),
        handler.fields("httpGet", &HTTP_GET_ACTION).map(|get| http(&get, ports).map(Hook::Http)),
        handler.fields("sleep", &SLEEP_ACTION).map(|sleep| {
            let seconds = sleep.integer("seconds", 0, MOST)?;
            Some(Hook::Sleep(Duration::from_secs(seconds as u64)))
        }),
    ];
    one_of(handler, hooks, "exec, httpGet and sleep")
}

fn is_signal(name: &str) -> bool {
    let real_time = |rest: Option<&str>, sign: char| {
        let Some(rest) = rest else { return false };
        rest.is_empty()
            || rest.strip_prefix(sign).and_then(|number| number.parse::<u8>().ok()).is_some_and(|number| number <= 15)
    };
    real_time(name.strip_prefix("SIGRTMIN"), '+')
        || real_time(name.strip_prefix("SIGRTMAX"), '-')
        || name.parse::<nix::sys::signal::Signal>().is_ok()
}
