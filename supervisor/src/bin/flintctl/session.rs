//! `exec` and `attach`: a program's streams on ours.

use std::io::Write as _;

use anyhow::{Context, Result, bail};
use clap::Args;
use flintd::api::client::{Attached, Error, Outcome, Output, Typist};
use flintd::api::{Attach, Exec};

use crate::command::{FAILURE, Session};
use crate::detaching::{DetachKeys, Detacher};
use crate::terminal::{self, Raw};

/// Run a program in a container
///
/// flintctl ends with the program's status; with 126 if it cannot be run and 127 if it is not there. A client that is ended, or leaves
/// by --detach-keys, ends its program, too: nobody could come back to it.
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
    /// The keys that leave it, with -it
    #[arg(long, value_name = "KEYS", default_value_t)]
    detach_keys: DetachKeys,
}

/// Connect to a container's own streams
///
/// What the container writes from now on is shown, its input is that of flintctl if the container keeps one open (`stdin`), and flintctl
/// ends with the container's status. The detach keys, on a terminal, and the end of flintctl leave the container alone, but for an input
/// that is for one client only (`stdinOnce` without `tty`), which ends with it.
#[derive(Args)]
pub(crate) struct AttachVerb {
    /// The pod
    pod: String,
    /// The container [default: the pod's first]
    #[arg(long, short, value_name = "NAME")]
    container: Option<String>,
    /// Hand on standard input; refused if the container has none [default: if it has one]
    #[arg(long = "stdin", short = 'i', conflicts_with = "no_stdin")]
    stdin: bool,
    /// Refuse a container without a terminal
    #[arg(long, short)]
    tty: bool,
    /// Do not hand on standard input
    #[arg(long)]
    no_stdin: bool,
    /// The keys that leave the container, on a terminal
    #[arg(long, value_name = "KEYS", default_value_t)]
    detach_keys: DetachKeys,
}

/// How streams are carried.
#[derive(Debug, Clone)]
pub(crate) struct Carriage {
    /// Whether the program has a terminal.
    pub(crate) tty: bool,
    /// Whether our input is handed on.
    pub(crate) stdin: bool,
    /// What leaves it.
    pub(crate) keys: DetachKeys,
    /// Whether something has to be done when a signal ends us.
    pub(crate) hears_signals: bool,
}

/// How the streams ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The program has.
    Exited(u32),
    /// flintd has gone.
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
        let carriage = Carriage { tty: self.tty, stdin: self.stdin, keys: self.detach_keys, hears_signals: false };
        match carry(attached, typist, carriage).await {
            Ok(end) => {
                if end == End::Cut {
                    eprintln!("flintctl: flintd has ended; the next one ends the program");
                }
                Ok(end.status())
            }
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

impl AttachVerb {
    pub(crate) async fn run(self, session: &Session) -> Result<u8> {
        let client = session.client().await?;
        let target = session.target(&self.pod, self.container.as_ref());
        let inspection = client.inspect(&target.pod).await?;
        let containers = inspection.desired.map(|pod| pod.containers).unwrap_or_default();
        let container =
            containers.iter().find(|container| target.container.as_ref().is_none_or(|name| *name == container.name));
        let (tty, has_stdin) = container.map_or((false, false), |container| (container.tty, container.stdin));
        for (is_wanted, is_there, field) in [(self.stdin, has_stdin, "stdin"), (self.tty, tty, "tty")] {
            if is_wanted && !is_there {
                bail!("the container has no {field}: its manifest has to say `{field}: true`");
            }
        }
        let stdin = has_stdin && !self.no_stdin;
        let (attached, typist) = client.attach(&target, Attach { stdin, from_start: false }).await?;
        let carriage = Carriage { tty, stdin, keys: self.detach_keys, hears_signals: false };
        let end = carry(attached, typist, carriage).await?;
        if end == End::Cut {
            eprintln!(
                "flintctl: flintd has ended; the container goes on, and `flintctl attach {}` comes back to it",
                self.pod
            );
        }
        Ok(end.status())
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
pub(crate) async fn carry(mut attached: Attached, typist: Typist, carriage: Carriage) -> Result<End> {
    let Carriage { tty, stdin, keys, hears_signals } = carriage;
    let raw = if tty && stdin && terminal::has_keyboard() { Some(Raw::enter()?) } else { None };
    let has_raw = raw.is_some();
    if tty {
        follow_size(&typist)?;
    }
    let (detach, mut detached) = tokio::sync::oneshot::channel();
    let typing = if stdin {
        Some(tokio::spawn(feed(typist, Detacher::new(if has_raw { keys } else { DetachKeys::none() }), detach)))
    } else {
        None
    };
    let signals = async {
        // Without a raw terminal there is nothing to restore, and signals do what they always do.
        if has_raw || hears_signals { terminal::ended().await } else { std::future::pending().await }
    };
    tokio::pin!(signals);
    let end = loop {
        tokio::select! {
            output = attached.next() => match output {
                Ok(Some(output)) => show(&output)?,
                Ok(None) => break match attached.outcome() {
                    Outcome::Exited(status) => End::Exited(status),
                    Outcome::Cut => End::Cut,
                },
                Err(Error::Gone(_)) => break End::Cut,
                Err(error) => return Err(error.into()),
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

/// Hands on what is typed; tells when the keys to leave are.
async fn feed(mut typist: Typist, mut detacher: Detacher, detach: tokio::sync::oneshot::Sender<()>) {
    let mut input = terminal::input();
    while let Some(typed) = input.recv().await {
        let (passed, leaves) = detacher.pass(&typed);
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
