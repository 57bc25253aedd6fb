//! The tables.

/// A table of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// [`super::PodRecord`] by uid.
    Pods,
    /// [`super::ShimRecord`] by the shim's id.
    Shims,
    /// [`crate::manifest::Object`] by `Kind/namespace/name`: what pods of the local API refer to.
    Objects,
    /// Of the node itself: the boot that all this is about.
    Node,
    /// What could not be read, by `table/key`.
    Damaged,
}

impl Table {
    /// Its name in the file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pods => "pods",
            Self::Shims => "shims",
            Self::Objects => "objects",
            Self::Node => "node",
            Self::Damaged => "damaged",
        }
    }
}
