//! A pod's document becomes a pod.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use serde_norway::Value;

use super::container::{self, Shared};
use super::context::Context;
use super::credentials::Credentials;
use super::downward::Myself;
use super::fields::{CONTAINER, HOST_ALIAS, POD, POD_DNS_CONFIG, POD_DNS_CONFIG_OPTION, POD_SPEC};
use super::metadata::Metadata;
use super::problem::Problems;
use super::reading::{At, Fields, shortened};
use super::resources::Demands;
use super::security::PodSecurity;
use super::{placement, strategy, volume};
use crate::desired::{Container, Dns, Goal, HostAlias, HostPort, Network, Pids, Pod, RestartPolicy, Volume};

/// Kubernetes' seconds of a grace period that is not given.
const GRACE: i64 = 30;
const MOST_SECONDS: i64 = i32::MAX as i64;
/// Priorities above this are the two classes of the system.
const MOST_PRIORITY: i64 = 1_000_000_000;

pub(super) fn read(value: &Value, context: &Context<'_>, problems: &Problems) -> Option<Pod> {
    let document = At { path: String::new(), problems }.fields(value, &POD)?;
    let metadata = Metadata::read(&document)?;
    for (name, value) in &metadata.annotations {
        let is_app_armor = name.starts_with("container.apparmor.security.beta.kubernetes.io/");
        if is_app_armor && value != "unconfined" {
            document.at.below("metadata.annotations").refuse(format!("{name}: profiles of AppArmor are not applied"));
        }
    }
    let Some(spec) = document.fields("spec", &POD_SPEC) else {
        document.refuse("spec", "is missing: it has the containers");
        return None;
    };
    let key = metadata.key();
    let uid = metadata.uid.clone().or_else(|| (context.known_uid)(&key)).unwrap_or_else(new_uid);
    placement::check(&spec, context.node);
    let host = |name| spec.boolean(name).unwrap_or(false);
    let (host_network, host_ipc) = (host("hostNetwork"), host("hostIPC"));
    let network = if host_network { Network::Host } else { Network::Node };
    let security = PodSecurity::read(&spec, host_network, host_ipc);
    let account = spec.string("serviceAccountName").or(spec.string("serviceAccount")).unwrap_or("default");
    let groups = [spec.each("initContainers", &CONTAINER), spec.each("containers", &CONTAINER)];
    let demands: Vec<(String, Demands)> = groups
        .iter()
        .flatten()
        .map(|one| (one.string("name").unwrap_or_default().to_owned(), Demands::read(one)))
        .collect();
    let myself = Myself { metadata: &metadata, uid: &uid, account, context, demands: &demands };
    let volumes = volume::read(&spec, &myself);
    let credentials = Credentials::read(&spec, &metadata.namespace, context);
    let shared = Shared {
        myself: &myself,
        volumes: &volumes,
        security: &security,
        credentials: &credentials,
        network: &network,
    };
    let (init_containers, containers, ports) = containers(&spec, &groups, &shared);
    let pod = Pod {
        hostname: hostname(&spec, &metadata, context, &network),
        network,
        ports,
        pids: pids(&spec),
        host_ipc,
        dns: dns(&spec),
        host_aliases: host_aliases(&spec),
        sysctls: security.sysctls.clone(),
        volumes: volumes.into_iter().map(|declared| declared.volume).collect::<Vec<Volume>>(),
        volume_group: security.volume_group,
        init_containers,
        containers,
        restart: restart(&spec),
        grace: seconds(&spec, "terminationGracePeriodSeconds", 0).unwrap_or(Duration::from_secs(GRACE as u64)),
        active_deadline: seconds(&spec, "activeDeadlineSeconds", 1),
        priority: priority(&spec),
        key,
        uid,
        source: context.source.clone(),
        goal: Goal::Running,
        labels: metadata.labels.clone(),
        annotations: metadata.annotations.clone(),
        rolling: None,
    };
    Some(Pod { rolling: strategy::read(&document.at, &metadata, &pod), ..pod })
}

/// Unique for ever. The kernel's own generator; a clock stands in where there is no procfs, which no node lacks.
fn new_uid() -> String {
    let random = std::fs::read_to_string("/proc/sys/kernel/random/uuid").map(|text| text.trim().to_owned());
    random.unwrap_or_else(|_| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        format!("{:032x}", now.as_nanos())
    })
}

fn containers(
    spec: &Fields<'_>,
    [init, main]: &[Vec<Fields<'_>>; 2],
    shared: &Shared<'_>,
) -> (Vec<Container>, Vec<Container>, Vec<HostPort>) {
    if main.is_empty() {
        spec.refuse("containers", "is empty: a pod has at least one");
    }
    let mut names = BTreeMap::new();
    for fields in init.iter().chain(main) {
        let name = fields.string("name").unwrap_or_default();
        if let Some(other) = names.insert(name, fields.at.path.clone()) {
            fields.refuse("name", format!("is {other}'s already"));
        }
    }
    let mut ports = Vec::new();
    // Ports of an init container are no pod's: it has ended when the pod is reached.
    let mut of_init = Vec::new();
    let init = init.iter().filter_map(|fields| container::read(fields, true, shared, &mut of_init)).collect();
    let main = main.iter().filter_map(|fields| container::read(fields, false, shared, &mut ports)).collect();
    (init, main, ports)
}

fn seconds(spec: &Fields<'_>, name: &str, from: i64) -> Option<Duration> {
    spec.integer(name, from, MOST_SECONDS).map(|seconds| Duration::from_secs(seconds as u64))
}

fn restart(spec: &Fields<'_>) -> RestartPolicy {
    let policies =
        [("Always", RestartPolicy::Always), ("OnFailure", RestartPolicy::OnFailure), ("Never", RestartPolicy::Never)];
    spec.word("restartPolicy", &policies).unwrap_or_default()
}

fn pids(spec: &Fields<'_>) -> Pids {
    let (host, pod) =
        (spec.boolean("hostPID").unwrap_or(false), spec.boolean("shareProcessNamespace").unwrap_or(false));
    match (host, pod) {
        (true, true) => {
            spec.refuse("shareProcessNamespace", "cannot be true beside hostPID");
            Pids::Host
        }
        (true, false) => Pids::Host,
        (false, true) => Pids::Pod,
        (false, false) => Pids::Container,
    }
}

fn priority(spec: &Fields<'_>) -> i32 {
    let given = spec.integer("priority", i64::from(i32::MIN), i64::from(i32::MAX));
    let Some(class) = spec.string("priorityClassName") else {
        if given.is_some_and(|priority| priority > MOST_PRIORITY) {
            spec.refuse("priority", format!("more than {MOST_PRIORITY} is for the classes of the system"));
        }
        return given.unwrap_or(0) as i32;
    };
    match class {
        "system-node-critical" => 2_000_001_000,
        "system-cluster-critical" => 2_000_000_000,
        // Where the number is given, too, as an API server fills it in, the name adds nothing.
        _ if given.is_some() => given.unwrap_or(0) as i32,
        _ => {
            spec.refuse("priorityClassName", format!("{:?} is a cluster's: give priority, a number", shortened(class)));
            0
        }
    }
}

fn hostname(spec: &Fields<'_>, metadata: &Metadata, context: &Context<'_>, network: &Network) -> String {
    if spec.boolean("hostUsers") == Some(false) {
        spec.refuse("hostUsers", "pods have no user namespace of their own");
    }
    if spec.boolean("setHostnameAsFQDN") == Some(true) {
        spec.refuse("setHostnameAsFQDN", "there is no cluster domain");
    }
    let given = spec.string("hostname");
    if let Some(name) = given {
        super::names::check_label(&spec.at.below("hostname"), name);
    }
    if *network == Network::Host {
        return context.node.hostname.clone();
    }
    let name = given.unwrap_or(&metadata.name);
    // What the kernel takes for a name of a host; Kubernetes cuts a pod's name likewise.
    let cut: String = name.chars().take(63).collect();
    cut.trim_end_matches(['-', '.']).to_owned()
}

fn dns(spec: &Fields<'_>) -> Dns {
    let policies = [("ClusterFirst", false), ("ClusterFirstWithHostNet", false), ("Default", false), ("None", true)];
    let is_own = spec.word("dnsPolicy", &policies).unwrap_or(false);
    let Some(fields) = spec.fields("dnsConfig", &POD_DNS_CONFIG) else {
        if is_own {
            spec.refuse("dnsConfig", "is missing: with dnsPolicy None it has the nameservers");
        }
        return Dns::default();
    };
    let servers = fields.strings("nameservers").unwrap_or_default();
    for server in servers.iter().filter(|server| server.parse::<IpAddr>().is_err()) {
        fields.refuse("nameservers", format!("{:?} is no IP address", shortened(server)));
    }
    if is_own && servers.is_empty() {
        fields.refuse("nameservers", "is empty: with dnsPolicy None there has to be one");
    }
    if servers.len() > 3 {
        fields.refuse("nameservers", "has more than 3");
    }
    if !is_own && !servers.is_empty() {
        fields.refuse("nameservers", "would be added to the host's: say dnsPolicy: None to have these alone");
    }
    let mut options = Vec::new();
    for option in fields.each("options", &POD_DNS_CONFIG_OPTION) {
        let Some(name) = option.needed("name") else { continue };
        options.push(option.string("value").map_or_else(|| name.to_owned(), |value| format!("{name}:{value}")));
    }
    let searches = fields.strings("searches").unwrap_or_default();
    let is_word = |word: &String| !word.is_empty() && !word.contains(char::is_whitespace);
    if !searches.iter().chain(&options).all(is_word) {
        fields.at.refuse("has an empty word, or one with spaces");
    }
    Dns { servers, searches, options }
}

fn host_aliases(spec: &Fields<'_>) -> Vec<HostAlias> {
    let mut found = Vec::new();
    for fields in spec.each("hostAliases", &HOST_ALIAS) {
        let names = fields.strings("hostnames").unwrap_or_default();
        for name in names.iter().filter(|name| !super::names::is_subdomain(&name.to_lowercase())) {
            fields.refuse("hostnames", format!("{:?} is no name of a host", shortened(name)));
        }
        let Some(ip) = fields.needed("ip") else { continue };
        match ip.parse() {
            Ok(ip) => found.push(HostAlias { ip, names }),
            Err(_) => fields.refuse("ip", "is no IP address"),
        }
    }
    found
}
