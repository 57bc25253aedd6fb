//! Configs of images, as people read them.

use serde_json::{Value, json};

use super::{BindMount, Resources, Wishes, generate};
use crate::Digest;
use crate::image::{Blob, Image, Parts};

fn image(config: &Value) -> Image {
    let json = json!({"architecture": "amd64", "os": "linux", "author": "somebody", "config": config,
        "rootfs": {"type": "layers", "diff_ids": []}});
    let json = json.to_string().into_bytes();
    let media_type = "application/vnd.oci.image.config.v1+json".to_owned();
    let config = Blob { digest: Digest::of(&json), size: json.len() as u64, media_type };
    Image::new(Digest::of(b"manifest"), Parts { config, layers: vec![] }, &json).unwrap()
}

fn generated(config: &Value, wishes: &Wishes) -> crate::Result<Value> {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("etc")).unwrap();
    std::fs::write(root.path().join("etc/passwd"), "root:x:0:0::/:\nweb:x:33:34::/:\n").unwrap();
    std::fs::write(root.path().join("etc/group"), "web:x:34:\nlog:x:4:web\n").unwrap();
    Ok(generate(&image(config), "registry.example/web:1", root.path(), wishes)?.config)
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn what_the_image_says_is_there_and_dockers_defaults_around_it() {
    let config = generated(
        &json!({"Entrypoint": ["/serve", "-v"], "Cmd": ["--port", "80"], "Env": ["PATH=/own", "A=1"], "User": "web",
            "WorkingDir": "/srv", "StopSignal": "SIGQUIT", "ExposedPorts": {"80/tcp": {}}, "Labels": {"team": "web"}}),
        &Wishes::default(),
    )
    .unwrap();
    let process = &config["process"];
    assert_eq!(process["args"], json!(["/serve", "-v", "--port", "80"]));
    assert_eq!(process["env"], json!(["PATH=/own", "A=1"]));
    assert_eq!(process["cwd"], "/srv");
    if is_root() {
        assert_eq!(process["user"], json!({"uid": 33, "gid": 34, "additionalGids": [34, 4]}));
        assert!(config["linux"]["uidMappings"].is_null());
    } else {
        assert_eq!(process["user"], json!({"uid": 0, "gid": 0}), "one id is mapped");
        assert_eq!(config["linux"]["uidMappings"][0]["size"], 1);
    }
    let bounding = process["capabilities"]["bounding"].as_array().unwrap();
    assert_eq!(bounding.len(), 14);
    assert_eq!(process["capabilities"]["effective"], process["capabilities"]["bounding"]);
    assert!(process["capabilities"]["ambient"].is_null() && process["capabilities"]["inheritable"].is_null());
    assert_eq!(config["root"], json!({"path": "rootfs", "readonly": false}));
    assert_eq!(config["linux"]["seccomp"]["defaultAction"], "SCMP_ACT_ERRNO");
    assert_eq!(config["annotations"]["org.opencontainers.image.stopSignal"], "SIGQUIT");
    assert_eq!(config["annotations"]["org.opencontainers.image.exposedPorts"], "80/tcp");
    assert_eq!(config["annotations"]["org.opencontainers.image.ref.name"], "registry.example/web:1");
    assert_eq!(config["annotations"]["team"], "web");
    assert_eq!(config["linux"]["resources"], json!({"devices": [{"allow": false, "access": "rwm"}]}));
}

/// Whoever builds an image must not steer the runtime with it.
#[test]
fn labels_that_steer_are_left_out() {
    let labels = json!({"run.oci.hooks.stdout": "/etc/x", "org.systemd.property.X": "1", "org.flint.x": "1", "": "x",
        "org.criu.config": "/etc/x", "dev.gvisor.spec.mount.x": "1", "io.katacontainers.config.x": "1"});
    let config = generated(&json!({"Cmd": ["x"], "Labels": labels}), &Wishes::default()).unwrap();
    for key in labels.as_object().unwrap().keys() {
        assert!(config["annotations"].get(key).is_none(), "{key}");
    }
}

#[test]
fn what_is_dropped_is_taken_from_all_that_is_added() {
    let bounding = |add: &[&str], drop: &[&str]| {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let wishes = Wishes { cap_add: owned(add), cap_drop: owned(drop), ..Wishes::default() };
        let config = generated(&json!({"Cmd": ["x"]}), &wishes).unwrap();
        serde_json::from_value::<Vec<String>>(config["process"]["capabilities"]["bounding"].clone()).unwrap()
    };
    let (all, fewer) = (bounding(&["ALL"], &[]), bounding(&["all"], &["NET_RAW", "sys_admin"]));
    assert_eq!(fewer.len() + 2, all.len());
    assert!(!fewer.iter().any(|name| name == "CAP_NET_RAW" || name == "CAP_SYS_ADMIN"), "{fewer:?}");
    assert_eq!(bounding(&["ALL", "CHOWN"], &["ALL"]), ["CAP_CHOWN"]);
}

#[test]
fn wishes_come_before_the_image() {
    let image = json!({"Entrypoint": ["/serve"], "Cmd": ["--port", "80"], "Env": ["A=1", "B=2"], "User": "web"});
    let wishes = Wishes {
        entrypoint: Some(vec!["/other".to_owned()]),
        env: vec!["B=3".to_owned(), "C=".to_owned()],
        user: Some("7:log".to_owned()),
        cwd: Some("/tmp".to_owned()),
        hostname: Some("name".to_owned()),
        terminal: true,
        read_only: true,
        no_new_privileges: true,
        seccomp: false,
        cap_add: vec!["net_admin".to_owned()],
        cap_drop: vec!["ALL".to_owned()],
        mounts: vec![BindMount::parse("/srv/data:/data:ro").unwrap()],
        resources: Resources { memory: Some(1 << 26), milli_cpus: Some(1500), pids: Some(50) },
        ..Wishes::default()
    };
    let config = generated(&image, &wishes).unwrap();
    let process = &config["process"];
    assert_eq!(process["args"], json!(["/other"]), "the image's command belongs to its entrypoint");
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(process["env"], json!([path, "TERM=xterm", "A=1", "B=3", "C="]));
    assert_eq!(process["cwd"], "/tmp");
    assert_eq!(process["terminal"], true);
    assert_eq!(process["noNewPrivileges"], true);
    assert_eq!(process["capabilities"]["bounding"], json!(["CAP_NET_ADMIN"]));
    if is_root() {
        assert_eq!(process["user"], json!({"uid": 7, "gid": 4, "additionalGids": [4]}));
    }
    assert_eq!(config["hostname"], "name");
    assert_eq!(config["root"]["readonly"], true);
    assert!(config["linux"]["seccomp"].is_null());
    let mount = config["mounts"].as_array().unwrap().last().unwrap();
    assert_eq!((&mount["source"], &mount["destination"]), (&json!("/srv/data"), &json!("/data")));
    assert_eq!(mount["options"], json!(["rbind", "rprivate", "ro"]));
    let resources = &config["linux"]["resources"];
    assert_eq!(resources["memory"]["limit"], 1 << 26);
    assert_eq!((&resources["cpu"]["quota"], &resources["cpu"]["period"]), (&json!(150_000), &json!(100_000)));
    assert_eq!(resources["pids"]["limit"], 50);
}

#[test]
fn the_hosts_network_leaves_the_hosts_name() {
    let wishes = Wishes { host_network: true, hostname: Some("name".to_owned()), ..Wishes::default() };
    let config = generated(&json!({"Cmd": ["x"]}), &wishes).unwrap();
    let kinds: Vec<&str> = config["linux"]["namespaces"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|namespace| namespace["type"].as_str())
        .collect();
    assert!(!kinds.contains(&"network"), "{kinds:?}");
    assert!(config["hostname"].is_null());
}

#[test]
fn what_cannot_be_run_is_refused_with_what_to_do() {
    for (image, wishes, words) in [
        (json!({}), Wishes::default(), "name one behind `--`"),
        (json!({"Cmd": ["x"], "User": "nobody"}), Wishes::default(), "no user \"nobody\""),
        (json!({"Cmd": ["x"], "WorkingDir": "srv"}), Wishes::default(), "not absolute"),
        (
            json!({"Cmd": ["x"]}),
            Wishes { cap_add: vec!["FLY".to_owned()], ..Wishes::default() },
            "no capability \"FLY\"",
        ),
    ] {
        let error = generated(&image, &wishes).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    for wrong in ["", "/a", "a:/b", "/a:b", "/a:/b:x", "/a:/b:ro:ro"] {
        assert!(BindMount::parse(wrong).is_err(), "{wrong}");
    }
}

/// A profile that lets in a capability's calls only with the capability.
#[test]
fn the_seccomp_profile_follows_the_capabilities() {
    let allowed = |wishes: &Wishes, call: &str| {
        let config = generated(&json!({"Cmd": ["x"]}), wishes).unwrap();
        let rules = config["linux"]["seccomp"]["syscalls"].as_array().unwrap().clone();
        let names = |rule: &Value| rule["names"].as_array().unwrap().iter().any(|name| name == call);
        rules.iter().any(|rule| rule["action"] == "SCMP_ACT_ALLOW" && rule["args"].is_null() && names(rule))
    };
    let admin = Wishes { cap_add: vec!["SYS_ADMIN".to_owned()], ..Wishes::default() };
    assert!(allowed(&Wishes::default(), "read") && !allowed(&Wishes::default(), "mount"));
    assert!(allowed(&admin, "mount"));
}
