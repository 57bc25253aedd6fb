//! The clients of the socket: ours alone, counted, and answered as Go's server answers them.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::Sleep;
use ttrpc::Code;
use ttrpc::proto::{Codec as _, Response};

use crate::log;

/// Length, stream, kind and flags in front of each message.
const HEADER: usize = 10;
/// How ttrpc's answer to a call of a service ends that nobody registered.
const NO_SERVICE: &[u8] = b" service does not exist";
/// How long is waited after a connection that could not be taken: out of descriptors, for one.
const AGAIN: Duration = Duration::from_millis(100);

/// Who is connected, and how often anything was read of anybody.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    count: AtomicUsize,
    heard: AtomicUsize,
}

impl Clients {
    /// A number that has changed once anybody was heard.
    pub(crate) fn heard(&self) -> usize {
        self.heard.load(Ordering::Relaxed)
    }

    /// Until no client is connected.
    pub(crate) async fn left(&self) {
        while self.count.load(Ordering::Relaxed) != 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Connections of our own user, counted.
pub(crate) struct Incoming {
    listener: UnixListener,
    clients: Arc<Clients>,
    /// Until nothing is taken.
    pause: Option<Pin<Box<Sleep>>>,
}

impl Incoming {
    pub(crate) fn new(listener: UnixListener, clients: Arc<Clients>) -> Self {
        Self { listener, clients, pause: None }
    }
}

impl Stream for Incoming {
    type Item = std::io::Result<Client>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(context));
                self.pause = None;
            }
            let stream = match ready!(self.listener.poll_accept(context)) {
                Ok((stream, _)) => stream,
                Err(error) => {
                    log::warn(&format!("take a connection, again in {AGAIN:?}: {error}"));
                    self.pause = Some(Box::pin(tokio::time::sleep(AGAIN)));
                    continue;
                }
            };
            // The folder keeps others out already; who it does not is refused here.
            if stream.peer_cred().is_ok_and(|peer| peer.uid() == nix::unistd::geteuid().as_raw()) {
                self.clients.count.fetch_add(1, Ordering::Relaxed);
                return Poll::Ready(Some(Ok(Client { stream, clients: self.clients.clone() })));
            }
            log::warn("a connection of another user is refused");
        }
    }
}

/// One connection.
pub(crate) struct Client {
    stream: UnixStream,
    clients: Arc<Clients>,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.clients.count.fetch_sub(1, Ordering::Relaxed);
    }
}

impl AsyncRead for Client {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        self.clients.heard.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Client {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        let other = unimplemented(bytes);
        Pin::new(&mut self.stream).poll_write(context, other.as_deref().unwrap_or(bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// ttrpc answers a call of an unknown service with InvalidArgument. Go's server answers with Unimplemented, by which clients fall
/// back to what is older. The message is as long with either, and written at once: ttrpc writes what is shorter than a page so,
/// and a socket takes that whole or not at all.
fn unimplemented(message: &[u8]) -> Option<Vec<u8>> {
    if !message.ends_with(NO_SERVICE) {
        return None;
    }
    let (header, body) = message.split_at_checked(HEADER)?;
    let mut response = Response::decode(body).ok()?;
    let status = response.status.as_mut().filter(|status| status.code() == Code::INVALID_ARGUMENT)?;
    status.code = Code::UNIMPLEMENTED.into();
    Some([header, &response.encode().ok()?].concat())
}

#[cfg(test)]
mod tests {
    use ttrpc::proto::{Codec as _, Response};
    use ttrpc::{Code, get_status};

    use super::{HEADER, unimplemented};

    fn answer(code: Code, text: &str, payload: &[u8]) -> Vec<u8> {
        let status = Some(get_status(code, text)).into();
        let response = Response { status, payload: payload.to_vec(), ..Response::default() };
        [vec![7; HEADER], response.encode().unwrap()].concat()
    }

    #[test]
    fn only_the_answer_for_an_unknown_service_is_another() {
        for name in ["a.B", &"long".repeat(300)] {
            let text = format!("{name} service does not exist");
            let old = answer(Code::INVALID_ARGUMENT, &text, b"");
            let new = unimplemented(&old).expect("another answer");
            assert_eq!((new.len(), &new[..HEADER]), (old.len(), &old[..HEADER]));
            assert_eq!(new, answer(Code::UNIMPLEMENTED, &text, b""));
            assert_eq!(unimplemented(&new), None);
            assert_eq!(unimplemented(&answer(Code::NOT_FOUND, &text, b"")), None);
            assert_eq!(unimplemented(&answer(Code::INVALID_ARGUMENT, name, b"")), None);
        }
        assert_eq!(unimplemented(&answer(Code::OK, "", b"x service does not exist")), None);
        assert_eq!(unimplemented(b" service does not exist"), None);
        assert_eq!(unimplemented(b"does not exist"), None);
    }
}
