//! What a caller may show while something takes long.

/// Told what happens, from several threads.
pub trait Progress: Sync {
    /// Something happened.
    fn tell(&self, event: Event<'_>);
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
