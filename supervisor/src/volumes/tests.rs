//! They mount, so they want root: without it they skip themselves.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::{Config, Volumes, mountinfo};
use crate::desired::{Item, Mount, PathKind, Pod, Propagation, Volume, VolumeGroup, VolumeSource};

/// How long a race may go on until both sides have had their turns.
const RACE: Duration = Duration::from_secs(30);

/// Volumes in folders of their own; whatever a test leaves mounted goes with it.
struct Place {
    folder: tempfile::TempDir,
    volumes: Volumes,
}

impl Place {
    fn new() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            let name = std::thread::current().name().unwrap_or("unnamed").to_owned();
            let line = format!("SKIP {name}: mounts want root\n");
            eprint!("{line}");
            if let Some(path) = std::env::var_os("FLINT_SKIP_LOG") {
                let log = fs::OpenOptions::new().create(true).append(true).open(path);
                log.and_then(|mut log| log.write_all(line.as_bytes())).unwrap();
            }
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let volumes = Volumes::open(config(folder.path())).unwrap();
        Some(Self { folder, volumes })
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _left = super::release::unmount_below(self.folder.path());
    }
}

fn config(folder: &Path) -> Config {
    Config { data: folder.join("data"), run: folder.join("run") }
}

fn pod(sources: Vec<VolumeSource>) -> Pod {
    let mut pod: Pod = serde_json::from_value(serde_json::json!({
        "key": {"namespace": "default", "name": "web"}, "uid": "uid-1", "source": "api", "hostname": "web",
        "grace": {"secs": 1, "nanos": 0}, "containers": [{"name": "main", "image": "x"}],
    }))
    .unwrap();
    let named = |(index, source)| Volume { name: format!("v{index}"), source };
    pod.volumes = sources.into_iter().enumerate().map(named).collect();
    pod
}

fn mount(volume: &str, sub_path: Option<&str>) -> Mount {
    let (volume, path) = (volume.to_owned(), "/x".to_owned());
    let sub_path = sub_path.map(str::to_owned);
    Mount { volume, path, sub_path, read_only: false, propagation: Propagation::Private }
}

fn item(path: &str, content: &str, mode: u32) -> Item {
    Item { path: path.to_owned(), content: content.as_bytes().to_vec(), mode, uid: 0, gid: 0 }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

const EMPTY: VolumeSource = VolumeSource::EmptyDir { size_limit: None };

#[test]
fn each_kind_is_made_kept_over_a_restart_and_taken_away() {
    let Some(place) = Place::new() else { return };
    let pod = pod(vec![
        EMPTY,
        VolumeSource::Memory { size_limit: Some(1 << 20) },
        VolumeSource::Named("data".to_owned()),
        VolumeSource::Files(vec![item("a/b", "text", 0o640)]),
        VolumeSource::Secret(vec![item("key", "hunter2", 0o400)]),
    ]);
    let made = place.volumes.prepare(&pod).unwrap();
    assert_eq!((mode(&made["v0"].path), mode(&made["v1"].path), mode(&made["v2"].path)), (0o777, 0o777, 0o755));
    for name in ["v0", "v1", "v2"] {
        fs::write(made[name].path.join("file"), "kept").unwrap();
    }
    let too_much = fs::write(made["v1"].path.join("big"), vec![0; 2 << 20]);
    assert_eq!(too_much.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    assert_eq!(fs::read_to_string(made["v3"].path.join("a/b")).unwrap(), "text");
    assert_eq!(mode(&made["v3"].path.join("a/b")), 0o640);
    assert_eq!(fs::read_to_string(made["v4"].path.join("key")).unwrap(), "hunter2");
    assert!(made["v3"].read_only && made["v4"].read_only && !made["v0"].read_only);
    assert!(super::empty::is_in_memory(&made["v4"].path).unwrap(), "a secret is never on disk");
    assert_eq!((mode(&place.path("run/secrets")), mode(&place.path("data/pods"))), (0o700, 0o700));

    let again = Volumes::open(config(place.folder.path())).unwrap();
    assert_eq!(again.prepare(&pod).unwrap(), made);
    assert_eq!(fs::read_to_string(made["v1"].path.join("file")).unwrap(), "kept");
    let mounted = mountinfo::below(place.folder.path()).unwrap().len();
    assert_eq!(mounted, 2, "the tmpfs of secrets and that of v1, once each");

    assert_eq!(again.retain(&BTreeSet::from(["uid-1".to_owned()])).unwrap().0, Vec::<String>::new());
    fs::create_dir(place.path("data/pods/uid-1/logs")).unwrap();
    assert_eq!(again.retain(&BTreeSet::new()).unwrap().0, ["uid-1"]);
    assert!(!place.path("data/pods/uid-1/empty").exists() && !place.path("data/pods/uid-1/files").exists());
    assert!(place.path("data/pods/uid-1/logs").exists(), "what lies beside is not the volumes'");
    fs::remove_dir(place.path("data/pods/uid-1/logs")).unwrap();
    again.release("uid-1").unwrap();
    assert!(!place.path("data/pods/uid-1").exists() && !place.path("run/secrets/uid-1").exists());
    assert_eq!(fs::read_to_string(made["v2"].path.join("file")).unwrap(), "kept", "a named volume outlives its pods");
    assert!(again.remove_named("data", std::slice::from_ref(&pod)).is_err(), "not while a pod has it");
    again.remove_named("data", &[]).unwrap();
    assert_eq!(again.named().unwrap(), []);
}

#[test]
fn files_are_exchanged_as_a_whole() {
    let Some(place) = Place::new() else { return };
    let with = |value: &str| pod(vec![VolumeSource::Files(vec![item("a", value, 0o644), item("b", value, 0o644)])]);
    let folder = place.volumes.prepare(&with("0")).unwrap()["v0"].path.clone();
    let over = Arc::new(AtomicBool::new(false));
    let reader = std::thread::spawn({
        let (folder, over) = (folder.clone(), Arc::clone(&over));
        move || {
            let mut seen = 0_u64;
            while !over.load(Ordering::Relaxed) {
                // The link, read once, and not what it leads to: that is swept as soon as the link leads elsewhere.
                let Ok(data) = fs::read_link(folder.join("..data")) else { panic!("..data is always there") };
                let read = |name: &str| fs::read(folder.join(&data).join(name));
                if let (Ok(a), Ok(b)) = (read("a"), read("b")) {
                    assert_eq!(a, b);
                    seen += 1;
                } else {
                    let now = fs::read_link(folder.join("..data")).unwrap();
                    assert_ne!(now, data, "what ..data leads to is whole");
                }
                assert!(fs::symlink_metadata(folder.join("a")).is_ok(), "what is shown stays shown");
            }
            seen
        }
    });
    for round in 1..200 {
        place.volumes.prepare(&with(&round.to_string())).unwrap();
    }
    over.store(true, Ordering::Relaxed);
    assert!(reader.join().unwrap() > 0);
    place.volumes.prepare(&pod(vec![VolumeSource::Files(vec![item("c", "x", 0o600)])])).unwrap();
    let mut names: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names.len(), 3, "..data, what it leads to, and c: {names:?}");
}

#[test]
fn what_is_in_a_volume_is_its_groups() {
    let Some(place) = Place::new() else { return };
    let mut pod =
        pod(vec![EMPTY, VolumeSource::Named("data".to_owned()), VolumeSource::Secret(vec![item("k", "s", 0o400)])]);
    let folder = place.volumes.prepare(&pod).unwrap()["v1"].path.clone();
    fs::write(folder.join("file"), "x").unwrap();
    let outside = place.path("outside");
    fs::write(&outside, "x").unwrap();
    fs::set_permissions(&outside, fs::Permissions::from_mode(0o600)).unwrap();
    symlink(&outside, folder.join("link")).unwrap();
    place.volumes.release("uid-1").unwrap();
    pod.volume_group = Some(VolumeGroup { gid: 2000, only_on_mismatch: false });
    let made = place.volumes.prepare(&pod).unwrap();
    let of = |path: &Path| (fs::metadata(path).unwrap().gid(), mode(path));
    assert_eq!(of(&made["v0"].path), (2000, 0o2777));
    assert_eq!(of(&made["v1"].path), (2000, 0o2775));
    assert_eq!(of(&made["v1"].path.join("file")), (2000, 0o664));
    assert_eq!(of(&made["v2"].path.join("k")), (2000, 0o440));
    assert_eq!(of(&outside), (0, 0o600), "links are not followed");
}

#[test]
fn a_part_is_found_inside_its_volume_or_not_at_all() {
    let Some(place) = Place::new() else { return };
    let mut pod = pod(vec![EMPTY]);
    let folder = place.volumes.prepare(&pod).unwrap()["v0"].path.clone();
    let outside = place.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "the host's").unwrap();
    fs::create_dir(folder.join("inner")).unwrap();
    fs::write(folder.join("inner/file"), "the volume's").unwrap();
    symlink("/inner", folder.join("absolute")).unwrap();
    symlink(&outside, folder.join("out")).unwrap();
    symlink("../../../../../../../../etc", folder.join("up")).unwrap();
    let mut bind = |sub_path: &str| {
        pod.containers[0].mounts = vec![mount("v0", Some(sub_path))];
        place.volumes.mounts(&pod, &pod.containers[0]).map(|binds| binds[0].source.clone())
    };
    assert_eq!(fs::read_to_string(bind("inner/file").unwrap()).unwrap(), "the volume's");
    assert_eq!(fs::read_to_string(bind("absolute").unwrap().join("file")).unwrap(), "the volume's");
    assert!(bind("new/deep").unwrap().is_dir());
    assert_eq!(mode(&folder.join("new/deep")), 0o777, "as the volume");
    for escape in ["out/secret", "out", "up/passwd", "up", "../x", "/etc"] {
        assert!(bind(escape).is_err(), "{escape}");
    }
    place.volumes.release("uid-1").unwrap();
    assert_eq!(fs::read_to_string(outside.join("secret")).unwrap(), "the host's");
    assert_eq!(mountinfo::below(&place.path("run/pods")).unwrap(), Vec::<PathBuf>::new());
}

/// CVE-2017-1002101 and CVE-2021-25741: a container puts a link to the host in place of the folder, again and again.
#[test]
fn a_part_that_is_exchanged_meanwhile_leads_nowhere_else() {
    let Some(place) = Place::new() else { return };
    let mut pod = pod(vec![EMPTY]);
    let folder = place.volumes.prepare(&pod).unwrap()["v0"].path.clone();
    let outside = place.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("mark"), "the host's").unwrap();
    fs::create_dir(folder.join("part")).unwrap();
    symlink(&outside, folder.join("link")).unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let turns = Arc::new(AtomicU64::new(0));
    let attacker = std::thread::spawn({
        let (one, other) = (folder.join("part"), folder.join("link"));
        let (over, turns) = (Arc::clone(&over), Arc::clone(&turns));
        move || {
            let flags = rustix::fs::RenameFlags::EXCHANGE;
            while !over.load(Ordering::Relaxed) {
                rustix::fs::renameat_with(rustix::fs::CWD, &one, rustix::fs::CWD, &other, flags).unwrap();
                turns.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    pod.containers[0].mounts = vec![mount("v0", Some("part"))];
    // Until the race was run: on a busy machine either side may wait for long.
    let (started, mut held, mut tries) = (Instant::now(), 0, 0);
    while (held < 20 || tries < 300 || turns.load(Ordering::Relaxed) < 300) && started.elapsed() < RACE {
        tries += 1;
        if let Ok(binds) = place.volumes.mounts(&pod, &pod.containers[0]) {
            held += 1;
            assert!(!binds[0].source.join("mark").exists(), "the host's folder was given to the container");
        }
    }
    over.store(true, Ordering::Relaxed);
    attacker.join().unwrap();
    let turns = turns.load(Ordering::Relaxed);
    assert!(held > 0 && turns >= 300, "{held} binds of {tries}, {turns} exchanges: the race was not run");
}

#[test]
fn paths_of_the_host_are_what_they_have_to_be() {
    let Some(place) = Place::new() else { return };
    let prepare = |path: PathBuf, make_folder, make_file, kind| {
        place.volumes.prepare(&pod(vec![VolumeSource::HostPath { path, make_folder, make_file, kind }])).map(drop)
    };
    let (new, file) = (place.path("new/folder"), place.path("file"));
    assert!(prepare(new.clone(), false, false, Some(PathKind::Folder)).is_err());
    prepare(new.clone(), true, false, Some(PathKind::Folder)).unwrap();
    assert_eq!(mode(&new), 0o755);
    prepare(file.clone(), false, true, Some(PathKind::File)).unwrap();
    assert_eq!(mode(&file), 0o644);
    let error = prepare(file, true, false, None).unwrap_err();
    assert!(error.is_final() && error.to_string().contains("is no folder"), "{error}");
    prepare("/dev/null".into(), false, false, Some(PathKind::CharDevice)).unwrap();
    assert!(prepare("relative".into(), false, false, None).is_err());
}

#[test]
fn nothing_is_removed_through_a_mount() {
    let Some(place) = Place::new() else { return };
    let pod = pod(vec![EMPTY]);
    let folder = place.volumes.prepare(&pod).unwrap()["v0"].path.clone();
    let outside = place.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("mark"), "kept").unwrap();
    fs::create_dir(folder.join("mounted")).unwrap();
    rustix::mount::mount_bind(&outside, folder.join("mounted")).unwrap();
    assert!(super::removal::remove_tree(&folder).is_err());
    assert!(outside.join("mark").exists());
    place.volumes.release("uid-1").unwrap();
    assert!(outside.join("mark").exists() && !folder.exists());
}

#[test]
fn what_is_too_big_is_found() {
    let Some(place) = Place::new() else { return };
    let pod = pod(vec![EMPTY, VolumeSource::EmptyDir { size_limit: Some(64 << 10) }]);
    let made = place.volumes.prepare(&pod).unwrap();
    fs::write(made["v0"].path.join("file"), vec![1; 256 << 10]).unwrap();
    assert_eq!(place.volumes.too_big(&pod).unwrap(), None);
    fs::create_dir(made["v1"].path.join("inner")).unwrap();
    fs::write(made["v1"].path.join("inner/file"), vec![1; 128 << 10]).unwrap();
    let found = place.volumes.too_big(&pod).unwrap().unwrap();
    assert_eq!((found.volume.as_str(), found.limit), ("v1", 64 << 10));
    assert!(place.volumes.disk_usage(&pod, u64::MAX).unwrap() >= 384 << 10);
}

/// A container makes folders deeper than any path: flintd's threads have small stacks, and it has not as many descriptors.
#[test]
fn folders_deeper_than_a_stack_are_counted_given_and_removed() {
    use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};

    let Some(place) = Place::new() else { return };
    let mut pod =
        pod(vec![VolumeSource::EmptyDir { size_limit: Some(1 << 30) }, VolumeSource::Named("data".to_owned())]);
    let made = place.volumes.prepare(&pod).unwrap();
    for volume in ["v0", "v1"] {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut folder = openat(CWD, &made[volume].path, flags, Mode::empty()).unwrap();
        for _ in 0..10_000 {
            mkdirat(&folder, "d", Mode::RWXU).unwrap();
            folder = openat(&folder, "d", flags, Mode::empty()).unwrap();
        }
    }
    pod.volume_group = Some(VolumeGroup { gid: 2000, only_on_mismatch: false });
    let as_flintd = || {
        assert_eq!(place.volumes.too_big(&pod).unwrap().unwrap().volume, "v0");
        place.volumes.prepare(&pod).unwrap();
        place.volumes.release("uid-1").unwrap();
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(512 << 10);
        thread.spawn_scoped(scope, as_flintd).unwrap().join().unwrap();
    });
    assert!(!made["v0"].path.exists());
    assert_eq!(fs::metadata(made["v1"].path.join("d/d/d")).unwrap().gid(), 2000);
    // A tempfile::TempDir would not come to the end of it.
    super::removal::remove_tree(&made["v1"].path).unwrap();
}

#[test]
fn names_do_not_lead_elsewhere() {
    let Some(place) = Place::new() else { return };
    for name in ["..", "a/b", "", ".hidden", "a\0"] {
        assert!(place.volumes.prepare(&pod(vec![VolumeSource::Named(name.to_owned())])).is_err(), "{name:?}");
        assert!(place.volumes.release(name).is_err(), "{name:?}");
    }
    for path in ["../x", "/x", "..data", "a/../b", ""] {
        assert!(
            place.volumes.prepare(&pod(vec![VolumeSource::Files(vec![item(path, "", 0o644)])])).is_err(),
            "{path:?}"
        );
    }
}
