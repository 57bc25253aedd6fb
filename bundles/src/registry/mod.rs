//! Registries (distribution-spec): from a name to an image in the store.
//!
//! ```text
//!  name ─> places: mirrors, then the registry ─> GET manifest ─> (index: GET manifest by digest) ─> GET blobs, several at once
//!                                                    │ 401: challenge ─> token ─┐
//!                                                    └──────────────────────────┘ again
//! ```
//!
//! What comes is believed by its digest alone. Passwords and tokens go to the place that asked for them, never further:
//! a redirect to another host goes without.

mod body;
mod challenge;
mod client;
mod credentials;
mod place;
mod settings;
mod transport;

use std::io::Read;

use crate::digest::Digest;
use crate::error::{Error, Kind, Result, Told};
use crate::fetch::{self, Fetch};
use crate::image::{Blob, Document, Image, MANIFEST_LIMIT, Platform, choose};
use crate::progress::{Progress, go_on};
use crate::reference::Reference;
use crate::source::Source;
use crate::store::{ImageRecord, Store};
use client::Client;
pub use credentials::Credentials;
pub use settings::Settings;

/// What manifests may be: the order says nothing to registries, but all four must be there.
const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// Pulls an image. What of it is in the store already is not asked for.
///
/// # Errors
///
/// When no place has the image or can be asked (after several tries), the credentials do not do, it is no image, or
/// content is not what its digest says. What had come until then stays for the next try.
pub fn pull(
    store: &Store,
    name: &Reference,
    platform: &Platform,
    fetch: &Fetch,
    settings: &Settings,
    progress: &dyn Progress,
) -> Result<(ImageRecord, Image)> {
    let _lease = store.lease()?;
    let told = |error: Error| error.during(&format!("pulling {name}"));
    let transport = transport::Transport::new(settings).map_err(told)?;
    let mut failures: Option<Error> = None;
    for place in place::places(name, settings).map_err(told)? {
        go_on(progress).map_err(told)?;
        let client = Client::new(&transport, &place, settings, progress);
        match pull_from(store, &client, name, platform, fetch, progress) {
            Ok(pulled) => return Ok(pulled),
            // A mirror need not have everything, nor be there; a registry's refusal of content is final.
            Err(error) if place.is_mirror && !matches!(error.kind(), Kind::System | Kind::Cancelled) => {
                progress.tell(crate::Event::Retry { reason: &error.to_string() });
                failures.get_or_insert(error);
            }
            Err(error) => {
                return Err(told(match failures {
                    Some(of_mirror) => error.and(&of_mirror.during("before that, by a mirror")),
                    None => error,
                }));
            }
        }
    }
    Err(told(failures.unwrap_or_else(|| Error::not_found("there is no place to ask"))))
}

fn pull_from(
    store: &Store,
    client: &Client<'_>,
    name: &Reference,
    platform: &Platform,
    fetch: &Fetch,
    progress: &dyn Progress,
) -> Result<(ImageRecord, Image)> {
    let (mut content, mut media_type) = manifest(client, &name.wanted(), name.digest())?;
    let digest = Digest::of(&content);
    let mut levels = 0;
    // An index may name an index; nobody builds a third.
    while let Document::Index(index) = Document::parse(&content, media_type.as_deref())? {
        levels += 1;
        if levels > 2 {
            return Err(Error::refused("its index leads to an index of an index of an index"));
        }
        let chosen = choose(index.manifests(), platform)?;
        content = match store.read_blob(&chosen.digest, MANIFEST_LIMIT) {
            Ok(here) => here,
            Err(_) => manifest(client, &chosen.digest.to_string(), Some(&chosen.digest))?.0,
        };
        media_type = Some(chosen.media_type);
    }
    let text = name.to_string();
    let image = fetch::take_image(store, client, &content, &text, fetch, progress)?;
    let record = ImageRecord { name: text, digest, manifest: image.manifest.clone() };
    store.name_image(&record)?;
    Ok((record, image))
}

/// Gets a manifest or an index, and its media type as the registry tells it.
fn manifest(client: &Client<'_>, wanted: &str, digest: Option<&Digest>) -> Result<(Vec<u8>, Option<String>)> {
    let what = format!("the manifest {wanted}");
    client.tried(&what, || {
        let response = client.get(&format!("manifests/{wanted}"), &[("accept", ACCEPT)], &what)?;
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let (media_type, promised) = (header("content-type"), header("docker-content-digest"));
        let mut content = Vec::new();
        let read = response.into_body().into_reader().take(MANIFEST_LIMIT + 1).read_to_end(&mut content);
        read.map_err(|error| Error::unavailable(format!("{what}: its transfer was cut: {error}")))?;
        if content.len() as u64 > MANIFEST_LIMIT {
            return Err(Error::refused(format!("{what} has more than {MANIFEST_LIMIT} bytes")));
        }
        let came = Digest::of(&content);
        let promised = promised.filter(|text| text.starts_with("sha256:")).map(|text| text.parse()).transpose()?;
        if let Some(promised) = digest.or(promised.as_ref())
            && *promised != came
        {
            return Err(Error::refused(format!(
                "{what} came with other content: its digest is {came}, not {promised}"
            )));
        }
        Ok((content, media_type))
    })
}

impl Source for Client<'_> {
    fn open<'a>(&'a self, blob: &Blob, offset: u64) -> Result<Box<dyn Read + Send + 'a>> {
        Ok(Box::new(body::Resuming::open(self, blob, offset)?))
    }
}

/// What a WWW-Authenticate header wants, in words: for the checks of [`crate::fuzzing`].
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn challenge_of(header: &str) -> Option<String> {
    challenge::parse(header).map(|challenge| format!("{challenge:?}"))
}

/// Reads a small answer that nothing hangs on, for an error's sentence.
fn small(body: ureq::Body) -> Result<String> {
    let mut text = String::new();
    let reader = body.into_with_config().lossy_utf8(true).reader();
    reader.take(64 << 10).read_to_string(&mut text).told(|| "reading an answer".to_owned())?;
    Ok(text)
}

#[cfg(test)]
mod tests;
