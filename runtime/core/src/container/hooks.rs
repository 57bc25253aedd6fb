//! Hooks in the runtime's namespaces (trap 8: each with its timeout).

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::container::process::{open_pidfd, wait_for_end};
use crate::plan::HostHook;
use crate::{Error, Kind, Result};

/// How much of a failed hook's output is quoted.
const QUOTED: usize = 1024;

/// Runs a stage's hooks in order, in the bundle's folder, each with the state's JSON on its standard input.
///
/// # Errors
///
/// The first hook that cannot be run, fails, or takes longer than its timeout; with what it wrote.
pub(crate) fn run(stage: &str, bundle: &Path, hooks: &[HostHook], input: &[u8]) -> Result<()> {
    if hooks.is_empty() {
        return Ok(());
    }
    apart(|| hooks.iter().enumerate().try_for_each(|(index, hook)| run_one(stage, index, bundle, hook, input)))?
}

/// The same for a stage whose failures change nothing (poststop): all hooks are run; the errors of those that failed.
pub(crate) fn run_all(stage: &str, bundle: &Path, hooks: &[HostHook], input: &[u8]) -> Vec<Error> {
    if hooks.is_empty() {
        return Vec::new();
    }
    let each = || {
        let results = hooks.iter().enumerate().map(|(index, hook)| run_one(stage, index, bundle, hook, input));
        results.filter_map(Result::err).collect()
    };
    apart(each).unwrap_or_else(|error| vec![error])
}

/// Calls `work` on a thread whose descriptors from 3 on are closed, so that no hook has what the caller was given or has open
/// itself. The thread's table of descriptors is its own: other threads lose nothing, and what they close is closed.
fn apart<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T> {
    let alone = || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_FILES)
            .map_err(|errno| Error::os("give hooks descriptors of their own", errno))?;
        flint_sys::file::close_range(3, u32::MAX).map_err(|errno| {
            Error::os("keep the caller's descriptors from hooks", nix::errno::Errno::from_raw(errno.0))
        })?;
        Ok(work())
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .spawn_scoped(scope, alone)
            .map_err(|error| Error::os("start a thread for hooks", error))?;
        thread.join().unwrap_or_else(|_| Err(Error::new(Kind::System, "the thread of hooks has died")))
    })
}

fn run_one(stage: &str, index: usize, bundle: &Path, hook: &HostHook, input: &[u8]) -> Result<()> {
    execute(bundle, hook, input)
        .map_err(|error| error.context(format!("error running {stage} hook #{index}: {}", hook.path.display())))
}

fn execute(bundle: &Path, hook: &HostHook, input: &[u8]) -> Result<()> {
    let mut command = Command::new(&hook.path);
    // After the end the bundle may be gone, and what a poststop hook cleans up is not.
    command.current_dir(if bundle.is_dir() { bundle } else { Path::new("/") });
    if let Some(environment) = &hook.environment {
        command.env_clear().envs(environment.iter().filter_map(|entry| entry.split_once('=')));
    }
    if let Some((name, arguments)) = hook.arguments.split_first() {
        std::os::unix::process::CommandExt::arg0(&mut command, name);
        command.args(arguments);
    }
    let to = |path: &Option<PathBuf>, otherwise: Stdio| {
        path.as_deref().map_or(Ok(otherwise), |path| output(path).map(Stdio::from))
    };
    command.stdin(Stdio::piped());
    command.stdout(to(&hook.stdout, Stdio::null())?).stderr(to(&hook.stderr, Stdio::piped())?);
    let mut child = command.spawn().map_err(|error| Error::os("execute", error))?;
    if let Some(mut pipe) = child.stdin.take() {
        // A hook need not read its input; a state fits into a pipe, so this cannot block.
        let _ = pipe.write_all(input);
    }
    let status = wait(&mut child, hook.timeout)?;
    if status.success() {
        return Ok(());
    }
    // "exit status: 3" in the form that runc's callers know.
    let status = status.to_string().replace(": ", " ");
    Err(Error::new(Kind::System, status).quoting(&written(&mut child)))
}

/// A file for the output of hooks (`run.oci.hooks.stdout`): made when it is missing, and appended to.
pub(crate) fn output(path: &Path) -> Result<File> {
    let opened = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
    opened.map_err(|error| Error::os(format!("open {} for the output of hooks", path.display()), error))
}

fn wait(child: &mut Child, timeout: Option<u32>) -> Result<std::process::ExitStatus> {
    if let Some(seconds) = timeout {
        let pidfd = open_pidfd(child.id() as i32)?;
        let deadline = std::time::Instant::now() + Duration::from_secs(u64::from(seconds));
        loop {
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            if wait_for_end(std::os::fd::AsFd::as_fd(&pidfd), left.as_millis().min(30_000) as u16) {
                break;
            }
            if left.is_zero() {
                let _ = child.kill();
                let _ = child.wait();
                return Err(Error::new(
                    Kind::System,
                    format!("killed: it took longer than its timeout of {seconds} s"),
                ));
            }
        }
    }
    child.wait().map_err(|error| Error::os("wait", error))
}

/// What the hook wrote to its standard error: only what is there already, since a process that it left behind
/// may hold the pipe open for ever.
fn written(child: &mut Child) -> String {
    let Some(mut output) = child.stderr.take() else { return String::new() };
    let mut text = vec![0; QUOTED];
    let flags = nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK);
    let length = match nix::fcntl::fcntl(&output, flags) {
        Ok(_) => output.read(&mut text).unwrap_or(0),
        Err(_) => 0,
    };
    String::from_utf8_lossy(&text[..length]).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::{run, run_all};
    use crate::plan::HostHook;

    fn shell(script: &str, timeout: Option<u32>) -> Vec<HostHook> {
        vec![HostHook {
            path: "/bin/sh".into(),
            arguments: vec!["sh".into(), "-c".into(), script.into()],
            environment: Some(vec!["A=b".into()]),
            timeout,
            stdout: None,
            stderr: None,
        }]
    }

    #[test]
    fn gets_state_arguments_and_environment_only() {
        let script = r#"read -r state; [ "$state" = '{"id":"x"}' ] && [ "$A" = b ] && [ -z "$HOME" ]"#;
        run("poststop", "/".as_ref(), &shell(script, None), b"{\"id\":\"x\"}\n").unwrap();
    }

    #[test]
    fn gets_the_runtimes_environment_without_one_of_its_own() {
        let path = std::env::var("PATH").unwrap();
        let mut hooks = shell(&format!("[ \"$PATH\" = '{path}' ]"), None);
        hooks[0].environment = None;
        run("prestart", "/".as_ref(), &hooks, b"{}").unwrap();
    }

    #[test]
    fn failures_say_who_and_why() {
        let error =
            run("prestart", "/".as_ref(), &shell("echo no disk >&2; exit 3", None), b"{}").unwrap_err().to_string();
        assert!(
            error.starts_with("error running prestart hook #0: /bin/sh: exit status 3; it wrote: no disk"),
            "{error}"
        );
    }

    #[test]
    fn a_hanging_hook_is_killed() {
        let error =
            run("createRuntime", "/".as_ref(), &shell("exec sleep 1000", Some(1)), b"{}").unwrap_err().to_string();
        assert!(error.contains("timeout of 1 s"), "{error}");
    }

    #[test]
    fn run_in_the_bundle_or_where_that_is_gone_in_the_root() {
        let bundle = tempfile::tempdir().unwrap();
        let path = bundle.path().canonicalize().unwrap();
        run("prestart", &path, &shell(&format!("[ \"$(pwd)\" = {} ]", path.display()), None), b"{}").unwrap();
        bundle.close().unwrap();
        run("poststop", &path, &shell("[ \"$(pwd)\" = / ]", None), b"{}").unwrap();
    }

    #[test]
    fn have_none_of_the_callers_descriptors_and_the_caller_keeps_them() {
        let (read, write) = nix::unistd::pipe().unwrap();
        let number = std::os::fd::AsRawFd::as_raw_fd(&write);
        run("prestart", "/".as_ref(), &shell(&format!("! [ -e /proc/self/fd/{number} ]"), None), b"{}").unwrap();
        nix::unistd::write(&write, b"x").unwrap();
        assert_eq!(nix::unistd::read(&read, &mut [0]), Ok(1));
    }

    #[test]
    fn one_that_fails_keeps_no_other_from_running() {
        let folder = tempfile::tempdir().unwrap();
        let both = [shell("exit 3", None), shell("echo > ran; exit 4", None)].concat();
        let errors = run_all("poststop", folder.path(), &both, b"{}");
        let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "error running poststop hook #0: /bin/sh: exit status 3",
                "error running poststop hook #1: /bin/sh: exit status 4"
            ]
        );
        assert!(folder.path().join("ran").exists());
    }
}
