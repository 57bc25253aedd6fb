//! flint's shim under the CRI plugin of Debian sid's containerd 2.

use integration_tests::cri::{
    ContainerConfig, IdMapping, LinuxContainerResources, Mount, NamespaceOption, Node, Pod, StatusRequest,
    UserNamespace, namespace_mode,
};
use integration_tests::{System, missing, peers, scenarios};

use crate::cri_scenario;

fn with(scenario: fn(&Node)) {
    if peers().is_none() || missing(&["unshare", "nsenter", "sha256sum", "tar"]) {
        return;
    }
    let Some(node) = Node::shared_of(System::Sid) else { return };
    scenario(&node);
}

scenarios! {
    with;
    two_containers_and_one_shim: cri_scenario::two_containers_and_one_shim,
    stats_and_limits: cri_scenario::stats_and_limits,
    a_pod_by_runcs_shim: cri_scenario::a_pod_by_runcs_shim,
    want_of_memory_is_the_reason: cri_scenario::want_of_memory_is_the_reason,
    stop_is_patient_and_then_not: cri_scenario::stop_is_patient_and_then_not,
    a_pod_with_the_hosts_pids_leaves_no_process: cri_scenario::a_pod_with_the_hosts_pids_leaves_no_process,
    a_pod_with_shared_pids_ends_with_its_pause: cri_scenario::a_pod_with_shared_pids_ends_with_its_pause,
    a_pod_has_a_network: cri_scenario::a_pod_has_a_network,
    /// The plugin asks the shim for them (`-info`), if its type is that of runc's.
    the_handler_has_the_features_of_the_runtime: |node| {
        let status = node.client().get(StatusRequest { verbose: false });
        let handler = status.runtime_handlers.iter().find(|handler| handler.name == "flint");
        let features = handler.and_then(|handler| handler.features.clone()).expect("features");
        assert!(features.recursive_read_only_mounts && features.user_namespaces, "{features:?}");
    },
    /// The image's layers are mapped to the pod's ids, and so is a volume.
    a_pod_with_a_user_namespace: |node| {
        if !node.has_network() {
            return;
        }
        let map = || vec![IdMapping { host_id: 200_000, container_id: 0, length: 65536 }];
        let users = UserNamespace { mode: namespace_mode::POD, uids: map(), gids: map() };
        let mut pod = Pod::run(
            node,
            "flint",
            NamespaceOption {
                pid: namespace_mode::CONTAINER,
                userns_options: Some(users),
                ..NamespaceOption::default()
            },
        );
        let id = pod.container("mapped", "echo up; while :; do sleep 1000 & wait $!; done");
        let map = pod.sh(&id, "cat /proc/self/uid_map");
        assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", "200000", "65536"]);
        assert_eq!(pod.sh(&id, "id -u; stat -c %u:%g /bin/busybox").trim(), "0\n0:0");
        assert_eq!(pod.sh(&id, "touch /made && stat -c %u /made").trim(), "0");
        pod.remove();
    },
    /// A mount below the volume is read-only, too.
    a_volume_is_read_only_to_its_depth: |node| {
        let mut pod = Pod::run(
            node,
            "flint",
            NamespaceOption {
                network: namespace_mode::NODE,
                pid: namespace_mode::CONTAINER,
                ..NamespaceOption::default()
            },
        );
        let volume = node.containerd.place().path().join(node.containerd.id());
        let below = volume.join("below");
        std::fs::create_dir_all(&below).expect("make a volume");
        let path = |path: &std::path::Path| path.display().to_string();
        let mount =
            |args: &[&str]| node.containerd.place().command(args[0]).args(args[1..].iter().copied()).output().ok();
        let _ = mount(&["mount", "-t", "tmpfs", "tmpfs", &path(&below)]);
        let host_path = path(&volume);
        let volumes = |config: &mut ContainerConfig| {
            let mount = Mount { host_path: host_path.clone(), readonly: true, ..Mount::default() };
            config.mounts = vec![
                Mount { container_path: "/shallow".to_owned(), ..mount.clone() },
                Mount { container_path: "/deep".to_owned(), recursive_read_only: true, ..mount },
            ];
        };
        let id = pod.container_with(
            "reads",
            "while :; do sleep 1000 & wait $!; done",
            LinuxContainerResources::default(),
            volumes,
        );
        assert_eq!(pod.sh(&id, "touch /shallow/below/file && echo made").trim(), "made");
        for refused in ["/shallow/file", "/deep/file", "/deep/below/file"] {
            let answer = pod.exec(&id, &format!("touch {refused}"), 0).expect("exec");
            assert!(answer.exit_code != 0, "{refused} can be made");
        }
        pod.remove();
        let _ = mount(&["umount", &path(&below)]);
    },
}
