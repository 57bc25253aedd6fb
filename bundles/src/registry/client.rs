//! Requests to one place: authorized, redirected, tried again.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;
use ureq::http::{Response, StatusCode, Uri};
use ureq::{Agent, Body};

use super::challenge::{self, Challenge};
use super::credentials::{self, Credentials};
use super::place::{Place, Scheme, is_loopback};
use super::transport::Transport;
use super::{Settings, small};
use crate::error::{Error, Kind, Result};
use crate::progress::{Event, Progress, go_on};

const REDIRECTS: usize = 5;
/// The longest pause of our own.
const PAUSE_LIMIT: Duration = Duration::from_secs(10);
/// The longest that a registry may ask for.
const RETRY_AFTER_LIMIT: u64 = 60;

/// One place, and what is known of it.
pub(super) struct Client<'a> {
    transport: &'a Transport,
    place: &'a Place,
    settings: &'a Settings,
    progress: &'a dyn Progress,
    /// The value of the Authorization header that was good last, and how often it was changed.
    authorization: Mutex<(u64, Option<String>)>,
    /// `https` or `http`, once it is known.
    scheme: Mutex<Option<&'static str>>,
    /// How long the place asked to wait.
    wait: Mutex<Option<Duration>>,
}

impl<'a> Client<'a> {
    pub(super) fn new(
        transport: &'a Transport,
        place: &'a Place,
        settings: &'a Settings,
        progress: &'a dyn Progress,
    ) -> Self {
        let scheme = match place.scheme {
            Scheme::Https => Some("https"),
            Scheme::Http => Some("http"),
            Scheme::Either => None,
        };
        Self {
            transport,
            place,
            settings,
            progress,
            authorization: Mutex::default(),
            scheme: Mutex::new(scheme),
            wait: Mutex::default(),
        }
    }

    /// Does something until it succeeds, fails for good, or was tried often enough.
    pub(super) fn tried<T>(&self, what: &str, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
        let mut failed = 0;
        loop {
            match attempt() {
                Err(error) if error.kind() == Kind::Unavailable => {
                    failed += 1;
                    self.pause(what, failed, error)?;
                }
                result => return result,
            }
        }
    }

    /// Waits after the try number `failed`; the error itself when there were enough.
    pub(super) fn pause(&self, what: &str, failed: u32, error: Error) -> Result<()> {
        if failed >= self.settings.tries {
            return Err(if failed > 1 { error.during(&format!("{what}, tried {failed} times")) } else { error });
        }
        self.progress.tell(Event::Retry { reason: &error.to_string() });
        let doubled = self.settings.pause.saturating_mul(1 << failed.saturating_sub(1).min(16)).min(PAUSE_LIMIT);
        let asked = locked(&self.wait).take();
        // In steps, between which the caller may cancel.
        let end = Instant::now() + asked.unwrap_or(doubled);
        while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            go_on(self.progress)?;
            std::thread::sleep(left.min(Duration::from_millis(50)));
        }
        go_on(self.progress)
    }

    /// Gets something of the repository; with a status of success, or 416 for a range that it does not have.
    pub(super) fn get(&self, path: &str, headers: &[(&str, &str)], what: &str) -> Result<Response<Body>> {
        let mut authorized_again = false;
        loop {
            let scheme = self.scheme()?;
            let uri = format!("{scheme}://{}/v2/{}/{path}", self.place.host, self.place.repository);
            let (generation, authorization) = locked(&self.authorization).clone();
            let Followed { response, elsewhere } = self.follow(&uri, headers, authorization.as_deref(), what)?;
            if response.status() != StatusCode::UNAUTHORIZED {
                return self.checked(response, what);
            }
            // Whoever is sent to must not say where this place's credentials go (as with CVE-2020-15157).
            if let Some(other) = elsewhere {
                return Err(Error::denied(format!(
                    "{what}: {} sends to {other}, which wants credentials and gets none",
                    self.place.host
                )));
            }
            // A token may have expired between two requests; a second refusal in a row is meant.
            if authorized_again {
                return Err(Error::denied(format!(
                    "{what}: {} does not accept the credentials; log in with `docker login {}`",
                    self.place.host, self.place.host
                )));
            }
            authorized_again = true;
            self.authorize(generation, &response, what)?;
        }
    }

    /// Follows redirects. The Authorization header goes to no other origin than the one it is for.
    fn follow(
        &self,
        first: &str,
        headers: &[(&str, &str)],
        authorization: Option<&str>,
        what: &str,
    ) -> Result<Followed> {
        let wrong = |address: &str| {
            Error::refused(format!("{what}: {} sends to {address:?}, which is no address", self.place.host))
        };
        let origin: Uri = first.parse().map_err(|_| wrong(first))?;
        let mut uri = origin.clone();
        for _ in 0..=REDIRECTS {
            let agent = self.agent_for(&uri)?;
            let mut request = agent.get(uri.clone());
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            if let Some(authorization) = authorization.filter(|_| same_origin(&origin, &uri)) {
                request = request.header("authorization", authorization);
            }
            let response = request.call().map_err(|error| self.unreachable(what, &uri, &error))?;
            if !is_redirect(response.status()) {
                let elsewhere = (!same_origin(&origin, &uri)).then(|| uri.host().unwrap_or_default().to_owned());
                return Ok(Followed { response, elsewhere });
            }
            let location = response.headers().get("location").and_then(|value| value.to_str().ok());
            let location = location.ok_or_else(|| wrong(""))?;
            let next = resolve(&uri, location).ok_or_else(|| wrong(location))?;
            let plain = next.scheme_str() != Some("https");
            if plain && (uri.scheme_str() == Some("https") || !self.may_be_plain(&next)) {
                return Err(Error::refused(format!("{what}: {} sends to {next}, which is not https", self.place.host)));
            }
            uri = next;
        }
        Err(Error::refused(format!("{what}: {} redirects more than {REDIRECTS} times", self.place.host)))
    }

    /// From plain http to plain http: to this machine, or where plain http was asked for.
    fn may_be_plain(&self, uri: &Uri) -> bool {
        let host = uri.authority().map(ureq::http::uri::Authority::as_str).unwrap_or_default();
        host == self.place.host || is_loopback(host) || self.settings.plain_http.iter().any(|plain| plain == host)
    }

    fn agent_for(&self, uri: &Uri) -> Result<Agent> {
        self.transport.agent(uri.authority().map(ureq::http::uri::Authority::as_str).unwrap_or_default())
    }

    fn unreachable(&self, what: &str, uri: &Uri, error: &ureq::Error) -> Error {
        let host = uri.host().unwrap_or(&self.place.host);
        if let Some(certificate) = certificate_error(error) {
            return Error::denied(format!(
                "{what}: the certificate of {host} is not accepted: {certificate}; its authority belongs into the system's, or \
                 into {}/{}/ca.crt",
                self.settings.certificates.display(),
                self.place.host
            ));
        }
        Error::unavailable(format!("{what}: {host} cannot be asked: {error}"))
    }

    /// How this place is asked. This machine's own registries are tried: https, then plain http if they speak no TLS.
    fn scheme(&self) -> Result<&'static str> {
        let mut known = locked(&self.scheme);
        if let Some(scheme) = *known {
            return Ok(scheme);
        }
        let uri = format!("https://{}/v2/", self.place.host);
        let scheme = match self.transport.agent(&self.place.host)?.get(&uri).call() {
            Err(error) if speaks_no_tls(&error) => "http",
            // Also when it cannot be reached: the request itself tells why.
            _ => "https",
        };
        *known = Some(scheme);
        Ok(scheme)
    }

    /// Turns a status into an error, unless it is a success.
    fn checked(&self, response: Response<Body>, what: &str) -> Result<Response<Body>> {
        let status = response.status();
        if status.is_success() || status == StatusCode::RANGE_NOT_SATISFIABLE {
            return Ok(response);
        }
        if let Some(seconds) =
            response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse::<u64>().ok())
        {
            *locked(&self.wait) = Some(Duration::from_secs(seconds.min(RETRY_AFTER_LIMIT)));
        }
        let host = &self.place.host;
        let said = said(&small(response.into_body()).unwrap_or_default());
        let message = format!("{what}: {host} answers {}{said}", status.as_u16());
        Err(match status {
            StatusCode::NOT_FOUND => Error::not_found(format!("{what}: {host} has no such thing{said}")),
            StatusCode::FORBIDDEN => Error::denied(format!("{message}: these credentials do not do")),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => Error::unavailable(message),
            status if status.is_server_error() => Error::unavailable(message),
            _ => Error::refused(message),
        })
    }

    /// Gets what the challenge wants, unless another thread did since `generation`.
    fn authorize(&self, generation: u64, response: &Response<Body>, what: &str) -> Result<()> {
        let mut authorization = locked(&self.authorization);
        if authorization.0 != generation {
            return Ok(());
        }
        let host = &self.place.host;
        let mut headers = response.headers().get_all("www-authenticate").iter();
        let challenge = headers.find_map(|value| challenge::parse(value.to_str().ok()?));
        let challenge = challenge.ok_or_else(|| {
            Error::denied(format!("{what}: {host} wants credentials, and does not say which (WWW-Authenticate)"))
        })?;
        let credentials = credentials::find(self.settings, host)?;
        let value = match challenge {
            Challenge::Basic => credentials.as_ref().and_then(Credentials::basic).ok_or_else(|| {
                Error::denied(format!("{what}: {host} wants a name and a password; log in with `docker login {host}`"))
            })?,
            Challenge::Bearer { realm, service, scope } => {
                let scope = scope.unwrap_or_else(|| format!("repository:{}:pull", self.place.repository));
                let what = format!("a token for {scope}");
                let token =
                    self.tried(&what, || self.token(&realm, service.as_deref(), &scope, credentials.as_ref(), &what))?;
                format!("Bearer {token}")
            }
        };
        *authorization = (generation + 1, Some(value));
        Ok(())
    }

    /// Asks the realm for a token (distribution's "Token Authentication Specification").
    fn token(
        &self,
        realm: &str,
        service: Option<&str>,
        scope: &str,
        credentials: Option<&Credentials>,
        what: &str,
    ) -> Result<String> {
        let wrong = || Error::refused(format!("{what}: {} sends to {realm:?}, which is no address", self.place.host));
        let uri: Uri = realm.parse().map_err(|_| wrong())?;
        uri.authority().ok_or_else(wrong)?;
        if uri.scheme_str() != Some("https") && (self.scheme()? == "https" || !self.may_be_plain(&uri)) {
            return Err(Error::refused(format!("{what}: {} sends to {realm}, which is not https", self.place.host)));
        }
        let agent = self.agent_for(&uri)?;
        let called = match credentials {
            Some(Credentials::Refresh(token)) => agent.post(uri.clone()).send_form([
                ("grant_type", "refresh_token"),
                ("client_id", "flint-bundle"),
                ("refresh_token", token),
                ("scope", scope),
                ("service", service.unwrap_or_default()),
            ]),
            other => {
                let mut request = agent.get(uri.clone()).query("scope", scope);
                if let Some(service) = service {
                    request = request.query("service", service);
                }
                if let Some(basic) = other.and_then(Credentials::basic) {
                    request = request.header("authorization", basic);
                }
                request.call()
            }
        };
        let response = called.map_err(|error| self.unreachable(what, &uri, &error))?;
        if response.status() == StatusCode::UNAUTHORIZED {
            return Err(Error::denied(format!(
                "{what}: {} does not accept the credentials; log in with `docker login {}`",
                uri.host().unwrap_or_default(),
                self.place.host
            )));
        }
        let response = self.checked(response, what)?;
        let answer: Token = serde_json::from_str(&small(response.into_body())?)
            .map_err(|_| Error::refused(format!("{what}: the answer of {realm} has no token")))?;
        let token = answer.token.or(answer.access_token).filter(|token| !token.is_empty());
        token.ok_or_else(|| Error::refused(format!("{what}: the answer of {realm} has no token")))
    }
}

/// An answer, perhaps behind redirects.
struct Followed {
    response: Response<Body>,
    /// The host that answered, if it is another origin than the one that was asked.
    elsewhere: Option<String>,
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

fn same_origin(one: &Uri, other: &Uri) -> bool {
    let port = |uri: &Uri| uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
    one.scheme() == other.scheme() && one.host() == other.host() && port(one) == port(other)
}

/// The address of a Location header, which may be a path alone.
fn resolve(base: &Uri, location: &str) -> Option<Uri> {
    let authority = base.authority()?;
    let scheme = base.scheme_str()?;
    let absolute = if location.contains("://") {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else {
        let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{location}")
    };
    let uri: Uri = absolute.split('#').next()?.parse().ok()?;
    let known = matches!(uri.scheme_str(), Some("https" | "http"));
    uri.authority().filter(|authority| known && !authority.as_str().contains('@'))?;
    Some(uri)
}

/// The words of a registry's errors (distribution-spec, "Error Codes"), short and harmless to a terminal.
fn said(body: &str) -> String {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<One>,
    }
    #[derive(Deserialize)]
    struct One {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let Ok(Errors { errors }) = serde_json::from_str::<Errors>(body) else { return String::new() };
    let words: Vec<String> = errors.iter().map(|one| format!("{}: {}", one.code, one.message)).collect();
    let words: String = words.join("; ").chars().filter(|letter| !letter.is_control()).take(200).collect();
    if words.is_empty() { String::new() } else { format!(" ({words})") }
}

fn tls_error(error: &ureq::Error) -> Option<&rustls::Error> {
    match error {
        ureq::Error::Rustls(error) => Some(error),
        ureq::Error::Io(error) => error.get_ref()?.downcast_ref::<rustls::Error>(),
        _ => None,
    }
}

fn certificate_error(error: &ureq::Error) -> Option<String> {
    match tls_error(error)? {
        rustls::Error::InvalidCertificate(why) => Some(format!("{why:?}")),
        _ => None,
    }
}

fn speaks_no_tls(error: &ureq::Error) -> bool {
    tls_error(error).is_some_and(|error| matches!(error, rustls::Error::InvalidMessage(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_resolved_and_passwords_in_them_refused() {
        let base: Uri = "https://one.example:5000/v2/a/blobs/x".parse().unwrap();
        let resolved = |location: &str| resolve(&base, location).map(|uri| uri.to_string());
        assert_eq!(resolved("/b?c=d").as_deref(), Some("https://one.example:5000/b?c=d"));
        assert_eq!(resolved("y").as_deref(), Some("https://one.example:5000/v2/a/blobs/y"));
        assert_eq!(resolved("//two.example/b").as_deref(), Some("https://two.example/b"));
        assert_eq!(resolved("https://two.example/b#c").as_deref(), Some("https://two.example/b"));
        for wrong in ["ftp://two.example/", "https://me:secret@two.example/", "https://", "file:///etc/passwd"] {
            assert_eq!(resolved(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let same = |one: &str, other: &str| same_origin(&one.parse().unwrap(), &other.parse().unwrap());
        assert!(same("https://a/x", "https://a:443/y"));
        assert!(!same("https://a/x", "http://a/x"));
        assert!(!same("https://a/x", "https://a:444/x"));
        assert!(!same("https://a/x", "https://b.a/x"));
    }

    #[test]
    fn a_registrys_words_are_short_and_without_control_characters() {
        let body = format!("{{\"errors\": [{{\"code\": \"X\", \"message\": \"a\\u001b[2Jb{}\"}}]}}", "c".repeat(500));
        let words = said(&body);
        assert!(words.starts_with(" (X: a[2Jbc") && words.len() < 210, "{words}");
        assert_eq!(said("<html>"), "");
    }
}
