use super::{pods, problems, with};

/// One problem, by path and the beginning of its reason.
fn refuses(text: &str, expected: &str) {
    let found = problems(text);
    assert!(found.len() == 1 && found[0].starts_with(expected), "expected only {expected:?}, found {found:#?}");
}

#[test]
fn fields_that_a_node_alone_has_no_use_for() {
    for (spec, container, expected) in [
        (
            "",
            "    volumeDevices: [{name: x, devicePath: /dev/x}]",
            "spec.containers[0].volumeDevices: block devices are not offered by a node alone",
        ),
        ("  runtimeClassName: gvisor", "", "spec.runtimeClassName: there is one runtime"),
        ("  hostUsers: false", "", "spec.hostUsers: pods have no user namespace"),
        ("  readinessGates: [{conditionType: x}]", "", "spec.readinessGates: nobody sets"),
        ("  schedulingGates: [{name: x}]", "", "spec.schedulingGates: nobody would ever lift them"),
        ("  volumes: [{name: x, nfs: {server: a, path: /}}]", "", "spec.volumes[0].nfs: network storage needs drivers"),
        ("  volumes: [{name: x, image: {reference: a}}]", "", "spec.volumes[0].image: volumes of images"),
        (
            "  initContainers: [{name: x, image: 'a:1', restartPolicy: Always}]",
            "",
            "spec.initContainers[0].restartPolicy: sidecar",
        ),
        (
            "",
            "    resources: {limits: {hugepages-2Mi: 4Mi}}",
            "spec.containers[0].resources.limits.hugepages-2Mi: huge pages",
        ),
        (
            "",
            "    resources: {limits: {example.com/dongle: 1}}",
            "spec.containers[0].resources.limits.example.com/dongle: devices",
        ),
        ("  nodeSelector: {disktype: ssd}", "", "spec.nodeSelector: this node has no label disktype=ssd"),
        ("  nodeName: other", "", "spec.nodeName: \"other\" is another node: this is node-1"),
        ("  os: {name: windows}", "", "spec.os.name: \"windows\" is not one of linux"),
        ("  priorityClassName: high", "", "spec.priorityClassName: \"high\" is a cluster's: give priority"),
        (
            "  securityContext: {sysctls: [{name: vm.swappiness, value: '1'}]}",
            "",
            "spec.securityContext.sysctls[0].name: is the whole host's",
        ),
        (
            "",
            "    securityContext: {appArmorProfile: {type: RuntimeDefault}}",
            "spec.containers[0].securityContext.appArmorProfile.type: \"RuntimeDefault\" is not one of Unconfined",
        ),
    ] {
        refuses(&with(spec, container), expected);
    }
}

#[test]
fn unknown_fields_and_what_was_meant() {
    refuses(&with("", "    imag: x"), "spec.containers[0].imag: unknown field; did you mean \"image\"?");
    refuses(&with("  restartpolicy: Never", ""), "spec.restartpolicy: unknown field; did you mean \"restartPolicy\"?");
    refuses(&with("  replicas: 3", ""), "spec.replicas: unknown field");
    refuses(
        &with("", "").replace("metadata:", "metadata:\n  nmae: x"),
        "metadata.nmae: unknown field; did you mean \"name\"?",
    );
}

#[test]
fn values_that_are_wrong() {
    for (spec, container, expected) in [
        ("", "    image: ''", "key \"image\" is there twice"),
        ("  terminationGracePeriodSeconds: -1", "", "spec.terminationGracePeriodSeconds: -1 is not from 0"),
        ("  hostNetwork: yes", "", "spec.hostNetwork: is a string, not true or false"),
        ("", "    args: [1]", "spec.containers[0].args[0]: is a number, not a string: put it in quotes"),
        (
            "",
            "    env: [{name: A, value: true}]",
            "spec.containers[0].env[0].value: is a boolean, not a string: put it in quotes",
        ),
        ("", "    env: [{name: A=B}]", "spec.containers[0].env[0].name: is made of printable ASCII"),
        (
            "",
            "    resources: {limits: {memory: 1GB}}",
            "spec.containers[0].resources.limits.memory: \"1GB\" is not a quantity",
        ),
        (
            "",
            "    resources: {limits: {cpu: 1}, requests: {cpu: 2}}",
            "spec.containers[0].resources.requests.cpu: is more than the limit",
        ),
        (
            "",
            "    ports: [{containerPort: 70000}]",
            "spec.containers[0].ports[0].containerPort: 70000 is not from 1 to 65535",
        ),
        ("", "    livenessProbe: {}", "spec.containers[0].livenessProbe: needs one of exec"),
        (
            "",
            "    livenessProbe: {tcpSocket: {port: web}}",
            "spec.containers[0].livenessProbe.tcpSocket.port: \"web\": the container has no port of this name",
        ),
        (
            "",
            "    livenessProbe: {tcpSocket: {port: 1}, successThreshold: 2}",
            "spec.containers[0].livenessProbe.successThreshold: must be 1",
        ),
        (
            "",
            "    volumeMounts: [{name: x, mountPath: /x}]",
            "spec.containers[0].volumeMounts[0].name: the pod has no volume \"x\"",
        ),
        (
            "  volumes: [{name: x, emptyDir: {}}]",
            "    volumeMounts: [{name: x, mountPath: /x, subPath: ../y}]",
            "spec.containers[0].volumeMounts[0].subPath: must be relative",
        ),
        ("  volumes: [{name: x}]", "", "spec.volumes[0]: needs one of configMap"),
        ("  volumes: [{name: x, emptyDir: {}, hostPath: {path: /x}}]", "", "spec.volumes[0]: needs one of configMap"),
        (
            "  volumes: [{name: x, emptyDir: {}}]",
            "    volumeMounts: [{name: x, mountPath: /x, mountPropagation: Bidirectional}]",
            "spec.containers[0].volumeMounts[0].mountPropagation: Bidirectional is for privileged",
        ),
        (
            "  securityContext: {runAsNonRoot: true, runAsUser: 0}",
            "",
            "spec.containers[0].securityContext: runAsUser 0 is root",
        ),
        (
            "",
            "    securityContext: {capabilities: {add: [net_admin]}}",
            "spec.containers[0].securityContext.capabilities.add[0]: is no name of a capability",
        ),
        (
            "  hostNetwork: true",
            "    ports: [{containerPort: 80, hostPort: 81}]",
            "spec.containers[0].ports[0].hostPort: must be the containerPort",
        ),
        ("  dnsPolicy: None", "", "spec.dnsConfig: is missing"),
        ("", "    lifecycle: {stopSignal: SIGFOO}", "spec.containers[0].lifecycle.stopSignal: is no name of a signal"),
        (
            "",
            "    imagePullPolicy: Sometimes",
            "spec.containers[0].imagePullPolicy: \"Sometimes\" is not one of Always, IfNotPresent, Never",
        ),
    ] {
        let found = problems(&with(spec, container));
        assert!(found.len() == 1 && found[0].contains(expected), "expected only {expected:?}, found {found:#?}");
    }
}

#[test]
fn all_problems_come_at_once() {
    let text = with("  restartPolicy: Maybe\n  foo: 1", "    image2: x").replace("name: web", "name: Web_");
    assert_eq!(problems(&text).len(), 4, "{:#?}", problems(&text));
}

#[test]
fn other_kinds_are_refused_with_what_to_do() {
    let kind =
        |kind: &str, version: &str| format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: x}}\nspec: {{}}\n");
    for (name, version, hint) in [
        ("Deployment", "apps/v1", "kind: a node alone runs no Deployment: replicas are kept by a cluster"),
        ("Job", "batch/v1", "kind: a node alone runs no Job: write what is below its template"),
        ("Service", "v1", "kind: a node alone runs no Service: give the pod's ports a hostPort"),
        (
            "Pods",
            "v1",
            "kind: \"Pods\" is not known to a node alone: it takes Pod, ConfigMap, Secret, PersistentVolumeClaim; did you mean \"Pod\"?",
        ),
        ("Pod", "v2", "apiVersion: \"v2\" is not v1"),
    ] {
        refuses(&kind(name, version), hint);
    }
    refuses("a: 1", "has no apiVersion and kind");
    refuses("- 1", "has no apiVersion and kind");
}

#[test]
fn no_problem_tells_what_a_secret_says() {
    for text in [
        "apiVersion: v1\nkind: Secret\nmetadata: {name: x}\ndata: {password: hunter2!}\n",
        "apiVersion: v1\nkind: Secret\nmetadata: {name: x}\nstringData: {password: [hunter2]}\n",
        "apiVersion: v1\nkind: Secret\nmetadata: {name: x}\nstringData: {password: \"hunter2\n",
        "apiVersion: v1\nkind: Secret\nmetadata: {name: x}\nstringData: {password: hunter2, password: hunter2}\n",
        "apiVersion: v1\nkind: Secret\nmetadata: {name: x}\nstringData: {password: &hunter2 x}: *hunter3\n",
    ] {
        let found = pods(text).expect_err("it is wrong").join("\n");
        assert!(!found.contains("hunter"), "{found}");
    }
}
