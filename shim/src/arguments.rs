//! The command line, in the form of Go's flag package, which containerd writes (runtime v2, "Flags").

use std::path::PathBuf;

use anyhow::{Result, bail};

pub(crate) const HELP: &str = "\
usage: containerd-shim-flint-v1 [flags] [start | delete]

containerd calls this program; people do not. Without an action it serves on the socket that `start` gives it as its
standard input.

  -namespace NAME       the containerd namespace
  -id ID                the container (start, delete), or the first one of the shim
  -address ADDRESS      containerd's gRPC socket
  -publish-binary PATH  containerd's program; events go to its ttrpc socket instead
  -bundle PATH          the bundle (delete); the current folder otherwise
  -socket ADDRESS       the socket that is served
  -debug-socket ADDRESS taken and not used
  -debug                tell more in the log
  -info                 print what this shim is (containerd.types.RuntimeInfo), then end
  -v, -version          print the version, then end
";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Action {
    #[default]
    Serve,
    Start,
    Delete,
    /// Process 1 of a pod that shares its pids; only the shim itself asks for it.
    Pause,
    /// The same, of a pod that outlives its shim.
    PauseLasting,
    Info,
    Version,
    Help,
}

#[derive(Debug, Default)]
pub(crate) struct Arguments {
    pub(crate) action: Action,
    pub(crate) namespace: String,
    pub(crate) id: String,
    /// containerd's gRPC socket.
    pub(crate) address: String,
    pub(crate) bundle: PathBuf,
    /// The shim's own socket.
    pub(crate) socket: String,
    pub(crate) debug: bool,
}

impl Arguments {
    /// One or two dashes; `-flag value` or `-flag=value`; the first operand is the action.
    ///
    /// # Errors
    ///
    /// An unknown flag or action, a flag without its value.
    pub(crate) fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self> {
        let mut parsed = Self::default();
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let Some(flag) = argument.strip_prefix('-').map(|rest| rest.strip_prefix('-').unwrap_or(rest)) else {
                parsed.action = match argument.as_str() {
                    "start" => Action::Start,
                    "delete" => Action::Delete,
                    crate::pause::ACTION => Action::Pause,
                    crate::pause::LASTING => Action::PauseLasting,
                    other => bail!("{other}: there is no such action: start and delete are"),
                };
                break;
            };
            let (name, inline) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (flag, None),
            };
            match name {
                "v" | "version" => parsed.action = Action::Version,
                "info" => parsed.action = Action::Info,
                "h" | "help" => parsed.action = Action::Help,
                "debug" => parsed.debug = inline.is_none_or(|value| value != "false"),
                "namespace" | "id" | "address" | "publish-binary" | "bundle" | "socket" | "debug-socket" => {
                    let Some(value) = inline.or_else(|| arguments.next()) else { bail!("-{name} wants a value") };
                    match name {
                        "namespace" => parsed.namespace = value,
                        "id" => parsed.id = value,
                        "address" => parsed.address = value,
                        "bundle" => parsed.bundle = value.into(),
                        "socket" => parsed.socket = value,
                        _ => {}
                    }
                }
                other => bail!("-{other}: there is no such flag (see -help)"),
            }
        }
        Ok(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::{Action, Arguments};

    fn parse(line: &str) -> anyhow::Result<Arguments> {
        Arguments::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn as_containerd_writes_them() {
        let line = "-namespace k8s.io -address /run/containerd/containerd.sock -publish-binary /usr/bin/containerd -id a1 start";
        let arguments = parse(line).unwrap();
        assert_eq!(arguments.action, Action::Start);
        assert_eq!((arguments.namespace.as_str(), arguments.id.as_str()), ("k8s.io", "a1"));
        assert_eq!(arguments.address, "/run/containerd/containerd.sock");
        let arguments = parse("--namespace=moby -debug -id=b -bundle /b delete").unwrap();
        assert_eq!(arguments.action, Action::Delete);
        assert!(arguments.debug);
        assert_eq!(arguments.bundle, std::path::Path::new("/b"));
        assert_eq!(parse("-v").unwrap().action, Action::Version);
        assert_eq!(parse("-info").unwrap().action, Action::Info);
        assert_eq!(parse("-id x").unwrap().action, Action::Serve);
    }

    #[test]
    fn wrong_ones_are_named() {
        assert!(parse("-id").unwrap_err().to_string().contains("-id"));
        assert!(parse("-wrong x").unwrap_err().to_string().contains("-wrong"));
        assert!(parse("stop").unwrap_err().to_string().contains("stop"));
    }
}
