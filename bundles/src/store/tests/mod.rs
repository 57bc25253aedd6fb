//! The store, with what kills, cuts and other processes leave behind. What sets owners is tested as root alone.

mod collection;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::FileTypeExt;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use super::{BundleRecord, ImageRecord, Store, Taken, collect};
use crate::digest::Digest;
use crate::error::{Error, Kind, Result};
use crate::fetch::{Fetch, take_image};
use crate::image::{Blob, Image};
use crate::layer::Limits;
use crate::progress::Silent;
use crate::samples::{self, layer};
use crate::source::Source;

/// Has blobs, and sends as much of each as it is told.
#[derive(Default)]
struct Sender {
    blobs: BTreeMap<Digest, Vec<u8>>,
    /// Bytes after which a transfer ends.
    cut: Mutex<Option<usize>>,
    /// What was asked for, and from where on.
    asked: Mutex<Vec<(Digest, u64)>>,
}

impl Sender {
    fn add(&mut self, content: &[u8]) -> Blob {
        let digest = Digest::of(content);
        self.blobs.insert(digest.clone(), content.to_vec());
        Blob { digest, size: content.len() as u64, media_type: "application/octet-stream".to_owned() }
    }

    /// Takes the image's blobs; its manifest.
    fn image(&mut self, layers: &[Vec<u8>]) -> Vec<u8> {
        let sample = samples::image(layers);
        self.blobs.extend(sample.blobs);
        sample.manifest
    }

    fn cut_after(&self, bytes: Option<usize>) {
        *self.cut.lock().unwrap() = bytes;
    }

    fn asked(&self) -> Vec<u64> {
        self.asked.lock().unwrap().iter().map(|(_, offset)| *offset).collect()
    }
}

impl Source for Sender {
    fn open<'a>(&'a self, blob: &Blob, offset: u64) -> Result<Box<dyn Read + Send + 'a>> {
        self.asked.lock().unwrap().push((blob.digest.clone(), offset));
        let content = self.blobs.get(&blob.digest).ok_or_else(|| Error::not_found("it has no such blob"))?;
        let rest = content.get(offset as usize..).unwrap_or_default();
        let end = self.cut.lock().unwrap().unwrap_or(usize::MAX).min(rest.len());
        Ok(Box::new(&rest[..end]))
    }
}

fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("store")).unwrap();
    (folder, store)
}

fn take(store: &Store, source: &dyn Source, blob: &Blob) -> Result<()> {
    match store.take_blob(blob, source, &Silent)? {
        Taken::Here => Ok(()),
        Taken::Arriving(arriving) => arriving.finish(),
    }
}

fn taken(store: &Store, sender: &Sender, manifest: &[u8], name: &str, unpack: bool) -> Result<Image> {
    let fetch = Fetch { parallel: 3, unpack, limits: Limits::default() };
    let image = take_image(store, sender, manifest, name, &fetch, &Silent)?;
    let digest = image.manifest.clone();
    store.name_image(&ImageRecord { name: name.to_owned(), digest: digest.clone(), manifest: digest })?;
    Ok(image)
}

fn in_tmp(store: &Store) -> Vec<String> {
    super::names::file_names(&store.tmp()).unwrap().into_iter().collect()
}

#[test]
fn a_cut_blob_goes_on_where_it_was_cut() {
    let (_folder, store) = store();
    let mut sender = Sender::default();
    let content: Vec<u8> = (0..100_000_u32).map(|number| (number % 251) as u8).collect();
    let blob = sender.add(&content);
    sender.cut_after(Some(30_000));
    let error = take(&store, &sender, &blob).unwrap_err();
    assert!(error.to_string().contains("ended after 30000 of 100000 bytes"), "{error}");
    assert!(!store.has_blob(&blob.digest), "half a blob is none");
    sender.cut_after(None);
    take(&store, &sender, &blob).unwrap();
    assert_eq!(sender.asked(), [0, 30_000]);
    assert_eq!(fs::read(store.blob_path(&blob.digest)).unwrap(), content);
    assert!(in_tmp(&store).is_empty());
    take(&store, &sender, &blob).unwrap();
    assert_eq!(sender.asked().len(), 2, "what is here is not asked for");
}

#[test]
fn wrong_content_is_thrown_away() {
    let (_folder, store) = store();
    let mut sender = Sender::default();
    let blob = sender.add(b"what was promised");
    sender.blobs.insert(blob.digest.clone(), b"what came instead".to_vec());
    let error = take(&store, &sender, &blob).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    assert!(error.to_string().contains("came with other content"), "{error}");
    assert!(!store.has_blob(&blob.digest) && in_tmp(&store).is_empty());
}

/// What an earlier process left in tmp/ may be anything: a bad disk, a wrong registry.
#[test]
fn a_wrong_beginning_is_noticed_and_taken_anew() {
    let (_folder, store) = store();
    let mut sender = Sender::default();
    let manifest = sender.image(&[layer(&["a", "b/"])]);
    let blobs: Vec<Digest> = sender.blobs.keys().cloned().collect();
    for digest in &blobs {
        fs::write(store.tmp().join(format!("blob-{}", digest.hex())), "wrong").unwrap();
    }
    taken(&store, &sender, &manifest, "a:1", rustix::process::geteuid().is_root()).unwrap();
    for digest in &blobs {
        assert!(store.has_blob(digest));
        let asked: Vec<u64> =
            sender.asked.lock().unwrap().iter().filter(|(one, _)| one == digest).map(|(_, offset)| *offset).collect();
        assert_eq!(asked.last(), Some(&0), "{asked:?}");
    }
    assert!(in_tmp(&store).is_empty(), "{:?}", in_tmp(&store));
}

#[test]
fn a_blob_that_two_want_is_sent_once() {
    let (_folder, store) = store();
    let mut sender = Sender::default();
    let blob = sender.add(&vec![7; 1 << 20]);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            // A store of its own: locks of one process's descriptors do not know each other either.
            let other = Store::open(store.root()).unwrap();
            let (sender, blob) = (&sender, &blob);
            scope.spawn(move || take(&other, sender, blob).unwrap());
        }
    });
    assert_eq!(sender.asked(), [0]);
}

#[test]
fn layers_are_unpacked_once_and_shared() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let (_folder, store) = store();
    let mut sender = Sender::default();
    let (base, top) = (layer(&["./", "etc/", "etc/a"]), layer(&["./", "etc/", "etc/b"]));
    let one = sender.image(&[base.clone(), top.clone()]);
    // The same layer twice, too.
    let other = sender.image(&[top.clone(), base.clone(), top]);
    let one = taken(&store, &sender, &one, "one:1", true).unwrap();
    let other = taken(&store, &sender, &other, "other:1", true).unwrap();
    assert_eq!(super::names::file_names(&store.root().join("layers")).unwrap().len(), 2);
    let keys = |image: &Image| store.stack(image).unwrap().into_iter().map(|place| place.key).collect::<Vec<_>>();
    let (one, other) = (keys(&one), keys(&other));
    assert_eq!(other, [one[1].clone(), one[0].clone(), one[1].clone()]);
    assert!(in_tmp(&store).is_empty());
}

/// A layer that puts a file into a folder of a lower layer has no entry for the folder: it must look as below.
#[test]
fn folders_without_an_entry_look_as_in_the_layer_below() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let (_folder, store) = store();
    let mut sender = Sender::default();
    let manifest = sender.image(&[layer(&["./", "etc/"]), layer(&["etc/b"])]);
    let image = taken(&store, &sender, &manifest, "a:1", true).unwrap();
    let stack = store.stack(&image).unwrap();
    assert_eq!(stack[1].key, image.layers[1].chain_id.hex(), "it depends on what is below");
    let looks = |folder: &std::path::Path| {
        let status = fs::metadata(folder.join("etc")).unwrap();
        (std::os::unix::fs::MetadataExt::mode(&status), status.modified().unwrap())
    };
    assert_eq!(looks(&stack[0].folder), looks(&stack[1].folder));
}

/// A layer that looks as those below it is another one in another place of the same image.
#[test]
fn a_layer_may_stand_twice_in_an_image_and_look_as_what_is_below() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let (_folder, store) = store();
    let mut sender = Sender::default();
    let twice = layer(&["etc/b"]);
    let manifest = sender.image(&[layer(&["./", "etc/"]), twice.clone(), layer(&["c"]), twice]);
    let image = taken(&store, &sender, &manifest, "a:1", true).unwrap();
    let keys: Vec<String> = store.stack(&image).unwrap().into_iter().map(|place| place.key).collect();
    assert_eq!((&keys[1][..], &keys[3][..]), (image.layers[1].chain_id.hex(), image.layers[3].chain_id.hex()));
    assert!(in_tmp(&store).is_empty(), "{:?}", in_tmp(&store));
}

/// The lowest layer of an image goes by its diff id, also one that would look as what is below it: on a base it is another one.
#[test]
fn a_lowest_layer_that_looks_as_what_is_below_is_another_one_on_a_base() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let base = layer(&["./", "a", "tmp/"]);
    let (implied, opaque) = (layer(&["./", "tmp/x"]), layer(&["./", ".wh..wh..opq", "b"]));
    for top in [implied, opaque] {
        for alone_first in [true, false] {
            let (_folder, store) = store();
            let mut sender = Sender::default();
            let images = [sender.image(std::slice::from_ref(&top)), sender.image(&[base.clone(), top.clone()])];
            let take = |index: usize| taken(&store, &sender, &images[index], &format!("a:{index}"), true).unwrap();
            for index in if alone_first { [0, 1] } else { [1, 0] } {
                take(index);
            }
            let (alone, above) = (take(0), take(1));
            let tops = [&alone, &above].map(|image| store.stack(image).unwrap().pop().unwrap());
            assert_eq!(tops[0].key, alone.layers[0].diff_id.hex());
            assert_eq!(tops[1].key, above.layers[1].chain_id.hex());
            let modes = |name: &str| {
                tops.each_ref().map(|place| {
                    let status = fs::symlink_metadata(place.folder.join(name)).ok()?;
                    Some(std::os::unix::fs::MetadataExt::mode(&status) & 0o777)
                })
            };
            if tops[0].folder.join("b").exists() {
                assert_eq!([modes("a"), modes("tmp")], [[None, Some(0)]; 2], "nothing, and whiteouts of the base's");
            } else {
                assert_eq!(modes("tmp"), [Some(0o755), Some(0o750)], "nobody's, and the base's");
            }
        }
    }
}

/// In a store from before it was noted what a layer depends on, all may be used where it was put for certain, and no more.
#[test]
fn layers_of_which_it_is_not_noted_what_they_depend_on_are_unpacked_again_for_above_a_base() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let (_folder, store) = store();
    let mut sender = Sender::default();
    let (base, implied, own) = (layer(&["./", "tmp/"]), layer(&["./", "tmp/x"]), layer(&["./", "y"]));
    let images: Vec<Image> = [vec![implied.clone()], vec![own.clone()], vec![base, own, implied]]
        .iter()
        .enumerate()
        .map(|(index, layers)| {
            let manifest = sender.image(layers);
            // The first two are of the old program.
            if index < 2 {
                return taken(&store, &sender, &manifest, &format!("a:{index}"), true).unwrap();
            }
            for key in super::names::file_names(&store.root().join("layers")).unwrap() {
                let path = store.root().join("layers").join(key).join("layer.json");
                let mut record: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
                record.as_object_mut().unwrap().remove("dependsOnBelow").unwrap();
                fs::write(&path, record.to_string()).unwrap();
            }
            taken(&store, &sender, &manifest, &format!("a:{index}"), true).unwrap()
        })
        .collect();
    let keys = |image: &Image| store.stack(image).unwrap().into_iter().map(|place| place.key).collect::<Vec<_>>();
    let diff_id = |image: usize, layer: usize| images[image].layers[layer].diff_id.hex().to_owned();
    assert_eq!((keys(&images[0]), keys(&images[1])), (vec![diff_id(0, 0)], vec![diff_id(1, 0)]));
    let above = images[2].layers[2].chain_id.hex().to_owned();
    assert_eq!(keys(&images[2]), [diff_id(2, 0), diff_id(2, 1), above.clone()]);
    // What a bundle was made of it stays, whatever the image's layers are now.
    let noted = store.noted_stack(&[diff_id(0, 0), above]).unwrap();
    assert!(noted.iter().all(|place| place.folder.join("tmp/x").exists()));
    assert!(store.noted_stack(&["0".repeat(64)]).is_err());
    assert!(in_tmp(&store).is_empty(), "{:?}", in_tmp(&store));
}

/// Counts what is taken, and stops in the layer `held` until it may go on.
struct Counting<'a> {
    begun: Mutex<Vec<Digest>>,
    begins: std::sync::mpsc::Sender<()>,
    held: &'a Digest,
    go_on: Mutex<std::sync::mpsc::Receiver<()>>,
}

impl crate::Progress for Counting<'_> {
    fn tell(&self, event: crate::Event<'_>) {
        let crate::Event::LayerBegins { digest, .. } = event else { return };
        self.begun.lock().unwrap().push(digest.clone());
        let _ = self.begins.send(());
        if digest == self.held {
            // Far longer than the other takes, should it never say so.
            let _ = self.go_on.lock().unwrap().recv_timeout(Duration::from_secs(20));
        }
    }
}

/// Of two images at once, in opposite order: neither unpacks what the other does, and none waits for ever. The shared layer
/// on top looks as what is below it in the one, and not in the other.
#[test]
fn a_layer_that_two_images_have_is_unpacked_once() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let (_folder, store) = store();
    let mut sender = Sender::default();
    let (shared, other) = (layer(&["./", "shared"]), layer(&["./", "other"]));
    let first = sender.image(&[shared.clone(), layer(&["./", "etc/"]), layer(&["etc/first"])]);
    let second = sender.image(&[other.clone(), layer(&["etc/second"]), shared.clone()]);
    let (shared, other) = (Digest::of(&shared), Digest::of(&other));
    let counting = |held| {
        let ((begins, begun), (goes, go_on)) = (std::sync::mpsc::channel(), std::sync::mpsc::channel());
        (Counting { begun: Mutex::default(), begins, held, go_on: Mutex::new(go_on) }, begun, goes)
    };
    let nobody = Digest::of(b"nobody");
    let ((one, one_begins, go_on), (two, two_begins, _goes)) = (counting(&shared), counting(&nobody));
    let fetch = Fetch { parallel: 1, unpack: true, limits: Limits::default() };
    std::thread::scope(|scope| {
        let (store, sender, first, second, one, two) = (&store, &sender, &first, &second, &one, &two);
        scope.spawn(move || take_image(store, sender, first, "first:1", &fetch, one).unwrap());
        // The first is in the shared layer now.
        one_begins.recv().unwrap();
        let waits = scope.spawn(move || take_image(store, sender, second, "second:1", &fetch, two).unwrap());
        // The second has done its own two, and waits.
        two_begins.recv().unwrap();
        two_begins.recv().unwrap();
        let settled = || super::names::file_names(&store.root().join("layers")).unwrap().contains(other.hex());
        while !settled() {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(!waits.is_finished());
        go_on.send(()).unwrap();
    });
    let all: Vec<Digest> = one.begun.lock().unwrap().iter().chain(two.begun.lock().unwrap().iter()).cloned().collect();
    assert_eq!(all.iter().filter(|digest| **digest == shared).count(), 1, "{all:?}");
    assert_eq!(all.len(), 5);
    assert!(in_tmp(&store).is_empty(), "{:?}", in_tmp(&store));
}

/// A layer's claim is a lock, and what is left of it is nobody's.
#[test]
fn a_claim_that_was_left_behind_holds_up_nobody() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let (_folder, store) = store();
    let mut sender = Sender::default();
    let content = layer(&["./", "a"]);
    fs::write(store.tmp().join(format!("layer-{}", Digest::of(&content).hex())), "").unwrap();
    let manifest = sender.image(&[content]);
    taken(&store, &sender, &manifest, "a:1", true).unwrap();
    assert!(in_tmp(&store).is_empty(), "{:?}", in_tmp(&store));
}

#[test]
fn a_layer_over_the_limit_is_not_asked_for() {
    let (_folder, store) = store();
    let mut sender = Sender::default();
    let content = layer(&["./", "a"]);
    let manifest = sender.image(std::slice::from_ref(&content));
    let fetch = Fetch { parallel: 1, unpack: false, limits: Limits { bytes: 1000, ..Limits::default() } };
    let error = take_image(&store, &sender, &manifest, "a:1", &fetch, &Silent).unwrap_err();
    assert!(error.to_string().contains(&format!("has {} bytes; 1000 are taken", content.len())), "{error}");
    assert_eq!(sender.asked().len(), 1, "the config alone");
}

#[test]
fn an_opaque_root_hides_the_layers_below_by_their_names() {
    let (_folder, store) = store();
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let mut sender = Sender::default();
    let lower = layer(&["./", "a", "b", "d/", "d/x"]);
    let upper = layer(&["./", ".wh..wh..opq", "b", "d/", "d/y"]);
    let manifest = sender.image(&[lower, upper]);
    let image = taken(&store, &sender, &manifest, "localhost/opaque:1", true).unwrap();
    let stack = store.stack(&image).unwrap();
    assert_eq!(stack[1].key, image.layers[1].chain_id.hex());
    let top = &stack[1].folder;
    let is_whiteout = |name: &str| fs::symlink_metadata(top.join(name)).unwrap().file_type().is_char_device();
    assert!(is_whiteout("a") && !is_whiteout("b"));
    let mut value = [0; 8];
    assert_eq!(rustix::fs::lgetxattr(top.join("d"), "trusted.overlay.opaque", &mut value), Ok(1));
    assert!(!top.join("d/x").exists() && top.join("d/y").exists());
}

#[test]
fn damaged_blobs_and_other_versions_are_refused() {
    let (_folder, store) = store();
    let digest = store.put_blob(b"content").unwrap();
    assert_eq!(store.read_blob(&digest, 100).unwrap(), b"content");
    assert!(store.read_blob(&digest, 3).is_err(), "it is larger than is taken");
    fs::write(store.blob_path(&digest), "Content").unwrap();
    let error = store.read_blob(&digest, 100).unwrap_err();
    assert!(error.to_string().contains("is damaged"), "{error}");
    fs::write(store.root().join("version"), "9\n").unwrap();
    let error = Store::open(store.root()).unwrap_err();
    assert!(error.to_string().contains("is of version \"9\", this program's is \"1\""), "{error}");
}
