//! Names of images, as docker reads them: `[REGISTRY[:PORT]/]PATH[:TAG][@DIGEST]`.
//!
//! ```text
//!  alpine                     docker.io/library/alpine:latest
//!  localhost:5000/a/b:1       localhost:5000/a/b:1
//!  ghcr.io/o/i@sha256:...     ghcr.io/o/i@sha256:...
//! ```

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;
use crate::error::{Error, Result};

/// The registry of names that name none.
const DEFAULT_REGISTRY: &str = "docker.io";
/// Where its images without a user live.
const DEFAULT_USER: &str = "library";
const DEFAULT_TAG: &str = "latest";
/// distribution/reference: the registry and the path together.
const NAME_LIMIT: usize = 255;
const TAG_LIMIT: usize = 128;

/// The name of an image, with registry and with tag or digest. Its text is safe in addresses and messages.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// The registry's host, with its port if the name has one.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path in the registry.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; none for a name with a digest alone.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest that the name demands.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// What a registry is asked for: the digest, else the tag.
    #[must_use]
    pub fn wanted(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => DEFAULT_TAG.to_owned(),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |why: &str| {
            let text: String = text.chars().take(300).collect();
            Error::refused(format!("{text:?} is no name of an image: {why}"))
        };
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest.parse::<Digest>().map_err(|error| wrong(&error.to_string()))?)),
            None => (text, None),
        };
        if name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(wrong("it is an id; images have names here, see `flint-bundle list`"));
        }
        let (registry, path) = match name.split_once('/') {
            Some((first, rest)) if is_registry(first) => (first, rest),
            _ => (DEFAULT_REGISTRY, name),
        };
        if !is_host(registry) {
            return Err(wrong("its registry is no host name with an optional port"));
        }
        // A colon behind the last slash begins the tag; the registry's port is cut off already.
        let (path, tag) = match path.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
            _ => (path, None),
        };
        if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
            return Err(wrong(&format!("the tag {tag:?} may hold letters, digits, `_`, `.` and `-`, 128 at most")));
        }
        if path.is_empty() || !path.split('/').all(is_component) {
            return Err(wrong(
                "each part of its path is of lower-case letters and digits, with `.`, `_`, `__` or dashes between them",
            ));
        }
        let registry = if registry == "index.docker.io" { DEFAULT_REGISTRY } else { registry };
        let repository = if registry == DEFAULT_REGISTRY && !path.contains('/') {
            format!("{DEFAULT_USER}/{path}")
        } else {
            path.to_owned()
        };
        if registry.len() + 1 + repository.len() > NAME_LIMIT {
            return Err(wrong("it has more than 255 characters"));
        }
        let tag = tag.map(str::to_owned).or_else(|| digest.is_none().then(|| DEFAULT_TAG.to_owned()));
        Ok(Self { registry: registry.to_owned(), repository, tag, digest })
    }
}

/// Whether the part before the first slash names a registry: docker's rule.
fn is_registry(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':']) || first.bytes().any(|byte| byte.is_ascii_uppercase())
}

fn is_host(text: &str) -> bool {
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0) && !port.starts_with('+');
    if let Some(rest) = text.strip_prefix('[') {
        let Some((address, behind)) = rest.split_once(']') else { return false };
        let port = behind.strip_prefix(':');
        return address.parse::<std::net::Ipv6Addr>().is_ok() && (behind.is_empty() || port.is_some_and(is_port));
    }
    let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
    let is_label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        !label.is_empty() && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    host.split('.').all(is_label) && port.is_none_or(is_port)
}

fn is_tag(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=TAG_LIMIT).contains(&text.len())
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|byte| word(byte) || matches!(byte, b'.' | b'-'))
}

/// `[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*`
fn is_component(text: &str) -> bool {
    let is_letter = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    let mut separators = text.split(is_letter).filter(|separator| !separator.is_empty());
    text.starts_with(is_letter)
        && text.ends_with(is_letter)
        && separators.all(|one| matches!(one, "." | "_" | "__") || one.bytes().all(|byte| byte == b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(text: &str) -> String {
        text.parse::<Reference>().map_or_else(|error| error.to_string(), |reference| reference.to_string())
    }

    #[test]
    fn names_are_completed_as_docker_does() {
        let digest = Digest::of(b"").to_string();
        for (short, long) in [
            ("alpine", "docker.io/library/alpine:latest"),
            ("alpine:3.20", "docker.io/library/alpine:3.20"),
            ("user/image", "docker.io/user/image:latest"),
            ("docker.io/alpine", "docker.io/library/alpine:latest"),
            ("index.docker.io/a/b", "docker.io/a/b:latest"),
            ("localhost/a", "localhost/a:latest"),
            ("localhost:5000/a:b", "localhost:5000/a:b"),
            ("host.example/a/b/c__d/e.f-g--h:T_1.x", "host.example/a/b/c__d/e.f-g--h:T_1.x"),
            ("[::1]:5000/a", "[::1]:5000/a:latest"),
            ("Registry/a", "Registry/a:latest"),
        ] {
            assert_eq!(full(short), long);
            assert_eq!(full(long), long, "a full name is itself");
        }
        assert_eq!(full(&format!("a@{digest}")), format!("docker.io/library/a@{digest}"));
        assert_eq!(full(&format!("a:b@{digest}")), format!("docker.io/library/a:b@{digest}"));
        let both: Reference = format!("a:b@{digest}").parse().unwrap();
        assert_eq!(both.wanted(), digest, "the digest counts");
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let long = "a".repeat(256);
        let hex = "0".repeat(64);
        for wrong in [
            "",
            "/a",
            "a/",
            "a//b",
            "../a",
            "a/../b",
            "A",
            "a/B",
            "a:",
            "a:.b",
            "a: b",
            "a@sha256:12",
            "a@md5:00",
            "a___b",
            "a..b",
            "-a",
            "a-",
            "host.example:99999/a",
            "host.example:/a",
            "ho st.example/a",
            "user@host.example/a",
            "host.example/a?b",
            "[::1/a",
            &long,
            &hex,
        ] {
            assert!(wrong.parse::<Reference>().is_err(), "{wrong}");
        }
    }
}
