//! A container's bundle: flint-bundle's, and what a pod says of it.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use flint_bundle::Wishes;
use flint_bundle::bundle::{Making, create, remove};
use flint_bundle::store::ImageRecord;
use serde_json::{Value, json};

use super::Images;
use crate::desired::{Container, Pids, Pod, Rlimit, SeccompProfile};
use crate::volumes::Bind;

impl Images {
    /// Makes the bundle of a container in a folder that is not there; `cgroup` is its path in every hierarchy. It waits for the disk.
    ///
    /// # Errors
    ///
    /// What the pod or the image says cannot be; nothing is left then.
    pub fn make_bundle(
        &self,
        record: &ImageRecord,
        folder: &Path,
        pod: &Pod,
        container: &Container,
        cgroup: &str,
        parts: &[Bind],
    ) -> Result<()> {
        let wishes = wishes(pod, container);
        let profile = match &container.security.seccomp {
            SeccompProfile::Localhost(path) if !container.security.privileged => {
                Some(super::seccomp::profile(&self.profiles, path)?)
            }
            _ => None,
        };
        let edit = |config: &mut Value| {
            if let Some(profile) = &profile {
                config["linux"]["seccomp"] = profile.clone();
            }
            furnish(config, pod, container, cgroup, parts)
                .map_err(|error| flint_bundle::Error::refused(format!("{error:#}")))
        };
        // After a restart of the host the container is made anew: its bundle need not outlive it.
        let making = Making { lasting: false, edit: Some(&edit), ..Making::new(&wishes) };
        create(&self.store, record, folder, &making)?;
        Ok(())
    }

    /// Takes a bundle away; one that is not there is as good. It waits for the disk.
    ///
    /// # Errors
    ///
    /// Something runs from it still.
    pub fn remove_bundle(&self, folder: &Path) -> Result<()> {
        match remove(&self.store, folder) {
            Err(error) if error.kind() != flint_bundle::Kind::NotFound => return Err(error.into()),
            _ => {}
        }
        // What the shim wrote beside, and what a creation that was killed had made.
        match std::fs::remove_dir_all(folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("remove {}", folder.display()))
            }
            _ => Ok(()),
        }
    }
}

fn wishes(pod: &Pod, container: &Container) -> Wishes {
    let security = &container.security;
    let mut cap_add = security.cap_add.clone();
    if security.privileged {
        cap_add = vec!["ALL".to_owned()];
    }
    // One of the node's own is put in its place.
    let seccomp = !security.privileged && security.seccomp == SeccompProfile::RuntimeDefault;
    Wishes {
        entrypoint: container.entrypoint.clone(),
        command: container.args.clone().unwrap_or_default(),
        env: container.env.iter().map(|variable| format!("{}={}", variable.name, variable.value)).collect(),
        user: security.user.user.clone(),
        cwd: container.cwd.clone(),
        // The sandbox's, by its UTS namespace.
        hostname: None,
        terminal: container.tty,
        read_only: security.read_only_rootfs,
        host_network: pod.network == crate::desired::Network::Host,
        no_new_privileges: security.no_new_privileges,
        seccomp,
        cap_add,
        cap_drop: if security.privileged { Vec::new() } else { security.cap_drop.clone() },
        ..Wishes::default()
    }
}

/// The container's part of the pod, in its config.json.
fn furnish(config: &mut Value, pod: &Pod, container: &Container, cgroup: &str, parts: &[Bind]) -> Result<()> {
    let security = &container.security;
    if security.user.must_not_be_root && config["process"]["user"]["uid"] == json!(0) {
        bail!("the container must not run as root (runAsNonRoot), and its image or its pod says it does");
    }
    if let Some(groups) = config["process"]["user"]["additionalGids"].as_array_mut() {
        groups.extend(security.user.groups.iter().map(|group| json!(group)));
    }
    let variables = [("HOSTNAME", pod.hostname.as_str())];
    if let Some(env) = config["process"]["env"].as_array_mut() {
        for (name, value) in variables {
            let is_there = env.iter().any(|one| one.as_str().is_some_and(|one| one.split('=').next() == Some(name)));
            if !is_there && !value.is_empty() {
                env.push(json!(format!("{name}={value}")));
            }
        }
    }
    config["process"]["oomScoreAdj"] =
        container.oom_score_adj.map_or_else(|| json!(oom_score(pod, container)), |given| json!(given));
    if !container.rlimits.is_empty() {
        let rlimit = |one: &Rlimit| json!({"type": one.kind, "soft": one.soft, "hard": one.hard});
        config["process"]["rlimits"] = container.rlimits.iter().map(rlimit).collect();
    }
    config["linux"]["cgroupsPath"] = json!(cgroup);
    limit(&mut config["linux"]["resources"], container);
    if let Some(mounts) = config["mounts"].as_array_mut() {
        for part in parts {
            // One of the container's own takes the place of a default one, as /dev/shm.
            mounts.retain(|mount| mount["destination"] != json!(part.destination));
            mounts.push(mount(part)?);
        }
    }
    if pod.pids == Pids::Host {
        without_namespace(config, "pid");
    }
    if pod.host_ipc {
        without_namespace(config, "ipc");
    }
    if security.privileged {
        privilege(config);
    }
    let annotations = pod.annotations.iter().chain(&container.annotations);
    for (name, value) in annotations {
        config["annotations"][name] = json!(value);
    }
    config["annotations"]["io.kubernetes.cri.container-name"] = json!(container.name);
    config["annotations"]["io.kubernetes.cri.sandbox-name"] = json!(pod.key.name);
    config["annotations"]["io.kubernetes.cri.sandbox-namespace"] = json!(pod.key.namespace);
    Ok(())
}

fn mount(part: &Bind) -> Result<Value> {
    let Some(source) = part.source.to_str() else {
        bail!("the path {} is not UTF-8, which config.json cannot say", part.source.display());
    };
    Ok(json!({"destination": part.destination, "type": "bind", "source": source, "options": part.options}))
}

fn without_namespace(config: &mut Value, kind: &str) {
    if let Some(namespaces) = config["linux"]["namespaces"].as_array_mut() {
        namespaces.retain(|namespace| namespace["type"] != kind);
    }
}

/// All devices, nothing masked, sysfs and cgroups writable.
fn privilege(config: &mut Value) {
    config["linux"]["maskedPaths"] = json!([]);
    config["linux"]["readonlyPaths"] = json!([]);
    config["linux"]["resources"]["devices"] = json!([{"allow": true, "access": "rwm"}]);
    for mount in config["mounts"].as_array_mut().into_iter().flatten() {
        let is_kernels = matches!(mount["type"].as_str(), Some("sysfs" | "cgroup" | "cgroup2"));
        if let Some(options) = mount["options"].as_array_mut().filter(|_| is_kernels) {
            options.retain(|option| option != "ro");
        }
    }
}

/// Kubernetes' formula: those that ask for nothing go first.
fn oom_score(pod: &Pod, container: &Container) -> i64 {
    use crate::desired::Quality;
    match pod.quality() {
        Quality::Guaranteed => -997,
        Quality::BestEffort => 1000,
        Quality::Burstable => {
            let asked = container.resources.memory_request.unwrap_or(0);
            let share = i64::try_from(asked.saturating_mul(1000) / memory_of_the_host().max(1)).unwrap_or(1000);
            (1000 - share).clamp(3, 999)
        }
    }
}

fn memory_of_the_host() -> u64 {
    static TOTAL: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    *TOTAL.get_or_init(|| rustix::system::sysinfo().totalram as u64 * u64::from(rustix::system::sysinfo().mem_unit))
}

/// The kernel's default period in microseconds.
const PERIOD: u64 = 100_000;

/// Limits and shares, beside the devices that are there.
fn limit(resources: &mut Value, container: &Container) {
    let wanted = &container.resources;
    let mut cpu = serde_json::Map::new();
    // cgroup v1's scale, which the runtime translates; 2 is the least it takes.
    let asked = wanted.cpu_request.or(wanted.cpu_limit).unwrap_or(0);
    cpu.insert("shares".to_owned(), json!((asked.saturating_mul(1024) / 1000).clamp(2, 262_144)));
    if let Some(limit) = wanted.cpu_limit {
        cpu.insert("period".to_owned(), json!(PERIOD));
        cpu.insert("quota".to_owned(), json!(limit.saturating_mul(PERIOD / 1000).max(1000)));
    }
    resources["cpu"] = Value::Object(cpu);
    if let Some(limit) = wanted.memory_limit {
        resources["memory"] = json!({"limit": limit});
    }
    if let Some(limit) = wanted.pids_limit {
        resources["pids"] = json!({"limit": limit});
    }
}

/// All limits of a container that runs: those that it is to have no more are lifted.
pub(crate) fn limits(container: &Container) -> Value {
    let mut resources = json!({"memory": {"limit": -1}, "pids": {"limit": -1}});
    limit(&mut resources, container);
    if container.resources.cpu_limit.is_none() {
        resources["cpu"]["quota"] = json!(-1);
    }
    resources
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Bind, furnish, limits};
    use crate::desired::tests::{container, pod};
    use crate::desired::{Container, Pids, Resources, Rlimit};

    fn config() -> Value {
        json!({
            "process": {"user": {"uid": 0, "additionalGids": [0]}, "env": ["PATH=/bin"]},
            "mounts": [{"destination": "/dev/shm", "type": "tmpfs"}],
            "annotations": {},
            "linux": {"namespaces": [{"type": "pid"}, {"type": "ipc"}], "resources": {"devices": []}, "maskedPaths": ["/x"]},
        })
    }

    fn furnished(change: impl FnOnce(&mut Container)) -> Result<Value, String> {
        let (mut config, mut one) = (config(), container("main"));
        change(&mut one);
        let options = ["rbind", "rslave", "ro"].map(str::to_owned).to_vec();
        let part = Bind { source: "/host".into(), destination: "/dev/shm".to_owned(), options };
        let pod = crate::desired::Pod { pids: Pids::Host, containers: vec![one.clone()], ..pod("web") };
        furnish(&mut config, &pod, &one, "/flint/uid.main.1", &[part]).map_err(|error| error.to_string())?;
        Ok(config)
    }

    #[test]
    fn what_a_pod_says_is_in_the_config() {
        let config = furnished(|one| {
            one.resources = Resources {
                cpu_limit: Some(250),
                memory_limit: Some(1 << 20),
                pids_limit: Some(9),
                ..Resources::default()
            };
            one.rlimits = vec![Rlimit { kind: "RLIMIT_NOFILE".to_owned(), soft: 64, hard: u64::MAX }];
            one.oom_score_adj = Some(-5);
        })
        .unwrap();
        assert_eq!(config["process"]["oomScoreAdj"], -5);
        let limit = json!({"type": "RLIMIT_NOFILE", "soft": 64, "hard": u64::MAX});
        assert_eq!(config["process"]["rlimits"], json!([limit]));
        assert_eq!(config["linux"]["cgroupsPath"], "/flint/uid.main.1");
        let resources = &config["linux"]["resources"];
        assert_eq!(resources["cpu"], json!({"shares": 256, "period": 100_000, "quota": 25000}));
        assert_eq!((&resources["memory"]["limit"], &resources["pids"]["limit"]), (&json!(1 << 20), &json!(9)));
        assert_eq!(config["linux"]["namespaces"], json!([{"type": "ipc"}]), "the host's pids");
        assert_eq!(config["mounts"].as_array().unwrap().len(), 1, "it takes the place of the default one");
        assert_eq!(config["mounts"][0]["options"], json!(["rbind", "rslave", "ro"]));
        assert!(config["process"]["env"].as_array().unwrap().contains(&json!("HOSTNAME=web")));
    }

    #[test]
    fn limits_that_are_wanted_no_more_are_lifted() {
        let mut one = container("main");
        assert_eq!(
            limits(&one),
            json!({"cpu": {"shares": 2, "quota": -1}, "memory": {"limit": -1}, "pids": {"limit": -1}})
        );
        one.resources = Resources { cpu_limit: Some(1000), memory_limit: Some(9), ..Resources::default() };
        assert_eq!(
            limits(&one),
            json!({"cpu": {"shares": 1024, "period": 100_000, "quota": 100_000}, "memory": {"limit": 9}, "pids": {"limit": -1}})
        );
    }

    #[test]
    fn root_is_refused_where_it_must_not_be() {
        let error = furnished(|one| one.security.user.must_not_be_root = true).unwrap_err();
        assert!(error.contains("runAsNonRoot"), "{error}");
        let config = furnished(|one| one.security.privileged = true).unwrap();
        assert_eq!(config["linux"]["maskedPaths"], json!([]));
    }
}
