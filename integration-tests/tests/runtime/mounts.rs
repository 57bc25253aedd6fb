//! Mounts, masks, devices and the root, as the container sees them: flint beside runc.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use integration_tests::{Bundle, Case, Command, assert_same, peers, under_test_only};
use serde_json::{Value, json};

const MOUNTINFO: &str = "echo '== mountinfo'; cat /proc/self/mountinfo";

/// The same mount table (and whatever else `build`'s script prints in sections) under each peer.
#[track_caller]
fn same(build: impl Fn(&Case) -> Bundle, expect: &str) {
    let Some(peers) = peers() else { return };
    let views = peers.map(|runtime| {
        let case = Case::new(&runtime);
        let output = case.run(&build(&case)).ok();
        let view = case.view(&output.stdout);
        assert!(
            view.values().flatten().any(|line| line.contains(expect)),
            "{} does not show {expect:?}: {}",
            runtime.name,
            output.stdout
        );
        case.finish();
        view
    });
    assert_same(&views[0], &views[1], &[]);
}

fn mount(kind: &str, source: &str, destination: &str, options: &[&str]) -> Value {
    json!({"destination": destination, "type": kind, "source": source, "options": options})
}

/// A folder of the case with a file in it.
fn volume(case: &Case, name: &str) -> String {
    let dir = case.path().join(name);
    fs::create_dir_all(dir.join("sub")).expect("make a volume");
    fs::write(dir.join("file"), format!("in {name}\n")).expect("write into the volume");
    dir.display().to_string()
}

#[test]
fn bind_mounts_make_their_targets() {
    same(
        |case| {
            let dir = volume(case, "data");
            case.bundle()
                .shell(&format!("cat /mnt/a/b/file /one/file; touch /mnt/a/b/new; ls /mnt/a/b; {MOUNTINFO}"))
                .writable()
                .push("/mounts", mount("bind", &dir, "/mnt/a/b", &["bind", "rw"]))
                .push("/mounts", mount("none", &format!("{dir}/file"), "/one/file", &["rbind", "ro", "nosuid"]))
        },
        "/one/file root=<case>/data/file nosuid,relatime,ro",
    );
}

#[test]
fn bind_mount_options() {
    for options in [
        &["bind", "ro"][..],
        &["bind", "ro", "nosuid", "nodev", "noexec"],
        &["rbind", "rw", "noatime"],
        &["bind", "nodiratime", "strictatime"],
        &["rbind", "rprivate", "nosuid"],
        &["bind", "rslave"],
        &["rbind", "shared"],
        &["bind", "unbindable"],
        &["bind", "sync", "dirsync"],
    ] {
        same(
            |case| {
                let dir = volume(case, "data");
                case.bundle().shell(MOUNTINFO).writable().push("/mounts", mount("bind", &dir, "/data", options))
            },
            "/data root=<case>/data",
        );
    }
}

#[test]
fn a_readonly_bind_mount_is_readonly() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let dir = volume(&case, "data");
        let bundle = case.bundle().shell("echo x > /data/file || echo refused").writable();
        let output = case.run(&bundle.push("/mounts", mount("bind", &dir, "/data", &["bind", "ro"]))).ok();
        assert_eq!(output.stdout, "refused\n");
        assert_eq!(fs::read_to_string(format!("{dir}/file")).expect("read"), "in data\n");
        case.finish();
    }
}

#[test]
fn tmpfs_options() {
    same(
        |case| {
            case.bundle().shell(&format!("{MOUNTINFO}; echo '== dev'; ls -lan /scratch")).writable().push(
                "/mounts",
                mount(
                    "tmpfs",
                    "tmpfs",
                    "/scratch",
                    &["size=1m", "mode=0715", "uid=1000", "gid=5", "noexec", "nr_inodes=100"],
                ),
            )
        },
        "/scratch root=/ noexec,relatime,rw",
    );
}

/// With a word on any of them a bind has the flags that are listed, and not those of its source.
#[test]
fn a_bind_has_the_flags_that_are_listed() {
    let Some(peers) = peers() else { return };
    for options in [&["rbind"][..], &["bind", "ro"], &["bind", "nosuid", "rprivate"], &["bind", "ro", "noatime"]] {
        let seen = peers.clone().map(|runtime| {
            let case = Case::new(&runtime);
            let source = volume(&case, "source");
            let flags = ["-t", "tmpfs", "-o", "nosuid,nodev,noexec", "tmpfs"];
            let _ = Command::new("mount").args(flags).args([&source]).output().ok();
            let bundle = case.bundle().shell("grep ' /data ' /proc/self/mountinfo | cut -d' ' -f6").writable();
            let bind = mount("bind", &source, "/data", options);
            let output = case.run(&bundle.push("/mounts", bind));
            let _ = Command::new("umount").args([&source]).output().ok();
            case.finish();
            output.ok().stdout
        });
        assert_eq!(seen[0], seen[1], "{options:?}");
    }
}

/// As newer runcs do it: what shows a container's mounts again (a checkpoint, say) needs the mode among the options.
#[test]
fn a_tmpfs_without_a_mode_shows_that_of_its_folder() {
    let Some([flint]) = under_test_only("runc 1.1 does not show it") else { return };
    for (options, shown, seen) in [
        (&["rw"][..], ",mode=710", "710"),
        (&["mode=1500"], ",mode=1500", "1500"),
        (&["tmpcopyup"], ",mode=710", "710"),
    ] {
        let case = Case::new(&flint);
        let bundle = case.bundle().shell("stat -c %a /covered; grep ' /covered ' /proc/self/mounts").writable();
        let folder = bundle.rootfs().join("covered");
        fs::create_dir(&folder).expect("make a folder");
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o710)).expect("give it a mode");
        let output = case.run(&bundle.push("/mounts", mount("tmpfs", "tmpfs", "/covered", options))).ok();
        let (first, second) = output.stdout.split_once('\n').expect("two lines");
        assert!(first == seen && second.contains(shown), "{options:?}: {}", output.stdout);
        assert_eq!(fs::metadata(&folder).expect("the folder").permissions().mode() & 0o7777, 0o710);
        case.finish();
    }
}

/// mount(2) takes several, whatever their order.
#[test]
fn of_words_on_access_times_the_strongest_wins() {
    for options in [
        &["noatime", "relatime"][..],
        &["strictatime", "noatime"],
        &["strictatime", "relatime"],
        &["noatime", "atime"],
        &["noatime", "strictatime", "nostrictatime"],
    ] {
        same(
            |case| {
                let (dir, bundle) = (volume(case, "data"), case.bundle().shell(MOUNTINFO).writable());
                let bundle = bundle.push("/mounts", mount("tmpfs", "tmpfs", "/scratch", options));
                bundle.push("/mounts", mount("bind", &dir, "/data", &[&["bind"], options].concat()))
            },
            "/scratch root=/",
        );
    }
}

/// It is set when the root is prepared, and not once more over what the mounts asked for.
#[test]
fn a_private_root_leaves_mounts_their_propagation() {
    same(
        |case| {
            let bundle = case.bundle().shell(MOUNTINFO).writable();
            let bundle = bundle.edit(json!({"linux": {"rootfsPropagation": "rprivate"}}));
            let bundle = bundle.push("/mounts", mount("tmpfs", "tmpfs", "/shared", &["rshared"]));
            bundle.push("/mounts", mount("tmpfs", "tmpfs", "/unbindable", &["unbindable"]))
        },
        "/shared root=/ relatime,rw [shared]",
    );
}

#[test]
fn tmpfs_copies_up() {
    same(
        |case| {
            case.bundle()
                .file("/filled/deep/file", "from the image\n", 0o640)
                .shell("echo '== text'; cat /filled/deep/file; echo '== dev'; ls -lan /filled /filled/deep; grep -c ' /filled ' /proc/self/mountinfo")
                .push("/mounts", mount("tmpfs", "tmpfs", "/filled", &["tmpcopyup", "nosuid"]))
        },
        "from the image",
    );
}

#[test]
fn mounts_stack_in_order() {
    same(
        |case| {
            let dir = volume(case, "data");
            case.bundle()
                .shell("echo '== text'; ls /stack /stack/inner; grep -c ' /stack' /proc/self/mountinfo")
                .writable()
                .push("/mounts", mount("tmpfs", "tmpfs", "/stack", &[]))
                .push("/mounts", mount("bind", &dir, "/stack/inner", &["bind"]))
                .push("/mounts", mount("tmpfs", "tmpfs", "/stack/inner/sub", &[]))
        },
        "inner",
    );
}

#[test]
fn a_symlink_as_target_stays_inside() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let dir = volume(&case, "data");
        let bundle = case.bundle().shell("cat /link/file /inside/file").writable();
        fs::create_dir(bundle.rootfs().join("inside")).expect("mkdir");
        std::os::unix::fs::symlink("/inside", bundle.rootfs().join("link")).expect("symlink");
        let output = case.run(&bundle.push("/mounts", mount("bind", &dir, "/link", &["bind"]))).ok();
        assert_eq!(output.stdout, "in data\nin data\n", "{}", runtime.name);
        case.finish();
    }
}

#[test]
fn root_readonly_and_propagation() {
    for (readonly, propagation) in [(true, "private"), (false, "slave"), (true, "rslave"), (false, "rprivate")] {
        same(
            |case| {
                case.bundle()
                    .shell(&format!("{MOUNTINFO}; echo '== text'; touch /probe && echo written; true"))
                    .edit(json!({"root": {"readonly": readonly}, "linux": {"rootfsPropagation": propagation}}))
            },
            "/ root=<case>",
        );
    }
}

/// runc 1.1 leaves the root private here whatever it is asked, so there is nothing to compare.
#[test]
fn a_shared_root_is_shared() {
    let Some(peers) = under_test_only("rootfsPropagation shared") else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let bundle = case.bundle().shell("grep ' / / \\| / rw' /proc/self/mountinfo | grep -c shared:");
        let output = case.run(&bundle.writable().edit(json!({"linux": {"rootfsPropagation": "shared"}}))).ok();
        assert_eq!(output.stdout, "1\n");
        case.finish();
    }
}

/// Also where the root filesystem lies on another mount of the host than `/`; runc 1.1 makes that private.
#[test]
fn a_slave_root_is_the_hosts_slave() {
    let Some([runtime]) = under_test_only("rootfsPropagation slave") else { return };
    for (propagation, slaves) in [("slave", "1"), ("rslave", "1"), ("private", "0"), ("rprivate", "0")] {
        let case = Case::new(&runtime);
        let bundle = case.bundle().shell("awk '$5 == \"/\"' /proc/self/mountinfo | grep -c master: || true");
        let bundle = bundle.edit(json!({"linux": {"rootfsPropagation": propagation}})).write();
        // A namespace of its own, in which that mount is shared as under systemd.
        let script = "mount --bind \"$1\" \"$1\" && mount --make-rprivate / && mount --make-rshared / && \
                      exec \"$FLINT\" --root \"$ROOT\" run --bundle \"$1\" \"$2\"";
        let output = Command::new("unshare")
            .args(["--mount", "sh", "-ec", script, "sh"])
            .args([bundle.into_os_string(), case.id("a").into()])
            .env("FLINT", &runtime.path)
            .env("ROOT", case.state_root())
            .output()
            .ok();
        assert_eq!(output.stdout.trim(), slaves, "{propagation}");
        case.finish();
    }
}

#[test]
fn masked_and_readonly_paths() {
    same(
        |case| {
            case.bundle()
                .file("/secret/file", "x", 0o600)
                .file("/alone", "x", 0o600)
                .file("/fixed/file", "fixed\n", 0o644)
                .writable()
                .shell(&format!(
                    "echo '== text'; ls /secret; wc -c < /alone; cat /fixed/file; echo y > /fixed/file || echo refused; \
                     touch /secret/new || echo refused; {MOUNTINFO}"
                ))
                .edit(json!({"linux": {
                    "maskedPaths": ["/secret", "/alone", "/does/not/exist", "/proc/keys"],
                    "readonlyPaths": ["/fixed", "/proc/sys", "/nor/does/this"]
                }}))
        },
        "/alone root=/null",
    );
}

#[test]
fn configured_devices() {
    same(
        |case| {
            case.bundle()
                .shell("echo '== dev'; ls -lan /dev /dev/deep; echo '== text'; head -c 3 /dev/deep/zero | wc -c; head -c 1 /dev/mem || echo refused")
                .edit(json!({"linux": {"devices": [
                    {"path": "/dev/deep/zero", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 0, "gid": 5},
                    {"path": "/dev/my-loop", "type": "b", "major": 7, "minor": 0, "fileMode": 0o660, "uid": 0, "gid": 0},
                    {"path": "/dev/mem", "type": "c", "major": 1, "minor": 1, "fileMode": 0o600, "uid": 0, "gid": 0},
                    {"path": "/dev/pipe", "type": "p", "fileMode": 0o600, "uid": 1000, "gid": 1000}
                ], "resources": {"devices": [
                    {"allow": false, "access": "rwm"},
                    {"allow": true, "type": "c", "major": 1, "minor": 5, "access": "rw"}
                ]}}}))
        },
        "refused",
    );
}

#[test]
fn default_devices_work() {
    same(
        |case| {
            case.bundle().shell(
                "echo '== text'; echo x > /dev/null && head -c 4 /dev/zero | wc -c; head -c 4 /dev/urandom | wc -c; \
                 echo x > /dev/full || echo full; echo y >> /dev/stdout; readlink /dev/fd /dev/ptmx /dev/core; \
                 mknod /dev/evil b 8 0 || echo refused",
            )
        },
        "full",
    );
}

#[test]
fn cgroup_mount_shows_the_containers_own() {
    same(
        |case| {
            case.bundle()
                .push("/linux/namespaces", json!({"type": "cgroup"}))
                .shell("echo '== cgroup'; cat /proc/self/cgroup; echo '== text'; ls -d /sys/fs/cgroup/*; grep -c '^1$' /sys/fs/cgroup/pids/cgroup.procs; mkdir /sys/fs/cgroup/pids/x || echo refused")
        },
        "refused",
    );
}

#[test]
fn a_volume_with_locked_flags() {
    same(
        |case| {
            let dir = volume(case, "data");
            let maps = json!([{"containerID": 0, "hostID": 0, "size": 65_536}]);
            case.bundle()
                .shell(MOUNTINFO)
                .writable()
                .push("/mounts", mount("bind", &dir, "/data", &["bind", "ro"]))
                .push("/linux/namespaces", json!({"type": "user"}))
                .edit(json!({"linux": {"uidMappings": maps.clone(), "gidMappings": maps}}))
        },
        "/data root=<case>/data",
    );
}

#[test]
fn links_of_a_volume_may_be_left_alone() {
    let Some([flint]) = under_test_only("Debian's does not know nosymfollow") else { return };
    let case = Case::new(&flint);
    for (options, expected) in [(&["bind"][..], "in data\n"), (&["bind", "nosymfollow"], "refused\n")] {
        let dir = volume(&case, "data");
        let _ = std::os::unix::fs::symlink("file", Path::new(&dir).join("link"));
        let bundle = case.bundle().writable().push("/mounts", mount("bind", &dir, "/m", options));
        assert_eq!(case.run(&bundle.shell("cat /m/link || echo refused")).ok().stdout, expected, "{options:?}");
    }
    case.finish();
}

/// Of a mount that an earlier entry made: its file system is changed, and its flags become exactly those that are listed.
#[test]
fn remounts_change_what_is_there() {
    for options in [
        &["remount", "size=3m", "mode=711"][..],
        &["remount", "ro"],
        &["remount", "nosuid", "noatime", "sync", "lazytime"],
        &["remount", "async", "silent", "iversion"],
    ] {
        same(
            |case| {
                case.bundle()
                    .shell(&format!("{MOUNTINFO}; echo '== text'; touch /m/new && echo written || echo refused"))
                    .writable()
                    .push("/mounts", mount("tmpfs", "tmpfs", "/m", &["nodev", "noexec", "sync", "size=1m"]))
                    .push("/mounts", mount("tmpfs", "tmpfs", "/m", options))
            },
            "/m root=",
        );
    }
    for options in [&["bind", "remount", "ro", "nodiratime"][..], &["bind", "remount"], &["rbind", "remount", "nodev"]]
    {
        same(
            |case| {
                let dir = volume(case, "data");
                case.bundle()
                    .shell(&format!("{MOUNTINFO}; echo '== text'; touch /m/new && echo written || echo refused"))
                    .writable()
                    .push("/mounts", mount("bind", &dir, "/m", &["bind", "nosuid", "noexec", "noatime"]))
                    .push("/mounts", mount("bind", &dir, "/m", options))
            },
            "/m root=",
        );
    }
}

#[test]
fn what_is_no_mount_is_not_remounted() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let bundle = case.bundle().writable().push("/mounts", mount("tmpfs", "tmpfs", "/m", &["remount"]));
        fs::create_dir(bundle.rootfs().join("m")).expect("make the folder");
        let output = case.run(&bundle.args(&["true"])).exits(1);
        assert!(output.stderr.contains("nvalid argument"), "{}: {}", runtime.name, output.stderr);
        case.finish();
    }
}

/// A link of the image must not lead the change to another mount, whose file system may be the host's.
#[test]
fn a_remount_follows_no_link() {
    let Some([flint]) = under_test_only("it follows links inside the root") else { return };
    let case = Case::new(&flint);
    let bundle = case
        .bundle()
        .writable()
        .push("/mounts", mount("tmpfs", "tmpfs", "/m", &[]))
        .push("/mounts", mount("tmpfs", "tmpfs", "/link", &["remount", "ro"]));
    std::os::unix::fs::symlink("m", bundle.rootfs().join("link")).expect("link");
    let output = case.run(&bundle.args(&["true"])).exits(1);
    assert!(output.stderr.contains("name the mount itself"), "{}", output.stderr);
    case.finish();
}

/// Wherever the host has a whole procfs mounted.
#[test]
fn no_pivot_leaves_no_bare_proc_elsewhere() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let other = case.path().join("other proc");
        fs::create_dir(&other).expect("make a folder");
        let mount = ["busybox", "unshare", "-mrpf", "busybox", "mount", "-t", "proc", "none", "/proc"];
        let mut bundle = case.bundle().args(&mount).writable();
        for set in ["bounding", "permitted"] {
            bundle = bundle.push(&format!("/process/capabilities/{set}"), json!("CAP_SETFCAP"));
        }
        // In a mount namespace of the test's own: nothing stays mounted.
        let script = "mount -t proc proc \"$1\" && shift && exec \"$@\"";
        let output = integration_tests::Command::new("unshare")
            .args(["--mount", "sh", "-c", script, "sh"])
            .args([other.as_os_str(), runtime.path.as_os_str(), "--root".as_ref(), case.state_root().as_os_str()])
            .args(["run", "--no-pivot", "--bundle"])
            .args([bundle.write().into_os_string(), case.id("run").into()])
            .output();
        assert_eq!(output.code, 1, "{}: {output:?}", runtime.name);
        assert!(output.stderr.contains("ermission denied"), "{}: {output:?}", runtime.name);
        case.finish();
    }
}

/// With the host's bare procfs left in the mount namespace, a user namespace inside could mount another.
#[test]
fn no_pivot_leaves_no_bare_proc() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let mount = ["busybox", "unshare", "-mrpf", "busybox", "mount", "-t", "proc", "none", "/proc"];
        let mut bundle = case.bundle().args(&mount).writable();
        for set in ["bounding", "permitted"] {
            bundle = bundle.push(&format!("/process/capabilities/{set}"), json!("CAP_SETFCAP"));
        }
        let id = case.id("run");
        let output = case.command(["run", "--no-pivot", "--bundle"]).args([bundle.write()]).args([&id]).output();
        assert_eq!(output.code, 1, "{}: {output:?}", runtime.name);
        assert!(output.stderr.contains("ermission denied"), "{}: {output:?}", runtime.name);
        case.finish();
    }
}
