//! What a running thing was made from, to be compared with what is wanted now.

use std::fmt::{self, Write as _};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A hash of a part of a specification, in 16 hex digits: the same over restarts and versions as long as the part's JSON is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SpecHash(String);

impl SpecHash {
    /// The hash of a value's JSON.
    pub fn of(value: &impl Serialize) -> Self {
        // Maps with keys that are no strings alone fail, and none of ours has such.
        let json = serde_json::to_vec(value).unwrap_or_default();
        let mut text = String::with_capacity(16);
        for byte in &Sha256::digest(&json)[..8] {
            let _ = write!(text, "{byte:02x}");
        }
        Self(text)
    }
}

impl fmt::Display for SpecHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}
