//! What must hold of everything else that comes from outside: documents, texts and archives. Each is refused with a sentence or
//! taken, the same each time.

use std::fmt::Debug;
use std::fs;
use std::path::Path;

use crate::image::{Document, Image, Parts, Platform, choose};
use crate::import::{Import, aci, import};
use crate::progress::Silent;
use crate::registry::{self, Credentials};
use crate::store::Store;
use crate::{BindMount, Digest, Error, Fetch, Limits, Reference};

/// The same twice, and a word for each refusal; whether it was taken.
fn settled<T: Debug>(read: impl Fn() -> Result<T, Error>) -> bool {
    let (once, again) = (read(), read());
    assert_eq!(format!("{once:?}"), format!("{again:?}"), "two results of one input");
    match once {
        Ok(_) => true,
        Err(error) => {
            assert!(!error.to_string().trim().is_empty(), "refused without a word");
            false
        }
    }
}

/// Reads JSON as each document of an image; whether it was one.
///
/// # Panics
///
/// When what must hold does not.
#[must_use]
pub fn document(json: &[u8]) -> bool {
    let platform = Platform { os: "linux".to_owned(), architecture: "amd64".to_owned(), variant: None };
    let of_registry = settled(|| match Document::parse(json, None)? {
        Document::Manifest(manifest) => Parts::of(&manifest).map(|parts| format!("{parts:?}")),
        Document::Index(index) => choose(index.manifests(), &platform).map(|blob| format!("{blob:?}")),
    });
    // A config, for as many layers as it counts itself.
    let blob = |digest: Digest| crate::image::Blob { digest, size: 1, media_type: String::new() };
    let count = serde_json::from_slice::<serde_json::Value>(json).ok();
    let count = count.and_then(|value| Some(value.pointer("/rootfs/diff_ids")?.as_array()?.len())).unwrap_or(0);
    let config = settled(|| {
        let layers = vec![blob(Digest::of(b"layer")); count.min(8)];
        let parts = Parts { config: blob(Digest::of(json)), layers };
        let image = Image::new(Digest::of(b"manifest"), parts, json)?;
        assert_eq!(image.layers.len(), image.config.rootfs().diff_ids().len());
        let generated = crate::config::generate(&image, "a", Path::new("/nowhere"), &crate::Wishes::default());
        // Without a root filesystem nobody is found in it; a config that is made is an object.
        assert!(generated.is_err() || generated.is_ok_and(|made| made.config.is_object()));
        Ok(format!("{:?}", image.platform()))
    });
    let of_rkt =
        settled(|| aci::Manifest::parse(json)?.config(&Digest::of(json), "amd64").map(|value| value.to_string()));
    of_registry || config || of_rkt
}

/// Reads a text as each that people, registries and docker's config have; whether it was one.
///
/// # Panics
///
/// When what must hold does not.
#[must_use]
pub fn text(bytes: &[u8]) -> bool {
    let docker = settled(|| Credentials::of_docker_config(bytes, "registry.example:5000").map(|found| found.is_some()));
    let Ok(text) = std::str::from_utf8(bytes) else { return docker };
    let name = settled(|| {
        let name: Reference = text.parse()?;
        let full = name.to_string();
        let again = full.parse::<Reference>().expect("a name in full is a name");
        assert_eq!(again.to_string(), full);
        // What goes into addresses and paths.
        assert!(
            !full.contains(['\n', ' ', '\\', '?', '#', '%']) && !name.repository().split('/').any(|part| part == "..")
        );
        Ok(full)
    });
    let digest = settled(|| text.parse::<Digest>());
    let platform = settled(|| text.parse::<Platform>().map(|platform| platform.to_string()));
    let mount = settled(|| BindMount::parse(text));
    assert_eq!(registry::challenge_of(text), registry::challenge_of(text));
    docker || name || digest || platform || mount || registry::challenge_of(text).is_some()
}

/// Imports an archive into a store in the empty folder `place`; whether it was an image.
///
/// # Panics
///
/// When what must hold does not.
#[must_use]
pub fn archive(bytes: &[u8], place: &Path) -> bool {
    let path = place.join("archive");
    fs::write(&path, bytes).expect("write the archive");
    let store = Store::open(&place.join("store")).expect("a store");
    let limits = Limits { bytes: 256 << 10, entries: 64, header: 16 << 10, depth: 20, names: 16 << 10 };
    let what = Import {
        name: Some("localhost/a:1".parse().expect("a name")),
        wanted: None,
        platform: Platform::host(),
        fetch: Fetch { unpack: false, limits, ..Fetch::default() },
    };
    let result = import(&store, &path, &what, &Silent);
    let beside = fs::read_dir(place).expect("list").count();
    assert_eq!(beside, 2, "something was made beside the store");
    let left = fs::read_dir(store.root().join("tmp")).expect("list tmp/").flatten();
    assert!(left.into_iter().all(|entry| entry.file_name().to_string_lossy().starts_with("blob-")), "left in tmp/");
    match result {
        Ok((record, image)) => {
            assert_eq!(store.image(&record).expect("it is in the store").layers, image.layers);
            assert!(image.layers.iter().all(|layer| store.has_blob(&layer.blob.digest)));
            true
        }
        Err(error) => {
            assert!(!error.to_string().trim().is_empty(), "refused without a word");
            assert!(store.images().expect("names").is_empty(), "a name of what was refused");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each target's inputs in the repository.
    fn corpus(name: &str) -> Vec<Vec<u8>> {
        let folder = format!("{}/../fuzz/corpus/{name}", env!("CARGO_MANIFEST_DIR"));
        let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder}: {error}"));
        files.flatten().map(|file| fs::read(file.path()).expect("read an input")).collect()
    }

    /// Damages inputs at random, from a fixed start: bytes, cuts and pieces of one another.
    fn damaged(inputs: &[Vec<u8>], mut check: impl FnMut(&[u8])) {
        let number =
            |name: &str, default: u64| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
        let mut state = number("FLINT_FUZZ_SEED", 1) | 1;
        let mut next = move |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state % below.max(1) as u64).unwrap_or(0)
        };
        for _ in 0..number("FLINT_FUZZ_RUNS", 2000) {
            let mut input = inputs[next(inputs.len())].clone();
            for _ in 0..=next(4) {
                let (at, other) = (next(input.len()), &inputs[next(inputs.len())]);
                match next(4) {
                    0 if !input.is_empty() => input[at] = next(256) as u8,
                    1 => input.truncate(at),
                    2 => {
                        let from = next(other.len());
                        let piece = other[from..other.len().min(from + 1 + next(40))].to_vec();
                        input.splice(at..at, piece);
                    }
                    _ => drop(input.drain(at..input.len().min(at + next(20)))),
                }
            }
            check(&input);
        }
    }

    #[test]
    fn damaged_documents_are_refused_or_read() {
        let inputs = corpus("documents");
        assert!(inputs.iter().filter(|input| document(input)).count() > 3, "the corpus shows nothing");
        damaged(&inputs, |input| _ = document(input));
    }

    #[test]
    fn damaged_texts_are_refused_or_read() {
        let inputs = corpus("texts");
        assert!(inputs.iter().filter(|input| text(input)).count() > 3, "the corpus shows nothing");
        damaged(&inputs, |input| _ = text(input));
    }

    #[test]
    fn archives_of_the_corpus_are_refused_or_imported() {
        let take = |input: &[u8]| archive(input, tempfile::tempdir().expect("a folder").path());
        let inputs = corpus("archives");
        assert!(inputs.iter().filter(|input| take(input)).count() > 3, "the corpus shows nothing");
    }
}
