use super::{pod, pods, problems, with};
use crate::desired::{EnvVar, VolumeSource};

const OBJECTS: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {mode: fast, app.conf: "a=1\nb=2\n"}
binaryData: {blob: AP8=}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: plain}
data: {mode: fast, level: "3"}
---
apiVersion: v1
kind: Secret
metadata: {name: login}
data: {password: aHVudGVyMg==, user: eA==}
stringData: {user: admin}
---
apiVersion: v1
kind: Secret
type: kubernetes.io/dockerconfigjson
metadata: {name: registry}
stringData: {.dockerconfigjson: '{"auths": {"registry.example": {"auth": "YTpi"}}}'}
---
"#;

fn env(text: &str) -> Vec<EnvVar> {
    pod(&format!("{OBJECTS}{text}")).containers[0].env.clone()
}

fn variable(name: &str, value: &str, is_secret: bool) -> EnvVar {
    EnvVar { name: name.to_owned(), value: value.to_owned(), is_secret }
}

#[test]
fn variables_from_objects() {
    let found = env(&with(
        "",
        r#"    envFrom:
    - {configMapRef: {name: plain}, prefix: P_}
    - {secretRef: {name: login}}
    - {secretRef: {name: nobody, optional: true}}
    env:
    - {name: MODE, valueFrom: {configMapKeyRef: {name: settings, key: mode}}}
    - {name: URL, value: "db://$(user):$(password)@db"}
    - {name: GONE, valueFrom: {secretKeyRef: {name: login, key: nothing, optional: true}}}"#,
    ));
    assert_eq!(
        found,
        [
            variable("P_level", "3", false),
            variable("P_mode", "fast", false),
            variable("password", "hunter2", true),
            variable("user", "admin", true),
            variable("MODE", "fast", false),
            variable("URL", "db://admin:hunter2@db", true),
        ]
    );
}

#[test]
fn files_from_objects() {
    let text = with(
        r"  volumes:
  - {name: all, configMap: {name: settings, defaultMode: 0400}}
  - {name: one, configMap: {name: settings, items: [{key: app.conf, path: etc/app.conf, mode: 0600}]}}
  - {name: none, configMap: {name: nobody, optional: true}}
  - {name: login, secret: {secretName: login}}
  - name: mixed
    projected:
      sources:
      - {configMap: {name: plain, items: [{key: level, path: level}]}}
      - {secret: {name: login, items: [{key: user, path: user}]}}
      - {downwardAPI: {items: [{path: name, fieldRef: {fieldPath: metadata.name}}]}}",
        "    volumeMounts: [{name: login, mountPath: /login}]",
    );
    let pod = pod(&format!("{OBJECTS}{text}"));
    let files = |index: usize| match &pod.volumes[index].source {
        VolumeSource::Files(items) | VolumeSource::Secret(items) => {
            items.iter().map(|item| (item.path.clone(), item.content.clone(), item.mode)).collect::<Vec<_>>()
        }
        other => panic!("{other:?}"),
    };
    let file = |path: &str, content: &[u8], mode| (path.to_owned(), content.to_vec(), mode);
    assert_eq!(
        files(0),
        [file("app.conf", b"a=1\nb=2\n", 0o400), file("blob", &[0, 255], 0o400), file("mode", b"fast", 0o400),]
    );
    assert_eq!(files(1), [file("etc/app.conf", b"a=1\nb=2\n", 0o600)]);
    assert_eq!(files(2), []);
    assert!(matches!(pod.volumes[3].source, VolumeSource::Secret(_)), "never on disk");
    assert!(matches!(pod.volumes[4].source, VolumeSource::Secret(_)), "a secret is in it");
    assert_eq!(files(4), [file("level", b"3", 0o644), file("user", b"admin", 0o644), file("name", b"web", 0o644)]);
    assert!(pod.containers[0].mounts[0].read_only);
    assert!(!format!("{pod:?}").contains("hunter2"));
}

#[test]
fn passwords_of_registries() {
    let text = with("  imagePullSecrets: [{name: registry}]", "");
    let pod = pod(&format!("{OBJECTS}{text}"));
    assert_eq!(pod.containers[0].pull_credentials.as_deref(), Some("a:b"));
}

#[test]
fn what_is_missing_is_named() {
    for (spec, container, expected) in [
        (
            "",
            "    envFrom: [{configMapRef: {name: nobody}}]",
            "spec.containers[0].envFrom[0].configMapRef.name: there is no ConfigMap default/nobody",
        ),
        (
            "",
            "    env: [{name: A, valueFrom: {secretKeyRef: {name: login, key: x}}}]",
            "spec.containers[0].env[0].valueFrom.secretKeyRef.key: login has no key \"x\"",
        ),
        (
            "",
            "    envFrom: [{configMapRef: {name: settings}}]",
            "spec.containers[0].envFrom[0]: key blob of settings cannot be a variable",
        ),
        (
            "  volumes: [{name: x, secret: {secretName: nobody}}]",
            "",
            "spec.volumes[0].secret: there is no Secret default/nobody",
        ),
        (
            "  volumes: [{name: x, configMap: {name: plain, items: [{key: x, path: x}]}}]",
            "",
            "spec.volumes[0].configMap.items[0].key: plain has no key \"x\"",
        ),
        (
            "  volumes: [{name: x, configMap: {name: plain, items: [{key: mode, path: ../x}]}}]",
            "",
            "spec.volumes[0].configMap.items[0].path: must be relative",
        ),
        (
            "  volumes: [{name: x, configMap: {name: plain, items: [{key: mode, path: x}, {key: level, path: x/y}]}}]",
            "",
            "spec.volumes[0].configMap: \"x/y\" is there twice",
        ),
        ("  imagePullSecrets: [{name: login}]", "", "spec.imagePullSecrets[0].name: is of no type that has passwords"),
    ] {
        let found = problems(&format!("{OBJECTS}{}", with(spec, container)));
        assert!(found.len() == 1 && found[0].starts_with(expected), "expected only {expected:?}, found {found:#?}");
    }
    let elsewhere = with("", "    envFrom: [{configMapRef: {name: plain}}]")
        .replace("  name: web\n", "  name: web\n  namespace: team\n");
    assert!(pods(&format!("{OBJECTS}{elsewhere}")).is_err(), "objects belong to their namespace");
}
