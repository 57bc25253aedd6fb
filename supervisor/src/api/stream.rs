//! The node's end of a stream: what may be sent, and what comes.

use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc, watch};
use ttrpc::r#async::{SSReceiver, SSSender, ServerStream, StreamInner};

use super::connection::Gone;
use super::messages::{Answer, Ask, Size, WINDOW};
use super::{Failure, backend::FailureKind};

/// Where answers go.
#[derive(Clone)]
pub(super) struct Outlet {
    sender: SSSender<Answer>,
    window: Arc<Semaphore>,
}

/// What comes from the client beside its request.
pub(super) struct Inlet {
    /// Pieces of input; an empty one is its end.
    pub(super) input: mpsc::Receiver<Vec<u8>>,
    /// The terminal's size, rows and columns.
    pub(super) size: watch::Receiver<Option<(u16, u16)>>,
    /// Ends when the client does.
    pub(super) end: watch::Receiver<bool>,
}

/// The client has gone: nobody is there to be told of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ClientGone;

impl From<ClientGone> for Failure {
    fn from(_: ClientGone) -> Self {
        Self { kind: FailureKind::Broken, sentence: "the client has gone".to_owned() }
    }
}

impl Outlet {
    /// Sends, once the client has used enough of what came before.
    pub(super) async fn send(&self, answer: Answer) -> Result<(), ClientGone> {
        let answer = answer.weighed();
        self.window.acquire_many(answer.weight as u32).await.map_err(|_| ClientGone)?.forget();
        self.sender.send(&answer).await.map_err(|_| ClientGone)
    }

    /// Sends a value as JSON.
    pub(super) async fn tell(&self, value: &impl serde::Serialize) -> Result<(), ClientGone> {
        let json = serde_json::to_vec(value).unwrap_or_default();
        self.send(Answer { json, ..Answer::default() }).await
    }
}

/// Takes the request of a new stream and goes on to read what comes, until the client or the stream ends.
pub(super) async fn open(stream: StreamInner, mut gone: Gone) -> Result<(Vec<u8>, Outlet, Inlet), Failure> {
    let (sender, mut receiver) = ServerStream::<Answer, Ask>::new(stream).split();
    let first = tokio::select! {
        first = receiver.recv() => first,
        () = gone.wait() => return Err(ClientGone.into()),
    };
    let first = first.map_err(|error| Failure::refused(format!("read the request: {error}")))?;
    let Some(request) = first.and_then(|ask| ask.request) else {
        return Err(Failure::refused("a stream begins with its request"));
    };
    let window = Arc::new(Semaphore::new(WINDOW));
    let outlet = Outlet { sender, window: window.clone() };
    let (input_sender, input) = mpsc::channel(1);
    let (size_sender, size) = watch::channel(None);
    let (end_sender, end) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            () = read(&mut receiver, &window, &input_sender, &size_sender) => {}
            () = gone.wait() => {}
            // The handler is done.
            () = end_sender.closed() => {}
        }
        // Whoever waits to send waits for nobody.
        window.close();
        end_sender.send_replace(true);
    });
    Ok((request, outlet, Inlet { input, size, end }))
}

/// Reads until the client closes, or says what nobody says.
async fn read(
    receiver: &mut SSReceiver<Ask>,
    window: &Semaphore,
    input: &mpsc::Sender<Vec<u8>>,
    size: &watch::Sender<Option<(u16, u16)>>,
) {
    while let Ok(Some(ask)) = receiver.recv().await {
        let used = (ask.used as usize).min(WINDOW);
        if window.available_permits() + used > WINDOW {
            return;
        }
        window.add_permits(used);
        if let Some(Size { rows, columns }) = ask.size {
            let short = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
            size.send_replace(Some((short(rows), short(columns))));
        }
        if let Some(piece) = ask.input
            && let Err(mpsc::error::TrySendError::Full(_)) = input.try_send(piece)
        {
            return;
        }
    }
}

impl Inlet {
    /// Returns once the client has gone, or has ended the stream.
    pub(super) async fn ended(&mut self) {
        let _ = self.end.wait_for(|ended| *ended).await;
    }
}
