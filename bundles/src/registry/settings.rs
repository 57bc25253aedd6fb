//! What a caller may decide about registries.

use std::path::PathBuf;
use std::time::Duration;

use super::Credentials;

/// How registries are asked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Registries, `HOST[:PORT]`, that are asked by plain http. This machine's own are asked so when they speak no TLS.
    pub plain_http: Vec<String>,
    /// Registries and where else to ask first, by `http://` or `https://HOST[:PORT]`.
    pub mirrors: Vec<(String, String)>,
    /// docker's config.json with credentials; None for nobody's.
    pub docker_config: Option<PathBuf>,
    /// Registries, `HOST[:PORT]` or `docker.io`, and what they are shown; asked before docker's config.
    pub credentials: Vec<(String, Credentials)>,
    /// A folder with certificates of authorities for single registries: `HOST[:PORT]/*.crt`, as docker has it.
    pub certificates: PathBuf,
    /// Tries of a request that may succeed later, at least 1.
    pub tries: u32,
    /// The pause in front of the second try; it doubles, up to 10 s. A registry that says how long is believed up to 60 s.
    pub pause: Duration,
    /// How long a connection may take, and how long a transfer may stand still.
    pub patience: Duration,
}

impl Default for Settings {
    /// docker's places, five tries from half a second on, 30 s.
    fn default() -> Self {
        let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
        let folder = variable("DOCKER_CONFIG").or_else(|| Some(variable("HOME")?.join(".docker")));
        Self {
            plain_http: Vec::new(),
            mirrors: Vec::new(),
            docker_config: folder.map(|folder| folder.join("config.json")),
            credentials: Vec::new(),
            certificates: PathBuf::from("/etc/docker/certs.d"),
            tries: 5,
            pause: Duration::from_millis(500),
            patience: Duration::from_secs(30),
        }
    }
}
