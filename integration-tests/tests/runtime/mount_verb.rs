//! `flint mount` and `flint umount`: mounts of a container that runs already.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown, symlink};
use std::time::{Duration, Instant};

use integration_tests::{Bundle, Case, Output, Runtime, under_test_only};
use serde_json::json;

fn flint() -> Option<Runtime> {
    under_test_only("flint mount").map(|[flint]| flint)
}

fn volume(case: &Case) -> String {
    let dir = case.path().join("volume");
    fs::create_dir_all(dir.join("sub")).expect("make a volume");
    fs::write(dir.join("file"), "in the volume\n").expect("write into the volume");
    dir.display().to_string()
}

fn mount(case: &Case, id: &str, source: &str, destination: &str, more: &[&str]) -> Output {
    case.command(["mount", id, source, destination]).args(more.iter().copied()).output()
}

fn shell(case: &Case, id: &str, script: &str) -> String {
    case.exec(id, &["/bin/sh", "-c", script]).ok().stdout
}

fn in_user_namespace(bundle: Bundle) -> Bundle {
    for entry in [".", "bin", "dev", "etc", "proc", "root", "sys", "tmp", "var"] {
        chown(bundle.rootfs().join(entry), Some(100_000), Some(100_000)).expect("chown the rootfs");
    }
    let ids = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
    bundle
        .push("/linux/namespaces", json!({"type": "user"}))
        .edit(json!({"linux": {"uidMappings": ids.clone(), "gidMappings": ids}}))
}

#[test]
fn a_folder_and_a_file_come_and_go() {
    let Some(flint) = flint() else { return };
    let case = Case::new(&flint);
    let source = volume(&case);
    let id = case.detached(&case.bundle().writable().forever(), "c");
    let _ = mount(&case, &id, &source, "/made/for/it", &[]).ok();
    let _ = mount(&case, &id, &format!("{source}/file"), "/one", &["-o", "ro,nosuid"]).ok();
    assert_eq!(shell(&case, &id, "cat /made/for/it/file /one"), "in the volume\nin the volume\n");
    assert_eq!(shell(&case, &id, "echo x > /one || echo refused; echo y > /made/for/it/new; echo"), "refused\n\n");
    assert_eq!(fs::read_to_string(format!("{source}/new")).expect("written"), "y\n");
    // Nothing of it is in the host's mount table, nor recorded.
    let _ = case.call(["umount", &id, "/made/for/it"]).ok();
    let _ = case.call(["umount", &id, "/one"]).ok();
    assert_eq!(
        shell(&case, &id, "ls /made/for/it; wc -c < /one; grep -c ' /one ' /proc/self/mountinfo; true"),
        "0\n0\n"
    );
    let output = case.call(["umount", &id, "/one"]);
    assert!(output.code != 0 && output.stderr.contains("it is no mount"), "{}", output.stderr);
    let output = case.call(["umount", &id, "/a/.."]);
    assert!(output.code != 0 && output.stderr.contains("root cannot be unmounted"), "{}", output.stderr);
    case.delete(&id);
    case.finish();
}

#[test]
fn a_created_container_and_new_file_systems() {
    let Some(flint) = flint() else { return };
    let case = Case::new(&flint);
    let source = volume(&case);
    let bundle =
        case.bundle().writable().shell("cat /data/file; stat -c '%a %u' /scratch; touch /fixed/x || echo refused");
    let id = case.id("created");
    let running = {
        let _ = case.command(["create", "--bundle"]).args([bundle.write()]).args([&id]).output().ok();
        let _ = mount(&case, &id, &source, "/data", &["-o", "rbind,rro"]).ok();
        let _ = mount(&case, &id, "tmpfs", "/scratch", &["--type", "tmpfs", "-o", "size=1m,mode=0751,uid=7"]).ok();
        let _ = mount(&case, &id, "tmpfs", "/fixed", &["-t", "tmpfs", "-o", "ro"]).ok();
        shell(&case, &id, "cat /data/file; stat -c '%a %u' /scratch; touch /fixed/x || echo refused")
    };
    assert_eq!(running, "in the volume\n751 7\nrefused\n");
    for kind in ["proc", "sysfs", "mqueue"] {
        let output = mount(&case, &id, kind, "/mnt", &["-t", kind]);
        assert!(output.code != 0 && output.stderr.contains("would show the host's namespaces"), "{}", output.stderr);
    }
    let output = mount(&case, &id, &source, "/proc/sys", &[]);
    assert!(output.stderr.contains("inside /proc"), "{}", output.stderr);
    let output = mount(&case, &id, "/no/such/source", "/mnt", &[]);
    assert!(output.stderr.contains("/no/such/source: no such file or directory"), "{}", output.stderr);
    case.delete(&id);
    case.finish();
}

#[test]
fn in_a_user_namespace() {
    let Some(flint) = flint() else { return };
    let case = Case::new(&flint);
    let source = volume(&case);
    // Out of reach for the container's root: the host opens it.
    fs::set_permissions(&source, std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("chmod");
    let id = case.detached(&in_user_namespace(case.bundle()).writable().forever(), "c");
    let _ = mount(&case, &id, &source, "/mapped/deep", &["-o", "idmap"]).ok();
    let _ = mount(&case, &id, "tmpfs", "/scratch", &["-t", "tmpfs"]).ok();
    let seen = shell(
        &case,
        &id,
        "cat /mapped/deep/file; stat -c %u:%g /mapped /mapped/deep/file /scratch; echo x > /mapped/deep/new",
    );
    assert_eq!(seen, "in the volume\n0:0\n0:0\n0:0\n");
    assert_eq!(fs::metadata(format!("{source}/new")).expect("written").uid(), 0);
    let _ = case.call(["umount", &id, "/mapped/deep"]).ok();
    assert_eq!(shell(&case, &id, "ls /mapped/deep"), "");
    case.delete(&id);
    case.finish();
}

#[test]
fn only_a_living_container() {
    let Some(flint) = flint() else { return };
    let case = Case::new(&flint);
    let source = volume(&case);
    let id = case.detached(&case.bundle().args(&["/bin/true"]), "c");
    case.wait_for(&id, "stopped");
    let output = mount(&case, &id, &source, "/data", &[]);
    assert!(output.code == 1 && output.stderr.contains("container not running"), "{}", output.stderr);
    let output = mount(&case, "flint-no-such-container", &source, "/data", &[]);
    assert!(output.code == 1 && output.stderr.contains("does not exist"), "{}", output.stderr);
    case.delete(&id);
    case.finish();
}

/// The container's links lead inside the container, never to the host.
#[test]
fn links_of_the_container_stay_inside() {
    let Some(flint) = flint() else { return };
    let case = Case::new(&flint);
    let source = volume(&case);
    let decoy = case.path().join("decoy");
    fs::create_dir(&decoy).expect("make the decoy");
    let bundle = case.bundle().writable().forever();
    symlink(&decoy, bundle.rootfs().join("link")).expect("symlink");
    symlink("/proc/sys", bundle.rootfs().join("to-proc")).expect("symlink");
    symlink("../../../../../../..", bundle.rootfs().join("up")).expect("symlink");
    let id = case.detached(&bundle, "c");
    let _ = mount(&case, &id, &source, "/link", &[]).ok();
    assert_eq!(shell(&case, &id, &format!("cat {}/file", decoy.display())), "in the volume\n");
    let _ = mount(&case, &id, &source, "/up/inside", &[]).ok();
    assert_eq!(shell(&case, &id, "cat /inside/file"), "in the volume\n");
    let output = mount(&case, &id, &source, "/to-proc", &[]);
    assert!(output.code != 0 && output.stderr.contains("inside procfs"), "{}", output.stderr);
    assert_eq!(fs::read_dir(&decoy).expect("the decoy").count(), 0);
    assert!(!fs::exists("/inside").expect("look at the host"));
    case.delete(&id);
    case.finish();
}

/// The container swaps the target for a link to a folder that it does not have, all the time.
#[test]
fn a_target_that_is_swapped_meanwhile() {
    let Some(flint) = flint() else { return };
    let case = Case::new(&flint);
    let source = volume(&case);
    let decoy = case.path().join("decoy");
    fs::create_dir(&decoy).expect("make the decoy");
    let script = format!(
        "mkdir -p /a/t /b; ln -s {} /b/t; while :; do mv /a/t /x; mv /b/t /a/t; mv /a/t /b/t; mv /x /a/t; done",
        decoy.display()
    );
    let id = case.detached(&case.bundle().writable().shell(&script), "c");
    let (begun, mut done) = (Instant::now(), 0);
    // Past its time until one was made: on a busy machine that may take long.
    while begun.elapsed() < Duration::from_secs(if done > 0 { 2 } else { 300 }) {
        let output = mount(&case, &id, &source, "/a/t/deep/er", &[]);
        done += usize::from(output.code == 0);
        assert_eq!(fs::read_dir(&decoy).expect("the decoy").count(), 0, "made something on the host");
    }
    assert!(done > 0, "no mount was made at all");
    let table = fs::read_to_string("/proc/self/mountinfo").expect("the host's mounts");
    assert!(!table.contains("/deep/er"), "a mount reached the host");
    case.delete(&id);
    case.finish();
}
