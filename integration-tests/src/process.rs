//! Running programs with a deadline, their output in files.
//!
//! Output goes to files and not to pipes, because a detached container keeps its creator's stdout and stderr open: a
//! pipe would never reach its end.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Seek, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// How long a program may take before it counts as hung. Far above what any of them needs: it makes a hang a failure
/// and asserts nothing about speed.
const HANG: u64 = 300;

/// What a program left behind.
#[derive(Clone, Debug)]
pub struct Output {
    /// Exit code; 128 + signal when it was killed.
    pub code: i32,
    /// Standard output, invalid UTF-8 replaced.
    pub stdout: String,
    /// Standard error, invalid UTF-8 replaced.
    pub stderr: String,
    /// Standard output as it was written.
    pub stdout_bytes: Vec<u8>,
}

impl Output {
    /// The same output, after asserting that the exit code is 0.
    #[track_caller]
    #[must_use]
    pub fn ok(self) -> Self {
        self.exits(0)
    }

    /// The same output, after asserting the exit code.
    #[track_caller]
    #[must_use]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    /// The lines of stderr that are not empty.
    #[must_use]
    pub fn error_lines(&self) -> Vec<&str> {
        self.stderr.lines().filter(|line| !line.trim().is_empty()).collect()
    }
}

/// How long a program may run, and a wait may last, before it is taken for one that hangs: `FLINT_PATIENCE` in seconds where a
/// test has more to do than usual.
pub(crate) fn patience() -> Duration {
    static PATIENCE: std::sync::OnceLock<Duration> = std::sync::OnceLock::new();
    *PATIENCE.get_or_init(|| {
        let wanted = std::env::var("FLINT_PATIENCE").ok();
        let seconds = wanted.map_or(HANG, |text| text.parse().expect("FLINT_PATIENCE is a number of seconds"));
        Duration::from_secs(seconds)
    })
}

/// The same in nanoseconds, as a call by ttrpc carries it.
pub(crate) fn patience_nanos() -> i64 {
    patience().as_nanos() as i64
}

/// A program to run, with a deadline.
#[derive(Debug)]
pub struct Command {
    inner: std::process::Command,
    input: Vec<u8>,
}

impl Command {
    /// Runs `program` (a path, or a name looked up in PATH).
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self { inner: std::process::Command::new(program), input: Vec::new() }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.inner.args(args.into_iter().map(Into::into));
        self
    }

    /// Sets the working directory.
    #[must_use]
    pub fn dir(mut self, dir: &Path) -> Self {
        self.inner.current_dir(dir);
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.inner.env(name, value);
        self
    }

    /// Gives the program `bytes` on stdin (else it reads /dev/null).
    #[must_use]
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = bytes.into();
        self
    }

    /// Runs it to its end and collects what it wrote.
    #[track_caller]
    #[must_use]
    pub fn output(self) -> Output {
        let what = format!("{:?}", self.inner);
        self.spawn().finish(&what)
    }

    /// Starts it. The caller finishes or kills it; a dropped one is killed.
    #[track_caller]
    #[must_use]
    pub fn spawn(mut self) -> Running {
        let stdout = output_file();
        let stderr = output_file();
        let stdin = if self.input.is_empty() {
            Stdio::null()
        } else {
            let mut file = tempfile::tempfile().expect("make a file for stdin");
            file.write_all(&self.input).expect("write stdin");
            file.rewind().expect("rewind stdin");
            Stdio::from(file)
        };
        let child = self
            .inner
            .stdin(stdin)
            .stdout(stdout.try_clone().expect("dup stdout"))
            .stderr(stderr.try_clone().expect("dup stderr"))
            .spawn()
            .unwrap_or_else(|error| panic!("start {:?}: {error}", self.inner));
        Running { child: Some(child), stdout, stderr }
    }
}

impl Command {
    /// Starts it with both outputs in `file`, and nothing on stdin.
    #[track_caller]
    pub(crate) fn spawn_into(mut self, file: &File) -> Running {
        let copy = || file.try_clone().expect("dup the log");
        let child = self
            .inner
            .stdin(Stdio::null())
            .stdout(copy())
            .stderr(copy())
            .spawn()
            .unwrap_or_else(|error| panic!("start {:?}: {error}", self.inner));
        Running { child: Some(child), stdout: copy(), stderr: copy() }
    }
}

/// A program that runs. Dropping it kills it, by its own pid.
#[derive(Debug)]
pub struct Running {
    child: Option<Child>,
    stdout: File,
    stderr: File,
}

impl Running {
    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None)))
    }

    /// Its pid.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// Waits for the end; kills it and panics when it hangs. `what` names it then.
    #[track_caller]
    #[must_use]
    pub fn finish(mut self, what: &str) -> Output {
        let mut child = self.child.take().expect("a running child");
        let deadline = Instant::now() + patience();
        let mut pause = Duration::from_millis(1);
        let status = loop {
            if let Some(status) = child.try_wait().expect("wait for the child") {
                break status;
            }
            if Instant::now() > deadline {
                let _ = child.kill();
                let _ = child.wait();
                panic!("{what} hangs; stderr so far: {}", self.stderr());
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        };
        let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1);
        let stdout_bytes = read_bytes(&self.stdout);
        let stdout = String::from_utf8_lossy(&stdout_bytes).into_owned();
        Output { code, stdout, stderr: self.stderr(), stdout_bytes }
    }

    /// What it wrote to stdout until now.
    #[must_use]
    pub fn stdout(&self) -> String {
        read_all(&self.stdout)
    }

    /// What it wrote to stderr until now.
    #[must_use]
    pub fn stderr(&self) -> String {
        read_all(&self.stderr)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Opened to append: a container's program may open it once more through /dev/stdout, and both must not overwrite.
fn output_file() -> File {
    let file = tempfile::Builder::new().append(true).tempfile().expect("make a file for output");
    file.into_file()
}

fn read_all(file: &File) -> String {
    String::from_utf8_lossy(&read_bytes(file)).into_owned()
}

/// Reads by position: the offset belongs to the program that writes.
fn read_bytes(file: &File) -> Vec<u8> {
    use std::os::unix::fs::FileExt;
    let length = file.metadata().map_or(0, |meta| meta.len());
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    let mut done = 0;
    while done < bytes.len() {
        match file.read_at(&mut bytes[done..], done as u64) {
            Ok(0) | Err(_) => break,
            Ok(count) => done += count,
        }
    }
    bytes.truncate(done);
    bytes
}

/// Polls `done` until it holds; panics, naming `what`, when it never does.
#[track_caller]
pub fn wait_until(what: &str, done: impl FnMut() -> bool) {
    assert!(becomes_true(done), "never happened: {what}");
}

/// Pauses a container by `pause` until it stands; panics when it is refused.
///
/// A process that waits for the child of its vfork cannot be frozen by cgroup v1 before that has executed. On a loaded machine that
/// takes longer than runc tries: it thaws the container, says so and fails, and is asked again.
#[track_caller]
pub fn pause_until_frozen(mut pause: impl FnMut() -> Output) {
    wait_until("every process is frozen", || {
        let output = pause();
        let gave_up = output.code != 0 && output.stderr.contains("unable to freeze");
        if !gave_up {
            let _ = output.ok();
        }
        !gave_up
    });
}

/// Polls `done` until it holds; false when it never does. For callers whose message must be made afterwards.
pub(crate) fn becomes_true(done: impl FnMut() -> bool) -> bool {
    becomes_true_in(patience(), done)
}

/// The same for what may take longer than a program may.
///
/// What takes long to ask is asked as rarely, a tenth of the time: many tests wait beside each other, by programs that take as much
/// of a core as what they wait for.
pub(crate) fn becomes_true_in(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    const SHORTEST: Duration = Duration::from_millis(10);
    const LONGEST: Duration = Duration::from_millis(500);
    let begun = Instant::now();
    loop {
        let asked = Instant::now();
        if done() {
            return true;
        }
        if begun.elapsed() > limit {
            return false;
        }
        std::thread::sleep((asked.elapsed() * 9).clamp(SHORTEST, LONGEST));
    }
}
