//! docker's config.json: names and passwords, or programs that know them.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::Settings;
use crate::error::{Error, Result, Told};

/// Docker Hub's entry, from the days of its first protocol.
const HUB: &str = "https://index.docker.io/v1/";
/// What helpers give instead of a name when the secret is a token.
const TOKEN: &str = "<token>";

/// What a registry is shown. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A name and a password.
    Password(String, String),
    /// A token that is good for other tokens (OAuth 2).
    Refresh(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

impl Credentials {
    /// The value of an Authorization header; none for tokens.
    pub(super) fn basic(&self) -> Option<String> {
        let Self::Password(name, password) = self else { return None };
        Some(format!("Basic {}", STANDARD.encode(format!("{name}:{password}"))))
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    auths: BTreeMap<String, Entry>,
    creds_store: Option<String>,
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

impl Credentials {
    /// What docker's config.json, as text, has for a registry: the form in which Kubernetes's pull secrets
    /// (`.dockerconfigjson`) and a swarm's tasks bring credentials. Programs that it names as helpers are not asked.
    ///
    /// # Errors
    ///
    /// When it is no such JSON, or its entry is wrong; without a word of the secret.
    pub fn of_docker_config(json: &[u8], registry: &str) -> Result<Option<Self>> {
        let config = parse(json, "the docker config")?;
        let host = if registry == "docker.io" { "registry-1.docker.io" } else { registry };
        config.entry(host).map_or(Ok(None), Entry::credentials)
    }
}

impl Config {
    fn entry(&self, host: &str) -> Option<&Entry> {
        let name = if host == "registry-1.docker.io" { HUB } else { host };
        self.auths.iter().find(|(key, _)| *key == name || is_of(key, host)).map(|(_, entry)| entry)
    }
}

fn parse(json: &[u8], what: &str) -> Result<Config> {
    // The parser's own words could quote a secret.
    serde_json::from_slice(json)
        .map_err(|error| Error::refused(format!("{what} is wrong at line {}, column {}", error.line(), error.column())))
}

/// What the settings have for a registry's host, or docker's config; None for nothing.
///
/// # Errors
///
/// When the config or an entry is wrong, or a helper fails: without credentials there would be another, worse error.
pub(super) fn find(settings: &Settings, host: &str) -> Result<Option<Credentials>> {
    let own = |(registry, _): &&(String, Credentials)| {
        registry == host || (registry == "docker.io" && host == "registry-1.docker.io")
    };
    match settings.credentials.iter().find(own) {
        Some((_, credentials)) => Ok(Some(credentials.clone())),
        None => of_config(settings.docker_config.as_deref(), host),
    }
}

fn of_config(config: Option<&Path>, host: &str) -> Result<Option<Credentials>> {
    let Some(path) = config else { return Ok(None) };
    let content = match std::fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        content => content.told(|| format!("reading {}", path.display()))?,
    };
    let config = parse(&content, &path.display().to_string())?;
    let name = if host == "registry-1.docker.io" { HUB } else { host };
    let helper =
        config.cred_helpers.get(name).or_else(|| config.cred_helpers.get(host)).or(config.creds_store.as_ref());
    if let Some(helper) = helper
        && let Some(found) = ask(helper, name)?
    {
        return Ok(Some(found));
    }
    config.entry(host).map_or(Ok(None), |entry| {
        entry.credentials().map_err(|error| error.during(&format!("{} for {name}", path.display())))
    })
}

/// Keys may be addresses: the host counts.
fn is_of(key: &str, host: &str) -> bool {
    let key = key.split_once("://").map_or(key, |(_, rest)| rest);
    let of_key = key.split('/').next().unwrap_or_default();
    of_key == host || (host == "registry-1.docker.io" && matches!(of_key, "index.docker.io" | "docker.io"))
}

impl Entry {
    fn credentials(&self) -> Result<Option<Credentials>> {
        if let Some(token) = self.identitytoken.as_ref().filter(|token| !token.is_empty()) {
            return Ok(Some(Credentials::Refresh(token.clone())));
        }
        if let (Some(name), Some(password)) = (&self.username, &self.password) {
            return Ok(Some(Credentials::Password(name.clone(), password.clone())));
        }
        let Some(auth) = self.auth.as_ref().filter(|auth| !auth.is_empty()) else { return Ok(None) };
        let wrong = || Error::refused("its auth is not the base64 of NAME:PASSWORD");
        let decoded = STANDARD.decode(auth.trim()).map_err(|_| wrong())?;
        let text = String::from_utf8(decoded).map_err(|_| wrong())?;
        let (name, password) = text.split_once(':').ok_or_else(wrong)?;
        Ok(Some(Credentials::Password(name.to_owned(), password.trim_end_matches('\0').to_owned())))
    }
}

/// What a helper prints.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// Asks the program docker-credential-HELPER; None when it has nothing for this registry.
fn ask(helper: &str, name: &str) -> Result<Option<Credentials>> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if helper.is_empty() || !helper.bytes().all(plain) {
        return Err(Error::refused(format!("{helper:?} is no name of a credential helper")));
    }
    let program = format!("docker-credential-{helper}");
    let told = || format!("asking {program} for the credentials of {name}");
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .told(told)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that does not read its question answers it nevertheless, or says why not.
        let _ = stdin.write_all(name.as_bytes());
    }
    let output = child.wait_with_output().told(told)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        if said.contains("credentials not found") {
            return Ok(None);
        }
        let said: String = said.trim().chars().take(200).collect();
        return Err(Error::denied(format!("{}: it failed: {said}", told())));
    }
    let answer: Answer =
        serde_json::from_slice(&output.stdout).map_err(|_| Error::denied(format!("{}: its answer is none", told())))?;
    Ok(Some(if answer.username == TOKEN {
        Credentials::Refresh(answer.secret)
    } else {
        Credentials::Password(answer.username, answer.secret)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(config: &str, host: &str) -> std::result::Result<Option<Credentials>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        std::fs::write(&path, config).unwrap();
        of_config(Some(&path), host).map_err(|error| error.to_string())
    }

    fn password(name: &str, password: &str) -> Credentials {
        Credentials::Password(name.to_owned(), password.to_owned())
    }

    #[test]
    fn entries_are_found_by_host() {
        let auth = STANDARD.encode("me:pass:word");
        let config = format!(
            r#"{{"auths": {{"https://index.docker.io/v1/": {{"auth": "{auth}"}},
                "https://one.example/v2/": {{"username": "a", "password": "b"}},
                "two.example:5000": {{"identitytoken": "t"}}, "three.example": {{}}}}}}"#
        );
        assert_eq!(found(&config, "registry-1.docker.io").unwrap(), Some(password("me", "pass:word")));
        assert_eq!(found(&config, "one.example").unwrap(), Some(password("a", "b")));
        assert_eq!(found(&config, "two.example:5000").unwrap(), Some(Credentials::Refresh("t".to_owned())));
        for other in ["two.example", "one.example.evil", "three.example", "example"] {
            assert_eq!(found(&config, other).unwrap(), None, "{other}");
        }
        assert_eq!(of_config(None, "a").unwrap(), None);
        assert_eq!(of_config(Some(Path::new("/nowhere/config.json")), "a").unwrap(), None);
    }

    #[test]
    fn errors_tell_no_secrets() {
        let secret = STANDARD.encode("secret-without-colon");
        for config in [
            format!(r#"{{"auths": {{"a": {{"auth": "{secret}"}}}}}}"#),
            format!(r#"{{"auths": {{"a": "{secret}"}}}}"#),
            r#"{"auths": {"a": {"auth": "!secret!"}}}"#.to_owned(),
        ] {
            let error = found(&config, "a").unwrap_err();
            assert!(!error.contains("secret") && !error.contains(&secret), "{error}");
        }
        assert_eq!(format!("{:?}", password("a", "b")), "(secret)");
    }

    #[test]
    fn what_the_caller_gives_comes_first_and_needs_no_file() {
        let given = vec![("docker.io".to_owned(), password("a", "hub")), ("b:5000".to_owned(), password("a", "b"))];
        let settings = Settings { credentials: given, docker_config: None, ..Settings::default() };
        assert_eq!(find(&settings, "registry-1.docker.io").unwrap(), Some(password("a", "hub")));
        assert_eq!(find(&settings, "b:5000").unwrap(), Some(password("a", "b")));
        assert_eq!(find(&settings, "b").unwrap(), None);
        let secret = br#"{"auths": {"https://index.docker.io/v1/": {"username": "u", "password": "p"}}}"#;
        assert_eq!(Credentials::of_docker_config(secret, "docker.io").unwrap(), Some(password("u", "p")));
        assert_eq!(Credentials::of_docker_config(secret, "quay.io").unwrap(), None);
        let error = Credentials::of_docker_config(br#"{"auths": {"a": "hidden"}}"#, "a").unwrap_err().to_string();
        assert!(error.contains("line 1") && !error.contains("hidden"), "{error}");
    }

    #[test]
    fn helpers_are_names_and_no_paths() {
        for name in ["../x", "a/b", "", "a b", "$(x)"] {
            assert!(ask(name, "a").is_err(), "{name}");
        }
        let error = found(r#"{"credsStore": "there-is-none-of-this-name"}"#, "a").unwrap_err();
        assert!(error.contains("docker-credential-there-is-none-of-this-name"), "{error}");
    }
}
