//! What may be typed, and who does it.

use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use flintd::api::client::{Client, Target};
use flintd::api::{PodView, SOCKET};
use flintd::desired::Key;

use crate::{applying, control, events, images, logs, node, pages, ps, run, session, top, usage};

/// Shows and changes what runs on a node of flint.
///
/// A pod is named NAME, in the namespace of --namespace, or NAMESPACE/NAME.
#[derive(Parser)]
#[command(name = "flintctl", version, disable_help_subcommand = true)]
pub(crate) struct CommandLine {
    #[command(flatten)]
    pub(crate) session: Session,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What holds for every verb.
#[derive(Args, Debug)]
pub(crate) struct Session {
    /// The node's socket [default: $FLINT_SOCKET, else /run/flint/flintd.sock]
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// The namespace of names without one
    #[arg(long, short, global = true, value_name = "NAME", default_value = "default")]
    pub(crate) namespace: String,
}

#[derive(Subcommand)]
pub(crate) enum Verb {
    Apply(applying::Apply),
    Run(Box<run::Run>),
    Rm(control::Rm),
    Ps(ps::Ps),
    Inspect(ps::Inspect),
    Logs(logs::Logs),
    Exec(session::ExecVerb),
    Attach(session::AttachVerb),
    Stop(control::Stop),
    Restart(control::Restart),
    Stats(usage::Stats),
    Top(top::Top),
    Events(events::EventsVerb),
    Images(images::Images),
    Pull(images::PullVerb),
    Rmi(images::Rmi),
    Node(node::NodeVerb),
    Completion(pages::Completion),
    Man(pages::Man),
}

/// The status that flintctl ends with when it is not the program's own.
pub(crate) const FAILURE: u8 = 1;

/// Runs what was typed.
pub(crate) fn run() -> ExitCode {
    let CommandLine { session, verb } = CommandLine::parse();
    // What the caller had blocked outlives execve (signal(7)): Ctrl-C, or that the terminal's size has changed, would not be heard.
    let unblocked = nix::sys::signal::SigSet::empty().thread_set_mask().map_err(std::io::Error::from);
    let runtime = unblocked.and_then(|()| tokio::runtime::Builder::new_current_thread().enable_all().build());
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("flintctl: start: {error}");
            return ExitCode::from(FAILURE);
        }
    };
    let result = runtime.block_on(dispatch(&session, verb));
    // A read of standard input may be under way for ever.
    runtime.shutdown_background();
    match result {
        Ok(status) => ExitCode::from(status),
        // Whoever read has what it wanted.
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("flintctl: {error:#}");
            ExitCode::from(FAILURE)
        }
    }
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .any(|cause| cause.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe))
}

async fn dispatch(session: &Session, verb: Verb) -> Result<u8> {
    match verb {
        Verb::Apply(verb) => verb.run(session).await,
        Verb::Run(verb) => verb.run(session).await,
        Verb::Rm(verb) => verb.run(session).await,
        Verb::Ps(verb) => verb.run(session).await,
        Verb::Inspect(verb) => verb.run(session).await,
        Verb::Logs(verb) => verb.run(session).await,
        Verb::Exec(verb) => verb.run(session).await,
        Verb::Attach(verb) => verb.run(session).await,
        Verb::Stop(verb) => verb.run(session).await,
        Verb::Restart(verb) => verb.run(session).await,
        Verb::Stats(verb) => verb.run(session).await,
        Verb::Top(verb) => verb.run(session).await,
        Verb::Events(verb) => verb.run(session).await,
        Verb::Images(verb) => verb.run(session).await,
        Verb::Pull(verb) => verb.run(session).await,
        Verb::Rmi(verb) => verb.run(session).await,
        Verb::Node(verb) => verb.run(session).await,
        Verb::Completion(verb) => verb.run(),
        Verb::Man(verb) => verb.run(),
    }
}

impl Session {
    /// Connects to the node.
    pub(crate) async fn client(&self) -> Result<Client> {
        let path = self.socket.clone().or_else(|| std::env::var_os("FLINT_SOCKET").map(PathBuf::from));
        Ok(Client::connect(&path.unwrap_or_else(|| SOCKET.into())).await?)
    }

    /// The pod of a name.
    pub(crate) fn key(&self, name: &str) -> Key {
        match name.split_once('/') {
            Some((namespace, name)) => Key::new(namespace, name),
            None => Key::new(&self.namespace, name),
        }
    }

    /// A container of a pod.
    pub(crate) fn target(&self, pod: &str, container: Option<&String>) -> Target {
        Target { pod: self.key(pod), container: container.cloned() }
    }
}

/// All pods of the node.
pub(crate) async fn all_pods(client: &Client) -> Result<Vec<PodView>> {
    let mut pods = client.pods(false).await?;
    Ok(pods.next().await?.map(|change| change.pods).unwrap_or_default())
}

/// A pod's name as it may be typed.
pub(crate) fn shown(key: &Key) -> String {
    if key.namespace == "default" { key.name.clone() } else { key.to_string() }
}

/// Writes to stdout.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).context("write to stdout")
}

/// Prints a value as JSON, on several lines.
pub(crate) fn print_json(value: &impl serde::Serialize) -> Result<()> {
    print(&format!("{}\n", serde_json::to_string_pretty(value).context("write JSON")?))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn names_have_a_namespace() {
        let session = Session { socket: None, namespace: "apps".to_owned() };
        assert_eq!(session.key("web"), Key::new("apps", "web"));
        assert_eq!(session.key("other/web"), Key::new("other", "web"));
        assert_eq!(shown(&Key::new("default", "web")), "web");
        assert_eq!(shown(&Key::new("apps", "web")), "apps/web");
    }

    #[test]
    fn a_reader_that_has_gone_is_no_failure() {
        let error = anyhow::Error::from(std::io::Error::from(ErrorKind::BrokenPipe)).context("write to stdout");
        assert!(is_closed_pipe(&error));
        assert!(!is_closed_pipe(&anyhow::anyhow!("other")));
    }

    fn parse(line: &str) -> Result<CommandLine, clap::Error> {
        CommandLine::try_parse_from(line.split(' '))
    }

    #[test]
    fn commands_of_dockers_and_kubectls_form_are_understood() {
        for line in [
            "flintctl apply -f a.yaml -f b --dry-run",
            "flintctl apply -f - --wait --timeout 30s",
            "flintctl run nginx",
            "flintctl run -it --rm alpine -- sh -c true",
            "flintctl run --rm -it alpine sh",
            "flintctl run --name web -p 8080:80 -p 127.0.0.1:53:53/udp -e A=b -v /a:/b:ro --memory 64m --cpus 0.5 --restart no web:1",
            "flintctl rm a b -f x.yaml --grace 3",
            "flintctl ps -aq",
            "flintctl ps --json --watch",
            "flintctl logs -f --tail 10 --since 5m --timestamps web -c main",
            "flintctl logs --previous web",
            "flintctl exec -it web sh",
            "flintctl exec web -c main -e A=b -u 1:1 -w /tmp -- ls -l",
            "flintctl exec web ls -l",
            "flintctl attach web",
            "flintctl attach -it --detach-keys ctrl-a,d web -c main",
            "flintctl -n apps stop web --grace 0",
            "flintctl restart web -c main",
            "flintctl stats --json",
            "flintctl top",
            "flintctl events -f web",
            "flintctl images --json",
            "flintctl pull nginx:1 -q",
            "flintctl node --json --socket /tmp/s",
            "flintctl completion bash",
            "flintctl man run",
        ] {
            if let Err(error) = parse(line) {
                panic!("{line}: {error}");
            }
        }
        for line in [
            "flintctl",
            "flintctl run",
            "flintctl exec web",
            "flintctl apply",
            "flintctl logs --tail x web",
            "flintctl frob",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
        let Verb::Exec(exec) = parse("flintctl exec web ls -it").unwrap().verb else { panic!("exec") };
        assert_eq!(exec.command, ["ls", "-it"], "options behind the program are its own");
        assert!(!exec.tty);
    }
}
