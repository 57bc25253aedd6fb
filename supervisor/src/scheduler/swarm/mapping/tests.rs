use std::collections::BTreeMap;
use std::time::Duration;

use super::super::wire::container::{
    AppArmorOptions, BindOptions, DnsConfig, FileTarget, HealthConfig, Mount, MountKind, Privileges, PullOptions,
    Reference, SeccompOptions, SelinuxContext, TmpfsOptions, Ulimit, VolumeOptions,
};
use super::super::wire::node::Resources as Limits;
use super::super::wire::task::{
    Annotations, Endpoint, Network as WireNetwork, NetworkAttachment, NetworkSpec, PayloadSpec, PortConfig,
    ResourceRequirements,
};
use super::super::wire::{BoolValue, Empty, Int64Value, Span};
use super::*;
use crate::desired::{Check, Protocol, Rlimit, SeccompProfile, VolumeSource};

fn node() -> NodeDescription {
    NodeDescription { hostname: "host-a".into(), ..NodeDescription::default() }
}

/// A task of the least that one has, changed by `edit`.
fn task(edit: impl FnOnce(&mut Task, &mut ContainerSpec)) -> Task {
    let named = |name: &str| Some(Annotations { name: name.into(), labels: BTreeMap::new() });
    let mut task = Task {
        id: "taskid0123456789".into(),
        service_id: "serviceid".into(),
        node_id: "nodeid".into(),
        slot: 3,
        service_annotations: named("web"),
        spec: Some(TaskSpec::default()),
        ..Task::default()
    };
    let mut spec = ContainerSpec { image: "nginx:1".into(), ..ContainerSpec::default() };
    edit(&mut task, &mut spec);
    if let Some(task_spec) = &mut task.spec {
        task_spec.container = Some(spec);
    }
    task
}

fn mapped(edit: impl FnOnce(&mut Task, &mut ContainerSpec)) -> Pod {
    pod(&task(edit), &Payloads::default(), &node(), None).unwrap()
}

fn refused(edit: impl FnOnce(&mut Task, &mut ContainerSpec)) -> String {
    pod(&task(edit), &Payloads::default(), &node(), None).unwrap_err().field
}

fn ulimit(name: &str, soft: i64, hard: i64) -> Ulimit {
    Ulimit { name: name.into(), soft, hard }
}

fn span(seconds: i64) -> Span {
    Span { seconds, nanos: 0 }
}

#[test]
fn a_task_with_an_image_alone() {
    let pod = mapped(|_, _| ());
    assert_eq!(pod.key, Key::new("swarm", "web.3.taskid0123456789"));
    assert_eq!(pod.uid, "swarm-taskid0123456789");
    assert_eq!((pod.hostname.as_str(), pod.grace, pod.restart), ("taskid012345", GRACE, RestartPolicy::Never));
    assert_eq!((pod.network.clone(), pod.goal), (Network::Node, Goal::Prepared));
    assert_eq!(pod.labels["com.docker.swarm.service.name"], "web");
    let container = &pod.containers[0];
    assert_eq!((container.entrypoint.clone(), container.args.clone()), (None, None));
    assert_eq!((container.resources.clone(), container.startup.clone()), (Resources::default(), None));
    let global = mapped(|task, _| task.slot = 0);
    assert_eq!(global.key.name, "web.nodeid.taskid0123456789");
}

#[test]
fn commands_replace_the_entrypoint_and_arguments_the_command() {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let of = |command: &[&str], args: &[&str]| {
        let pod = mapped(|_, spec| (spec.command, spec.args) = (words(command), words(args)));
        (pod.containers[0].entrypoint.clone(), pod.containers[0].args.clone())
    };
    assert_eq!(of(&["a"], &["b"]), (Some(words(&["a"])), Some(words(&["b"]))));
    assert_eq!(of(&["a"], &[]), (Some(words(&["a"])), Some(Vec::new())), "CMD goes with the entrypoint");
    assert_eq!(of(&[], &["b"]), (None, Some(words(&["b"]))));
}

#[test]
fn what_is_honoured() {
    let pod = mapped(|task, spec| {
        spec.hostname = "{{.Service.Name}}-{{.Task.Slot}}".into();
        spec.env = vec!["WHERE={{.Node.Hostname}}".into(), "EMPTY=".into()];
        spec.user = "7:8".into();
        spec.groups = vec!["9".into()];
        spec.dir = "/srv".into();
        (spec.tty, spec.open_stdin, spec.read_only) = (true, true, true);
        spec.stop_signal = "SIGINT".into();
        spec.stop_grace_period = Some(span(3));
        spec.hosts = vec!["10.0.0.1 a b".into()];
        spec.dns_config = Some(DnsConfig { nameservers: vec!["1.1.1.1".into()], ..DnsConfig::default() });
        spec.capability_add = vec!["CAP_NET_ADMIN".into()];
        spec.capability_drop = vec!["all".into()];
        spec.pids_limit = 50;
        spec.privileges = Some(Privileges {
            no_new_privileges: true,
            seccomp: Some(SeccompOptions { mode: 1 }),
            apparmor: Some(AppArmorOptions { mode: 1 }),
            selinux_context: Some(SelinuxContext { disable: true, ..SelinuxContext::default() }),
            ..Privileges::default()
        });
        // {"username":"me","password":"pw:1"}
        let auth = "eyJ1c2VybmFtZSI6Im1lIiwicGFzc3dvcmQiOiJwdzoxIn0=".into();
        spec.pull_options = Some(PullOptions { registry_auth: auth });
        let limits = Some(Limits { nano_cpus: 1_500_000_000, memory_bytes: 1 << 20 });
        let reservations = Some(Limits { nano_cpus: 7, memory_bytes: 7 });
        let resources = ResourceRequirements { limits, reservations, ..ResourceRequirements::default() };
        task.spec = Some(TaskSpec { resources: Some(resources), ..TaskSpec::default() });
        let port = PortConfig { target_port: 80, protocol: 1, publish_mode: 1, ..PortConfig::default() };
        task.endpoint = Some(Endpoint { ports: vec![port] });
    });
    assert_eq!((pod.hostname.as_str(), pod.grace), ("web-3", Duration::from_secs(3)));
    assert_eq!(pod.host_aliases[0].names, ["a", "b"]);
    assert_eq!(pod.dns.servers, ["1.1.1.1"]);
    assert_eq!((pod.ports[0].host, pod.ports[0].pod, pod.ports[0].protocol), (0, 80, Protocol::Udp));
    let container = &pod.containers[0];
    assert_eq!((container.env[0].value.as_str(), container.env[1].value.as_str()), ("host-a", ""));
    assert_eq!((container.cwd.as_deref(), container.stop_signal.as_deref()), (Some("/srv"), Some("SIGINT")));
    assert!(container.tty && container.stdin && container.security.read_only_rootfs);
    assert!(container.security.no_new_privileges && container.security.seccomp == SeccompProfile::Unconfined);
    assert_eq!(
        (container.security.user.user.as_deref(), container.security.user.groups.clone()),
        (Some("7:8"), vec![9])
    );
    assert_eq!(
        (container.security.cap_add.clone(), container.security.cap_drop.clone()),
        (vec!["NET_ADMIN".to_owned()], vec!["ALL".to_owned()])
    );
    assert_eq!(container.pull_credentials.as_deref(), Some("me:pw:1"));
    let resources = &container.resources;
    assert_eq!(
        (resources.cpu_limit, resources.memory_limit, resources.pids_limit),
        (Some(1500), Some(1 << 20), Some(50))
    );
    assert_eq!((resources.cpu_request, resources.memory_request), (None, None), "reservations are the manager's");
}

#[test]
fn an_init_is_the_process_1_of_shared_pids() {
    let of = |init: Option<bool>| mapped(|_, spec| spec.init = init.map(|value| BoolValue { value })).pids;
    assert_eq!((of(Some(true)), of(Some(false)), of(None)), (Pids::Pod, Pids::Container, Pids::Container));
}

#[test]
fn mounts_of_each_kind() {
    let mount = |kind: MountKind, source: &str| Mount {
        kind: kind.into(),
        source: source.into(),
        target: "/at".into(),
        ..Mount::default()
    };
    let pod = mapped(|_, spec| {
        let options = BindOptions { propagation: 4, createmountpoint: true, ..BindOptions::default() };
        let bind = Mount { bind_options: Some(options), readonly: true, ..mount(MountKind::Bind, "/{{.Task.Slot}}") };
        let tmpfs = TmpfsOptions { size_bytes: 5, mode: 0o777 | 1 << 20, ..TmpfsOptions::default() };
        let tmpfs = Mount { tmpfs_options: Some(tmpfs), ..mount(MountKind::Tmpfs, "") };
        spec.mounts = vec![bind, mount(MountKind::Volume, "data"), mount(MountKind::Volume, ""), tmpfs];
    });
    let sources: Vec<&VolumeSource> = pod.volumes.iter().map(|volume| &volume.source).collect();
    assert!(matches!(sources[0], VolumeSource::HostPath { path, make_folder: true, .. } if path.ends_with("3")));
    assert!(pod.containers[0].mounts[0].read_only);
    assert_eq!(*sources[1], VolumeSource::Named("data".into()));
    assert_eq!(*sources[2], VolumeSource::EmptyDir { size_limit: None });
    assert_eq!(*sources[3], VolumeSource::Memory { size_limit: Some(5) });
}

#[test]
fn limits_of_processes() {
    let pod = mapped(|_, spec| {
        spec.ulimits = vec![ulimit("nofile", 1, 2), ulimit("core", -1, -1), ulimit("nofile", 64, -1)];
        spec.oom_score_adj = -1000;
    });
    let limit = |kind: &str, soft| Rlimit { kind: kind.into(), soft, hard: u64::MAX };
    let container = &pod.containers[0];
    assert_eq!(container.rlimits, [limit("RLIMIT_CORE", u64::MAX), limit("RLIMIT_NOFILE", 64)]);
    assert_eq!(container.oom_score_adj, Some(-1000));
    let none = mapped(|_, _| {});
    assert!(none.containers[0].rlimits.is_empty() && none.containers[0].oom_score_adj.is_none());
    for wrong in [Ulimit::default(), ulimit("nofile", 2, 1), ulimit("nofile", -2, 1)] {
        assert_eq!(refused(|_, spec| spec.ulimits = vec![wrong]), "ulimits");
    }
    assert_eq!(refused(|_, spec| spec.oom_score_adj = -1001), "oom_score_adj");
}

#[test]
fn what_a_task_leaves_out_of_its_health_check_is_the_images() {
    let json = r#"{"Test": ["CMD", "ask"], "Interval": 7000000000, "StartPeriod": -1, "Retries": 4}"#;
    let image: HealthCheck = serde_json::from_str(json).unwrap();
    let liveness = |config: Option<HealthConfig>| {
        let task = task(|_, spec| spec.healthcheck = config);
        let pod = pod(&task, &Payloads::default(), &node(), Some(&image)).unwrap();
        pod.containers[0].liveness.clone()
    };
    let all = liveness(None).unwrap();
    assert_eq!(all.check, Check::Exec(vec!["ask".into()]));
    assert_eq!((all.period, all.timeout, all.failure_threshold), (Duration::from_secs(7), Duration::from_secs(30), 4));
    let test = vec!["CMD".into(), "other".into()];
    let some = liveness(Some(HealthConfig { test, retries: 2, ..HealthConfig::default() })).unwrap();
    assert_eq!(some.check, Check::Exec(vec!["other".into()]));
    assert_eq!((some.period, some.failure_threshold), (Duration::from_secs(7), 2));
    assert_eq!(liveness(Some(HealthConfig { test: vec!["NONE".into()], ..HealthConfig::default() })), None);
    let nothing = mapped(|_, spec| spec.healthcheck = Some(HealthConfig { retries: 3, ..HealthConfig::default() }));
    assert_eq!(nothing.containers[0].liveness, None);
}

#[test]
fn a_health_check_of_an_image_that_nobody_knows_counts_as_none() {
    let image: HealthCheck = serde_json::from_str(r#"{"Test": ["/bin/check"], "Retries": 4}"#).unwrap();
    let pod = pod(&task(|_, _| {}), &Payloads::default(), &node(), Some(&image)).unwrap();
    assert_eq!((pod.containers[0].startup.clone(), pod.containers[0].liveness.clone()), (None, None));
    let own = HealthConfig { test: vec!["/bin/check".into()], ..HealthConfig::default() };
    assert_eq!(refused(|_, spec| spec.healthcheck = Some(own)), "healthcheck.test");
}

#[test]
fn a_health_check_is_two_probes() {
    let pod = mapped(|_, spec| {
        spec.healthcheck = Some(HealthConfig {
            test: vec!["CMD-SHELL".into(), "true".into()],
            interval: Some(span(10)),
            retries: 2,
            start_period: Some(span(21)),
            start_interval: Some(span(2)),
            ..HealthConfig::default()
        });
    });
    let (startup, liveness) = (pod.containers[0].startup.clone().unwrap(), pod.containers[0].liveness.clone().unwrap());
    assert_eq!(startup.check, Check::Exec(vec!["/bin/sh".into(), "-c".into(), "true".into()]));
    assert_eq!((startup.period, startup.failure_threshold), (Duration::from_secs(2), 11 + 2));
    assert_eq!((liveness.period, liveness.failure_threshold), (Duration::from_secs(10), 2));
    let none = mapped(|_, spec| {
        spec.healthcheck = Some(HealthConfig { test: vec!["NONE".into()], ..HealthConfig::default() });
    });
    assert_eq!(none.containers[0].liveness, None);
}

#[test]
fn secrets_are_mounted_one_by_one() {
    let reference = |id: &str, name: &str| Reference {
        id: id.into(),
        name: id.into(),
        file: Some(FileTarget { name: name.into(), mode: 0o444, ..FileTarget::default() }),
        runtime: None,
    };
    let task = task(|_, spec| {
        spec.secrets = vec![reference("a", "key"), reference("b", "/etc/key")];
        spec.configs = vec![reference("c", "app.conf")];
    });
    let payload = |data: &[u8]| PayloadSpec { data: data.to_vec(), ..PayloadSpec::default() };
    let secrets = [("a".to_owned(), payload(b"A")), ("b".to_owned(), payload(b"B"))].into();
    let mut payloads = Payloads { secrets, ..Payloads::default() };
    let missing = pod(&task, &payloads, &node(), None).unwrap_err();
    assert_eq!(missing.field, "configs", "{missing}");
    payloads.configs = [("c".to_owned(), payload(b"C"))].into();
    let pod = pod(&task, &payloads, &node(), None).unwrap();
    let paths: Vec<&str> = pod.containers[0].mounts.iter().map(|mount| mount.path.as_str()).collect();
    assert_eq!(paths, ["/run/secrets/key", "/etc/key", "/app.conf"]);
    assert!(pod.volumes.iter().all(|volume| matches!(volume.source, VolumeSource::Secret(_))));
    assert!(!format!("{pod:?} {payloads:?}").contains("65"), "a debug text shows no content");
}

#[test]
fn what_cannot_be_honoured_is_refused_by_its_name() {
    type Edit = fn(&mut Task, &mut ContainerSpec);
    let table: &[(&str, Edit)] = &[
        ("attachment", |task, _| task.spec = Some(TaskSpec { attachment: Some(Empty {}), ..TaskSpec::default() })),
        ("generic", |task, _| task.spec = Some(TaskSpec { generic: Some(Empty {}), ..TaskSpec::default() })),
        ("container", |task, _| task.spec = None),
        ("volumes", |task, _| task.volumes = vec![Empty {}]),
        ("assigned_generic_resources", |task, _| task.assigned_generic_resources = vec![Empty {}]),
        ("log_driver", |task, _| task.log_driver = Some(Driver { name: "syslog".into(), ..Driver::default() })),
        ("log_driver.options", |task, _| {
            task.log_driver = Some(Driver { name: String::new(), options: [("a".into(), "b".into())].into() });
        }),
        ("networks", |task, _| task.networks = vec![NetworkAttachment::default()]),
        ("networks", |task, _| {
            let annotations = Some(Annotations { name: "cloth".into(), labels: BTreeMap::new() });
            let driver_config = Some(Driver { name: "overlay".into(), ..Driver::default() });
            let spec = Some(NetworkSpec { annotations, driver_config, ingress: false });
            let network = Some(WireNetwork { spec, ..WireNetwork::default() });
            task.networks = vec![NetworkAttachment { network, ..NetworkAttachment::default() }];
        }),
        ("endpoint.ports", |task, _| task.endpoint = Some(Endpoint { ports: vec![PortConfig::default()] })),
        ("resources.swap_bytes", |task, _| {
            let resources = ResourceRequirements { swap_bytes: Some(Int64Value { value: 1 }), ..Default::default() };
            task.spec = Some(TaskSpec { resources: Some(resources), ..TaskSpec::default() });
        }),
        ("resources.memory_swappiness", |task, _| {
            let resources =
                ResourceRequirements { memory_swappiness: Some(Int64Value { value: 1 }), ..Default::default() };
            task.spec = Some(TaskSpec { resources: Some(resources), ..TaskSpec::default() });
        }),
        ("isolation", |_, spec| spec.isolation = 1),
        ("env", |_, spec| spec.env = vec!["NOTHING".into()]),
        ("hostname", |_, spec| spec.hostname = "{{if}}".into()),
        ("hosts", |_, spec| spec.hosts = vec!["localhost".into()]),
        ("groups", |_, spec| spec.groups = vec!["wheel".into()]),
        ("healthcheck.test", |_, spec| {
            spec.healthcheck = Some(HealthConfig { test: vec!["CMD".into()], ..HealthConfig::default() });
        }),
        ("capability_drop", |_, spec| {
            (spec.capability_add, spec.capability_drop) = (vec!["CHOWN".into()], vec!["CAP_CHOWN".into()]);
        }),
        ("privileges.credential_spec", |_, spec| {
            spec.privileges = Some(Privileges { credential_spec: Some(Empty {}), ..Privileges::default() });
        }),
        ("privileges.selinux_context", |_, spec| {
            spec.privileges =
                Some(Privileges { selinux_context: Some(SelinuxContext::default()), ..Default::default() });
        }),
        ("privileges.apparmor", |_, spec| {
            spec.privileges = Some(Privileges { apparmor: Some(AppArmorOptions { mode: 2 }), ..Privileges::default() });
        }),
        ("privileges.seccomp", |_, spec| {
            spec.privileges = Some(Privileges { seccomp: Some(SeccompOptions { mode: 2 }), ..Privileges::default() });
        }),
        ("pull_options.registry_auth", |_, spec| {
            spec.pull_options = Some(PullOptions { registry_auth: "?".into() });
        }),
        ("mounts.target", |_, spec| spec.mounts = vec![Mount::default()]),
        ("mounts.type", |_, spec| spec.mounts = vec![Mount { kind: 4, target: "/a".into(), ..Mount::default() }]),
        ("mounts.bind_options.propagation", |_, spec| {
            let options = Some(BindOptions { propagation: 3, ..BindOptions::default() });
            let (source, target) = ("/a".into(), "/a".into());
            spec.mounts = vec![Mount { source, target, bind_options: options, ..Mount::default() }];
        }),
        ("mounts.volume_options.driver_config", |_, spec| {
            let driver_config = Some(Driver { name: "nfs".into(), ..Driver::default() });
            let options = Some(VolumeOptions { driver_config, ..VolumeOptions::default() });
            spec.mounts = vec![Mount { kind: 1, target: "/a".into(), volume_options: options, ..Mount::default() }];
        }),
        ("mounts.tmpfs_options.mode", |_, spec| {
            let options = Some(TmpfsOptions { mode: 0o700, ..TmpfsOptions::default() });
            spec.mounts = vec![Mount { kind: 2, target: "/a".into(), tmpfs_options: options, ..Mount::default() }];
        }),
    ];
    for (field, edit) in table {
        assert_eq!(refused(edit), *field);
    }
}
