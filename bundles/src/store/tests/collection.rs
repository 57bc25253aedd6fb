//! The collection: what goes, and what stays.

use super::*;

#[test]
fn collection_keeps_what_names_and_bundles_need() {
    let (folder, store) = store();
    let is_root = rustix::process::geteuid().is_root();
    let mut sender = Sender::default();
    let shared = layer(&["./", "shared"]);
    let kept = sender.image(&[shared.clone(), layer(&["./", "kept"])]);
    let gone = sender.image(&[shared, layer(&["./", "gone"])]);
    let kept = taken(&store, &sender, &kept, "localhost/kept:1", is_root).unwrap();
    let gone = taken(&store, &sender, &gone, "localhost/gone:1", is_root).unwrap();
    // A bundle of the image whose name goes.
    let bundle = folder.path().join("bundle");
    fs::create_dir(&bundle).unwrap();
    fs::write(bundle.join("flint-bundle.json"), "{}").unwrap();
    let layers: Vec<String> = gone.layers.iter().map(|layer| layer.diff_id.hex().to_owned()).collect();
    let record = |folder: &std::path::Path| BundleRecord {
        folder: folder.to_owned(),
        image: "localhost/gone:1".to_owned(),
        manifest: gone.manifest.clone(),
        layers: layers.clone(),
    };
    store.note_bundle(&record(&bundle)).unwrap();
    store.keep_bundle(&bundle).unwrap();
    store.note_bundle(&record(&folder.path().join("was-removed-by-hand"))).unwrap();
    store.forget_image(&"localhost/gone:1".parse().unwrap()).unwrap();
    let error = store.forget_image(&"localhost/gone:1".parse().unwrap()).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);

    let collected = collect(&store, || panic!("nobody else is here")).unwrap();
    assert_eq!(
        (collected.blobs, collected.layers, collected.bundles),
        (3, 0, 1),
        "manifest, config and layer of gone:1"
    );
    for layer in &kept.layers {
        assert!(store.has_blob(&layer.blob.digest));
    }
    assert_eq!(store.bundles().unwrap().len(), 1);

    store.forget_bundle(&bundle).unwrap();
    let collected = collect(&store, || panic!("nobody else is here")).unwrap();
    assert_eq!((collected.blobs, collected.layers), (0, u64::from(is_root)), "the layer that only the bundle used");
    if is_root {
        assert_eq!(store.stack(&kept).unwrap().len(), 2);
    }
}

#[test]
fn bundles_that_cannot_be_looked_at_are_kept() {
    let (folder, store) = store();
    let record = |name: &str| BundleRecord {
        folder: folder.path().join(name),
        image: "a:1".to_owned(),
        manifest: Digest::of(b"manifest"),
        layers: Vec::new(),
    };
    // ELOOP stands for all that is not ENOENT.
    std::os::unix::fs::symlink("loop", folder.path().join("loop")).unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    for name in ["loop", "file", "missing"] {
        store.note_bundle(&record(name)).unwrap();
    }
    assert_eq!(collect(&store, || {}).unwrap().bundles, 2);
    assert_eq!(store.bundles().unwrap()[0].folder, folder.path().join("loop"));
}

#[test]
fn a_record_is_of_this_boot_until_it_is_kept() {
    let (folder, store) = store();
    let bundle = folder.path().join("bundle");
    fs::create_dir(&bundle).unwrap();
    fs::write(bundle.join("flint-bundle.json"), "{}").unwrap();
    let manifest = Digest::of(b"manifest");
    let record = BundleRecord { folder: bundle.clone(), image: "a:1".to_owned(), manifest, layers: Vec::new() };
    let names = || crate::store::names::file_names(&store.root().join("bundles")).unwrap();
    store.note_bundle(&record).unwrap();
    let noted = names().pop_first().unwrap();
    assert_eq!(noted.split('.').count(), 3, "{noted} has the boot in its name");
    // As the power cut of an earlier boot leaves it: nobody reads it.
    let (hash, _) = noted.split_once('.').unwrap();
    fs::write(store.root().join(format!("bundles/{hash}.another.json")), "").unwrap();
    store.keep_bundle(&bundle).unwrap();
    assert!(names().contains(&format!("{hash}.json")) && !names().contains(&noted), "{:?}", names());
    assert_eq!(store.bundles().unwrap().len(), 1);
    assert_eq!(collect(&store, || {}).unwrap().bundles, 1, "the record of the other boot");
    store.forget_bundle(&bundle).unwrap();
    assert!(names().is_empty());
    assert!(store.keep_bundle(&bundle).is_err(), "there is nothing to keep");
}

#[test]
fn what_dead_processes_left_is_collected_and_a_young_beginning_stays() {
    let (_folder, store) = store();
    let old = store.tmp().join(format!("blob-{}", "0".repeat(64)));
    let young = store.tmp().join(format!("blob-{}", "1".repeat(64)));
    fs::create_dir_all(store.tmp().join("scratch-x/fs/deep")).unwrap();
    fs::write(store.tmp().join("scratch-x/fs/deep/file"), "x").unwrap();
    fs::write(&young, "x").unwrap();
    let file = fs::File::create(&old).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(3 * 24 * 3600)).unwrap();
    let collected = collect(&store, || panic!("nobody else is here")).unwrap();
    assert_eq!(collected.leftovers, 2);
    assert_eq!(in_tmp(&store), [young.file_name().unwrap().to_str().unwrap()]);
}

#[test]
fn collection_waits_for_who_works() {
    let (_folder, store) = store();
    let lease = store.lease().unwrap();
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let store = &store;
        let collecting = scope.spawn(move || collect(store, || sender.send(()).unwrap()).unwrap());
        receiver.recv().unwrap();
        assert!(!collecting.is_finished(), "it waits for the lease");
        drop(lease);
        collecting.join().unwrap();
    });
}

#[test]
fn nothing_is_collected_while_a_record_cannot_be_read() {
    let (_folder, store) = store();
    let digest = store.put_blob(b"perhaps needed").unwrap();
    fs::write(store.root().join("images/broken.json"), "{").unwrap();
    let error = collect(&store, || {}).unwrap_err();
    assert!(error.to_string().contains("broken.json is damaged"), "{error}");
    assert!(store.has_blob(&digest));
}
