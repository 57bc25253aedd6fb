//! Many threads of one program with one store, as a supervisor calls the library. It counts its own descriptors, so it is alone.
#![forbid(unsafe_code)]

mod many {
    pub(crate) mod layout;
}

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use flint_bundle::bundle::{self, Making};
use flint_bundle::image::Platform;
use flint_bundle::store::{self, ImageRecord, Policy, Store};
use flint_bundle::{Cancellable, Error, Event, Fetch, Import, Kind, Progress, Silent, Wishes};
use many::layout;

/// How many at once.
const THREADS: usize = 50;

/// One test after the other: descriptors are the whole program's.
static ALONE: Mutex<()> = Mutex::new(());

struct Place {
    _alone: MutexGuard<'static, ()>,
    folder: tempfile::TempDir,
    store: Store,
}

/// A store with the image `localhost/app:N` of five layers; None for others than root, who have no overlays.
fn place() -> Option<Place> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("only root has overlays");
        return None;
    }
    // Not in a tmpfs: what the disk costs counts.
    let folder = tempfile::Builder::new().prefix("flint-bundle-many-").tempdir_in("/var/tmp").unwrap();
    let store = Store::open(&folder.path().join("store")).unwrap();
    Some(Place { _alone: ALONE.lock().unwrap_or_else(PoisonError::into_inner), folder, store })
}

impl Place {
    fn image(&self, name: &str, layers: &[Vec<u8>]) -> ImageRecord {
        let path = self.folder.path().join(format!("layout-{name}"));
        layout::write(&path, layers);
        self.import(&path, name, &Silent).unwrap()
    }

    fn import(&self, path: &Path, name: &str, progress: &dyn Progress) -> Result<ImageRecord, Error> {
        let import = Import {
            name: Some(format!("localhost/{name}:1").parse().unwrap()),
            wanted: None,
            platform: Platform::host(),
            fetch: Fetch::default(),
        };
        flint_bundle::import(&self.store, path, &import, progress).map(|(record, _)| record)
    }
}

fn five_layers() -> Vec<Vec<u8>> {
    let mut layers =
        vec![layout::layer(&[("etc/", ""), ("etc/passwd", "root:x:0:0::/:/bin/sh\nweb:x:33:33::/:/bin/sh\n")])];
    layers.extend((0..4).map(|number| layout::layer(&[(&format!("file{number}"), "content")])));
    layers
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Does something `count` times by many threads; the milliseconds of each, sorted.
fn timed(count: usize, work: impl Fn(usize) + Sync) -> Vec<f64> {
    let next = AtomicUsize::new(0);
    let run = || {
        let mut times = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return times;
            }
            let begun = Instant::now();
            work(number);
            times.push(begun.elapsed().as_secs_f64() * 1000.0);
        }
    };
    let mut times: Vec<f64> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(run)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    times.sort_by(f64::total_cmp);
    times
}

/// `FLINT_MANY` bundles (200) of one image at 50 at a time, that last and that do not.
#[test]
fn many_bundles_of_one_image_are_made_at_once() {
    let Some(place) = place() else { return };
    let record = place.image("app", &five_layers());
    let count = std::env::var("FLINT_MANY").ok().and_then(|text| text.parse().ok()).unwrap_or(200);
    let before = descriptors();
    for lasting in [true, false] {
        let most = AtomicUsize::new(0);
        let folder = |number: usize| place.folder.path().join(format!("bundle-{lasting}-{number}"));
        let wishes = Wishes { user: Some("web".to_owned()), ..Wishes::default() };
        let begun = Instant::now();
        let times = timed(count, |number| {
            let edit = |config: &mut serde_json::Value| {
                config["hostname"] = format!("web-{number}").into();
                Ok(())
            };
            let making = Making { lasting, edit: Some(&edit), ..Making::new(&wishes) };
            let created = bundle::create(&place.store, &record, &folder(number), &making).unwrap();
            assert!(created.overlay);
            most.fetch_max(descriptors(), Ordering::Relaxed);
        });
        let whole = begun.elapsed().as_secs_f64() * 1000.0;
        let at = |percent: usize| times[(times.len() - 1) * percent / 100];
        println!(
            "{count} bundles, lasting {lasting}: {:.2} ms each of the whole; one takes {:.2} ms (median), {:.2} ms (99 %)",
            whole / f64::from(u32::try_from(count).unwrap()),
            at(50),
            at(99)
        );
        let most = most.into_inner();
        assert!(most <= before + 20 * THREADS, "{most} descriptors at once");
        assert_eq!(place.store.bundles().unwrap().len(), count);
        let config = std::fs::read(folder(7).join("config.json")).unwrap();
        let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
        assert_eq!((&config["hostname"], &config["process"]["user"]["uid"]), (&"web-7".into(), &33.into()));
        assert_eq!(std::fs::read_to_string(folder(7).join("rootfs/file3")).unwrap(), "content");
        // Neither a name that goes nor a collection takes anything from them.
        let collected =
            store::trim(&place.store, &Policy { bytes: Some(0), min_age: Duration::ZERO, ..Policy::default() });
        assert_eq!(collected.unwrap().images, Vec::<String>::new());
        let times = timed(count, |number| bundle::remove(&place.store, &folder(number)).unwrap());
        println!("removed: one takes {:.2} ms (median)", times[times.len() / 2]);
        assert_eq!(place.store.bundles().unwrap().len(), 0);
        assert!(descriptors() <= before);
    }
}

/// Counts layers that begin, and cancels when `limit` bytes of one have come.
#[derive(Default)]
struct Counting {
    begun: AtomicUsize,
    limit: Option<u64>,
    flag: AtomicBool,
}

impl Progress for Counting {
    fn tell(&self, event: Event<'_>) {
        match event {
            Event::LayerBegins { .. } => {
                self.begun.fetch_add(1, Ordering::Relaxed);
            }
            Event::LayerComes { bytes, .. } if self.limit.is_some_and(|limit| bytes >= limit) => {
                self.flag.store(true, Ordering::Relaxed);
            }
            _ => {}
        }
    }
}

#[test]
fn an_image_that_many_want_at_once_is_taken_once() {
    let Some(place) = place() else { return };
    let path = place.folder.path().join("layout");
    layout::write(&path, &five_layers());
    let counting = Counting::default();
    timed(THREADS, |_| drop(place.import(&path, "same", &counting).unwrap()));
    assert_eq!(counting.begun.into_inner(), 5);
}

#[test]
fn a_cancelled_import_leaves_what_came_and_goes_on_later() {
    let Some(place) = place() else { return };
    let path = place.folder.path().join("layout");
    let content = "x".repeat(8 << 20);
    layout::write(&path, &[layout::layer(&[("large", &content)])]);
    let counting = Counting { limit: Some(3 << 20), ..Counting::default() };
    let error = place.import(&path, "large", &Cancellable::new(&counting, &counting.flag)).unwrap_err();
    assert_eq!(error.kind(), Kind::Cancelled, "{error}");
    let names = || -> Vec<String> {
        let tmp = std::fs::read_dir(place.store.root().join("tmp")).unwrap();
        tmp.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    assert!(names().iter().all(|name| name.starts_with("blob-")) && names().len() == 1, "{:?}", names());
    assert!(place.store.images().unwrap().is_empty());
    // The same when only the unpacking is left to do.
    let record = place.import(&path, "large", &Silent).unwrap();
    assert_eq!(names(), Vec::<String>::new());
    std::fs::remove_dir_all(place.store.root().join("layers")).unwrap();
    std::fs::create_dir(place.store.root().join("layers")).unwrap();
    let counting = Counting { limit: Some(3 << 20), ..Counting::default() };
    let (wishes, folder) = (Wishes::default(), place.folder.path().join("bundle"));
    let progress = Cancellable::new(&counting, &counting.flag);
    let error = bundle::create(&place.store, &record, &folder, &Making { progress: &progress, ..Making::new(&wishes) });
    let error = error.unwrap_err();
    assert_eq!(error.kind(), Kind::Cancelled, "{error}");
    assert!(!folder.exists() && names().is_empty());
}

#[test]
fn the_longest_unused_images_go_first_and_only_as_many_as_needed() {
    let Some(place) = place() else { return };
    let image = |name: &str| {
        // Files' times go by the kernel's ticks.
        std::thread::sleep(Duration::from_millis(20));
        let content = name.repeat(1 << 20);
        place.image(name, &[layout::layer(&[(name, &content)]), layout::layer(&[("shared", "x")])])
    };
    let names = || place.store.images().unwrap().into_iter().map(|record| record.name).collect::<Vec<_>>();
    let (oldest, used, kept, young) = (image("a"), image("b"), image("c"), image("d"));
    let usage = place.store.usage().unwrap();
    let one = &usage.images[0];
    assert_eq!((one.layer_bytes, one.own_bytes > 2 << 20, one.bundles), ((1 << 20) + 1, true, 0));
    assert!(usage.layer_bytes < 5 << 20 && usage.blob_bytes < 5 << 20, "what is shared counts once: {usage:?}");
    // A bundle is made of the oldest: it is used now, and cannot go.
    let (wishes, folder) = (Wishes::default(), place.folder.path().join("bundle"));
    std::thread::sleep(Duration::from_millis(20));
    bundle::create(&place.store, &oldest, &folder, &Making::new(&wishes)).unwrap();
    let order: Vec<String> = place.store.usage().unwrap().images.into_iter().map(|image| image.record.name).collect();
    assert_eq!(order, [&used, &kept, &young, &oldest].map(|record| record.name.clone()));
    let keep = [kept.name.clone()].into();
    let policy = Policy { min_age: Duration::ZERO, keep, high: 100, low: 100, ..Policy::default() };
    let enough = usage.blob_bytes + usage.layer_bytes - (1 << 20);
    let trim = |bytes| store::trim(&place.store, &Policy { bytes: Some(bytes), ..policy.clone() }).unwrap();
    assert_eq!(trim(1 << 40).images, Vec::<String>::new());
    let collected = trim(enough);
    assert_eq!((collected.images, collected.blobs, collected.layers), (vec![used.name], 3, 1));
    assert_eq!(trim(0).images, [young.name]);
    assert_eq!(names(), [oldest.name, kept.name], "one is in use, one is to stay");
    bundle::remove(&place.store, &folder).unwrap();
    let lease = place.store.lease().unwrap();
    let policy = Policy { patience: Duration::from_millis(20), ..policy };
    assert_eq!(store::trim(&place.store, &policy).unwrap_err().kind(), Kind::Unavailable);
    drop(lease);
}

/// What a bundle that need not last leaves behind when the host restarts: nothing that anybody believes.
#[test]
fn records_of_another_boot_are_not_read() {
    let Some(place) = place() else { return };
    let record = place.image("app", &five_layers());
    let (wishes, folder) = (Wishes::default(), place.folder.path().join("bundle"));
    let making = Making { lasting: false, ..Making::new(&wishes) };
    bundle::create(&place.store, &record, &folder, &making).unwrap();
    let records = place.store.root().join("bundles");
    let name = std::fs::read_dir(&records).unwrap().next().unwrap().unwrap().file_name().into_string().unwrap();
    let mut parts: Vec<&str> = name.split('.').collect();
    assert_eq!(parts.len(), 3, "{name}");
    parts[1] = "0123";
    std::fs::remove_file(records.join(&name)).unwrap();
    std::fs::write(records.join(parts.join(".")), "torn by the power").unwrap();
    assert!(place.store.bundles().unwrap().is_empty());
    let error = bundle::create(&place.store, &record, &folder, &making).unwrap_err();
    assert!(error.to_string().contains("restart; remove it"), "{error}");
    assert_eq!(store::collect(&place.store, || {}).unwrap().bundles, 1);
    assert_eq!(std::fs::read_dir(&records).unwrap().count(), 0);
    bundle::remove(&place.store, &folder).unwrap();
    bundle::create(&place.store, &record, &folder, &making).unwrap();
    bundle::remove(&place.store, &folder).unwrap();
}
