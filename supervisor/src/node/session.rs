//! A program in a container, as the local API has it: streams, and the rest. Its input is that of an attached container, too.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use tokio::io::AsyncWrite;
use tokio::net::unix::pipe;

use super::Executed;
use crate::api::{Failure, Session, SessionControl};

/// What is not a stream.
struct ExecControl(Arc<Executed>);

/// An input whose end has to be told: the shim holds it open as well.
pub(super) struct Input<F> {
    pub(super) sender: pipe::Sender,
    pub(super) end: F,
}

/// Takes a program's streams apart.
pub(super) fn session(mut executed: Executed) -> Session {
    let (stdin, stdout, stderr) = (executed.stdin.take(), executed.stdout.take(), executed.stderr.take());
    let executed = Arc::new(executed);
    let input = |sender| -> Box<dyn AsyncWrite + Send + Unpin> {
        let executed = executed.clone();
        let end = move || {
            let executed = executed.clone();
            // One that has ended has no input.
            tokio::spawn(async move { drop(executed.close_stdin().await) });
        };
        Box::new(Input { sender, end })
    };
    Session {
        stdin: stdin.map(input),
        stdout: stdout.map(|stream| Box::new(stream) as _),
        stderr: stderr.map(|stream| Box::new(stream) as _),
        control: Box::new(ExecControl(executed)),
    }
}

#[async_trait]
impl SessionControl for ExecControl {
    async fn resize(&self, rows: u16, columns: u16) {
        // One that has ended has no size.
        let _ = self.0.resize(rows, columns).await;
    }

    async fn wait(&self) -> Result<u32, Failure> {
        self.0.wait().await.map_err(|error| Failure::broken(format!("{error:#}")))
    }

    async fn abandon(&self) {
        if let Err(error) = self.0.kill().await {
            tracing::warn!("end a program whose client has gone: {error:#}");
        }
    }
}

impl<F: Fn() + Unpin> AsyncWrite for Input<F> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.sender).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.sender).poll_flush(context)
    }

    /// The client has said that there is no more.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        (self.end)();
        Pin::new(&mut self.sender).poll_shutdown(context)
    }
}
