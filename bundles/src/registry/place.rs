//! Where an image can be asked for: mirrors first, then the registry itself.

use std::net::IpAddr;

use super::Settings;
use crate::error::{Error, Result};
use crate::reference::Reference;

/// A registry's repository, at one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// `HOST[:PORT]`
    pub(super) host: String,
    /// How it is asked.
    pub(super) scheme: Scheme,
    /// The path of the image there.
    pub(super) repository: String,
    /// Whether the registry itself can be asked afterwards.
    pub(super) is_mirror: bool,
}

/// How a place is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    Https,
    Http,
    /// https, or plain http when the place speaks no TLS: this machine's own registries.
    Either,
}

/// All places for an image.
pub(super) fn places(name: &Reference, settings: &Settings) -> Result<Vec<Place>> {
    let mut places = Vec::new();
    for (registry, address) in &settings.mirrors {
        if registry == name.registry() {
            places.push(mirror(address, name.repository())?);
        }
    }
    let host = match name.registry() {
        // Docker Hub's name is not its address.
        "docker.io" => "registry-1.docker.io",
        host => host,
    };
    let scheme = if settings.plain_http.iter().any(|plain| plain == host) {
        Scheme::Http
    } else if is_loopback(host) {
        Scheme::Either
    } else {
        Scheme::Https
    };
    let repository = name.repository().to_owned();
    places.push(Place { host: host.to_owned(), scheme, repository, is_mirror: false });
    Ok(places)
}

fn mirror(address: &str, repository: &str) -> Result<Place> {
    let wrong = || Error::refused(format!("the mirror {address:?} is not https://HOST[:PORT] or http://HOST[:PORT]"));
    let (scheme, host) = address.trim_end_matches('/').split_once("://").ok_or_else(wrong)?;
    let scheme = match scheme {
        "https" => Scheme::Https,
        "http" => Scheme::Http,
        _ => return Err(wrong()),
    };
    let uri = address.parse::<ureq::http::Uri>().map_err(|_| wrong())?;
    if uri.authority().is_none_or(|authority| authority.as_str() != host || host.contains('@')) {
        return Err(wrong());
    }
    Ok(Place { host: host.to_owned(), scheme, repository: repository.to_owned(), is_mirror: true })
}

/// Whether a host, with or without a port, is this machine by its name alone: a name that resolves to it does not count.
pub(super) fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}
