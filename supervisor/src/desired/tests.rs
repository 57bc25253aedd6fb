use std::time::Duration;

use super::{Container, Key, Pod, Quality, Resources, Source};

/// A container of the least that one has.
pub(crate) fn container(name: &str) -> Container {
    let json = serde_json::json!({"name": name, "image": "payload"});
    serde_json::from_value(json).expect("what is left out has defaults")
}

/// A pod of the least that one has.
pub(crate) fn pod(name: &str) -> Pod {
    let json = serde_json::json!({
        "key": Key::new("default", name),
        "uid": format!("uid-{name}"),
        "source": Source::Api,
        "hostname": name,
        "containers": [container("main")],
        "grace": Duration::from_secs(30),
    });
    serde_json::from_value(json).expect("what is left out has defaults")
}

#[test]
fn what_is_stored_is_read_again() {
    let pod = pod("web");
    let json = serde_json::to_vec(&pod).unwrap();
    assert_eq!(serde_json::from_slice::<Pod>(&json).unwrap(), pod);
}

#[test]
fn a_container_of_before_there_were_limits_of_processes_has_the_hash_of_then() {
    let json = serde_json::to_string(&container("main")).unwrap();
    assert!(!json.contains("rlimits") && !json.contains("oom_score_adj"), "{json}");
    let with_a_message = Container { message_path: Some("/dev/termination-log".to_owned()), ..container("main") };
    assert_eq!(with_a_message.spec_hash(), container("main").spec_hash());
}

#[test]
fn a_changed_image_changes_the_container_alone_and_a_hostname_the_sandbox() {
    let before = pod("web");
    let mut after = before.clone();
    after.containers[0].image = "other".to_owned();
    assert_eq!(after.sandbox_hash(), before.sandbox_hash());
    assert_ne!(after.containers[0].spec_hash(), before.containers[0].spec_hash());
    after.hostname = "other".to_owned();
    assert_ne!(after.sandbox_hash(), before.sandbox_hash());
    let mut more = before.containers[0].clone();
    more.resources.memory_limit = Some(1 << 20);
    assert_eq!(more.spec_hash(), before.containers[0].spec_hash(), "limits are applied to what runs");
}

#[test]
fn changed_content_of_a_file_needs_no_new_sandbox_and_a_new_file_does() {
    let item = |path: &str, content: &[u8]| super::Item {
        path: path.to_owned(),
        content: content.to_vec(),
        mode: 0o644,
        uid: 0,
        gid: 0,
    };
    let with = |items| {
        let mut pod = pod("web");
        let source = super::VolumeSource::Secret(items);
        pod.volumes.push(super::Volume { name: "config".to_owned(), source });
        pod.sandbox_hash()
    };
    assert_eq!(with(vec![item("a", b"1")]), with(vec![item("a", b"2")]));
    assert_ne!(with(vec![item("a", b"1")]), with(vec![item("b", b"1")]));
}

#[test]
fn another_uid_is_everywhere_where_the_first_was_put() {
    let random = "11111111-2222-3333-4444-555555555555";
    let mut before = Pod { uid: random.to_owned(), ..pod("web") };
    before.containers[0].args = Some(vec!["serve".to_owned(), format!("--id={random}")]);
    let content = format!("uid {random}").into_bytes();
    let item = super::Item { path: "uid".to_owned(), content, mode: 0o644, uid: 0, gid: 0 };
    let source = super::VolumeSource::Files(vec![item]);
    before.volumes.push(super::Volume { name: "told".to_owned(), source });
    let after = before.with_uid("99999999-2222-3333-4444-555555555555").unwrap();
    assert!(!format!("{after:?}").contains("1111") && after.containers[0].args.as_ref().unwrap()[1].contains("9999"));
    let super::VolumeSource::Files(items) = &after.volumes[0].source else { panic!("files") };
    assert_eq!(items[0].content, b"uid 99999999-2222-3333-4444-555555555555");
    assert_eq!(after.with_uid(random).unwrap(), before, "and back");
    // A word that somebody chose may be any part of a pod.
    let chosen = Pod { uid: "web".to_owned(), ..pod("web") };
    assert_eq!(chosen.with_uid(random).unwrap(), Pod { uid: random.to_owned(), ..pod("web") });
}

#[test]
fn what_runs_is_made_anew_for_an_image_and_not_for_a_label() {
    let before = pod("web");
    let mut after = before.clone();
    after.labels.insert("a".to_owned(), "b".to_owned());
    after.annotations.insert("org.flint.min-ready-seconds".to_owned(), "1".to_owned());
    assert!(!before.is_made_anew_for(&after));
    after.annotations.insert("checksum/config".to_owned(), "1".to_owned());
    assert!(before.is_made_anew_for(&after));
    after.annotations.clear();
    after.containers[0].image = "other".to_owned();
    assert!(before.is_made_anew_for(&after));
    after = Pod { hostname: "other".to_owned(), ..before.clone() };
    assert!(before.is_made_anew_for(&after));
}

#[test]
fn qualities() {
    let with = |resources: Resources| {
        let mut pod = pod("web");
        pod.containers[0].resources = resources;
        pod.quality()
    };
    assert_eq!(with(Resources::default()), Quality::BestEffort);
    let some = Resources { memory_request: Some(1), ..Resources::default() };
    assert_eq!(with(some), Quality::Burstable);
    let limits = Resources { cpu_limit: Some(100), memory_limit: Some(1), ..Resources::default() };
    assert_eq!(with(limits.clone()), Quality::Guaranteed);
    assert_eq!(with(Resources { memory_request: Some(0), ..limits }), Quality::Burstable);
}

#[test]
fn a_schedulers_secrets_are_not_kept() {
    let secret = |source: Source| {
        let item = super::Item { path: "key".to_owned(), content: b"geheim".to_vec(), mode: 0o400, uid: 0, gid: 0 };
        let volume = super::Volume { name: "keys".to_owned(), source: super::VolumeSource::Secret(vec![item]) };
        Pod { source, volumes: vec![volume], ..pod("web") }
    };
    let remote = secret(Source::Scheduler("swarm".to_owned()));
    let kept = remote.to_keep().into_owned();
    assert!(kept.has_forgotten(&kept.volumes[0]) && !remote.has_forgotten(&remote.volumes[0]));
    assert_eq!(kept.sandbox_hash(), remote.sandbox_hash(), "its sandbox stays when the content comes again");
    let local = secret(Source::Api);
    assert_eq!(*local.to_keep(), local);
}
