//! A client's connection, and when it is gone: ttrpc tells its handlers only once they send.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::sync::watch;

/// A connection that tells when it has ended.
pub(super) struct Connection {
    stream: UnixStream,
    gone: watch::Sender<bool>,
}

/// Hears of a connection's end.
#[derive(Debug, Clone)]
pub(super) struct Gone(watch::Receiver<bool>);

impl Connection {
    pub(super) fn new(stream: UnixStream) -> (Self, Gone) {
        let (gone, receiver) = watch::channel(false);
        (Self { stream, gone }, Gone(receiver))
    }

    /// Tells the end if this is one.
    fn look<T>(&self, is_end: impl Fn(&T) -> bool, result: Poll<std::io::Result<T>>) -> Poll<std::io::Result<T>> {
        match &result {
            Poll::Ready(Ok(value)) if !is_end(value) => {}
            Poll::Ready(_) => {
                self.gone.send_replace(true);
            }
            Poll::Pending => {}
        }
        result
    }
}

impl Gone {
    /// Returns once the client has gone.
    pub(super) async fn wait(&mut self) {
        // An error: the connection was dropped.
        let _ = self.0.wait_for(|gone| *gone).await;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.gone.send_replace(true);
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let (before, room) = (buffer.filled().len(), buffer.remaining());
        let result = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.look(|()| room > 0 && buffer.filled().len() == before, result)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.look(|_| false, result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
