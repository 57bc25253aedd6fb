//! Mounts and what is in /dev.

use flint_init::plan::MountSource;
use serde_json::json;

use super::*;
use crate::compile::compile_mount;
use crate::plan::SlotSource;

#[test]
fn mounts_of_all_sorts() {
    let cases = [
        (json!({"destination": "/m", "type": "tmpfs"}), "tmpfs -> /m (tmpfs)"),
        (json!({"destination": "/a/../../m//x/.", "type": "tmpfs"}), "tmpfs -> /m/x (tmpfs)"),
        (json!({"destination": "/m", "type": "bind", "source": "../s"}), "/bundle/../s -> /m (bind)"),
        (json!({"destination": "/m", "type": "none", "source": "/s", "options": ["rbind"]}), "/s -> /m (rbind)"),
        (
            json!({"destination": "/m", "source": "/s", "options": ["bind", "rro", "rnosuid", "private"]}),
            "/s -> /m (bind, rro, rnosuid, private)",
        ),
        (
            json!({"destination": "/m", "source": "/s", "options": ["bind", "ro", "rw", "dev"]}),
            "/s -> /m (bind, rw, dev)",
        ),
        (
            json!({"destination": "/m", "type": "tmpfs", "options": ["rnosuid", "rnoexec"]}),
            "tmpfs -> /m (tmpfs, nosuid, noexec)",
        ),
        (
            json!({"destination": "/m", "type": "ext4", "source": "/dev/x", "options": ["ro", "dirsync", "iversion", "data=journal"]}),
            "/dev/x -> /m (ext4, dirsync, data=journal, i_version, ro, ro)",
        ),
        (
            json!({"destination": "/m", "type": "ext4", "source": "/dev/x", "options": ["rro"]}),
            "/dev/x -> /m (ext4, ro, ro)",
        ),
        (
            json!({"destination": "/m", "type": "tmpfs", "options": ["copy-up", "size=1m"]}),
            "tmpfs -> /m (tmpfs, size=1m, tmpcopyup)",
        ),
        (json!({"destination": "/proc", "type": "proc", "source": "proc"}), "proc -> /proc (proc)"),
        (json!({"destination": "/proc", "source": "/proc", "options": ["rbind"]}), "/proc -> /proc (rbind)"),
    ];
    for (mount, line) in cases {
        let plan = compiled(&set("/mounts", json!([mount])));
        assert_eq!(lines_of(&plan, "mount"), [format!("mount #0 {line}")]);
    }
}

#[test]
fn remounts() {
    let remount = |options: &[&str], kind: &str| {
        let options: Vec<_> = ["remount"].iter().chain(options).collect();
        let mounts =
            json!([{"destination": "/m", "type": "tmpfs"}, {"destination": "/m", "type": kind, "options": options}]);
        lines_of(&compiled(&set("/mounts", mounts)), "remount").join("")
    };
    let all = "rw, suid, dev, exec";
    assert_eq!(remount(&["size=1m"], "tmpfs"), format!("remount #1 /m (size=1m, async, nolazytime, rw, {all})"));
    assert_eq!(remount(&["sync", "nodev"], "x"), "remount #1 /m (sync, nolazytime, rw, rw, suid, nodev, exec)");
    assert_eq!(remount(&["ro", "async"], "x"), "remount #1 /m (async, nolazytime, ro, ro, suid, dev, exec)");
    assert_eq!(remount(&["bind", "rro"], "x"), format!("remount #1 /m (bind, {all}, rro)"));
    // As a tmpfs that is made: last, when all is in it.
    let mounts = json!([{"destination": "/dev", "type": "tmpfs", "options": ["remount", "ro"]}]);
    let plan = compiled(&set("/mounts", mounts));
    assert!(lines(&plan).contains(&"make the mount /dev read-only".to_owned()));
    let wrong = json!([{"destination": "/m", "type": "tmpfs", "options": ["remount", "tmpcopyup"]}]);
    assert!(refused(&set("/mounts", wrong)).to_string().contains("remount changes no files"));
}

#[test]
fn proc_and_sysfs_refuse_links() {
    for (kind, refuse) in [("proc", true), ("sysfs", true), ("tmpfs", false), ("mqueue", false)] {
        let plan = compiled(&set(
            "/mounts",
            json!([{"destination": "/proc", "type": "proc"}, {"destination": "/x", "type": kind}]),
        ));
        let Step::Mount(mount) =
            plan.init[position(&plan, |step| matches!(step, Step::Mount(mount) if mount.index == 1))]
        else {
            unreachable!()
        };
        assert_eq!(mount.no_symlinks, refuse, "{kind}");
        assert!(matches!(mount.source, MountSource::New { .. }));
    }
}

#[test]
fn long_lists_of_lower_folders() {
    let folders: Vec<String> = (0..20).map(|number| format!("/var/lib/layers/{number:020}")).collect();
    let options = json!([format!("lowerdir={}::/data", folders.join(":")), "upperdir=/u", "workdir=/w"]);
    let plan = compiled(&set("/mounts", json!([{"destination": "/m", "type": "overlay", "options": options}])));
    let line = &lines_of(&plan, "mount")[0];
    assert_eq!(line.matches("lowerdir+=/var").count(), 20);
    assert!(line.contains(", datadir+=/data, upperdir=/u"), "{line}");
    let short = json!([{"destination": "/m", "type": "overlay", "options": ["lowerdir=/a:/b"]}]);
    assert_eq!(
        lines_of(&compiled(&set("/mounts", short)), "mount"),
        ["mount #0 overlay -> /m (overlay, lowerdir=/a:/b)"]
    );
}

#[test]
fn what_becomes_read_only_late() {
    let mounts = json!([
        {"destination": "/dev", "type": "tmpfs", "options": ["ro"]},
        {"destination": "/run", "type": "tmpfs", "options": ["rro"]},
        {"destination": "/run/below", "type": "tmpfs"}
    ]);
    let mut config = set("/mounts", mounts);
    config["hooks"] = json!({"createContainer": [{"path": "/h"}]});
    let plan = compiled(&config);
    let late = position(&plan, |step| matches!(step, Step::RemountReadonly { .. }));
    assert_eq!(lines_of(&plan, "make the mount"), ["make the mount /dev read-only", "make the mount /run read-only"]);
    assert!(late > position(&plan, |step| matches!(step, Step::RunHook(_))));
    assert!(late < position(&plan, |step| matches!(step, Step::PivotRoot)));
    assert_eq!(lines_of(&plan, "mount #0"), ["mount #0 tmpfs -> /dev (tmpfs)"]);
}

#[test]
fn a_dev_of_the_hosts_keeps_its_devices() {
    let mut config = set("/mounts", json!([{"destination": "/dev/", "source": "/dev", "options": ["rbind"]}]));
    config["linux"]["devices"] = json!([{"path": "/dev/x", "type": "c", "major": 1, "minor": 3}]);
    let plan = compiled(&config);
    assert!(lines_of(&plan, "make the device").is_empty() && lines_of(&plan, "link").is_empty());
}

#[test]
fn devices() {
    let devices = json!([
        {"path": "/dev/null", "type": "c", "major": 9, "minor": 9, "fileMode": 0o600, "uid": 5, "gid": 6},
        {"path": "/dev/disk", "type": "b", "major": 8, "minor": 0, "fileMode": 0o60640},
        {"path": "/dev/fifo", "type": "p"},
        {"path": "/dev/u", "type": "u", "major": 1, "minor": 2}
    ]);
    let made = lines_of(&compiled(&set("/linux/devices", devices.clone())), "make the device");
    assert_eq!(made.len(), 5 + 4);
    assert_eq!(
        made[5..],
        [
            "make the device /dev/null (c 9:9, mode 0600, owner 5:6)",
            "make the device /dev/disk (b 8:0, mode 0640, owner 0:0)",
            "make the device /dev/fifo (p 0:0, mode 0666, owner 0:0)",
            "make the device /dev/u (c 1:2, mode 0666, owner 0:0)",
        ]
    );
    let plan = compiled(&with_user(set("/linux/devices", devices)));
    assert_eq!(lines_of(&plan, "make the device"), ["make the device /dev/fifo (p 0:0, mode 0666, owner 0:0)"]);
}

#[test]
fn idmapped_mounts() {
    let ids = json!([{"containerID": 0, "hostID": 9, "size": 2}]);
    let bind = |option: &str| json!({"destination": "/m", "source": "/s", "options": ["bind", option]});
    let own = json!({"destination": "/m", "source": "/s", "options": ["rbind", "ridmap", "ro"],
        "uidMappings": ids.clone(), "gidMappings": ids.clone()});
    let tmpfs = json!({"destination": "/m", "type": "tmpfs", "options": ["nosuid", "mode=0700"],
        "uidMappings": ids.clone(), "gidMappings": ids});
    let nine = "a user namespace with uids [(0, 9, 2)], gids [(0, 9, 2)]";
    let container = "a user namespace with uids [(0, 100000, 65536)], gids [(0, 100000, 65536)]";
    let with_maps = "idmap=uids=0-9-2;gids=0-9-2";
    for (config, mount, line) in [
        (config(), own.clone(), format!("/s -> /m (rbind, ro, ridmap by {nine})")),
        (config(), bind(with_maps), format!("/s -> /m (bind, idmap by {nine})")),
        (config(), tmpfs.clone(), format!("tmpfs -> /m (tmpfs, mode=0700, nosuid, idmap by {nine})")),
        (with_user(config()), own, format!("/s -> /m (rbind, ro, symfollow, ridmap by {nine}, opened by the host)")),
        (with_user(config()), bind("idmap"), format!("/s -> /m (bind, idmap by {container}, opened by the host)")),
        (
            with_user(config()),
            tmpfs,
            format!("a new tmpfs -> /m (tmpfs, mode=0700, nosuid, idmap by {nine}, opened by the host)"),
        ),
    ] {
        let plan = compiled(&with(config, "/mounts", json!([mount])));
        assert_eq!(lines_of(&plan, "mount"), [format!("mount #0 {line}")]);
    }
    // One user namespace for equal maps.
    let two = json!([bind(with_maps), bind(with_maps)]);
    let slots = compiled(&set("/mounts", two)).slots;
    assert_eq!(slots.iter().filter(|slot| matches!(slot, SlotSource::IdMapping { .. })).count(), 1);
}

#[test]
fn idmaps_that_cannot_be() {
    let ids = json!([{"containerID": 0, "hostID": 9, "size": 2}]);
    let mount = |field: &str, value: Value| {
        let mut mount = json!({"destination": "/m", "source": "/s", "options": ["bind"]});
        mount[field] = value;
        set("/mounts", json!([mount]))
    };
    for (config, words) in [
        (mount("options", json!(["bind", "idmap"])), "which has no user namespace"),
        (mount("uidMappings", ids.clone()), "must have both uid and gid mappings"),
        (mount("options", json!(["bind", "idmap=uids=0-0-1"])), "must have both uid and gid mappings"),
        (mount("options", json!(["bind", "idmap=users=0-0-1"])), "neither uids=... nor gids=..."),
        (mount("options", json!(["bind", "ridmap=uids=0-0;gids=0-0-1"])), "must be three numbers"),
        (mount("options", json!(["bind", "idmap=uids=@0-0-1;gids=0-0-1"])), "relative to the container's"),
        (mount("options", json!(["bind", "idmap=uids=0-0-1#0-9-1;gids=0-0-1"])), "uidMappings[1] overlaps"),
        (
            set(
                "/mounts",
                json!([{"destination": "/m", "type": "mqueue", "uidMappings": ids.clone(), "gidMappings": ids}]),
            ),
            "no idmapped mounts of a mqueue",
        ),
    ] {
        let error = refused(&config).to_string();
        assert!(error.starts_with("mounts[0] /m: ") && error.contains(words), "{error}");
    }
}

#[test]
fn paths_of_the_host_below_the_root() {
    let mount = json!({"destination": "/bundle/rootfs/m/x", "source": "rootfs/a/../b", "options": ["rbind"]});
    for config in [set("/mounts", json!([mount])), with_user(set("/mounts", json!([mount])))] {
        assert_eq!(lines_of(&compiled(&config), "mount"), ["mount #0 the container's /b -> /m/x (rbind)"]);
    }
}

#[test]
fn mounts_that_are_added() {
    let added = |config: &Value, mount: Value| -> Result<Vec<String>> {
        let mount = serde_json::from_value(mount).unwrap();
        compile_mount(&bundle(config)?, &hybrid(), &mount, 42).map(|plan| lines(&plan))
    };
    let bind = json!({"destination": "/m", "source": "/s", "options": ["bind", "idmap"]});
    let plain =
        added(&config(), json!({"destination": "m/..//n", "source": "/s", "options": ["rbind", "ro"]})).unwrap();
    assert_eq!(
        plain[2..],
        [
            "join the mount namespace the container's init",
            "wait for the host at barrier 1 (born)",
            "mount /s -> /n (rbind, ro, symfollow, opened by the host)",
            "report ready and wait for start"
        ]
    );
    let mapped = added(&with_user(config()), bind.clone()).unwrap();
    assert_eq!(
        mapped[2..6],
        [
            "join the user mount namespace the container's init",
            "wait for the host at barrier 1 (born)",
            "become uid 0 of the user namespace",
            "mount /s -> /m (bind, idmap by /proc/42/ns/user, opened by the host)"
        ]
    );
    let tmpfs =
        added(&with_user(config()), json!({"destination": "/m", "type": "tmpfs", "options": ["gid=7"]})).unwrap();
    assert!(tmpfs[5].contains("(tmpfs, gid=7, uid=100000, opened by the host)"), "{tmpfs:?}");
    for (config, mount, words) in [
        (config(), bind, "mount /m: idmap without maps"),
        (config(), json!({"destination": "/m", "type": "proc"}), "would show the host's namespaces"),
        (config(), json!({"destination": "/m", "type": "tmpfs", "options": ["tmpcopyup"]}), "tmpcopyup"),
        (config(), json!({"destination": "/", "source": "/s", "options": ["bind"]}), "must not be the root"),
        (without_namespace(config(), "mount"), json!({"destination": "/m", "type": "tmpfs"}), "no mount namespace"),
    ] {
        let error = added(&config, mount).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}
