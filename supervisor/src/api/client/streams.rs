//! The client's end of streams.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use ttrpc::r#async::{CSReceiver, CSSender, ClientStream};
use ttrpc::proto::Request;

use super::{Client, Error, Target};
use crate::api::messages::{
    Answer, Ask, AttachRequest, ExecRequest, FollowRequest, ImageRequest, LogsRequest, PIECE, SERVICE, Size, WINDOW,
};
use crate::api::tell::{PodsFrame, PullFrame};
use crate::api::{Attach, Exec, ImageView, PodView, PullStep};
use crate::desired::Key;
use crate::observed::Event;
use crate::scheduler::{LogLine, LogRequest, Stream};

/// A stream's two ends at the client.
struct Channel {
    sender: CSSender<Ask>,
    receiver: CSReceiver<Answer>,
    /// Bytes that were used and not told.
    used: usize,
    /// It ends with its last client.
    _client: Client,
}

impl Client {
    async fn open(&self, method: &str, request: &impl prost::Message) -> Result<Channel, Error> {
        let first = Request { service: SERVICE.to_owned(), method: method.to_owned(), ..Request::default() };
        let stream = self.connection.new_stream(first, true, true).await?;
        let (sender, receiver) = ClientStream::<Ask, Answer>::new(stream).split();
        sender.send(&Ask { request: Some(request.encode_to_vec()), ..Ask::default() }).await?;
        Ok(Channel { sender, receiver, used: 0, _client: self.clone() })
    }

    /// The node's pods; with `follow` also what becomes of them.
    ///
    /// # Errors
    ///
    /// The node does not answer.
    pub async fn pods(&self, follow: bool) -> Result<Pods, Error> {
        Ok(Pods(self.open("Pods", &FollowRequest { follow }).await?))
    }

    /// Events of before; with `follow` also those that come.
    ///
    /// # Errors
    ///
    /// The node does not answer.
    pub async fn events(&self, follow: bool) -> Result<Events, Error> {
        Ok(Events(self.open("Events", &FollowRequest { follow }).await?))
    }

    /// A container's lines.
    ///
    /// # Errors
    ///
    /// The node does not answer; the rest comes with the first line.
    pub async fn logs(&self, target: &Target, wanted: &LogRequest, previous: bool) -> Result<Lines, Error> {
        let since = wanted.since.map(|since| since.duration_since(UNIX_EPOCH).unwrap_or_default());
        let request = LogsRequest {
            pod: Some(target.request()),
            follow: wanted.follow,
            tail: wanted.tail,
            since_nanos: since.map(|since| since.as_nanos() as u64),
            previous,
        };
        Ok(Lines { channel: self.open("Logs", &request).await?, batch: Vec::new().into_iter() })
    }

    /// Pulls an image.
    ///
    /// # Errors
    ///
    /// The node does not answer; the rest comes with the steps.
    pub async fn pull(&self, name: &str) -> Result<Pull, Error> {
        Ok(Pull(self.open("Pull", &ImageRequest { name: name.to_owned() }).await?))
    }

    /// Runs a program in a container.
    ///
    /// # Errors
    ///
    /// The node does not answer; the rest comes with the output.
    pub async fn exec(&self, target: &Target, exec: &Exec) -> Result<(Attached, Typist), Error> {
        let json = serde_json::to_vec(exec).map_err(|error| Error::Protocol(error.to_string()))?;
        let request = ExecRequest { pod: Some(target.request()), exec: json };
        Ok(attached(self.open("Exec", &request).await?))
    }

    /// Connects to a container's own streams.
    ///
    /// # Errors
    ///
    /// The node does not answer; the rest comes with the output.
    pub async fn attach(&self, target: &Target, attach: Attach) -> Result<(Attached, Typist), Error> {
        let Attach { stdin, from_start } = attach;
        let request = AttachRequest { pod: Some(target.request()), stdin, from_start };
        Ok(attached(self.open("Attach", &request).await?))
    }
}

impl Channel {
    /// The next message; none at the end.
    async fn next(&mut self) -> Result<Option<Answer>, Error> {
        // What came before was used by now; told when it counts, not at each.
        if self.used >= WINDOW / 4 {
            let used = std::mem::take(&mut self.used) as u64;
            // A node that has gone is told by what it said last.
            let _ = self.sender.send(&Ask { used, ..Ask::default() }).await;
        }
        match self.receiver.recv().await {
            Ok(answer) => {
                self.used += answer.weight as usize;
                Ok(Some(answer))
            }
            Err(ttrpc::Error::Eof | ttrpc::Error::RemoteClosed) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn value<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Error> {
        let Some(answer) = self.next().await? else { return Ok(None) };
        serde_json::from_slice(&answer.json).map(Some).map_err(|error| Error::Protocol(error.to_string()))
    }
}

/// What has become of pods.
#[derive(Debug, Default)]
pub struct PodsChange {
    /// New and changed ones; at first all.
    pub pods: Vec<PodView>,
    /// Those that are gone.
    pub gone: Vec<Key>,
}

/// A stream of pods.
pub struct Pods(Channel);

impl Pods {
    /// What has changed since the last time; none at the end.
    ///
    /// # Errors
    ///
    /// The node has gone.
    pub async fn next(&mut self) -> Result<Option<PodsChange>, Error> {
        let mut change = PodsChange::default();
        loop {
            let Some(frame) = self.0.value::<PodsFrame>().await? else { return Ok(None) };
            change.pods.extend(frame.pods);
            change.gone.extend(frame.gone);
            if frame.is_complete {
                return Ok(Some(change));
            }
        }
    }
}

/// A stream of events.
pub struct Events(Channel);

impl Events {
    /// The next; none at the end.
    ///
    /// # Errors
    ///
    /// The node has gone.
    pub async fn next(&mut self) -> Result<Option<Event>, Error> {
        self.0.value().await
    }
}

/// A stream of lines.
pub struct Lines {
    channel: Channel,
    batch: std::vec::IntoIter<crate::api::messages::Line>,
}

impl Lines {
    /// The next; none at the end.
    ///
    /// # Errors
    ///
    /// There is no such container, or it has no log, or the node has gone.
    pub async fn next(&mut self) -> Result<Option<LogLine>, Error> {
        loop {
            if let Some(line) = self.batch.next() {
                let at: SystemTime = UNIX_EPOCH + Duration::from_nanos(line.at_nanos);
                let stream = if line.is_error { Stream::Stderr } else { Stream::Stdout };
                return Ok(Some(LogLine { at, stream, bytes: line.text }));
            }
            let Some(answer) = self.channel.next().await? else { return Ok(None) };
            self.batch = answer.lines.into_iter();
        }
    }
}

/// What happens in a pull.
#[derive(Debug)]
pub enum PullEvent {
    /// A step.
    Step(PullStep),
    /// The image is here.
    Done(ImageView),
}

/// A pull.
pub struct Pull(Channel);

impl Pull {
    /// What happens next; none at the end.
    ///
    /// # Errors
    ///
    /// The pull has failed, or the node has gone.
    pub async fn next(&mut self) -> Result<Option<PullEvent>, Error> {
        Ok(self.0.value().await?.map(|frame| match frame {
            PullFrame::Step(step) => PullEvent::Step(step),
            PullFrame::Done(image) => PullEvent::Done(image),
        }))
    }
}

/// What a program has written.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// To its standard output, or its terminal.
    Stdout(Vec<u8>),
    /// To its standard error.
    Stderr(Vec<u8>),
}

/// How a program's streams have ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With this exit status.
    Exited(u32),
    /// The node has ended them without one.
    Cut,
}

/// The output of a program.
pub struct Attached {
    channel: Channel,
    taken: mpsc::Sender<bool>,
    outcome: Option<u32>,
}

/// The input of a program, and its terminal's size.
pub struct Typist {
    sender: CSSender<Ask>,
    taken: mpsc::Receiver<bool>,
    is_closed: bool,
}

fn attached(channel: Channel) -> (Attached, Typist) {
    // One piece is under way, and the word that nobody reads may come beside it.
    let (sender, taken) = mpsc::channel(4);
    let typist = Typist { sender: channel.sender.clone(), taken, is_closed: false };
    (Attached { channel, taken: sender, outcome: None }, typist)
}

impl Attached {
    /// The next piece of output; none at the end, then [`Attached::outcome`] tells how it ended.
    ///
    /// # Errors
    ///
    /// The program could not be started, or the node has gone.
    pub async fn next(&mut self) -> Result<Option<Output>, Error> {
        loop {
            let Some(answer) = self.channel.next().await? else { return Ok(None) };
            if answer.input_taken || answer.input_closed {
                let _ = self.taken.try_send(answer.input_closed);
            }
            self.outcome = answer.exit.or(self.outcome);
            if !answer.stdout.is_empty() {
                return Ok(Some(Output::Stdout(answer.stdout)));
            }
            if !answer.stderr.is_empty() {
                return Ok(Some(Output::Stderr(answer.stderr)));
            }
        }
    }

    /// How it ended.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        self.outcome.map_or(Outcome::Cut, Outcome::Exited)
    }
}

impl Typist {
    /// Sends input, and returns once the program's pipe or terminal has it; false: nobody reads any more. Somebody has to read
    /// [`Attached::next`] meanwhile.
    pub async fn send(&mut self, input: &[u8]) -> bool {
        for piece in input.chunks(PIECE) {
            if !self.send_piece(piece.to_vec()).await {
                return false;
            }
        }
        true
    }

    /// There is no more input.
    pub async fn end(&mut self) {
        self.send_piece(Vec::new()).await;
    }

    async fn send_piece(&mut self, piece: Vec<u8>) -> bool {
        while let Ok(is_closed) = self.taken.try_recv() {
            self.is_closed |= is_closed;
        }
        if self.is_closed || self.sender.send(&Ask { input: Some(piece), ..Ask::default() }).await.is_err() {
            return false;
        }
        // The answer, or the end of the stream.
        match self.taken.recv().await {
            Some(is_closed) => self.is_closed |= is_closed,
            None => self.is_closed = true,
        }
        !self.is_closed
    }

    /// The terminal has another size.
    pub async fn resize(&self, rows: u16, columns: u16) {
        let size = Size { rows: rows.into(), columns: columns.into() };
        // A program that has ended has no terminal.
        let _ = self.sender.send(&Ask { size: Some(size), ..Ask::default() }).await;
    }

    /// What sets the size while another task sends input.
    #[must_use]
    pub fn sizes(&self) -> Self {
        Self { sender: self.sender.clone(), taken: mpsc::channel(1).1, is_closed: true }
    }
}
