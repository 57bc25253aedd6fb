//! Registries as they are, and as they fail.

mod server;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::json;

use super::{Settings, place, pull};
use crate::digest::Digest;
use crate::error::{Kind, Result};
use crate::fetch::Fetch;
use crate::image::{Image, Platform};
use crate::layer::Limits;
use crate::progress::Silent;
use crate::reference::Reference;
use crate::samples::{self, Sample};
use crate::store::Store;
use server::{Answer, Request, Server};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn sample() -> Sample {
    let mut large = samples::layer(&["./", "a"]);
    // Zeros behind the end of a tar belong to it.
    large.resize(300_000, 0);
    samples::image(&[large, samples::layer(&["./", "b/", "b/c"])])
}

/// What an ordinary registry answers for `repository` `r`.
fn served(sample: &Sample, request: &Request) -> Answer {
    let path = request.path.strip_prefix("/v2/r/").unwrap_or_default();
    let manifest = Digest::of(&sample.manifest);
    if path == "manifests/1" || path == format!("manifests/{manifest}") {
        return Answer::ok(&sample.manifest).header("content-type", MANIFEST);
    }
    let blob = path.strip_prefix("blobs/").and_then(|digest| sample.blobs.get(&digest.parse().ok()?));
    let Some(blob) = blob else { return Answer::status(404) };
    let begins =
        request.headers.get("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    match begins {
        Some(begins) if begins > 0 => {
            let range = format!("bytes {begins}-{}/{}", blob.len() - 1, blob.len());
            Answer { status: 206, ..Answer::ok(&blob[begins..]) }.header("content-range", range)
        }
        _ => Answer::ok(blob),
    }
}

struct Puller {
    _folder: tempfile::TempDir,
    store: Store,
    settings: Settings,
}

impl Puller {
    fn new(server: &Server) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        let settings = Settings {
            credentials: Vec::new(),
            plain_http: vec![server.host.clone()],
            mirrors: vec![],
            docker_config: None,
            certificates: folder.path().join("certs.d"),
            tries: 3,
            pause: Duration::from_millis(1),
            patience: Duration::from_secs(20),
        };
        Self { _folder: folder, store, settings }
    }

    fn pull(&self, name: &str) -> Result<Image> {
        let name: Reference = name.parse().unwrap();
        let fetch = Fetch { parallel: 1, unpack: false, limits: Limits::default() };
        let platform: Platform = "linux/amd64".parse().unwrap();
        pull(&self.store, &name, &platform, &fetch, &self.settings, &Silent).map(|(_, image)| image)
    }
}

/// A server of the sample whose answers `change` may replace, and one who pulls from it.
fn with(change: impl Fn(&Request, Answer) -> Answer + Send + Sync + 'static) -> (Server, Puller) {
    let sample = sample();
    let server = Server::start(move |request| change(request, served(&sample, request)));
    let puller = Puller::new(&server);
    (server, puller)
}

fn is_blob(request: &Request) -> bool {
    request.path.contains("/blobs/")
}

#[test]
fn an_image_is_pulled_and_not_pulled_again() {
    let (server, puller) = with(|_, answer| answer);
    let name = format!("{}/r:1", server.host);
    let image = puller.pull(&name).unwrap();
    assert_eq!(image.layers.len(), 2);
    let asked = server.requests().len();
    assert_eq!(asked, 4, "a manifest, a config, two layers");
    puller.pull(&name).unwrap();
    assert_eq!(server.requests().len(), asked + 1, "what the name stands for now");
    let by_digest = puller.pull(&format!("{}/r@{}", server.host, image.manifest)).unwrap();
    assert_eq!(by_digest.manifest, image.manifest);
    let named: Vec<String> = puller.store.images().unwrap().into_iter().map(|record| record.name).collect();
    assert_eq!(named.len(), 2, "{named:?}");
}

#[test]
fn of_an_index_the_platforms_manifest_is_taken() {
    let sample = sample();
    let manifest = Digest::of(&sample.manifest);
    let descriptor = |digest: &Digest, architecture: &str| {
        json!({"mediaType": MANIFEST, "digest": digest, "size": sample.manifest.len(),
            "platform": {"os": "linux", "architecture": architecture}})
    };
    let index = json!({"schemaVersion": 2, "manifests":
        [descriptor(&Digest::of(b"another"), "arm64"), descriptor(&manifest, "amd64")]});
    let server = Server::start(move |request| match request.path.as_str() {
        "/v2/r/manifests/all" => Answer::ok(index.to_string().as_bytes()),
        "/v2/r/manifests/none" => Answer::ok(
            json!({"schemaVersion": 2, "manifests":
            [index["manifests"][0]]})
            .to_string()
            .as_bytes(),
        ),
        _ => served(&sample, request),
    });
    let puller = Puller::new(&server);
    assert_eq!(puller.pull(&format!("{}/r:all", server.host)).unwrap().manifest, manifest);
    let error = puller.pull(&format!("{}/r:none", server.host)).unwrap_err();
    assert!(error.to_string().contains("no image for linux/amd64; there are linux/arm64"), "{error}");
}

#[test]
fn a_cut_transfer_goes_on_where_it_was_cut() {
    let (server, puller) = with(|request, answer| {
        let cut = (is_blob(request) && answer.body.len() > 100_000).then_some(100_000);
        Answer { cut, ..answer }
    });
    puller.pull(&format!("{}/r:1", server.host)).unwrap();
    let ranges: Vec<String> =
        server.requests().iter().filter_map(|request| request.headers.get("range").cloned()).collect();
    assert_eq!(ranges, ["bytes=100000-", "bytes=200000-"]);
}

#[test]
fn a_registry_without_ranges_sends_all_again() {
    let tries = AtomicU32::new(0);
    let sample = sample();
    let server = Server::start(move |request| {
        let whole = Request { headers: std::collections::BTreeMap::new(), ..request.clone() };
        let answer = served(&sample, &whole);
        let first = answer.body.len() > 100_000 && tries.fetch_add(1, Ordering::Relaxed) == 0;
        Answer { cut: first.then_some(100_000), ..answer }
    });
    Puller::new(&server).pull(&format!("{}/r:1", server.host)).unwrap();
}

/// As of a proxy that takes ranges for something else: another part, or none.
#[test]
fn wrong_ranges_are_no_end_of_a_transfer() {
    for status in [206, 416] {
        let tries = AtomicU32::new(0);
        let (server, puller) = with(move |request, answer| {
            if request.headers.contains_key("range") {
                return Answer { status, ..Answer::ok(&answer.body) }.header("content-range", "bytes 0-9/10");
            }
            let first = answer.body.len() > 100_000 && tries.fetch_add(1, Ordering::Relaxed) == 0;
            Answer { cut: first.then_some(100_000), ..answer }
        });
        puller.pull(&format!("{}/r:1", server.host)).unwrap();
        let requests = server.requests();
        let blobs = requests.iter().filter(|request| is_blob(request));
        let ranges: Vec<bool> = blobs.map(|request| request.headers.contains_key("range")).collect();
        assert_eq!(ranges, [false, false, true, false, false], "the config, a layer with its rest, a layer; {status}");
    }
    let (server, puller) = with(|request, answer| if is_blob(request) { Answer::status(416) } else { answer });
    let error = puller.pull(&format!("{}/r:1", server.host)).unwrap_err();
    assert!(error.kind() == Kind::Refused && error.to_string().contains("was not asked for"), "{error}");
}

#[test]
fn a_transfer_that_stands_still_is_cut_and_goes_on() {
    let (server, mut puller) = with(|request, answer| {
        let stalls = is_blob(request) && answer.body.len() > 200_000;
        Answer { cut: stalls.then_some(150_000), stalls, ..answer }
    });
    puller.settings.patience = Duration::from_millis(300);
    puller.pull(&format!("{}/r:1", server.host)).unwrap();
}

#[test]
fn what_stays_cut_is_told_and_goes_on_in_the_next_pull() {
    let broken = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let is_broken = std::sync::Arc::clone(&broken);
    let (server, puller) = with(move |request, answer| {
        let is_broken = is_broken.load(Ordering::Relaxed) && is_blob(request) && answer.body.len() > 100_000;
        match request.headers.get("range") {
            Some(_) if is_broken => Answer::status(503),
            _ => Answer { cut: is_broken.then_some(90_000), ..answer },
        }
    });
    let name = format!("{}/r:1", server.host);
    let error = puller.pull(&name).unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.to_string().contains("answers 503") && error.to_string().contains("tried 3 times"), "{error}");
    assert!(puller.store.images().unwrap().is_empty(), "half an image has no name");
    broken.store(false, Ordering::Relaxed);
    puller.pull(&name).unwrap();
    let last = server.requests().into_iter().rev().find_map(|request| request.headers.get("range").cloned());
    assert_eq!(last.as_deref(), Some("bytes=90000-"));
}

#[test]
fn passing_failures_are_tried_again() {
    for status in [429, 408, 500, 502, 503] {
        let tries = AtomicU32::new(0);
        let (server, puller) = with(move |_, answer| match tries.fetch_add(1, Ordering::Relaxed) {
            0 | 1 => Answer::status(status).header("retry-after", "0"),
            _ => answer,
        });
        puller.pull(&format!("{}/r:1", server.host)).unwrap();
        assert_eq!(server.requests().len(), 6, "{status}");
    }
}

#[test]
fn lasting_failures_are_told_in_the_registrys_words() {
    for (status, kind, words) in [
        (404, Kind::NotFound, "has no such thing (UNKNOWN: no such image)"),
        (403, Kind::Denied, "answers 403 (UNKNOWN: no such image): these credentials do not do"),
        (400, Kind::Refused, "answers 400"),
    ] {
        let body = json!({"errors": [{"code": "UNKNOWN", "message": "no such image"}]}).to_string();
        let (server, puller) = with(move |_, _| Answer { status, ..Answer::ok(body.as_bytes()) });
        let error = puller.pull(&format!("{}/r:1", server.host)).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(server.requests().len(), 1, "{status}");
    }
}

#[test]
fn wrong_content_is_refused_wherever_it_comes() {
    let changed = |answer: Answer| {
        let mut body = answer.body;
        body[10] ^= 1;
        Answer { body, ..answer }
    };
    let (server, puller) = with(move |request, answer| if is_blob(request) { changed(answer) } else { answer });
    let error = puller.pull(&format!("{}/r:1", server.host)).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    assert!(error.to_string().contains("came with other content"), "{error}");
    assert!(puller.store.images().unwrap().is_empty());

    let digest = Digest::of(&sample().manifest);
    let (server, puller) = with(|_, answer| Answer { body: [answer.body, b" ".to_vec()].concat(), ..answer });
    let error = puller.pull(&format!("{}/r@{digest}", server.host)).unwrap_err();
    assert!(error.to_string().contains("came with other content"), "{error}");

    let promised = Digest::of(b"something else").to_string();
    let (server, puller) = with(move |_, answer| answer.header("docker-content-digest", promised.clone()));
    let error = puller.pull(&format!("{}/r:1", server.host)).unwrap_err();
    assert!(error.to_string().contains("came with other content"), "{error}");
}

/// With a token that is asked for by `docker login`'s name and password, and that expires.
#[test]
fn tokens_are_asked_for_and_renewed() {
    let sample = sample();
    let uses = AtomicU32::new(0);
    let server = Server::start(move |request| {
        let host = request.headers["host"].clone();
        if request.path.starts_with("/token?") {
            assert_eq!(request.headers.get("authorization").map(String::as_str), Some("Basic bWU6c2VjcmV0"));
            assert!(
                request.path.contains("service=s") && request.path.contains("repository%3Ar%3Apull"),
                "{request:?}"
            );
            return Answer::ok(format!("{{\"token\": \"t{}\"}}", uses.load(Ordering::Relaxed)).as_bytes());
        }
        // Good for two requests.
        let number = uses.load(Ordering::Relaxed);
        let wanted = format!("Bearer t{}", number / 2 * 2);
        if request.headers.get("authorization") == Some(&wanted) {
            uses.fetch_add(1, Ordering::Relaxed);
            return served(&sample, request);
        }
        let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"s\",scope=\"repository:r:pull\"");
        Answer::status(401).header("www-authenticate", challenge)
    });
    let mut puller = Puller::new(&server);
    let config = puller.store.root().join("config.json");
    let auths = json!({"auths": {server.host.clone(): {"username": "me", "password": "secret"}}});
    std::fs::write(&config, auths.to_string()).unwrap();
    puller.settings.docker_config = Some(config);
    puller.pull(&format!("{}/r:1", server.host)).unwrap();
    let tokens = server.requests().iter().filter(|request| request.path.starts_with("/token")).count();
    assert_eq!(tokens, 2, "four requests, two with each token");
}

#[test]
fn credentials_that_do_not_do_are_told_without_them() {
    let server = Server::start(|request| match request.path.as_str() {
        path if path.starts_with("/v2/") => Answer::status(401).header("www-authenticate", "Basic realm=\"r\""),
        _ => Answer::status(404),
    });
    let mut puller = Puller::new(&server);
    let name = format!("{}/r:1", server.host);
    let error = puller.pull(&name).unwrap_err();
    assert_eq!(error.kind(), Kind::Denied);
    assert!(error.to_string().contains("docker login"), "{error}");
    let config = puller.store.root().join("config.json");
    let auths = json!({"auths": {server.host.clone(): {"username": "me", "password": "the-secret"}}});
    std::fs::write(&config, auths.to_string()).unwrap();
    puller.settings.docker_config = Some(config);
    let error = puller.pull(&name).unwrap_err();
    assert_eq!(error.kind(), Kind::Denied);
    assert!(error.to_string().contains("does not accept") && !error.to_string().contains("secret"), "{error}");
    let last = server.requests().pop().unwrap();
    assert!(last.headers.contains_key("authorization"), "they were shown to the registry");
}

/// CVE-2020-15157: what a registry is shown must not go where it sends to.
#[test]
fn a_redirect_to_another_place_goes_without_credentials() {
    let sample = std::sync::Arc::new(sample());
    let (blobs, manifests) = (std::sync::Arc::clone(&sample), sample);
    let other = Server::start(move |request| served(&blobs, request));
    let to = other.host.clone();
    let server = Server::start(move |request| {
        if !request.headers.contains_key("authorization") {
            return Answer::status(401).header("www-authenticate", "Basic realm=\"r\"");
        }
        match request.path.as_str() {
            path if path.contains("/blobs/") => Answer::status(307).header("location", format!("http://{to}{path}")),
            "/v2/r/manifests/1" => Answer::status(302).header("location", "/v2/r/manifests/2/../1?x=y"),
            path if path.ends_with("?x=y") => Answer::ok(&manifests.manifest),
            _ => Answer::status(404),
        }
    });
    let mut puller = Puller::new(&server);
    let config = puller.store.root().join("config.json");
    let auths = json!({"auths": {server.host.clone(): {"username": "me", "password": "secret"}}});
    std::fs::write(&config, auths.to_string()).unwrap();
    puller.settings.docker_config = Some(config);
    puller.pull(&format!("{}/r:1", server.host)).unwrap();
    let asked = other.requests();
    assert!(
        asked.len() == 3 && asked.iter().all(|request| !request.headers.contains_key("authorization")),
        "{asked:?}"
    );
}

/// Nor may the place that it sends to say where they go.
#[test]
fn the_place_of_a_redirect_gets_no_credentials_by_asking_for_them() {
    for challenge in ["Bearer realm=\"http://HOST/token\"", "Basic realm=\"r\""] {
        let other = Server::start(move |request| {
            if request.path == "/token" {
                return Answer::ok(b"{\"token\": \"t\"}");
            }
            let challenge = challenge.replace("HOST", &request.headers["host"]);
            Answer::status(401).header("www-authenticate", challenge)
        });
        let to = other.host.clone();
        let (server, mut puller) = with(move |request, answer| {
            if is_blob(request) {
                return Answer::status(307).header("location", format!("http://{to}{}", request.path));
            }
            answer
        });
        let own = super::Credentials::Password("me".to_owned(), "secret".to_owned());
        puller.settings.credentials = vec![(server.host.clone(), own)];
        let error = puller.pull(&format!("{}/r:1", server.host)).unwrap_err();
        let asked = other.requests();
        assert!(asked.iter().all(|request| !request.headers.contains_key("authorization")), "{asked:?}");
        assert_eq!((error.kind(), asked.len()), (Kind::Denied, 1), "{error}");
        assert!(error.to_string().contains("sends to 127.0.0.1, which wants credentials"), "{error}");
    }
}

#[test]
fn redirects_end_somewhere_and_at_http_only_where_it_was_asked_for() {
    let (server, puller) = with(|request, _| Answer::status(302).header("location", request.path.clone()));
    let error = puller.pull(&format!("{}/r:1", server.host)).unwrap_err();
    assert!(error.to_string().contains("redirects more than 5 times"), "{error}");
    for location in ["http://another.example/x", "ftp://another.example/x", "https://me:secret@another.example/x", ""] {
        let (server, puller) = with(move |_, _| Answer::status(302).header("location", location));
        let error = puller.pull(&format!("{}/r:1", server.host)).unwrap_err();
        assert_eq!(error.kind(), Kind::Refused, "{error}");
    }
}

#[test]
fn a_mirror_is_asked_first_and_need_not_have_it() {
    let (server, puller) = with(|_, answer| answer);
    let (mirror, _) = with(|_, answer| answer);
    let empty = Server::start(|_| Answer::status(404));
    let name = format!("{}/r:1", server.host);
    let with_mirrors = |mirrors: &[&Server]| {
        let mut other = Puller::new(&server);
        other.settings.mirrors =
            mirrors.iter().map(|one| (server.host.clone(), format!("http://{}", one.host))).collect();
        other
    };
    with_mirrors(&[&mirror]).pull(&name).unwrap();
    assert!(server.requests().is_empty() && mirror.requests().len() == 4);
    with_mirrors(&[&empty, &mirror]).pull(&name).unwrap();
    assert!(server.requests().is_empty(), "a mirror that has nothing leaves it to the next");
    with_mirrors(&[&empty]).pull(&name).unwrap();
    assert_eq!(server.requests().len(), 4);
    let wrong = with_mirrors(&[]);
    let mut settings = wrong.settings.clone();
    settings.mirrors = vec![(server.host.clone(), "ftp://x".to_owned())];
    let error = place::places(&name.parse().unwrap(), &settings).unwrap_err();
    assert!(error.to_string().contains("the mirror \"ftp://x\""), "{error}");
    drop(puller);
}

/// This machine's registries need not be asked for by `--plain-http`.
#[test]
fn a_registry_of_this_machine_may_speak_plain_http() {
    let (server, mut puller) = with(|_, answer| answer);
    puller.settings.plain_http = vec![];
    puller.pull(&format!("{}/r:1", server.host)).unwrap();
}

#[test]
fn a_registry_that_is_not_there_is_told() {
    let gone = Server::start(|_| Answer::status(404));
    let host = gone.host.clone();
    let puller = Puller::new(&gone);
    drop(gone);
    let error = puller.pull(&format!("{host}/r:1")).unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.to_string().contains("cannot be asked") && error.to_string().contains("tried 3 times"), "{error}");
}
