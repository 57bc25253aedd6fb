//! From an image to a container that runs, and what is left of it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use integration_tests::{Bundler, Case, Output, TestUser, fill_rootfs, flint, runc, under_test_only};

/// Imports a busybox image that anybody can read, as `localhost/box:1`.
fn boxed(bundler: &Bundler) {
    let rootfs = bundler.path().join("box");
    fill_rootfs(&rootfs);
    fs::create_dir_all(rootfs.join("etc")).expect("make a folder");
    // Closed to its owner, as Fedora's root is: no hindrance to root, but to an ordinary user.
    fs::create_dir_all(rootfs.join("closed/inside")).expect("make a folder");
    fs::write(rootfs.join("closed/inside/file"), "").expect("write");
    for folder in ["closed/inside", "closed"] {
        fs::set_permissions(rootfs.join(folder), fs::Permissions::from_mode(0o555)).expect("chmod");
    }
    fs::write(rootfs.join("etc/passwd"), "root:x:0:0::/:/bin/sh\nweb:x:33:34::/:/bin/sh\n").expect("write");
    let _ = bundler.command(["import", "--quiet"]).args([&rootfs]).args(["localhost/box:1"]).output().ok();
}

fn open() -> Option<(Bundler, Case)> {
    let [runtime] = under_test_only("bundles are the other program's")?;
    let bundler = Bundler::new()?;
    boxed(&bundler);
    Some((bundler, Case::new(&runtime)))
}

fn run(case: &Case, bundle: &Path) -> Output {
    case.command(["run", "--bundle"]).args([bundle]).args([case.id("run")]).output()
}

#[test]
fn a_bundle_runs_as_the_image_and_the_caller_say() {
    let Some((bundler, case)) = open() else { return };
    let bundle = bundler.path().join("web-1");
    let script =
        "id -u; id -g; hostname; echo $A; pwd; ls /data; grep Seccomp: /proc/self/status; touch /written; exit 4";
    let data = bundler.path().join("data");
    fs::create_dir(&data).expect("make a folder");
    fs::write(data.join("file"), "").expect("write a file");
    let mount = format!("{}:/data:ro", data.display());
    let options =
        ["create", "localhost/box:1", "--user", "0:34", "--env", "A=1", "--workdir", "/tmp", "--mount", &mount];
    let created = bundler.command(options).args([&bundle]).args(["--", "/bin/sh", "-c", script]).output().ok();
    assert!(created.stdout.contains("root filesystem: overlay"), "{}", created.stdout);
    let mode = fs::metadata(&bundle).expect("the bundle").permissions().mode();
    assert_eq!(mode & 0o7777, 0o700, "set-id programs of the image are not for the host's users");
    let output = run(&case, &bundle).exits(4);
    assert_eq!(output.stdout, "0\n34\nweb-1\n1\n/tmp\nfile\nSeccomp:\t2\n");
    // After a restart of the host: the mount is gone, what was written is not.
    rustix::mount::unmount(bundle.join("rootfs"), rustix::mount::UnmountFlags::empty()).expect("unmount");
    assert!(!bundle.join("rootfs/bin").exists());
    let again = bundler.command(["--json", "create", "localhost/box:1"]).args([&bundle]).output().ok();
    let again: serde_json::Value = serde_json::from_str(&again.stdout).expect("JSON");
    assert_eq!(again["mountedAgain"], true);
    assert!(bundle.join("rootfs/written").exists());
    let _ = run(&case, &bundle).exits(4);
    let refused = bundler.command(["create", "localhost/box:1"]).args([&bundle]).output().exits(1);
    assert!(refused.stderr.contains("its root filesystem is mounted"), "{}", refused.stderr);

    let _ = bundler.command(["rm"]).args([&bundle]).output().ok();
    assert!(!bundle.exists());
    case.finish();
}

/// As a kill of its maker leaves one, or a power cut.
#[test]
fn a_bundle_that_was_never_finished_is_not_mounted_again() {
    let Some((bundler, case)) = open() else { return };
    let bundle = bundler.path().join("half");
    let _ = bundler.command(["create", "localhost/box:1"]).args([&bundle]).output().ok();
    rustix::mount::unmount(bundle.join("rootfs"), rustix::mount::UnmountFlags::empty()).expect("unmount");
    let config = bundle.join("config.json");
    let whole = fs::read(&config).expect("read config.json");
    for left in [Some(&whole[..whole.len() / 2]), Some(&[]), None] {
        match left {
            Some(left) => fs::write(&config, left).expect("write a part of it"),
            None => fs::remove_file(&config).expect("remove it"),
        }
        let refused = bundler.command(["create", "localhost/box:1"]).args([&bundle]).output().exits(1);
        assert!(refused.stderr.contains("ended before it was whole; remove it"), "{}", refused.stderr);
    }
    let _ = bundler.command(["rm"]).args([&bundle]).output().ok();
    assert!(!bundle.exists());
    case.finish();
}

#[test]
fn a_copy_does_without_overlayfs() {
    let Some((bundler, case)) = open() else { return };
    let bundle = bundler.path().join("copied");
    let options = ["create", "--rootfs", "copy", "localhost/box:1", "--cap-drop", "ALL", "--read-only"];
    let _ = bundler
        .command(options)
        .args([&bundle])
        .args(["--", "sh", "-c", "touch /x || grep CapBnd /proc/self/status"])
        .output()
        .ok();
    let output = run(&case, &bundle).ok();
    assert_eq!(output.stdout, "CapBnd:\t0000000000000000\n");
    let again = bundler.command(["create", "localhost/box:1"]).args([&bundle]).output().exits(1);
    assert!(again.stderr.contains("its root filesystem is a copy"), "{}", again.stderr);
    let _ = bundler.command(["rm"]).args([&bundle]).output().ok();
    case.finish();
}

#[test]
fn what_fails_leaves_nothing() {
    let Some((bundler, case)) = open() else { return };
    let bundle = bundler.path().join("failed");
    for (options, words) in [
        (&["create", "localhost/box:1", "--user", "nobody"][..], "there is no user \"nobody\""),
        (&["create", "localhost/box:1", "--cap-add", "FLY"], "no capability"),
        (&["create", "--pull", "never", "localhost/other:1"], "there is no image localhost/other:1"),
    ] {
        let output = bundler.command(options.iter().copied()).args([&bundle]).output().exits(1);
        assert!(output.stderr.contains(words), "{}", output.stderr);
        assert_eq!(output.error_lines().len(), 1, "{}", output.stderr);
        assert!(!bundle.exists(), "{options:?}");
    }
    fs::create_dir(&bundle).expect("make a folder");
    fs::write(bundle.join("mine"), "").expect("write a file");
    let output = bundler.command(["create", "localhost/box:1"]).args([&bundle]).output().exits(1);
    assert!(output.stderr.contains("is not empty"), "{}", output.stderr);
    assert!(bundle.join("mine").exists(), "it is the caller's");
    case.finish();
}

/// A running container keeps its bundle, and a bundle its layers.
#[test]
fn what_is_in_use_is_not_taken_away() {
    let Some((bundler, case)) = open() else { return };
    let bundle = bundler.path().join("used");
    let _ = bundler.command(["create", "localhost/box:1"]).args([&bundle]).args(["--", "sleep", "1000"]).output().ok();
    let id = case.id("a");
    let _ = case.command(["run", "--detach", "--bundle"]).args([&bundle]).args([&id]).output().ok();
    let _ = bundler.call(["rm", "localhost/box:1"]).ok();
    let collected = bundler.call(["--json", "gc"]).ok();
    let collected: serde_json::Value = serde_json::from_str(&collected.stdout).expect("JSON");
    assert_eq!((&collected["blobs"], &collected["layers"]), (&3.into(), &0.into()), "{collected}");
    assert_eq!(case.exec(&id, &["cat", "/etc/passwd"]).ok().stdout.lines().count(), 2);
    case.delete(&id);
    let _ = bundler.command(["rm"]).args([&bundle]).output().ok();
    let collected = bundler.call(["--json", "gc"]).ok();
    let collected: serde_json::Value = serde_json::from_str(&collected.stdout).expect("JSON");
    assert_eq!(collected["layers"], 1);
    for folder in ["blobs/sha256", "layers", "tmp", "images", "bundles"] {
        let left = fs::read_dir(bundler.store().join(folder)).expect("a folder of the store").count();
        assert_eq!(left, 0, "{folder}");
    }
    case.finish();
}

/// An ordinary user, with nothing but their own id.
#[test]
fn a_user_makes_a_bundle_and_runs_it() {
    let Some((bundler, case)) = open() else { return };
    let Some(user) = TestUser::new() else { return };
    let image = bundler.path().join("box.tar");
    let _ = bundler.command(["export", "localhost/box:1"]).args([&image]).output().ok();
    let home = user.home().to_owned();
    let call = |program: &Path, args: &[&str]| user.command(program).args(args.iter().copied()).output();
    let program = bundler.program().to_owned();
    let _ = call(&program, &["import", "--quiet", &image.display().to_string()]).ok();
    let bundle = home.join("bundle").display().to_string();
    // It may close folders to its user, too.
    let script =
        "id -u; cat /proc/self/uid_map | tr -s ' '; touch /mine; mkdir -m 0 /shut; mkdir /shut/x; chmod 0 /bin";
    let created =
        call(&program, &["create", "--user", "web", "localhost/box:1", &bundle, "--", "sh", "-c", script]).ok();
    assert!(created.stdout.contains("root filesystem: copy"), "{}", created.stdout);
    assert!(created.stdout.contains("runs as root, not as web"), "{}", created.stdout);
    let flint = flint().path;
    let output = call(&flint, &["run", "--bundle", &bundle, &case.id("run")]).ok();
    assert_eq!(output.stdout, format!("0\n 0 {} 1\n", user.uid));
    assert!(home.join("bundle/rootfs/mine").exists());
    let _ = call(&program, &["rm", &bundle]).ok();
    assert!(!home.join("bundle").exists());
    case.finish();
}

/// Nothing in a bundle is for flint alone.
#[test]
fn runc_takes_the_bundle() {
    let Some((bundler, case)) = open() else { return };
    let Some(runc) = runc() else { return integration_tests::skip("runc is not installed") };
    let bundle = bundler.path().join("any");
    let script = "cat /proc/self/mountinfo | wc -l; id; env; grep -E 'Cap|Seccomp:' /proc/self/status";
    let _ =
        bundler.command(["create", "localhost/box:1"]).args([&bundle]).args(["--", "sh", "-c", script]).output().ok();
    let theirs = Case::new(&runc);
    assert_eq!(run(&case, &bundle).ok().stdout, run(&theirs, &bundle).ok().stdout);
    theirs.finish();
    let _ = bundler.command(["rm"]).args([&bundle]).output().ok();
    case.finish();
}
