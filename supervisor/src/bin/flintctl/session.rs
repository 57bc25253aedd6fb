//! `exec` and `attach`: a program's streams on ours.

use std::io::Write as _;

use anyhow::{Context, Result, bail};
use clap::Args;
use flintd::api::Exec;
use flintd::api::client::{Attached, Error, Outcome, Output, Typist};

use crate::command::{FAILURE, Session};
use crate::terminal::{self, Detacher, Raw};

/// Run a program in a container
///
/// flintctl ends with the program's status; with 126 if it cannot be run and 127 if it is not there. A client that is ended ends its
/// program, too.
#[derive(Args)]
pub(crate) struct ExecVerb {
    /// The pod
    pod: String,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
    /// The container [default: the pod's first]
    #[arg(long, short, value_name = "NAME")]
    container: Option<String>,
    /// Hand on standard input
    #[arg(long = "stdin", short = 'i')]
    stdin: bool,
    /// Give it a terminal
    #[arg(long, short)]
    pub(crate) tty: bool,
    /// A variable, NAME=VALUE, or NAME for the caller's own
    #[arg(long, short, value_name = "VARIABLE")]
    env: Vec<String>,
    /// USER[:GROUP] in place of the container's
    #[arg(long, short, value_name = "USER")]
    user: Option<String>,
    /// The working directory in place of the container's
    #[arg(long, short, value_name = "PATH")]
    workdir: Option<String>,
}

/// Connect to a container's own streams
///
/// Ctrl-P Ctrl-Q, or the end of flintctl, leaves the container alone.
#[derive(Args)]
pub(crate) struct Attach {
    /// The pod
    pod: String,
    /// The container [default: the pod's first]
    #[arg(long, short, value_name = "NAME")]
    container: Option<String>,
    /// Do not hand on standard input
    #[arg(long)]
    no_stdin: bool,
}

/// How the streams ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The program has.
    Exited(u32),
    /// The node has ended them without a status.
    Cut,
    /// Somebody has left.
    Detached,
    /// A signal to flintctl.
    Signal(i32),
}

impl End {
    /// The status that flintctl ends with.
    pub(crate) fn status(&self) -> u8 {
        match self {
            Self::Exited(status) => status.to_le_bytes()[0],
            Self::Cut => FAILURE,
            Self::Detached => 0,
            Self::Signal(number) => 128 + number.to_le_bytes()[0],
        }
    }
}

impl ExecVerb {
    pub(crate) async fn run(self, session: &Session) -> Result<u8> {
        if self.tty && self.stdin && !terminal::has_keyboard() {
            bail!("standard input is no terminal: leave -t out");
        }
        let client = session.client().await?;
        let target = session.target(&self.pod, self.container.as_ref());
        let exec = Exec {
            command: self.command,
            tty: self.tty,
            stdin: self.stdin,
            env: variables(&self.env),
            user: self.user,
            cwd: self.workdir,
            size: if self.tty { terminal::size() } else { None },
        };
        let (attached, typist) = client.exec(&target, &exec).await?;
        match carry(attached, typist, self.tty, self.stdin).await {
            Ok(end) => Ok(end.status()),
            Err(error) => {
                let status = error.downcast_ref::<Error>().map_or(FAILURE, not_started);
                eprintln!("flintctl: {error:#}");
                Ok(status)
            }
        }
    }
}

/// docker's statuses of a program that could not be started.
fn not_started(error: &Error) -> u8 {
    match error {
        Error::Refused(text) | Error::Broken(text) => {
            let is_missing = ["not found", "no such file", "ENOENT"].iter().any(|words| text.contains(words));
            if is_missing { 127 } else { 126 }
        }
        _ => FAILURE,
    }
}

impl Attach {
    pub(crate) async fn run(self, session: &Session) -> Result<u8> {
        let client = session.client().await?;
        let target = session.target(&self.pod, self.container.as_ref());
        let inspection = client.inspect(&target.pod).await?;
        let containers = inspection.desired.map(|pod| pod.containers).unwrap_or_default();
        let container =
            containers.iter().find(|container| target.container.as_ref().is_none_or(|name| *name == container.name));
        let (tty, stdin) =
            container.map_or((false, false), |container| (container.tty, container.stdin && !self.no_stdin));
        let (attached, typist) = client.attach(&target).await?;
        Ok(carry(attached, typist, tty, stdin).await?.status())
    }
}

/// Variables as they are typed; one without a value takes the caller's, and is left out if there is none.
pub(crate) fn variables(typed: &[String]) -> Vec<(String, String)> {
    let variable = |text: &String| match text.split_once('=') {
        Some((name, value)) => Some((name.to_owned(), value.to_owned())),
        None => std::env::var(text).ok().map(|value| (text.clone(), value)),
    };
    typed.iter().filter_map(variable).collect()
}

/// Carries bytes until the program or somebody else makes an end.
pub(crate) async fn carry(mut attached: Attached, typist: Typist, tty: bool, stdin: bool) -> Result<End> {
    let raw = if tty && stdin && terminal::has_keyboard() { Some(Raw::enter()?) } else { None };
    let has_raw = raw.is_some();
    if tty {
        follow_size(&typist)?;
    }
    let (detach, mut detached) = tokio::sync::oneshot::channel();
    let typing = if stdin { Some(tokio::spawn(feed(typist, has_raw, detach))) } else { None };
    let signals = async {
        // Without a raw terminal there is nothing to restore, and signals do what they always do.
        if has_raw { terminal::ended().await } else { std::future::pending().await }
    };
    tokio::pin!(signals);
    let end = loop {
        tokio::select! {
            output = attached.next() => match output? {
                Some(output) => show(&output)?,
                None => break match attached.outcome() {
                    Outcome::Exited(status) => End::Exited(status),
                    Outcome::Cut => End::Cut,
                },
            },
            Ok(()) = &mut detached => break End::Detached,
            signal = &mut signals => break End::Signal(signal?),
        }
    };
    if let Some(typing) = typing {
        typing.abort();
    }
    drop(raw);
    Ok(end)
}

fn show(output: &Output) -> Result<()> {
    match output {
        Output::Stdout(bytes) => {
            let mut stdout = std::io::stdout().lock();
            stdout.write_all(bytes).and_then(|()| stdout.flush()).context("write to stdout")
        }
        Output::Stderr(bytes) => std::io::stderr().lock().write_all(bytes).context("write to stderr"),
    }
}

/// Hands on what is typed; tells when Ctrl-P Ctrl-Q is.
async fn feed(mut typist: Typist, has_raw: bool, detach: tokio::sync::oneshot::Sender<()>) {
    let mut input = terminal::input();
    let mut detacher = Detacher::default();
    while let Some(typed) = input.recv().await {
        let (passed, leaves) = if has_raw { detacher.pass(&typed) } else { (typed, false) };
        if !passed.is_empty() && !typist.send(&passed).await {
            return;
        }
        if leaves {
            let _ = detach.send(());
            return;
        }
    }
    typist.end().await;
    // The sender is kept: its end is no detaching.
    std::future::pending::<()>().await;
    drop(detach);
}

/// Tells the program's terminal the size of ours, now and when it changes.
fn follow_size(typist: &Typist) -> Result<()> {
    let sizes = typist.sizes();
    let mut resized = terminal::resized()?;
    tokio::spawn(async move {
        loop {
            if let Some((rows, columns)) = terminal::size() {
                sizes.resize(rows, columns).await;
            }
            if resized.recv().await.is_none() {
                return;
            }
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_the_programs_own() {
        assert_eq!(End::Exited(137).status(), 137);
        assert_eq!(End::Signal(15).status(), 143);
        assert_eq!(End::Detached.status(), 0);
        assert_eq!(not_started(&Error::Refused("sh: executable file not found in $PATH".to_owned())), 127);
        assert_eq!(not_started(&Error::Refused("permission denied".to_owned())), 126);
        assert_eq!(not_started(&Error::Missing("there is no pod".to_owned())), 1);
    }

    #[test]
    fn variables_are_given_or_taken() {
        let typed = ["A=b=c", "PATH", "SURELY_NOT_SET_HERE"].map(str::to_owned);
        let variables = variables(&typed);
        assert_eq!(variables[0], ("A".to_owned(), "b=c".to_owned()));
        assert_eq!((variables.len(), variables[1].0.as_str()), (2, "PATH"));
    }
}
