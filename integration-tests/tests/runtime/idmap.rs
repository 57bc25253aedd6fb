//! Idmapped mounts: whose files they seem to be, inside and on the host.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};

use integration_tests::{Bundle, Case, Runtime, under_test_only};
use serde_json::{Value, json};

fn flint() -> Option<Runtime> {
    under_test_only("idmapped mounts (runc 1.1)").map(|[flint]| flint)
}

fn map(inside: u32, outside: u32, size: u32) -> Value {
    json!([{"containerID": inside, "hostID": outside, "size": size}])
}

/// A folder with a file of 0:0, one of 7:8, and a folder with one of 0:0.
fn volume(case: &Case) -> String {
    let dir = case.path().join("volume");
    fs::create_dir_all(dir.join("sub")).expect("make a volume");
    for (name, uid, gid) in [("root", 0, 0), ("other", 7, 8), ("sub/file", 0, 0)] {
        fs::write(dir.join(name), "text\n").expect("write into the volume");
        chown(dir.join(name), Some(uid), Some(gid)).expect("chown");
    }
    dir.display().to_string()
}

fn bind(source: &str, options: &[&str]) -> Value {
    json!({"destination": "/data", "type": "bind", "source": source, "options": options})
}

fn mapped(source: &str, options: &[&str], uid: Value, gid: Value) -> Value {
    let mut mount = bind(source, options);
    mount["uidMappings"] = uid;
    mount["gidMappings"] = gid;
    mount
}

/// In a user namespace whose 0 is the host's 100,000.
fn in_user_namespace(bundle: Bundle) -> Bundle {
    for entry in [".", "bin", "dev", "etc", "proc", "root", "sys", "tmp", "var"] {
        chown(bundle.rootfs().join(entry), Some(100_000), Some(100_000)).expect("chown the rootfs");
    }
    let ids = map(0, 100_000, 65_536);
    bundle
        .push("/linux/namespaces", json!({"type": "user"}))
        .edit(json!({"linux": {"uidMappings": ids.clone(), "gidMappings": ids}}))
}

fn owners(case: &Case, bundle: Bundle, mount: Value) -> String {
    let script = "stat -c '%n %u:%g' /data/root /data/other /data/sub/file";
    let output = case.run(&bundle.shell(script).writable().push("/mounts", mount)).ok();
    output.stdout.replace("/data/", "")
}

#[test]
fn owners_without_a_user_namespace() {
    let Some(flint) = flint() else { return };
    let case = Case::new(&flint);
    let source = volume(&case);
    let mount = mapped(&source, &["bind"], map(0, 5000, 10), map(0, 6000, 10));
    assert_eq!(owners(&case, case.bundle(), mount), "root 5000:6000\nother 5007:6008\nsub/file 5000:6000\n");
    // An id without a line is nobody's.
    let mount = mapped(&source, &["rbind", "ridmap"], map(0, 5000, 1), map(8, 8, 1));
    assert_eq!(owners(&case, case.bundle(), mount), "root 5000:65534\nother 65534:8\nsub/file 5000:65534\n");
    case.finish();
}

#[test]
fn owners_in_a_user_namespace() {
    let Some(flint) = flint() else { return };
    let case = Case::new(&flint);
    let source = volume(&case);
    // As they are, the host's root is nobody in there; by the container's own maps they are its own.
    let same = "root 0:0\nother 7:8\nsub/file 0:0\n";
    let plain = owners(&case, in_user_namespace(case.bundle()), bind(&source, &["bind"]));
    assert_eq!(plain, "root 65534:65534\nother 65534:65534\nsub/file 65534:65534\n");
    for option in ["idmap", "ridmap", "idmap=uids=@0-0-10;gids=@0-0-10", "idmap=uids=0-100000-10;gids=0-100000-10"] {
        assert_eq!(owners(&case, in_user_namespace(case.bundle()), bind(&source, &["bind", option])), same, "{option}");
    }
    let ids = map(0, 100_000, 65_536);
    let mount = mapped(&source, &["bind"], ids.clone(), ids);
    assert_eq!(owners(&case, in_user_namespace(case.bundle()), mount), same);
    case.finish();
}

#[test]
fn what_the_container_writes_belongs_to_the_file_systems_ids() {
    let Some(flint) = flint() else { return };
    let case = Case::new(&flint);
    let source = volume(&case);
    let bundle = in_user_namespace(case.bundle()).writable().shell("echo new > /data/new; stat -c %u:%g /data/new");
    let output = case.run(&bundle.push("/mounts", bind(&source, &["bind", "idmap"]))).ok();
    assert_eq!(output.stdout, "0:0\n");
    let written = fs::metadata(format!("{source}/new")).expect("the file on the host");
    assert_eq!((written.uid(), written.gid()), (0, 0));
    case.finish();
}

#[test]
fn a_joined_user_namespace_maps() {
    let Some(flint) = flint() else { return };
    let case = Case::new(&flint);
    let source = volume(&case);
    let first = case.detached(&in_user_namespace(case.bundle()).forever(), "first");
    let pid = case.state(&first)["pid"].as_i64().expect("a pid");
    let joined = json!({"type": "user", "path": format!("/proc/{pid}/ns/user")});
    let bundle = case.bundle();
    let owned = in_user_namespace(bundle).edit(json!({"linux": {"uidMappings": null, "gidMappings": null}}));
    let namespaces: Vec<Value> = ["pid", "network", "ipc", "uts", "mount"].map(|kind| json!({"type": kind})).to_vec();
    let joining = owned.edit(json!({"linux": {"namespaces": namespaces}})).push("/linux/namespaces", joined);
    assert_eq!(owners(&case, joining, bind(&source, &["bind", "idmap"])), "root 0:0\nother 7:8\nsub/file 0:0\n");
    case.delete(&first);
    case.finish();
}

#[test]
fn a_new_file_system_is_mapped() {
    let Some(flint) = flint() else { return };
    for user in [false, true] {
        let case = Case::new(&flint);
        let bundle = if user { in_user_namespace(case.bundle()) } else { case.bundle() };
        let outside = if user { 100_000 } else { 5000 };
        let mount = json!({"destination": "/data", "type": "tmpfs", "source": "tmpfs",
            "options": ["mode=0700", "uid=3", "gid=4", "ro"],
            "uidMappings": map(0, outside, 10), "gidMappings": map(0, outside, 10)});
        let bundle = bundle.writable().shell("stat -c '%u:%g %a' /data; touch /data/x || echo refused");
        let output = case.run(&bundle.push("/mounts", mount)).ok();
        let ids = if user { "3:4" } else { "5003:5004" };
        assert_eq!(output.stdout, format!("{ids} 700\nrefused\n"));
        case.finish();
    }
}

#[test]
fn overlays_of_an_idmapped_kind_are_mapped() {
    let Some(flint) = flint() else { return };
    let case = Case::new(&flint);
    // Not in a user namespace that could not reach the lower folders: the host opens them.
    for name in ["lower", "upper", "work"] {
        fs::create_dir_all(case.path().join("layers").join(name)).expect("make a layer");
    }
    let layers = case.path().join("layers").display().to_string();
    let options = json!([
        format!("lowerdir={layers}/lower"),
        format!("upperdir={layers}/upper"),
        format!("workdir={layers}/work")
    ]);
    let ids = map(0, 100_000, 65_536);
    let mount = json!({"destination": "/data", "type": "overlay", "source": "overlay", "options": options,
        "uidMappings": ids.clone(), "gidMappings": ids});
    let bundle = in_user_namespace(case.bundle()).writable().shell("true").push("/mounts", mount);
    let output = case.run(&bundle);
    // Kernels differ in whether an overlay can be mapped as a whole; where not, the sentence says what cannot.
    assert!(
        output.code == 0 || output.stderr.contains("has no idmapped mounts of this file system"),
        "{}",
        output.stderr
    );
    case.finish();
}

#[test]
fn a_source_in_the_containers_own_root() {
    let Some(flint) = flint() else { return };
    let case = Case::new(&flint);
    let source = volume(&case);
    let bundle = case.bundle();
    let inside = bundle.rootfs().join("mnt").display().to_string();
    // The destination may be written as a path of the host, too; the source shows what was mounted before.
    let first = json!({"destination": inside, "type": "bind", "source": source, "options": ["bind"]});
    let second = mapped(&inside, &["rbind"], map(0, 5000, 10), map(0, 6000, 10));
    let owners = owners(&case, bundle.push("/mounts", first), second);
    assert_eq!(owners, "root 5000:6000\nother 5007:6008\nsub/file 5000:6000\n");
    case.finish();
}

/// Init, which makes the mount of what was mounted before, is not root of the file system's user namespace: the host maps.
#[test]
fn a_source_in_the_containers_own_root_in_a_user_namespace() {
    let Some(flint) = flint() else { return };
    let case = Case::new(&flint);
    let source = volume(&case);
    let bundle = in_user_namespace(case.bundle());
    let inside = bundle.rootfs().join("mnt").display().to_string();
    let first = json!({"destination": inside, "type": "bind", "source": source, "options": ["bind"]});
    let bundle = bundle.push("/mounts", first);
    // What the container's maps make of the host's 0 is its own 0; shown as they are, all would be nobody's.
    let owners = owners(&case, bundle, bind(&inside, &["rbind", "idmap"]));
    assert_eq!(owners, "root 0:0\nother 7:8\nsub/file 0:0\n");
    case.finish();
}

#[test]
fn what_cannot_be_mapped_is_told() {
    let Some(flint) = flint() else { return };
    let ids = || (map(0, 1, 1), map(0, 1, 1));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").expect("the kernel's release");
    let release = format!("Linux {} has no idmapped mounts of this file system", kernel.trim());
    let cases = [
        (json!({"destination": "/data", "source": "/sys/kernel", "options": ["bind"]}), release.as_str()),
        (
            json!({"destination": "/data", "type": "mqueue", "options": []}),
            "no idmapped mounts of a mqueue file system",
        ),
    ];
    for (mut mount, words) in cases {
        let case = Case::new(&flint);
        (mount["uidMappings"], mount["gidMappings"]) = ids();
        let output = case.run(&case.bundle().writable().push("/mounts", mount));
        assert!(output.code != 0 && output.stderr.contains(words), "{words}: {}", output.stderr);
        case.finish();
    }
    let case = Case::new(&flint);
    let output = case.run(&case.bundle().writable().push("/mounts", bind("/etc", &["bind", "idmap"])));
    assert!(output.stderr.contains("which has no user namespace"), "{}", output.stderr);
    let output =
        case.run(&case.bundle().writable().push("/mounts", mapped("/etc", &["bind"], map(0, 1, 1), json!([]))));
    assert!(output.stderr.contains("must have both uid and gid mappings"), "{}", output.stderr);
    case.finish();
}

/// One user namespace for equal maps, and no process that outlives its use.
#[test]
fn equal_maps_share_a_namespace() {
    let Some(flint) = flint() else { return };
    let case = Case::new(&flint);
    let source = volume(&case);
    let mut bundle = case.bundle().writable();
    for number in 0..5 {
        let mut mount = mapped(&source, &["bind"], map(0, 5000, 10), map(0, 6000, 10));
        mount["destination"] = json!(format!("/data{number}"));
        bundle = bundle.push("/mounts", mount);
    }
    let plan = case.command(["plan", "--bundle"]).args([bundle.write()]).output().ok();
    assert_eq!(plan.stdout.matches("open a user namespace with uids").count(), 1, "{}", plan.stdout);
    assert_eq!(plan.stdout.matches("idmap by a user namespace").count(), 5, "{}", plan.stdout);
    let id = case.detached(&bundle.forever(), "many");
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", std::process::id())).expect("children");
    assert_eq!(children.trim(), "", "a process was left");
    case.delete(&id);
    case.finish();
}
