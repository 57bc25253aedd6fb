//! The library's error: one sentence, and a kind that a program can act on.

use std::fmt;

/// What went wrong, as a sentence that names the step, the object and the cause.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
}

/// What a caller can do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// The image, the bundle or the file is not there.
    NotFound,
    /// The input is wrong, tampered with, over a limit, or of a form that is not supported: trying again will not help.
    Refused,
    /// The registry wants other credentials.
    Denied,
    /// The registry cannot be reached or cannot answer now: trying again later may help.
    Unavailable,
    /// A system call failed.
    System,
    /// The caller wanted no more of it.
    Cancelled,
}

/// The library's result.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Input that is refused.
    #[must_use]
    pub fn refused(message: impl Into<String>) -> Self {
        Self { kind: Kind::Refused, message: message.into() }
    }

    /// Something that is not there.
    #[must_use]
    pub fn not_found(message: impl Into<String>) -> Self {
        Self { kind: Kind::NotFound, message: message.into() }
    }

    /// Credentials that are missing or refused.
    pub(crate) fn denied(message: impl Into<String>) -> Self {
        Self { kind: Kind::Denied, message: message.into() }
    }

    /// A registry that cannot answer now.
    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self { kind: Kind::Unavailable, message: message.into() }
    }

    /// A state of the host in which the step is impossible.
    pub(crate) fn system(message: impl Into<String>) -> Self {
        Self { kind: Kind::System, message: message.into() }
    }

    /// A caller that wants no more.
    pub(crate) fn cancelled() -> Self {
        Self { kind: Kind::Cancelled, message: "it was cancelled".to_owned() }
    }

    /// A read that a source could not answer.
    pub(crate) fn of_source(digest: &crate::Digest, error: &std::io::Error) -> Self {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Self>());
        // A source's own sentence comes through `Read` as what it is.
        let kind = inner.map_or(Kind::System, |inner| inner.kind);
        Self { kind, message: format!("taking the blob {digest}: {error}") }
    }

    /// What a caller can do about it.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The same error, with another behind it that the clean-up met.
    pub(crate) fn and(mut self, another: &Self) -> Self {
        self.message = format!("{}; and then {another}", self.message);
        self
    }

    /// The same error, with what was being done in front.
    #[must_use]
    pub fn during(mut self, what: &str) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Names, types and words in it are strangers': none of them moves a terminal's cursor.
        use std::fmt::Write as _;
        self.message.chars().try_for_each(|letter| match letter {
            letter if letter.is_control() => write!(f, "{}", letter.escape_default()),
            letter => f.write_char(letter),
        })
    }
}

impl std::error::Error for Error {}

/// Gives a failed system call its sentence.
pub(crate) trait Told<T> {
    /// `what` says the step and its object.
    fn told(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<std::io::Error>> Told<T> for std::result::Result<T, E> {
    fn told(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| {
            let error = error.into();
            // A reader below (a limit, a digest) hands its own refusal through std's traits.
            let kind = match error.kind() {
                std::io::ErrorKind::NotFound => Kind::NotFound,
                std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof => Kind::Refused,
                // What a parser of tars says is of no system call either.
                std::io::ErrorKind::Other if error.raw_os_error().is_none() => Kind::Refused,
                _ => Kind::System,
            };
            Error { kind, message: format!("{}: {error}", what()) }
        })
    }
}

/// A refusal for the inside of a `Read`.
pub(crate) fn invalid(message: String) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    #[test]
    fn strangers_words_do_not_reach_a_terminal_as_they_are() {
        let error = super::Error::refused("an artifact of the type \u{1b}[2J\u{9b}1mx\n").during("ü");
        assert_eq!(error.to_string(), "ü: an artifact of the type \\u{1b}[2J\\u{9b}1mx\\n");
    }
}
