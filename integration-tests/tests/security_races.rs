//! Past races of container runtimes, run for real: somebody exchanges a path of the image or of a shared volume for a
//! link to the host while flint works on it. Two seconds each; `FLINT_RACE_SECONDS=30` for the long run.
//!
//! The links are absolute and relative ones that lead out of the root when a path is used twice. Whatever flint does in
//! a lost race - run the container or refuse it - nothing of the host may be seen or changed.
#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};

use integration_tests::{Bundle, Case, Swap, flint, race};
use serde_json::json;

/// A folder of the host that no container may touch, with a file that none may see.
struct Decoy(PathBuf);

impl Decoy {
    fn new(case: &Case) -> Self {
        let folder = case.path().join("decoy");
        fs::create_dir(&folder).expect("make the decoy");
        fs::write(folder.join("secret"), "the host's\n").expect("fill the decoy");
        Self(folder)
    }

    fn assert_untouched(&self) {
        let names: Vec<_> = fs::read_dir(&self.0).expect("read").flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(names, ["secret"], "something was made in a folder of the host");
        assert_eq!(fs::read_to_string(self.0.join("secret")).expect("read"), "the host's\n");
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("read");
        assert!(!mounts.contains(&self.0.display().to_string()), "something was mounted on a folder of the host");
    }
}

/// A volume that another container writes to, with `real` in it and `link`, which leads to the host; they are exchanged
/// under the name `real`.
fn volume(case: &Case, target: &Path) -> (PathBuf, Swap) {
    let volume = case.path().join("volume");
    fs::create_dir_all(volume.join("real")).expect("make the volume");
    symlink(target, volume.join("link")).expect("make the link");
    let swap = Swap::start(&volume.join("real"), &volume.join("link"));
    (volume, swap)
}

fn with_volume(bundle: Bundle, volume: &Path) -> Bundle {
    bundle.push("/mounts", json!({"destination": "/volume", "type": "bind", "source": volume, "options": ["rbind"]}))
}

/// CVE-2021-30465: a mount's destination is exchanged between the check and the mount.
#[test]
fn a_mount_stays_inside_while_its_destination_is_exchanged() {
    let case = Case::new(&flint());
    let decoy = Decoy::new(&case);
    let (volume, swap) = volume(&case, &decoy.0);
    let bundle = with_volume(case.bundle().writable(), &volume)
        .push("/mounts", json!({"destination": "/volume/real", "type": "tmpfs", "source": "raced"}))
        .shell("cat /volume/*/secret /volume/*/*/secret 2>/dev/null; echo ran");
    let mut ran = 0;
    race(&swap, || {
        let output = case.run(&bundle);
        assert!(!output.stdout.contains("the host's"), "{output:?}");
        ran += u32::from(output.stdout.contains("ran"));
        decoy.assert_untouched();
        ran > 0
    });
    assert!(ran > 0, "no container came through: the race was not with flint's work");
    drop(swap);
    case.finish();
}

/// CVE-2021-30465 with a source: a bind of a volume's own subfolder whose name is exchanged for a link to `/`.
#[test]
fn a_destination_below_an_exchanged_folder_shows_nothing_of_the_host() {
    let case = Case::new(&flint());
    let decoy = Decoy::new(&case);
    let up = PathBuf::from("../../../../../../../../../../").join(decoy.0.strip_prefix("/").expect("absolute"));
    let (volume, swap) = volume(&case, &up);
    let given = case.path().join("given");
    fs::create_dir(&given).expect("make a source");
    fs::write(given.join("file"), "given\n").expect("fill it");
    let bundle = with_volume(case.bundle().writable(), &volume)
        .push(
            "/mounts",
            json!({"destination": "/volume/real/deeper", "type": "bind", "source": given, "options": ["bind"]}),
        )
        .shell("find /volume -name secret -exec cat {} +; echo ran");
    race(&swap, || {
        let output = case.run(&bundle);
        assert!(!output.stdout.contains("the host's"), "{output:?}");
        decoy.assert_untouched();
        true
    });
    drop(swap);
    case.finish();
}

/// CVE-2024-45310: folders and files on the way to a destination are made while a part of it is exchanged.
#[test]
fn nothing_is_made_on_the_host_while_a_parent_is_exchanged() {
    let case = Case::new(&flint());
    let decoy = Decoy::new(&case);
    let (volume, swap) = volume(&case, &decoy.0);
    let mut round = 0;
    race(&swap, || {
        round += 1;
        let bundle = with_volume(case.bundle().writable(), &volume)
            .push(
                "/mounts",
                json!({"destination": format!("/volume/real/a{round}/b/c"), "type": "tmpfs", "source": "raced"}),
            )
            .push(
                "/mounts",
                json!({"destination": format!("/volume/real/f{round}"), "type": "bind", "source": "/dev/null",
                       "options": ["bind"]}),
            )
            .edit(json!({"process": {"cwd": format!("/volume/real/w{round}/x")}}))
            .shell("true");
        let _ = case.run(&bundle);
        decoy.assert_untouched();
        true
    });
    drop(swap);
    case.finish();
}

/// CVE-2019-19921, CVE-2023-27561, CVE-2023-28642: /proc of the image is exchanged for a link while it is mounted. Where
/// the name leads afterwards is up to the image's owner; but never is a procfs mounted where a link led to.
#[test]
fn proc_is_not_mounted_through_a_link() {
    let case = Case::new(&flint());
    let bundle = case.bundle().writable().shell("stat -f -c %T /fake; echo ran");
    let rootfs = bundle.rootfs();
    fs::create_dir_all(rootfs.join("fake/self/ns")).expect("make a false procfs");
    symlink("/fake", rootfs.join("link")).expect("make the link");
    let swap = Swap::start(&rootfs.join("proc"), &rootfs.join("link"));
    let mut ran = 0;
    race(&swap, || {
        let output = case.run(&bundle);
        assert!(!output.stdout.starts_with("proc"), "a procfs on /fake: {output:?}");
        ran += u32::from(output.stdout.contains("ran"));
        ran > 0
    });
    assert!(ran > 0, "no container came through");
    drop(swap);
    case.finish();
}

/// CVE-2025-31133: the null device that covers masked files is exchanged for a link to a file of procfs.
#[test]
fn masks_are_the_null_device_while_it_is_exchanged() {
    let case = Case::new(&flint());
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").expect("read");
    let bundle = case
        .bundle()
        .writable()
        .edit(json!({"mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
                     "linux": {"maskedPaths": ["/etc/masked"], "readonlyPaths": []}}))
        .file("/etc/masked", "hidden\n", 0o644)
        .shell("stat -c %t:%T /etc/masked; echo '|/attack' >/etc/masked; cat /etc/masked; echo ran");
    let rootfs = bundle.rootfs();
    fs::create_dir_all(rootfs.join("dev")).expect("make /dev");
    // flint makes the null device in the image's own /dev here, where its owner can exchange it.
    let _ = case.run(&bundle);
    symlink("/proc/sys/kernel/core_pattern", rootfs.join("dev/link")).expect("make the link");
    let swap = Swap::start(&rootfs.join("dev/null"), &rootfs.join("dev/link"));
    let mut ran = 0;
    race(&swap, || {
        let output = case.run(&bundle);
        if output.stdout.contains("ran") {
            assert!(output.stdout.starts_with("1:3\n"), "{output:?}");
            assert!(!output.stdout.contains("hidden"), "{output:?}");
            ran += 1;
        }
        assert_eq!(fs::read_to_string("/proc/sys/kernel/core_pattern").expect("read"), pattern);
        ran > 0
    });
    assert!(ran > 0, "no container came through");
    drop(swap);
    case.finish();
}

/// CVE-2025-52565: /dev/console is exchanged for a link while the terminal is mounted on it.
#[test]
fn the_console_is_mounted_inside_while_its_place_is_exchanged() {
    let case = Case::new(&flint());
    let decoy = Decoy::new(&case);
    let before = fs::metadata(decoy.0.join("secret")).expect("stat").mode();
    let bundle = case
        .bundle()
        .writable()
        .edit(json!({"process": {"terminal": true},
                     "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"},
                                {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
                                 "options": ["newinstance", "ptmxmode=0666", "mode=0620"]}]}))
        .shell("cat /dev/console </dev/null; stat -c %F /dev/console; echo ran");
    let rootfs = bundle.rootfs();
    fs::create_dir_all(rootfs.join("dev/pts")).expect("make /dev");
    fs::write(rootfs.join("dev/console"), "").expect("make /dev/console");
    symlink(decoy.0.join("secret"), rootfs.join("dev/link")).expect("make the link");
    let swap = Swap::start(&rootfs.join("dev/console"), &rootfs.join("dev/link"));
    race(&swap, || {
        let output = case.run(&bundle);
        assert!(!output.stdout.contains("the host's"), "{output:?}");
        decoy.assert_untouched();
        assert_eq!(fs::metadata(decoy.0.join("secret")).expect("stat").mode(), before);
        true
    });
    drop(swap);
    case.finish();
}

/// CVE-2024-21626 and its kin: the working directory of an exec is exchanged for a link by the container itself.
#[test]
fn the_working_directory_of_an_exec_stays_inside_while_it_is_exchanged() {
    let case = Case::new(&flint());
    let bundle = case.bundle().writable().forever();
    let rootfs = bundle.rootfs();
    fs::create_dir_all(rootfs.join("work/real")).expect("make the folder");
    symlink("/proc/self/fd/5", rootfs.join("work/link")).expect("make the link");
    let id = case.detached(&bundle, "a");
    let swap = Swap::start(&rootfs.join("work/real"), &rootfs.join("work/link"));
    let mut inside = 0;
    race(&swap, || {
        let look = "pwd; ls -a . .. ../.. ../../.. ../../../..";
        let output = case.call(["exec", "--cwd", "/work/real", &id, "sh", "-c", look]);
        assert!(!output.stdout.contains("flint-it"), "{output:?}");
        if output.code == 0 {
            assert!(output.stdout.starts_with("/work/"), "{output:?}");
            inside += 1;
        }
        inside > 0
    });
    assert!(inside > 0, "no exec came through");
    drop(swap);
    case.delete(&id);
    case.finish();
}

/// The same for the mounts that are added to a running container, whose owner exchanges the destination.
#[test]
fn a_mount_added_later_stays_inside_while_its_destination_is_exchanged() {
    let case = Case::new(&flint());
    let decoy = Decoy::new(&case);
    let given = case.path().join("given");
    fs::create_dir(&given).expect("make a source");
    let bundle = case.bundle().writable().forever();
    let rootfs = bundle.rootfs();
    fs::create_dir_all(rootfs.join("place/real")).expect("make the destination");
    symlink(&decoy.0, rootfs.join("place/link")).expect("make the link");
    let id = case.detached(&bundle, "a");
    let swap = Swap::start(&rootfs.join("place/real"), &rootfs.join("place/link"));
    race(&swap, || {
        let output = case.call(["mount".as_ref(), id.as_ref(), given.as_os_str(), "/place/real".as_ref()]);
        decoy.assert_untouched();
        if output.code == 0 {
            let _ = case.call(["umount", &id, "/place/real"]);
        }
        true
    });
    drop(swap);
    case.delete(&id);
    case.finish();
}
