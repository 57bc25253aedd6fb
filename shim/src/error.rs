//! Errors of requests: a sentence, and the ttrpc code that clients act on.

use std::fmt;

use ttrpc::Code;

pub(crate) type Result<T> = std::result::Result<T, Error>;

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Error {
    code: Code,
    message: String,
}

impl Error {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::INVALID_ARGUMENT, message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(Code::NOT_FOUND, message)
    }

    /// The task or process is in the wrong state for this.
    pub(crate) fn wrong_state(message: impl Into<String>) -> Self {
        Self::new(Code::FAILED_PRECONDITION, message)
    }

    /// A system call, or a thread of ours, failed.
    pub(crate) fn system(doing: impl fmt::Display, error: impl fmt::Display) -> Self {
        Self::new(Code::UNKNOWN, format!("{doing}: {error}"))
    }

    /// The same error, with a failure of what was to undo it behind it.
    pub(crate) fn and(mut self, cleanup: &Self) -> Self {
        self.message = format!("{} (and then: {cleanup})", self.message);
        self
    }

    /// The number of its code.
    pub(crate) fn code(&self) -> i32 {
        protobuf::Enum::value(&self.code)
    }

    /// The same error, with its sentence behind `doing: `.
    pub(crate) fn context(mut self, doing: impl fmt::Display) -> Self {
        self.message = format!("{doing}: {}", self.message);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// The one place where the runtime's kinds become codes. What dockerd tells its users by (exit codes 126 and 127) is in
/// the texts.
impl From<flint_runtime::Error> for Error {
    fn from(error: flint_runtime::Error) -> Self {
        use flint_runtime::Kind;
        let code = match error.kind() {
            Kind::Invalid => Code::INVALID_ARGUMENT,
            Kind::NotFound => Code::NOT_FOUND,
            Kind::AlreadyExists => Code::ALREADY_EXISTS,
            Kind::WrongState => Code::FAILED_PRECONDITION,
            Kind::Busy => Code::UNAVAILABLE,
            // Unimplemented is for calls: containerd would try an older API.
            _ => Code::UNKNOWN,
        };
        Self::new(code, error.to_string())
    }
}

impl From<Error> for ttrpc::Error {
    fn from(error: Error) -> Self {
        Self::RpcStatus(ttrpc::get_status(error.code, error.message))
    }
}
