//! GET requests of probes and hooks, over HTTP and HTTPS.

use hyper::header::{ACCEPT, CONNECTION, HOST, HeaderName, HeaderValue, LOCATION, USER_AGENT};
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::ask::{address, in_url};
use super::{Target, tls};
use crate::desired::HttpCheck;

/// As in net/http, which kubelet asks with.
const REDIRECTS: usize = 10;

/// Gets it; a status from 200 to 399 is a yes. A redirect within the host is followed, one to another host is a yes: both as
/// kubelet does it.
pub(super) async fn get(check: &HttpCheck, target: &Target) -> Result<(), String> {
    let host = address(check.host.as_deref(), target)?;
    let mut place = Place { tls: check.tls, port: check.port, path: rooted(&check.path) };
    for _ in 0..=REDIRECTS {
        let (status, location) = place.ask(&host, &check.headers).await?;
        if !(200..400).contains(&status) {
            return Err(format!("GET of {} at port {}: status {status}", place.path, place.port));
        }
        match location.and_then(|location| place.moved(&host, &location)) {
            Some(next) => place = next,
            None => return Ok(()),
        }
    }
    Err(format!("GET of {} at port {}: more than {REDIRECTS} redirects", check.path, check.port))
}

fn rooted(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

/// Where on the host.
struct Place {
    tls: bool,
    port: u16,
    path: String,
}

impl Place {
    /// The status, and where it was redirected to.
    async fn ask(&self, host: &str, headers: &[(String, String)]) -> Result<(u16, Option<String>), String> {
        let telling =
            |what: &dyn std::fmt::Display| format!("GET of {} at {host} port {}: {what}", self.path, self.port);
        let stream = TcpStream::connect((host, self.port)).await.map_err(|error| telling(&error))?;
        // An answer that waits for more of our bytes to be acknowledged would cost 40 ms.
        let _slower = stream.set_nodelay(true);
        let request = self.request(host, headers).map_err(|error| telling(&error))?;
        if self.tls {
            let stream = tls::connect(stream, host).await.map_err(|error| telling(&error))?;
            exchange(stream, request).await.map_err(|error| telling(&error))
        } else {
            exchange(stream, request).await.map_err(|error| telling(&error))
        }
    }

    fn request(&self, host: &str, headers: &[(String, String)]) -> Result<Request<String>, String> {
        let path: Uri = self.path.parse().map_err(|error| format!("{error}"))?;
        let mut request = Request::new(String::new());
        *request.method_mut() = Method::GET;
        *request.uri_mut() = path;
        let fields = request.headers_mut();
        let default = format!("{}:{}", in_url(host), self.port);
        fields.insert(HOST, HeaderValue::from_str(&default).map_err(|error| error.to_string())?);
        fields.insert(USER_AGENT, HeaderValue::from_static(concat!("flintd-probe/", env!("CARGO_PKG_VERSION"))));
        fields.insert(ACCEPT, HeaderValue::from_static("*/*"));
        // A header that is given replaces ours; given twice, it is sent twice; given empty, it is left out.
        for (name, _) in headers {
            fields.remove(name.as_str());
        }
        for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
            let name: HeaderName = name.parse().map_err(|_| format!("{name:?} is no name of a header"))?;
            let value =
                HeaderValue::from_str(value).map_err(|_| format!("the value of header {name} has control bytes"))?;
            fields.append(name, value);
        }
        fields.insert(CONNECTION, HeaderValue::from_static("close"));
        Ok(request)
    }

    /// Where a redirect leads, if it stays on the host.
    fn moved(&self, host: &str, location: &str) -> Option<Self> {
        if location.starts_with('/') && !location.starts_with("//") {
            return Some(Self { path: location.to_owned(), ..*self });
        }
        let uri: Uri = location.parse().ok()?;
        let tls = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let named = uri.host()?.trim_start_matches('[').trim_end_matches(']');
        if named != host {
            return None;
        }
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        Some(Self { tls, port, path: uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string) })
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<String>,
) -> Result<(u16, Option<String>), hyper::Error> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // The connection lives as long as this future: a probe that is given up leaves no task behind. The body is not read.
    let answer = async move { sender.send_request(request).await };
    tokio::pin!(answer, connection);
    let response = tokio::select! {
        biased;
        response = &mut answer => response?,
        // A server that is done at once has ended the connection with its answer, which is there by now.
        ended = &mut connection => {
            ended?;
            answer.await?
        }
    };
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let redirects = response.status().is_redirection();
    Ok((response.status().as_u16(), location.filter(|_| redirects)))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;
    use crate::desired::Key;

    /// Asks a server that says this in one piece and closes, so often.
    async fn asked(answer: &'static str, times: usize) -> Vec<Result<(), String>> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            for _ in 0..times {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = stream.read(&mut [0; 1024]).unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        let check = HttpCheck { host: None, port, path: "/".to_owned(), tls: false, headers: Vec::new() };
        let address = Some(std::net::Ipv4Addr::LOCALHOST.into());
        let target =
            Target { id: "a.b.1".to_owned(), pod: Key::new("default", "web"), container: "b".to_owned(), address };
        let mut all = Vec::new();
        for _ in 0..times {
            all.push(get(&check, &target).await);
        }
        server.join().unwrap();
        all
    }

    #[tokio::test]
    async fn an_answer_counts_that_ends_with_its_connection() {
        for answer in [
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
            "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n",
            "HTTP/1.0 200 OK\r\n\r\nok",
        ] {
            let all = asked(answer, 50).await;
            assert!(all.iter().all(Result::is_ok), "{answer:?}: {all:?}");
        }
        let all = asked("HTTP/1.1 503 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", 50).await;
        assert!(all.iter().all(|one| one.as_ref().is_err_and(|why| why.ends_with("status 503"))), "{all:?}");
        assert!(asked("", 1).await[0].is_err(), "no answer is no yes");
    }
}
