//! Containers of a pod.

use std::collections::BTreeMap;

use flint_bundle::Reference;

use super::credentials::Credentials;
use super::downward::Myself;
use super::environment::Environment;
use super::fields::{CONTAINER_PORT, VOLUME_MOUNT};
use super::names::{check_label, is_port};
use super::probe::{self, NamedPorts};
use super::reading::{At, Fields, shortened};
use super::resources::Demands;
use super::security::PodSecurity;
use super::volume::Declared;
use crate::desired::{Container, HostPort, Mount, Network, Propagation, Protocol, PullPolicy};

/// What containers share.
pub(super) struct Shared<'a> {
    pub(super) myself: &'a Myself<'a>,
    pub(super) volumes: &'a [Declared],
    pub(super) security: &'a PodSecurity,
    pub(super) credentials: &'a Credentials,
    pub(super) network: &'a Network,
}

/// What a container of this name asks for.
pub(super) fn find_container<'a>(demands: &'a [(String, Demands)], name: &str) -> Option<&'a Demands> {
    demands.iter().find(|(other, _)| other == name).map(|(_, demands)| demands)
}

/// One of them; its host ports are added to the pod's.
pub(super) fn read(
    fields: &Fields<'_>,
    is_init: bool,
    shared: &Shared<'_>,
    host_ports: &mut Vec<HostPort>,
) -> Option<Container> {
    let name = fields.needed("name")?;
    check_label(&fields.at.below("name"), name);
    let image = fields.needed("image").unwrap_or_default();
    let demands = find_container(shared.myself.demands, name).copied().unwrap_or_default();
    let ports = ports(fields, shared.network, host_ports);
    let environment = Environment::read(fields, name, shared.myself);
    let expanded = |of: &str| {
        let words = fields.strings(of)?;
        Some(words.iter().map(|word| environment.expand(word).0).collect::<Vec<_>>()).filter(|words| !words.is_empty())
    };
    let (entrypoint, args) = (expanded("command"), expanded("args"));
    let security = shared.security.of_container(fields);
    let mounts = mounts(fields, &environment, shared.volumes, security.privileged);
    if is_init {
        for name in ["livenessProbe", "readinessProbe", "startupProbe", "lifecycle"] {
            if fields.has(name) {
                fields.refuse(name, "an init container has none: it runs to its end");
            }
        }
    }
    let (lifecycle, stop_signal) = probe::lifecycle(fields, &ports);
    let probe = |name| probe::read(fields, name, &ports);
    Some(Container {
        name: name.to_owned(),
        image: image.to_owned(),
        pull: pull_policy(fields, image),
        pull_credentials: shared.credentials.of(image),
        entrypoint,
        args,
        cwd: fields.string("workingDir").map(str::to_owned),
        mounts,
        resources: demands.resources(),
        security,
        liveness: probe("livenessProbe"),
        readiness: probe("readinessProbe"),
        startup: probe("startupProbe"),
        lifecycle,
        stop_signal,
        tty: fields.boolean("tty").unwrap_or(false),
        stdin: fields.boolean("stdin").unwrap_or(false),
        stdin_once: fields.boolean("stdinOnce").unwrap_or(false),
        annotations: BTreeMap::new(),
        rlimits: Vec::new(),
        oom_score_adj: None,
        message_path: Some(message_path(fields)),
        env: environment.into_variables(),
    })
}

/// Without a word: Always for the tag latest, given or meant, and IfNotPresent for all others and for digests.
fn pull_policy(fields: &Fields<'_>, image: &str) -> PullPolicy {
    let words =
        [("Always", PullPolicy::Always), ("IfNotPresent", PullPolicy::IfNotPresent), ("Never", PullPolicy::Never)];
    let given = fields.word("imagePullPolicy", &words);
    let reference = match image.parse::<Reference>() {
        Ok(reference) => reference,
        Err(error) => {
            if !image.is_empty() {
                fields.refuse("image", error.to_string());
            }
            return PullPolicy::default();
        }
    };
    let is_latest = reference.digest().is_none() && reference.tag().is_none_or(|tag| tag == "latest");
    given.unwrap_or(if is_latest { PullPolicy::Always } else { PullPolicy::IfNotPresent })
}

fn message_path(fields: &Fields<'_>) -> String {
    let path = fields.string("terminationMessagePath").unwrap_or("/dev/termination-log");
    if !path.starts_with('/') || path.split('/').any(|part| part == "..") {
        fields.refuse("terminationMessagePath", "must be absolute, without ..");
    }
    path.to_owned()
}

fn ports(container: &Fields<'_>, network: &Network, host_ports: &mut Vec<HostPort>) -> NamedPorts {
    let mut named = NamedPorts::new();
    for fields in container.each("ports", &CONTAINER_PORT) {
        let Some(port) = needed_port(&fields) else { continue };
        if let Some(name) = fields.string("name") {
            if !is_port(name) {
                fields.refuse("name", "must be at most 15 of a-z, 0-9 and -, with a letter among them");
            }
            if named.insert(name.to_owned(), port).is_some() {
                fields.refuse("name", "is another port's already");
            }
        }
        let protocols = [("TCP", Protocol::Tcp), ("UDP", Protocol::Udp), ("SCTP", Protocol::Sctp)];
        let protocol = fields.word("protocol", &protocols).unwrap_or_default();
        let address = fields.string("hostIP").and_then(|text| {
            let found = text.parse().ok();
            if found.is_none() {
                fields.refuse("hostIP", "is no IP address");
            }
            found.filter(|address: &std::net::IpAddr| !address.is_unspecified())
        });
        // 0 is what a missing one is.
        let Some(host) = fields.integer("hostPort", 0, 65535).filter(|port| *port != 0).map(|port| port as u16) else {
            continue;
        };
        if *network == Network::Host {
            if host != port {
                fields.refuse("hostPort", "must be the containerPort: the pod is in the host's network");
            }
            continue;
        }
        let wanted = HostPort { address, host, pod: port, protocol };
        let is_same = |other: &HostPort| {
            other.host == host
                && other.protocol == protocol
                && (other.address.is_none() || address.is_none() || other.address == address)
        };
        if host_ports.iter().any(is_same) {
            fields.refuse("hostPort", format!("{host} is asked for twice"));
        }
        host_ports.push(wanted);
    }
    named
}

fn needed_port(fields: &Fields<'_>) -> Option<u16> {
    if !fields.has("containerPort") {
        fields.refuse("containerPort", "is missing");
    }
    fields.integer("containerPort", 1, 65535).and_then(|port| u16::try_from(port).ok())
}

fn mounts(container: &Fields<'_>, environment: &Environment, volumes: &[Declared], privileged: bool) -> Vec<Mount> {
    let mut found: Vec<Mount> = Vec::new();
    for fields in container.each("volumeMounts", &VOLUME_MOUNT) {
        let (Some(name), Some(path)) = (fields.needed("name"), fields.needed("mountPath")) else { continue };
        let declared = volumes.iter().find(|declared| declared.volume.name == name);
        if declared.is_none() {
            fields.refuse("name", format!("the pod has no volume {:?}", shortened(name)));
        }
        if !path.starts_with('/') || path.contains(':') || path.split('/').any(|part| part == "..") {
            fields.refuse("mountPath", "must be absolute, without : and ..");
        }
        if found.iter().any(|other| other.path == path) {
            fields.refuse("mountPath", "is another mount's already");
        }
        fields.word("recursiveReadOnly", &[("Disabled", ()), ("IfPossible", ())]);
        let directions = [
            ("None", Propagation::Private),
            ("HostToContainer", Propagation::HostToContainer),
            ("Bidirectional", Propagation::Bidirectional),
        ];
        let propagation = fields.word("mountPropagation", &directions).unwrap_or_default();
        if propagation == Propagation::Bidirectional && !privileged {
            fields.refuse("mountPropagation", "Bidirectional is for privileged containers only");
        }
        let read_only =
            fields.boolean("readOnly").unwrap_or(false) || declared.is_some_and(|declared| declared.read_only);
        let sub_path = sub_path(&fields, environment);
        found.push(Mount { volume: name.to_owned(), path: path.to_owned(), sub_path, read_only, propagation });
    }
    found
}

fn sub_path(fields: &Fields<'_>, environment: &Environment) -> Option<String> {
    let (name, path) = match (fields.string("subPath"), fields.string("subPathExpr")) {
        (Some(path), None) => ("subPath", path.to_owned()),
        (None, Some(text)) => {
            let (path, is_secret) = environment.expand(text);
            if is_secret || crate::desired::Late::is_in(&path) || path.contains("$(") {
                fields.refuse(
                    "subPathExpr",
                    "has a variable that is not there, comes from a secret, or is known too late",
                );
            }
            ("subPathExpr", path)
        }
        (Some(_), Some(_)) => {
            fields.refuse("subPathExpr", "there is a subPath already");
            return None;
        }
        (None, None) => return None,
    };
    check_relative(&fields.at.below(name), &path);
    Some(path)
}

fn check_relative(at: &At<'_>, path: &str) {
    if path.starts_with('/') || path.split('/').any(|part| part == "..") {
        at.refuse("must be relative, without ..");
    }
}
