//! Streams of programs: exec and attach.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::messages::{Answer, AttachRequest, ExecRequest, PIECE};
use super::server::{Caller, decode, named};
use super::stream::{ClientGone, Inlet, Outlet};
use super::tell::container_of;
use super::{Attach, Exec, Failure, Session};

/// A program that has ended may leave its output to others, which never close it: so long is waited for more of it.
const LAST_OUTPUT: Duration = Duration::from_millis(500);

type Source = Box<dyn AsyncRead + Send + Unpin>;

pub(super) async fn exec(caller: &Caller, request: &[u8], outlet: Outlet, inlet: Inlet) -> Result<(), Failure> {
    let request: ExecRequest = decode(request)?;
    let exec: Exec = serde_json::from_slice(&request.exec)
        .map_err(|error| Failure::refused(format!("read the request: {error}")))?;
    if exec.command.is_empty() {
        return Err(Failure::refused("run which program?"));
    }
    let (key, container) = named(request.pod.as_ref().ok_or_else(|| Failure::refused("run it in which pod?"))?);
    let container = container_of(caller, &key, container)?;
    caller.note("exec", &format!("{} in {container} of {key}", exec.command[0]));
    let session = caller.server.backend.exec(&key, &container, exec).await?;
    run(session, outlet, inlet).await
}

pub(super) async fn attach(caller: &Caller, request: &[u8], outlet: Outlet, inlet: Inlet) -> Result<(), Failure> {
    let request: AttachRequest = decode(request)?;
    let (key, container) = named(request.pod.as_ref().ok_or_else(|| Failure::refused("attach to which pod?"))?);
    let container = container_of(caller, &key, container)?;
    caller.note("attach", &format!("{container} of {key}"));
    let attach = Attach { stdin: request.stdin, from_start: request.from_start };
    let session = caller.server.backend.attach(&key, &container, attach).await?;
    run(session, outlet, inlet).await
}

/// Carries bytes until the program has ended, or the client has.
async fn run(session: Session, outlet: Outlet, inlet: Inlet) -> Result<(), Failure> {
    let Session { stdin, stdout, stderr, control } = session;
    let Inlet { input, mut size, end } = inlet;
    let mut inlet = Inlet { input: mpsc::channel(1).1, size: size.clone(), end };
    let outputs = async {
        let (ended, is_ended) = tokio::sync::watch::channel(false);
        let wait = async {
            let status = control.wait().await;
            ended.send_replace(true);
            status
        };
        let stdout = carry(stdout, &outlet, |stdout| Answer { stdout, ..Answer::default() }, is_ended.clone());
        let stderr = carry(stderr, &outlet, |stderr| Answer { stderr, ..Answer::default() }, is_ended);
        let (status, stdout, stderr) = tokio::join!(wait, stdout, stderr);
        stdout?;
        stderr?;
        status
    };
    let resizes = async {
        while size.changed().await.is_ok() {
            let now = *size.borrow_and_update();
            if let Some((rows, columns)) = now {
                control.resize(rows, columns).await;
            }
        }
        std::future::pending::<()>().await;
    };
    let inputs = async {
        let _ = feed(stdin, input, &outlet).await;
        std::future::pending::<()>().await;
    };
    let status = tokio::select! {
        status = outputs => status,
        () = resizes => return Ok(()),
        () = inputs => return Ok(()),
        () = inlet.ended() => Err(ClientGone.into()),
    };
    match status {
        Ok(status) => Ok(outlet.send(Answer { exit: Some(status), ..Answer::default() }).await?),
        Err(failure) => {
            control.abandon().await;
            Err(failure)
        }
    }
}

/// Carries a stream of output to its end, or until nothing more comes behind the program's end.
async fn carry(
    source: Option<Source>,
    outlet: &Outlet,
    answer: impl Fn(Vec<u8>) -> Answer,
    mut ended: tokio::sync::watch::Receiver<bool>,
) -> Result<(), Failure> {
    let Some(mut source) = source else { return Ok(()) };
    let mut buffer = vec![0; PIECE];
    loop {
        let quiet = async {
            let _ = ended.wait_for(|ended| *ended).await;
            tokio::time::sleep(LAST_OUTPUT).await;
        };
        let count = tokio::select! {
            biased;
            count = source.read(&mut buffer) => count,
            () = quiet => return Ok(()),
        };
        match count {
            // A terminal's other side was closed: EIO.
            Ok(0) | Err(_) => return Ok(()),
            Ok(count) => outlet.send(answer(buffer[..count].to_vec())).await?,
        }
    }
}

/// Writes input, and tells after each piece that the next may come.
async fn feed(
    mut stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    mut input: mpsc::Receiver<Vec<u8>>,
    outlet: &Outlet,
) -> Result<(), ClientGone> {
    if stdin.is_none() {
        outlet.send(Answer { input_closed: true, ..Answer::default() }).await?;
    }
    while let Some(piece) = input.recv().await {
        let Some(sink) = &mut stdin else { continue };
        let is_end = piece.is_empty();
        let written = async {
            if is_end {
                return sink.shutdown().await;
            }
            sink.write_all(&piece).await?;
            sink.flush().await
        };
        if written.await.is_err() || is_end {
            stdin = None;
        }
        let is_closed = stdin.is_none();
        outlet.send(Answer { input_taken: true, input_closed: is_closed, ..Answer::default() }).await?;
    }
    Ok(())
}
