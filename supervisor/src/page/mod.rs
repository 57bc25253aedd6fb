//! What the node shows over HTTP, on loopback: metrics, health, and a page to look at.
//!
//! ```text
//!  GET /                     the page: pods, what they use, events; it asks for /api/state while somebody looks
//!  GET /api/state            the same as JSON
//!  GET /metrics              for Prometheus (OpenMetrics)
//!  GET /healthz, /readyz     whether flintd answers, whether the node takes pods
//! ```
//!
//! It reads and shows, without asking who looks: so nothing here changes anything, and nothing secret is in what it is made from (no
//! specification of a pod, no environment, no file). A page of elsewhere that has its name resolve to loopback gets nothing: the Host
//! header has to name this host. The answer is made once a second at most, however many look.

mod metrics;
mod state;
mod timings;

use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::header::{self, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, Semaphore};

use crate::api::{Backend, PodUsage};

pub use timings::{Step, Timings, timings};

/// Where the page is unless it is told otherwise.
pub const ADDRESS: &str = "127.0.0.1:10290";

/// Connections at a time.
const MAX_CONNECTIONS: usize = 64;

/// How old what is shown may be.
const FRESH: Duration = Duration::from_secs(1);

/// How long a client may take for the head of a request.
const PATIENCE: Duration = Duration::from_secs(10);

/// Only what this host serves is run or loaded, and nobody frames it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Serves the page.
pub struct Page {
    backend: Arc<dyn Backend>,
    /// Names of the host that a client may have asked for, beside addresses and localhost.
    names: Vec<String>,
    usage: Mutex<Option<(Instant, Arc<Vec<PodUsage>>)>>,
}

impl std::fmt::Debug for Page {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Page")
    }
}

impl Page {
    /// The page of a node.
    #[must_use]
    pub fn new(backend: Arc<dyn Backend>) -> Self {
        let names = vec!["localhost".to_owned(), backend.node().hostname];
        Self { backend, names, usage: Mutex::default() }
    }

    /// Serves until `stop` is done.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, stop: impl Future<Output = ()>) {
        if listener.local_addr().is_ok_and(|address| !address.ip().is_loopback()) {
            tracing::warn!("the page and the metrics are served beyond this host, to whoever asks");
        }
        let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        tokio::pin!(stop);
        loop {
            // Before the next is taken: more than that wait in the kernel.
            let Ok(permit) = connections.clone().acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = &mut stop => return,
            };
            let Ok((stream, peer)) = accepted else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let page = self.clone();
            tokio::spawn(async move {
                let _permit = permit;
                let answer = service_fn(move |request| {
                    let page = page.clone();
                    async move { Ok::<_, Infallible>(page.answer(&request).await) }
                });
                let served = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(PATIENCE)
                    .max_buf_size(16 << 10)
                    .serve_connection(TokioIo::new(stream), answer)
                    .await;
                if let Err(error) = served {
                    tracing::debug!(%peer, %error, "a connection of the page");
                }
            });
        }
    }

    async fn answer<B>(&self, request: &Request<B>) -> Response<String> {
        if !self.is_asked_for(request) {
            return plain(
                StatusCode::MISDIRECTED_REQUEST,
                "this is another host; ask for it by an address or localhost\n",
            );
        }
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return plain(StatusCode::METHOD_NOT_ALLOWED, "there is nothing to change here; see flintctl\n");
        }
        match request.uri().path() {
            "/" => of("text/html; charset=utf-8", include_str!("assets/page.html").to_owned()),
            "/page.js" => of("text/javascript; charset=utf-8", include_str!("assets/page.js").to_owned()),
            "/page.css" => of("text/css; charset=utf-8", include_str!("assets/page.css").to_owned()),
            "/icon.svg" => of("image/svg+xml", include_str!("assets/icon.svg").to_owned()),
            "/api/state" => {
                let state = state::state(self.backend.as_ref(), &self.usage().await);
                of("application/json", serde_json::to_string(&state).unwrap_or_default())
            }
            "/metrics" => {
                let text = metrics::text(self.backend.as_ref(), &self.usage().await);
                of("application/openmetrics-text; version=1.0.0; charset=utf-8", text)
            }
            "/healthz" => plain(StatusCode::OK, "ok\n"),
            "/readyz" => match self.backend.node().conditions.get("Ready") {
                Some((false, why)) => plain(StatusCode::SERVICE_UNAVAILABLE, &format!("{why}\n")),
                _ => plain(StatusCode::OK, "ok\n"),
            },
            _ => plain(StatusCode::NOT_FOUND, "there is /, /metrics, /healthz and /readyz\n"),
        }
    }

    /// Whether the Host header names this host. A name that resolves to loopback is anybody's to make (DNS rebinding); an address is not.
    fn is_asked_for<B>(&self, request: &Request<B>) -> bool {
        let Some(host) = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()) else {
            // HTTP/1.0: no browser.
            return request.version() == hyper::Version::HTTP_10;
        };
        let is_address = host.parse::<SocketAddr>().is_ok()
            || host.parse::<IpAddr>().is_ok()
            || host
                .strip_prefix('[')
                .and_then(|host| host.strip_suffix(']'))
                .is_some_and(|host| host.parse::<IpAddr>().is_ok());
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        is_address || self.names.iter().any(|known| known.eq_ignore_ascii_case(name))
    }

    /// What pods use, looked at not more often than it is worth.
    async fn usage(&self) -> Arc<Vec<PodUsage>> {
        let mut last = self.usage.lock().await;
        match &*last {
            Some((at, usage)) if at.elapsed() < FRESH => usage.clone(),
            _ => {
                let usage = Arc::new(self.backend.usage().await);
                *last = Some((Instant::now(), usage.clone()));
                usage
            }
        }
    }
}

fn of(kind: &'static str, body: String) -> Response<String> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

fn plain(status: StatusCode, text: &str) -> Response<String> {
    let mut response = of("text/plain; charset=utf-8", text.to_owned());
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests;
