//! The container's cgroups.

/// Limits and place, compiled.
#[derive(Clone, Debug, Default)]
pub struct Plan {}
