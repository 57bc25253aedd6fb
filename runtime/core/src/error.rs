//! One error type: a sentence for people, a kind for programs, and what went wrong while cleaning up.

use std::fmt;

/// What sort of failure it was. Mapped once to exit codes (in the CLI) and once to ttrpc codes (in the shim).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// The bundle or an argument is wrong.
    Invalid,
    /// Known to the spec and not supported here (by this version, the kernel, or the host's set-up).
    Unsupported,
    /// No such container, file or process.
    NotFound,
    /// The id is taken.
    AlreadyExists,
    /// The container is in the wrong state for this (not running, already started).
    WrongState,
    /// Another command works on the container.
    Busy,
    /// The host refused it to us.
    Permission,
    /// The container's program does not exist (exit code 127).
    ProgramNotFound,
    /// The container's program may not be executed (exit code 126).
    ProgramNotExecutable,
    /// A system call failed otherwise.
    System,
}

/// An error of the runtime.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    cleanup: Vec<String>,
}

/// The runtime's results.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of `kind` whose whole sentence is `message`.
    #[must_use]
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), cleanup: Vec::new() }
    }

    /// A bundle or an argument is wrong.
    #[must_use]
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, message)
    }

    /// Known and not supported.
    #[must_use]
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(Kind::Unsupported, message)
    }

    /// A system call on `object` failed; the kind follows from `errno`.
    #[must_use]
    pub fn os(doing: impl fmt::Display, errno: impl Into<std::io::Error>) -> Self {
        let error: std::io::Error = errno.into();
        let kind = match error.kind() {
            std::io::ErrorKind::NotFound => Kind::NotFound,
            std::io::ErrorKind::PermissionDenied => Kind::Permission,
            _ => Kind::System,
        };
        Self::new(kind, format!("{doing}: {}", io_text(&error)))
    }

    /// What sort of failure it was.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The same error, with its sentence behind `doing: `.
    #[must_use]
    pub fn context(mut self, doing: impl fmt::Display) -> Self {
        self.message = format!("{doing}: {}", self.message);
        self
    }

    /// The same error, with what the failed program wrote behind its sentence; unchanged when it wrote nothing.
    #[must_use]
    pub(crate) fn quoting(mut self, output: &str) -> Self {
        if !output.is_empty() {
            self.message = format!("{}; it wrote: {output}", self.message);
        }
        self
    }

    /// Attaches a failure of the clean-up that followed; it never hides the first error.
    #[must_use]
    pub fn with_cleanup(mut self, failure: Result<()>) -> Self {
        if let Err(error) = failure {
            self.cleanup.push(error.to_string());
        }
        self
    }
}

/// The operating system's words in the form runc's callers know: `no such file or directory`.
#[must_use]
pub fn io_text(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(errno) => errno_text(errno),
        None => error.to_string(),
    }
}

/// The least kernel that flint works on (docs/kernel-features.md).
const LEAST_KERNEL: &str = "5.12";

/// strerror(3) in lower case, as Go prints it and runc's callers match it; for a system call that is not there, with
/// the kernel that would have it.
#[must_use]
pub fn errno_text(errno: i32) -> String {
    let text = words(errno);
    let mut characters = text.chars();
    let text = match characters.next() {
        Some(first) => first.to_lowercase().chain(characters).collect(),
        None => format!("errno {errno}"),
    };
    if errno != libc::ENOSYS {
        return text;
    }
    let release = nix::sys::utsname::uname().map(|names| names.release().to_string_lossy().into_owned());
    format!(
        "{text} (this is Linux {}; flint needs Linux {LEAST_KERNEL} or newer, and no seccomp filter that hides its \
         system calls)",
        release.unwrap_or_default()
    )
}

/// nix has words of its own for these; strerror(3) of the libc that ships has others still.
fn words(errno: i32) -> &'static str {
    match errno {
        libc::EIO => "input/output error",
        libc::EBADF => "bad file descriptor",
        libc::EAGAIN => "resource temporarily unavailable",
        libc::ENOMEM => "cannot allocate memory",
        libc::EXDEV => "invalid cross-device link",
        libc::ENFILE => "too many open files in system",
        libc::ENOTTY => "inappropriate ioctl for device",
        libc::ERANGE => "numerical result out of range",
        libc::EDEADLK => "resource deadlock avoided",
        libc::ENOLCK => "no locks available",
        libc::ELOOP => "too many levels of symbolic links",
        libc::EOPNOTSUPP => "operation not supported",
        libc::EDQUOT => "disk quota exceeded",
        _ => nix::errno::Errno::from_raw(errno).desc(),
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        for failure in &self.cleanup {
            write!(f, "; while cleaning up: {failure}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::{errno_text, io_text};

    #[test]
    fn the_systems_words_are_gos() {
        for (errno, text) in [
            (libc::ENOENT, "no such file or directory"),
            (libc::EISDIR, "is a directory"),
            (libc::ENOSPC, "no space left on device"),
            (libc::ERANGE, "numerical result out of range"),
            (libc::EBADF, "bad file descriptor"),
            (libc::EAGAIN, "resource temporarily unavailable"),
        ] {
            assert_eq!(errno_text(errno), text);
            assert_eq!(io_text(&std::io::Error::from_raw_os_error(errno)), text);
        }
        assert_eq!(io_text(&std::io::Error::other("no errno")), "no errno");
    }
}
