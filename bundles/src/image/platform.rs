//! For which machines an image is.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// An operating system and an architecture, in Go's names, as images have them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    /// `linux`
    pub os: String,
    /// `amd64`, `arm64`, ...
    pub architecture: String,
    /// `v7` of `arm`, for instance.
    pub variant: Option<String>,
}

impl Platform {
    /// This program's own.
    #[must_use]
    pub fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "x86" => ("386", None),
            "aarch64" => ("arm64", Some("v8")),
            "arm" => ("arm", Some("v7")),
            "powerpc64" => ("ppc64le", None),
            "loongarch64" => ("loong64", None),
            other => (other, None),
        };
        Self { os: "linux".to_owned(), architecture: architecture.to_owned(), variant: variant.map(str::to_owned) }
    }

    /// How far `theirs` is from what is wanted; None if it cannot run here.
    pub(crate) fn fits(&self, os: &str, architecture: &str, variant: Option<&str>) -> Option<u8> {
        if self.os != os || self.architecture != architecture {
            return None;
        }
        // No variant is the lowest of arm64 and amd64; of arm it is v7 (containerd's and docker's rule).
        let level = |variant: Option<&str>| {
            let plain = if architecture == "arm" { 7 } else { 1 };
            match variant {
                None | Some("") => Some(plain),
                Some("v8") if architecture == "arm64" => Some(1),
                Some(text) => text.strip_prefix('v').and_then(|number| number.parse::<u8>().ok()),
            }
        };
        level(self.variant.as_deref())?.checked_sub(level(variant)?)
    }
}

impl FromStr for Platform {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        let (os, architecture, variant) = match *parts.as_slice() {
            [architecture] => ("linux", architecture, None),
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant)),
            _ => ("", "", None),
        };
        if parts.iter().any(|part| part.is_empty()) || os != "linux" {
            return Err(Error::refused(format!("the platform {text:?} is not linux/ARCHITECTURE[/VARIANT]")));
        }
        Ok(Self { os: os.to_owned(), architecture: architecture.to_owned(), variant: variant.map(str::to_owned) })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}
