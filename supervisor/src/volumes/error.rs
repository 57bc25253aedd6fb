//! Why a volume is not there.

use std::io;

/// A sentence: step, object, error, what to do.
#[derive(Debug, thiserror::Error)]
#[error("{sentence}")]
pub struct Error {
    sentence: String,
    is_final: bool,
}

/// The results of this module.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// What another try does not mend: the pod asks for something wrong.
    pub(super) fn wrong(sentence: impl Into<String>) -> Self {
        Self { sentence: sentence.into(), is_final: true }
    }

    /// What the system refused.
    pub(super) fn os(doing: impl std::fmt::Display, error: impl Into<io::Error>) -> Self {
        let error: io::Error = error.into();
        Self { sentence: format!("{doing}: {error}"), is_final: false }
    }

    /// The same with what it is about in front.
    pub(super) fn about(self, what: impl std::fmt::Display) -> Self {
        Self { sentence: format!("{what}: {}", self.sentence), ..self }
    }

    /// Whether another try is in vain until the pod or the host has changed.
    #[must_use]
    pub fn is_final(&self) -> bool {
        self.is_final
    }
}
