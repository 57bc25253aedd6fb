//! Takes an image into the store: its layers at once, each unpacked while it comes.
//!
//! ```text
//!  source ──> Arriving (file in tmp/, sha256) ──> decompress ──> sha256 (diff id) ──> tar ──> tmp/scratch-X/fs
//!                 │ digest is right: renamed                       │ diff id is right: renamed, when all layers are
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::error::{Error, Result};
use crate::image::{Blob, CONFIG_LIMIT, Document, Image, Layer, Parts};
use crate::layer::Limits;
use crate::progress::{Event, Progress, go_on};
use crate::source::Source;
use crate::store::{Arriving, Draft, Store, Taken};

/// Layers that come at the same time, as docker's default.
pub(crate) const PARALLEL: usize = 3;

/// Layers that are claimed at the same time, each by a descriptor: as many as docker's images have at most.
const CLAIMS: usize = 127;

/// How an image is taken.
#[derive(Debug, Clone, Copy)]
pub struct Fetch {
    /// Layers that come at the same time, at least 1.
    pub parallel: usize,
    /// Whether layers are unpacked for overlayfs on the way. It takes root.
    pub unpack: bool,
    /// What a layer may cost.
    pub limits: Limits,
}

impl Default for Fetch {
    /// Three layers at once; unpacked if this is root.
    fn default() -> Self {
        Self { parallel: PARALLEL, unpack: rustix::process::geteuid().is_root(), limits: Limits::default() }
    }
}

/// Takes the image of a manifest: what of it is here already is not asked for. The caller holds a lease.
pub(crate) fn take_image(
    store: &Store,
    source: &dyn Source,
    manifest: &[u8],
    name: &str,
    how: &Fetch,
    progress: &dyn Progress,
) -> Result<Image> {
    let Document::Manifest(document) = Document::parse(manifest, None)? else {
        return Err(Error::refused("an index stands where a manifest should"));
    };
    let parts = Parts::of(&document)?;
    take_whole(store, source, &parts.config, progress)?;
    let config = store.read_blob(&parts.config.digest, CONFIG_LIMIT)?;
    let image = Image::new(crate::Digest::of(manifest), parts, &config)?;
    take_layers(store, source, &image, name, how, progress)?;
    // Last: a manifest in the store has all that it names.
    store.put_blob(manifest)?;
    Ok(image)
}

/// Takes a blob as it is.
fn take_whole(store: &Store, source: &dyn Source, blob: &Blob, progress: &dyn Progress) -> Result<()> {
    match store.take_blob(blob, source, progress)? {
        Taken::Here => Ok(()),
        Taken::Arriving(arriving) => {
            let continued = arriving.was_continued();
            match arriving.finish() {
                // What an earlier try left may have been wrong; it is gone now.
                Err(error) if continued && error.kind() == crate::Kind::Refused => {
                    match store.take_blob(blob, source, progress)? {
                        Taken::Here => Ok(()),
                        Taken::Arriving(arriving) => arriving.finish(),
                    }
                }
                result => result,
            }
        }
    }
}

/// Unpacks the layers of an image whose blobs are here.
pub(crate) fn unpack_layers(store: &Store, image: &Image, how: &Fetch, progress: &dyn Progress) -> Result<()> {
    take_layers(store, &Nowhere, image, "", &Fetch { unpack: true, ..*how }, progress)
}

/// For layers whose blobs are all here.
struct Nowhere;

impl Source for Nowhere {
    fn open<'a>(&'a self, blob: &Blob, _: u64) -> Result<Box<dyn Read + Send + 'a>> {
        Err(Error::not_found(format!("the blob {} is not in the store any more; pull the image again", blob.digest)))
    }
}

fn take_layers(
    store: &Store,
    source: &dyn Source,
    image: &Image,
    name: &str,
    how: &Fetch,
    progress: &dyn Progress,
) -> Result<()> {
    let mut drafts: Vec<Option<Draft>> = image.layers.iter().map(|_| None).collect();
    let mut wanted = missing_layers(store, image, how, &drafts)?;
    if wanted.is_empty() {
        return go_on(progress);
    }
    if let Some((_, layer, _)) = wanted.iter().find(|(_, layer, _)| layer.blob.size > how.limits.bytes) {
        let Blob { digest, size, .. } = &layer.blob;
        return Err(Error::refused(format!("the layer {digest} has {size} bytes; {} are taken", how.limits.bytes)));
    }
    let missing = wanted.iter().filter(|(_, layer, _)| !store.has_blob(&layer.blob.digest));
    let bytes = missing.fold(0_u64, |sum, (_, layer, _)| sum.saturating_add(layer.blob.size));
    progress.tell(Event::Image { name, layers: wanted.len(), bytes });
    while let Some((_, first, _)) = wanted.first() {
        go_on(progress)?;
        // A layer that others unpack, for whatever image, is theirs. All else is done and settled before they are waited for.
        let mut claims = BTreeMap::new();
        for (_, layer, _) in wanted.iter().filter(|(_, _, unpack)| *unpack).take(CLAIMS) {
            if let Some(claim) = store.claim(layer)? {
                claims.insert(layer.diff_id.clone(), claim);
            }
        }
        // Who had a layer may have put it into its place before it was claimed.
        let mut ours = missing_layers(store, image, how, &drafts)?;
        ours.retain(|(_, layer, unpack)| !unpack || claims.contains_key(&layer.diff_id));
        if ours.is_empty() && claims.is_empty() {
            store.unclaimed(first, progress)?;
        }
        take_these(store, source, &ours, &mut drafts, how, progress)?;
        store.settle(image, &mut drafts)?;
        drop(claims);
        wanted = missing_layers(store, image, how, &drafts)?;
    }
    // Those that waited for layers below.
    store.settle(image, &mut drafts)
}

/// Takes layers, several at the same time; what is unpacked becomes a draft.
fn take_these(
    store: &Store,
    source: &dyn Source,
    wanted: &[Wanted<'_>],
    drafts: &mut [Option<Draft>],
    how: &Fetch,
    progress: &dyn Progress,
) -> Result<()> {
    let drafts = Mutex::new(drafts);
    let failure: Mutex<Option<Error>> = Mutex::new(None);
    let (next, stopped) = (AtomicUsize::new(0), AtomicBool::new(false));
    let work = || {
        while !stopped.load(Ordering::Relaxed) {
            let Some((index, layer, unpack)) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
            progress.tell(Event::LayerBegins { digest: &layer.blob.digest, bytes: layer.blob.size });
            match take_layer(store, source, layer, *unpack, how.limits, progress) {
                Ok(draft) => {
                    if let Some(place) = lock(&drafts).get_mut(*index) {
                        *place = draft;
                    }
                    progress.tell(Event::LayerEnds { digest: &layer.blob.digest });
                }
                Err(error) => {
                    stopped.store(true, Ordering::Relaxed);
                    // The first error counts: the others are perhaps only its consequences.
                    lock(&failure).get_or_insert(error);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        // The caller's thread works, too.
        for _ in 1..how.parallel.max(1).min(wanted.len()) {
            scope.spawn(work);
        }
        work();
    });
    match into_inner(failure) {
        None => Ok(()),
        // What a reader met that was cancelled says so in other words.
        Some(error) => go_on(progress).and(Err(error)),
    }
}

/// A layer that is to be taken: its number, and whether it is unpacked.
type Wanted<'a> = (usize, &'a Layer, bool);

/// What of an image's layers is to be done. Of two that are the same only the first: it may be in the other's place, too, then.
fn missing_layers<'a>(
    store: &Store,
    image: &'a Image,
    how: &Fetch,
    drafts: &[Option<Draft>],
) -> Result<Vec<Wanted<'a>>> {
    let mut seen = BTreeSet::new();
    let mut wanted = Vec::new();
    for ((index, layer), draft) in image.layers.iter().enumerate().zip(drafts) {
        let unpack = how.unpack && draft.is_none() && store.layer(layer)?.is_none();
        if (unpack || !store.has_blob(&layer.blob.digest)) && seen.insert(&layer.diff_id) {
            wanted.push((index, layer, unpack));
        }
    }
    Ok(wanted)
}

/// A blob that is here, read for its layer.
struct Here<'a> {
    file: std::fs::File,
    blob: &'a Blob,
    position: u64,
    progress: &'a dyn Progress,
}

impl Read for Here<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        go_on(self.progress).map_err(|error| crate::error::invalid(error.to_string()))?;
        let count = self.file.read(buffer)?;
        let before = self.position;
        self.position += count as u64;
        if before >> 20 != self.position >> 20 {
            self.progress.tell(Event::LayerComes { digest: &self.blob.digest, bytes: self.position });
        }
        Ok(count)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn into_inner<T>(mutex: Mutex<T>) -> T {
    mutex.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn take_layer(
    store: &Store,
    source: &dyn Source,
    layer: &Layer,
    unpack: bool,
    limits: Limits,
    progress: &dyn Progress,
) -> Result<Option<Draft>> {
    if !unpack {
        return take_whole(store, source, &layer.blob, progress).map(|()| None);
    }
    let mut first = true;
    loop {
        let mut arriving = match store.take_blob(&layer.blob, source, progress)? {
            Taken::Here => {
                let file = store.open_blob(&layer.blob.digest)?;
                let blob = Here { file, blob: &layer.blob, position: 0, progress };
                return store.unpack_layer(blob, layer, limits).map(Some);
            }
            Taken::Arriving(arriving) => arriving,
        };
        let (result, wrong) = arrive(store, &mut arriving, layer, limits);
        let error = match result {
            Ok(draft) => match arriving.finish() {
                Ok(()) => return Ok(Some(draft)),
                Err(error) => error,
            },
            Err(error) => error,
        };
        // What an earlier try had left was perhaps wrong: once from the start.
        if !(first && wrong) {
            return Err(error);
        }
        first = false;
    }
}

/// Unpacks what arrives; says also whether it makes sense to take the blob anew.
fn arrive(store: &Store, arriving: &mut Arriving<'_>, layer: &Layer, limits: Limits) -> (Result<Draft>, bool) {
    let continued = arriving.was_continued();
    let result = store.unpack_layer(&mut *arriving, layer, limits);
    let Err(error) = result else { return (result, continued) };
    // The source's own words, where it was the source that failed: what has come is whole and stays for the next try.
    if let Some(cause) = arriving.failure() {
        return (Err(cause), false);
    }
    // Something that cannot be unpacked, or not to what the config says. Without its digest nobody knows whose fault it
    // is, and it is not kept.
    if continued || error.kind() == crate::Kind::Refused {
        arriving.discard();
    }
    (Err(error), continued && arriving.position() > 0)
}
