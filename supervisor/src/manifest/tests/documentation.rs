//! docs/manifests.md says what is: the table of all fields, and that of Kubernetes' examples.

use std::fmt::Write as _;

use super::pods;
use crate::manifest::fields::{ALL, Verdict};

/// One of the examples of Kubernetes' documentation, in words of our own with its features.
pub(super) struct Row {
    /// Its path there, below `content/en/examples`, without `.yaml`.
    path: &'static str,
    what: &'static str,
    pub(super) text: &'static str,
    /// The field that it is refused for.
    refused: Option<&'static str>,
}

const fn row(path: &'static str, what: &'static str, text: &'static str, refused: Option<&'static str>) -> Row {
    Row { path, what, text, refused }
}

pub(super) static ROWS: &[Row] = &[
    row(
        "pods/commands",
        "a command and its arguments, with a variable",
        include_str!("../../../examples/pods-commands.yaml"),
        None,
    ),
    row(
        "pods/lifecycle-events",
        "hooks after the start and before the stop",
        include_str!("../../../examples/pods-lifecycle-events.yaml"),
        None,
    ),
    row(
        "pods/probe/exec-liveness",
        "a liveness probe that runs a program",
        include_str!("../../../examples/pods-probe-exec-liveness.yaml"),
        None,
    ),
    row(
        "pods/probe/http-liveness",
        "a liveness probe over HTTP, with a header",
        include_str!("../../../examples/pods-probe-http-liveness.yaml"),
        None,
    ),
    row(
        "pods/probe/tcp-liveness-readiness",
        "readiness and liveness by a TCP connection",
        include_str!("../../../examples/pods-probe-tcp-liveness-readiness.yaml"),
        None,
    ),
    row(
        "pods/probe/grpc-liveness",
        "a liveness probe by gRPC's health protocol",
        include_str!("../../../examples/pods-probe-grpc-liveness.yaml"),
        None,
    ),
    row(
        "pods/probe/pod-with-http-healthcheck",
        "a probe with a timeout",
        include_str!("../../../examples/pods-probe-pod-with-http-healthcheck.yaml"),
        None,
    ),
    row(
        "pods/init-containers",
        "an init container that fills a volume",
        include_str!("../../../examples/pods-init-containers.yaml"),
        None,
    ),
    row(
        "pods/two-container-pod",
        "two containers that share a volume",
        include_str!("../../../examples/pods-two-container-pod.yaml"),
        None,
    ),
    row(
        "pods/share-process-namespace",
        "containers that see each other's processes",
        include_str!("../../../examples/pods-share-process-namespace.yaml"),
        None,
    ),
    row(
        "pods/simple-pod",
        "no more than an image and a port",
        include_str!("../../../examples/pods-simple-pod.yaml"),
        None,
    ),
    row("pods/inject/envars", "variables with values", include_str!("../../../examples/pods-inject-envars.yaml"), None),
    row(
        "pods/inject/dependent-envars",
        "variables made of others, and `$$`",
        include_str!("../../../examples/pods-inject-dependent-envars.yaml"),
        None,
    ),
    row(
        "pods/inject/dapi-envars-pod",
        "the pod's own fields as variables",
        include_str!("../../../examples/pods-inject-dapi-envars-pod.yaml"),
        None,
    ),
    row(
        "pods/inject/dapi-envars-container",
        "the container's own resources as variables",
        include_str!("../../../examples/pods-inject-dapi-envars-container.yaml"),
        None,
    ),
    row(
        "pods/inject/dapi-volume",
        "the pod's labels and annotations as files",
        include_str!("../../../examples/pods-inject-dapi-volume.yaml"),
        None,
    ),
    row(
        "pods/inject/dapi-volume-resources",
        "the container's resources as files, with divisors",
        include_str!("../../../examples/pods-inject-dapi-volume-resources.yaml"),
        None,
    ),
    row(
        "pods/inject/secret-pod",
        "a Secret as files",
        include_str!("../../../examples/pods-inject-secret-pod.yaml"),
        None,
    ),
    row(
        "pods/inject/secret-envars-pod",
        "keys of a Secret as variables",
        include_str!("../../../examples/pods-inject-secret-envars-pod.yaml"),
        None,
    ),
    row(
        "pods/inject/pod-secret-envFrom",
        "all keys of a Secret as variables",
        include_str!("../../../examples/pods-inject-pod-secret-envFrom.yaml"),
        None,
    ),
    row(
        "pods/pod-configmap-envFrom",
        "all keys of a ConfigMap as variables",
        include_str!("../../../examples/pods-pod-configmap-envFrom.yaml"),
        None,
    ),
    row(
        "pods/pod-configmap-env-var-valueFrom",
        "keys of a ConfigMap in a command",
        include_str!("../../../examples/pods-pod-configmap-env-var-valueFrom.yaml"),
        None,
    ),
    row(
        "pods/pod-configmap-volume-specific-key",
        "a key of a ConfigMap as a file of another name",
        include_str!("../../../examples/pods-pod-configmap-volume-specific-key.yaml"),
        None,
    ),
    row(
        "pods/config/redis-pod",
        "a configuration file, a data folder and a limit",
        include_str!("../../../examples/pods-config-redis-pod.yaml"),
        None,
    ),
    row(
        "pods/storage/redis",
        "an emptyDir for a database",
        include_str!("../../../examples/pods-storage-redis.yaml"),
        None,
    ),
    row(
        "pods/storage/pv-pod",
        "a claim, and a pod that mounts it",
        include_str!("../../../examples/pods-storage-pv-pod.yaml"),
        None,
    ),
    row(
        "pods/storage/projected-secret-downwardapi-configmap",
        "a Secret, the pod's fields and a ConfigMap in one volume",
        include_str!("../../../examples/pods-storage-projected-secret-downwardapi-configmap.yaml"),
        None,
    ),
    row(
        "pods/storage/projected-secrets-nondefault-permission-mode",
        "a mode of one file in a volume of several sources",
        include_str!("../../../examples/pods-storage-projected-secrets-nondefault-permission-mode.yaml"),
        None,
    ),
    row(
        "pods/storage/projected-service-account-token",
        "a token of a service account",
        include_str!("../../../examples/pods-storage-projected-service-account-token.yaml"),
        Some("spec.volumes[0].projected.sources[0].serviceAccountToken"),
    ),
    row(
        "pods/security/security-context",
        "users and groups of a pod",
        include_str!("../../../examples/pods-security-security-context.yaml"),
        None,
    ),
    row(
        "pods/security/security-context-2",
        "a container's user in place of the pod's",
        include_str!("../../../examples/pods-security-security-context-2.yaml"),
        None,
    ),
    row(
        "pods/security/security-context-4",
        "more capabilities",
        include_str!("../../../examples/pods-security-security-context-4.yaml"),
        None,
    ),
    row(
        "pods/security/seccomp/ga/default-pod",
        "the runtime's default filter of system calls",
        include_str!("../../../examples/pods-security-seccomp-ga-default-pod.yaml"),
        None,
    ),
    row(
        "pods/security/seccomp/ga/fine-pod",
        "a filter of system calls from a file of the node",
        include_str!("../../../examples/pods-security-seccomp-ga-fine-pod.yaml"),
        None,
    ),
    row(
        "pods/security/hello-apparmor",
        "a profile of AppArmor",
        include_str!("../../../examples/pods-security-hello-apparmor.yaml"),
        Some("spec.securityContext.appArmorProfile"),
    ),
    row(
        "pods/resource/memory-request-limit",
        "a request and a limit of memory",
        include_str!("../../../examples/pods-resource-memory-request-limit.yaml"),
        None,
    ),
    row(
        "pods/resource/cpu-request-limit",
        "a request and a limit of CPU",
        include_str!("../../../examples/pods-resource-cpu-request-limit.yaml"),
        None,
    ),
    row(
        "pods/resource/extended-resource-pod",
        "devices of a plugin",
        include_str!("../../../examples/pods-resource-extended-resource-pod.yaml"),
        Some("spec.containers[0].resources.requests.example.com/dongle"),
    ),
    row(
        "pods/resource/pod-level-resources",
        "resources of a pod as a whole",
        include_str!("../../../examples/pods-resource-pod-level-resources.yaml"),
        Some("spec.resources"),
    ),
    row(
        "pods/qos/qos-pod",
        "requests like limits: Guaranteed",
        include_str!("../../../examples/pods-qos-qos-pod.yaml"),
        None,
    ),
    row(
        "pods/pod-nginx",
        "a node selector",
        include_str!("../../../examples/pods-pod-nginx.yaml"),
        Some("spec.nodeSelector"),
    ),
    row(
        "pods/pod-nginx-specific-node",
        "another node's name",
        include_str!("../../../examples/pods-pod-nginx-specific-node.yaml"),
        Some("spec.nodeName"),
    ),
    row(
        "pods/pod-with-node-affinity",
        "affinity to nodes, required and preferred",
        include_str!("../../../examples/pods-pod-with-node-affinity.yaml"),
        None,
    ),
    row(
        "pods/pod-with-pod-affinity",
        "affinity to pods",
        include_str!("../../../examples/pods-pod-with-pod-affinity.yaml"),
        Some("spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution"),
    ),
    row(
        "pods/pod-with-toleration",
        "a toleration",
        include_str!("../../../examples/pods-pod-with-toleration.yaml"),
        None,
    ),
    row(
        "pods/pod-with-scheduling-gates",
        "gates that hold a pod back",
        include_str!("../../../examples/pods-pod-with-scheduling-gates.yaml"),
        Some("spec.schedulingGates"),
    ),
    row(
        "pods/private-reg-pod",
        "a registry that wants a password",
        include_str!("../../../examples/pods-private-reg-pod.yaml"),
        None,
    ),
    row(
        "pods/user-namespaces-stateless",
        "a user namespace of the pod",
        include_str!("../../../examples/pods-user-namespaces-stateless.yaml"),
        Some("spec.hostUsers"),
    ),
    row(
        "pods/image-volumes",
        "a volume of an image's files",
        include_str!("../../../examples/pods-image-volumes.yaml"),
        Some("spec.volumes[0].image"),
    ),
    row(
        "service/networking/hostaliases-pod",
        "more lines of /etc/hosts",
        include_str!("../../../examples/service-networking-hostaliases-pod.yaml"),
        None,
    ),
    row(
        "service/networking/custom-dns",
        "servers of its own in resolv.conf",
        include_str!("../../../examples/service-networking-custom-dns.yaml"),
        None,
    ),
    row("debug/termination", "a message at the end", include_str!("../../../examples/debug-termination.yaml"), None),
    row(
        "application/deployment",
        "a Deployment",
        include_str!("../../../examples/application-deployment.yaml"),
        Some("kind"),
    ),
];

const BOOK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/manifests.md");

/// A part of the book between two marks. With `FLINT_WRITE_BOOK` set it is written instead.
fn compare(part: &str, wanted: &str) {
    let book = std::fs::read_to_string(BOOK).unwrap();
    let (begin, end) = (format!("<!-- {part}: held by a test -->\n\n"), format!("\n<!-- end of {part} -->"));
    let (before, rest) = book.split_once(&begin).expect("the mark of the beginning");
    let (found, after) = rest.split_once(&end).expect("the mark of the end");
    if std::env::var_os("FLINT_WRITE_BOOK").is_some() {
        std::fs::write(BOOK, format!("{before}{begin}{wanted}{end}{after}")).unwrap();
        return;
    }
    assert!(
        found == wanted,
        "docs/manifests.md is behind the code: run this test with FLINT_WRITE_BOOK=1 and look at what it wrote"
    );
}

#[test]
fn every_example_is_taken_or_refused_as_the_book_says() {
    let mut table = "| example | what it shows | result |\n|---|---|---|\n".to_owned();
    for row in ROWS {
        let result = match (pods(row.text), row.refused) {
            (Ok(pods), None) => {
                assert_eq!(pods.len(), 1, "{}", row.path);
                "taken".to_owned()
            }
            (Err(problems), Some(field)) => {
                let is_it = |problem: &String| {
                    problem.starts_with(&format!("{field}: ")) || problem.starts_with(&format!("{field}."))
                };
                assert!(
                    problems.iter().all(|problem| problem.contains(field.rsplit('.').next().unwrap())),
                    "{}: {problems:?}",
                    row.path
                );
                let problem = problems.iter().find(|problem| is_it(problem));
                format!(
                    "refused: {}",
                    problem.unwrap_or_else(|| panic!("{}: {problems:?}", row.path)).replace('|', "\\|")
                )
            }
            (result, refused) => panic!("{}: {result:?}, expected to be refused for {refused:?}", row.path),
        };
        writeln!(table, "| `{}` | {} | {result} |", row.path, row.what).unwrap();
    }
    let taken = ROWS.iter().filter(|row| row.refused.is_none()).count();
    assert!(ROWS.len() >= 20 && taken >= 20, "{} examples", ROWS.len());
    compare("examples", &table);
}

#[test]
fn every_field_is_in_the_book() {
    let mut text = String::new();
    for shape in ALL {
        writeln!(text, "### {}\n\n| field | | |\n|---|---|---|", shape.name).unwrap();
        for field in shape.fields {
            let (verdict, why) = match field.verdict {
                Verdict::Honoured(bounds) => ("honoured", bounds),
                Verdict::NoEffect(why) => ("no effect", why),
                Verdict::Refused(why) => ("refused", why),
            };
            writeln!(text, "| `{}` | {verdict} | {why} |", field.name).unwrap();
        }
        text.push('\n');
    }
    compare("fields", text.trim_end_matches('\n').to_owned().as_str());
}
