use std::time::Duration;

use super::{pod, pods, with};
use crate::desired::{
    Check, Hook, HostPort, Item, Network, PathKind, Pids, Propagation, Protocol, PullPolicy, Quality, RestartPolicy,
    SeccompProfile, VolumeGroup, VolumeSource,
};

#[test]
fn what_is_left_out_is_what_kubernetes_says() {
    let pod = pod(&with("", ""));
    assert_eq!((pod.key.namespace.as_str(), pod.key.name.as_str(), pod.uid.as_str()), ("default", "web", "known"));
    assert_eq!((pod.hostname.as_str(), pod.restart), ("web", RestartPolicy::Always));
    assert_eq!((pod.grace, pod.active_deadline), (Duration::from_secs(30), None));
    assert_eq!((pod.network.clone(), pod.pids, pod.host_ipc), (Network::Node, Pids::Container, false));
    assert_eq!((pod.priority, pod.quality()), (0, Quality::BestEffort));
    let main = &pod.containers[0];
    assert_eq!((main.pull, main.entrypoint.as_ref(), main.args.as_ref()), (PullPolicy::IfNotPresent, None, None));
    assert_eq!(main.security.seccomp, SeccompProfile::RuntimeDefault);
    assert!(!main.security.no_new_privileges && !main.tty && !main.stdin);
}

#[test]
fn policies_follow_tags() {
    for (image, policy) in [
        ("web", PullPolicy::Always),
        ("web:latest", PullPolicy::Always),
        ("web:1", PullPolicy::IfNotPresent),
        ("r.example:5000/web", PullPolicy::Always),
        ("web@sha256:0123456789012345678901234567890123456789012345678901234567890123", PullPolicy::IfNotPresent),
    ] {
        let pod = pod(&with("", "").replace("registry.example/web:1", image));
        assert_eq!(pod.containers[0].pull, policy, "{image}");
    }
    let pod = pod(&with("", "    imagePullPolicy: Never"));
    assert_eq!(pod.containers[0].pull, PullPolicy::Never);
}

#[test]
fn variables_follow_each_other() {
    let pod = pod(&with(
        "",
        r#"    command: [sh, -c, "echo $(GREETING) $(NOBODY) $$(NAME)"]
    args: ["$(ADDRESS)"]
    env:
    - {name: NAME, value: you}
    - {name: GREETING, value: "hello $(NAME), $(LATER)"}
    - {name: LATER, value: x}
    - name: NODE
      valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
    - name: APP
      valueFrom: {fieldRef: {fieldPath: "metadata.labels['app']"}}
    - name: ADDRESS
      valueFrom: {fieldRef: {fieldPath: status.podIP}}
    - name: URL
      value: http://$(ADDRESS):80
    - name: CPUS
      valueFrom: {resourceFieldRef: {resource: limits.cpu}}
    - name: MEMORY
      valueFrom: {resourceFieldRef: {resource: requests.memory, divisor: 1Mi}}
    - {name: NAME, value: me}
    resources: {requests: {memory: 64Mi}}"#,
    ));
    let main = &pod.containers[0];
    let env: Vec<(&str, &str)> = main.env.iter().map(|one| (one.name.as_str(), one.value.as_str())).collect();
    assert_eq!(
        env,
        [
            ("NAME", "me"),
            ("GREETING", "hello you, $(LATER)"),
            ("LATER", "x"),
            ("NODE", "node-1"),
            ("APP", "web"),
            ("ADDRESS", "\0status.podIP\0"),
            ("URL", "http://\0status.podIP\0:80"),
            ("CPUS", "2"),
            ("MEMORY", "64"),
        ]
    );
    let entrypoint = main.entrypoint.as_ref().unwrap();
    assert_eq!(entrypoint[2], "echo hello you, $(LATER) $(NOBODY) $(NAME)");
    assert_eq!(main.args.as_ref().unwrap(), &["\0status.podIP\0"]);
}

#[test]
fn requests_and_limits() {
    let pod = pod(&with(
        "",
        "    resources:\n      limits: {cpu: 0.5, memory: 128Mi, ephemeral-storage: 1Gi}\n      requests: {cpu: 250m}",
    ));
    let resources = &pod.containers[0].resources;
    assert_eq!((resources.cpu_request, resources.cpu_limit), (Some(250), Some(500)));
    assert_eq!((resources.memory_request, resources.memory_limit), (Some(128 << 20), Some(128 << 20)));
    assert_eq!((resources.storage_request, resources.storage_limit), (Some(1 << 30), Some(1 << 30)));
    assert_eq!(pod.quality(), Quality::Burstable);
}

#[test]
fn probes_and_hooks() {
    let pod = pod(&with(
        "  terminationGracePeriodSeconds: 5",
        r"    ports: [{name: web, containerPort: 8080, hostPort: 80, hostIP: 127.0.0.1}, {containerPort: 53, protocol: UDP}]
    livenessProbe:
      httpGet: {path: /healthz, port: web, scheme: HTTPS, httpHeaders: [{name: X-A, value: b}]}
      initialDelaySeconds: 3
      terminationGracePeriodSeconds: 60
    readinessProbe: {tcpSocket: {port: 8080}, successThreshold: 2, periodSeconds: 1}
    startupProbe: {exec: {command: [cat, /ready]}, failureThreshold: 30}
    lifecycle:
      postStart: {exec: {command: [true]}}
      preStop: {sleep: {seconds: 3}}
      stopSignal: SIGRTMIN+3"
            .replace("[true]", "[\"true\"]")
            .as_str(),
    ));
    let main = &pod.containers[0];
    let liveness = main.liveness.as_ref().unwrap();
    let Check::Http(check) = &liveness.check else { panic!("{liveness:?}") };
    assert_eq!((check.port, check.tls, check.path.as_str(), check.host.as_deref()), (8080, true, "/healthz", None));
    assert_eq!(check.headers, [("X-A".to_owned(), "b".to_owned())]);
    let seconds = Duration::from_secs;
    assert_eq!((liveness.initial_delay, liveness.period, liveness.timeout), (seconds(3), seconds(10), seconds(1)));
    assert_eq!((liveness.success_threshold, liveness.failure_threshold, liveness.grace), (1, 3, Some(seconds(60))));
    assert_eq!(main.readiness.as_ref().unwrap().success_threshold, 2);
    assert_eq!(main.startup.as_ref().unwrap().failure_threshold, 30);
    assert_eq!(main.lifecycle.post_start, Some(Hook::Exec(vec!["true".to_owned()])));
    assert_eq!(main.lifecycle.pre_stop, Some(Hook::Sleep(seconds(3))));
    assert_eq!((main.stop_signal.as_deref(), pod.grace), (Some("SIGRTMIN+3"), seconds(5)));
    let address = Some("127.0.0.1".parse().unwrap());
    assert_eq!(pod.ports, [HostPort { address, host: 80, pod: 8080, protocol: Protocol::Tcp }]);
}

#[test]
fn who_runs_and_what_it_may() {
    let pod = pod(&with(
        r"  securityContext: {runAsUser: 1000, runAsGroup: 3000, fsGroup: 2000, fsGroupChangePolicy: OnRootMismatch, supplementalGroups: [4000], sysctls: [{name: net.core.somaxconn, value: '1024'}]}
  shareProcessNamespace: true
  hostAliases: [{ip: 10.1.2.3, hostnames: [foo.remote, bar.remote]}]
  dnsPolicy: None
  dnsConfig: {nameservers: [192.0.2.1], searches: [ns1.example], options: [{name: ndots, value: '2'}, {name: edns0}]}
  activeDeadlineSeconds: 60
  priorityClassName: system-node-critical
  hostname: other",
        r"    securityContext: {runAsUser: 2000, allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, runAsNonRoot: true, capabilities: {add: [NET_ADMIN, CAP_SYS_TIME], drop: [ALL]}, seccompProfile: {type: Localhost, localhostProfile: profiles/a.json}}",
    ));
    let security = &pod.containers[0].security;
    assert_eq!(security.user.user.as_deref(), Some("2000:3000"));
    assert_eq!(security.user.groups, [4000, 2000]);
    assert!(security.user.must_not_be_root && security.no_new_privileges && security.read_only_rootfs);
    assert_eq!(
        (security.cap_add.join(" "), security.cap_drop.join(" ")),
        ("NET_ADMIN SYS_TIME".to_owned(), "ALL".to_owned())
    );
    assert_eq!(security.seccomp, SeccompProfile::Localhost("profiles/a.json".to_owned()));
    assert_eq!(pod.volume_group, Some(VolumeGroup { gid: 2000, only_on_mismatch: true }));
    assert_eq!(pod.sysctls["net.core.somaxconn"], "1024");
    assert_eq!((pod.pids, pod.hostname.as_str(), pod.priority), (Pids::Pod, "other", 2_000_001_000));
    assert_eq!(pod.dns.options, ["ndots:2", "edns0"]);
    assert_eq!(pod.host_aliases[0].names, ["foo.remote", "bar.remote"]);
    assert_eq!(pod.active_deadline, Some(Duration::from_secs(60)));
}

#[test]
fn the_hosts_namespaces() {
    let pod = pod(&with(
        "  hostNetwork: true\n  hostPID: true\n  hostIPC: true",
        "    ports: [{containerPort: 80, hostPort: 80}]\n    securityContext: {privileged: true}",
    ));
    assert_eq!(
        (pod.network, pod.pids, pod.host_ipc, pod.hostname.as_str()),
        (Network::Host, Pids::Host, true, "node-1")
    );
    assert_eq!(pod.ports, []);
    assert_eq!(pod.containers[0].security.seccomp, SeccompProfile::Unconfined);
}

#[test]
fn volumes_and_mounts() {
    let pod = pod(&with(
        r"  volumes:
  - {name: cache, emptyDir: {sizeLimit: 1Gi}}
  - {name: shm, emptyDir: {medium: Memory, sizeLimit: 64Mi}}
  - {name: bare, emptyDir: {}}
  - {name: logs, hostPath: {path: /var/log/web, type: DirectoryOrCreate}}
  - {name: data, persistentVolumeClaim: {claimName: db, readOnly: true}}
  - name: me
    downwardAPI:
      defaultMode: 0400
      items:
      - {path: labels, fieldRef: {fieldPath: metadata.labels}}
      - {path: sub/cpu, mode: 0644, resourceFieldRef: {containerName: main, resource: limits.cpu, divisor: 1m}}",
        r"    env: [{name: WHO, value: me}]
    volumeMounts:
    - {name: cache, mountPath: /cache, subPathExpr: $(WHO)/x, mountPropagation: HostToContainer}
    - {name: data, mountPath: /data}
    - {name: logs, mountPath: /logs, readOnly: true, subPath: a/b}",
    ));
    let sources: Vec<&VolumeSource> = pod.volumes.iter().map(|volume| &volume.source).collect();
    assert_eq!(*sources[0], VolumeSource::EmptyDir { size_limit: Some(1 << 30) });
    assert_eq!(*sources[1], VolumeSource::Memory { size_limit: Some(64 << 20) });
    assert_eq!(*sources[2], VolumeSource::EmptyDir { size_limit: None });
    let path = "/var/log/web".into();
    let kind = Some(PathKind::Folder);
    assert_eq!(*sources[3], VolumeSource::HostPath { path, make_folder: true, make_file: false, kind });
    assert_eq!(*sources[4], VolumeSource::Named("db".to_owned()));
    let item = |path: &str, content: &str, mode| Item {
        path: path.to_owned(),
        content: content.as_bytes().to_vec(),
        mode,
        uid: 0,
        gid: 0,
    };
    let files = vec![item("labels", "app=\"web\"\ntier=\"1\"", 0o400), item("sub/cpu", "2000", 0o644)];
    assert_eq!(*sources[5], VolumeSource::Files(files));
    let mounts = &pod.containers[0].mounts;
    assert_eq!(mounts[0].sub_path.as_deref(), Some("me/x"));
    assert_eq!(mounts[0].propagation, Propagation::HostToContainer);
    assert!(!mounts[0].read_only && mounts[1].read_only && mounts[2].read_only);
}

#[test]
fn a_claim_of_another_namespace_is_another_volume() {
    let text = with("  volumes: [{name: data, persistentVolumeClaim: {claimName: db}}]", "")
        .replace("  name: web\n", "  name: web\n  namespace: team\n");
    assert_eq!(pod(&text).volumes[0].source, VolumeSource::Named("team_db".to_owned()));
}

#[test]
fn several_documents_lists_and_json() {
    let yaml =
        format!("---\n{}---\n# nothing\n---\n{}", with("", ""), with("", "").replace("name: web", "name: other"));
    assert_eq!(pods(&yaml).unwrap().len(), 2);
    let json = r#"{"apiVersion": "v1", "kind": "List", "items": [
	{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "annotations": {"x": "\ud83d\ude00"}},
	 "spec": {"containers": [{"name": "c", "image": "i:1"}]}}]}"#;
    assert_eq!(pods(json).unwrap()[0].annotations["x"], "\u{1f600}");
    assert_eq!(pods("").unwrap(), []);
    let merged = "x: &x {name: main, image: \"i:1\"}\n";
    assert!(pods(merged).is_err(), "a document without a kind");
    let anchors = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  containers:\n  - &c {name: a, image: \"i:1\"}\n  - <<: *c\n    name: b\n";
    assert_eq!(pods(anchors).unwrap()[0].containers[1].image, "i:1");
}

#[test]
fn what_a_cluster_wrote_is_read_again() {
    let text = with(
        "  tolerations: [{operator: Exists}]\n  schedulerName: default-scheduler\n  enableServiceLinks: true\n  serviceAccountName: default\n  priority: 0\n  preemptionPolicy: PreemptLowerPriority\n  nodeName: node-1\n  dnsPolicy: ClusterFirst\n  securityContext: {}\n  initContainers: null",
        "    terminationMessagePath: /dev/termination-log\n    terminationMessagePolicy: File\n    resources: {}\n    stdinOnce: false",
    ) + "status: {phase: Running}\n";
    let text = text.replace(
        "  name: web\n",
        "  name: web\n  creationTimestamp: null\n  resourceVersion: \"1\"\n  uid: 6e2f-1\n  managedFields: [{manager: kubectl}]\n",
    );
    assert_eq!(pod(&text).uid, "6e2f-1");
}
