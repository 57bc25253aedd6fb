//! What a caller may show while something takes long, and how it ends it.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};

/// Told what happens, from several threads.
pub trait Progress: Sync {
    /// Something happened.
    fn tell(&self, event: Event<'_>);

    /// Whether the caller wants no more of it. Asked often; the answer yes is final, and what was going on ends with an
    /// error of the kind [`crate::Kind::Cancelled`]. What had come until then stays for the next try.
    fn is_cancelled(&self) -> bool {
        false
    }
}

/// Ends what the caller wants no more of.
pub(crate) fn go_on(progress: &dyn Progress) -> Result<()> {
    if progress.is_cancelled() { Err(Error::cancelled()) } else { Ok(()) }
}

/// Another's progress, with a flag by which any thread cancels.
#[derive(Clone, Copy)]
pub struct Cancellable<'a> {
    progress: &'a dyn Progress,
    flag: &'a AtomicBool,
}

impl<'a> Cancellable<'a> {
    /// Tells `progress`, and is cancelled once `flag` is true.
    #[must_use]
    pub fn new(progress: &'a dyn Progress, flag: &'a AtomicBool) -> Self {
        Self { progress, flag }
    }
}

impl Progress for Cancellable<'_> {
    fn tell(&self, event: Event<'_>) {
        self.progress.tell(event);
    }

    fn is_cancelled(&self) -> bool {
        self.flag.load(Ordering::Relaxed) || self.progress.is_cancelled()
    }
}

/// What happens.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Event<'a> {
    /// An image of this name is taken: layers that are to come, and their bytes.
    Image {
        /// The full name.
        name: &'a str,
        /// Layers that are not here.
        layers: usize,
        /// Their bytes, compressed.
        bytes: u64,
    },
    /// A layer begins to come.
    LayerBegins {
        /// Its digest.
        digest: &'a crate::Digest,
        /// Its bytes, compressed.
        bytes: u64,
    },
    /// More of a layer has come; told at most once for each megabyte.
    LayerComes {
        /// Its digest.
        digest: &'a crate::Digest,
        /// How many of its bytes are here.
        bytes: u64,
    },
    /// A layer is here, and unpacked where that was wanted.
    LayerEnds {
        /// Its digest.
        digest: &'a crate::Digest,
    },
    /// Something is tried again.
    Retry {
        /// Why, in one sentence.
        reason: &'a str,
    },
}

/// Shows nothing.
#[derive(Debug, Clone, Copy)]
pub struct Silent;

impl Progress for Silent {
    fn tell(&self, _: Event<'_>) {}
}
