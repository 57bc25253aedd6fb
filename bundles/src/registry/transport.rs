//! HTTP and TLS: one agent for all requests of a pull.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use ureq::Agent;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, TlsProvider};

use super::Settings;
use crate::error::{Error, Result, Told};

/// Bytes of an answer's headers at most.
const HEADERS_LIMIT: usize = 64 << 10;

/// The agents of a pull: registries with authorities of their own have one of their own.
pub(super) struct Transport {
    settings: Settings,
    agents: Mutex<BTreeMap<Vec<u8>, Agent>>,
}

impl Transport {
    pub(super) fn new(settings: &Settings) -> Result<Self> {
        if settings.tries == 0 {
            return Err(Error::refused("0 tries are none"));
        }
        Ok(Self { settings: settings.clone(), agents: Mutex::new(BTreeMap::new()) })
    }

    /// The agent for a host: the system's authorities, and those that docker's folder has for it.
    pub(super) fn agent(&self, host: &str) -> Result<Agent> {
        let folder = self.settings.certificates.join(host);
        let own = certificates_in(&folder)?;
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        let key = if own.is_empty() { Vec::new() } else { host.as_bytes().to_vec() };
        if let Some(agent) = agents.get(&key) {
            return Ok(agent.clone());
        }
        let agent = make(&self.settings, own);
        agents.insert(key, agent.clone());
        Ok(agent)
    }
}

fn make(settings: &Settings, own: Vec<Certificate<'static>>) -> Agent {
    // What cannot be read of the system's is missing when it is needed, and then told as an unknown authority.
    let system = rustls_native_certs::load_native_certs().certs;
    let system = system.iter().map(|one| Certificate::from_der(one).to_owned());
    let roots = RootCerts::from(system.chain(own));
    let tls = TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .root_certs(roots)
        .build();
    Agent::config_builder()
        .tls_config(tls)
        .http_status_as_error(false)
        // Redirects are followed where it is known which headers may go along.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .max_response_header_size(HEADERS_LIMIT)
        .user_agent(concat!("flint-bundle/", env!("CARGO_PKG_VERSION")))
        .accept_encoding("identity")
        .timeout_resolve(Some(settings.patience))
        .timeout_connect(Some(settings.patience))
        .timeout_recv_response(Some(settings.patience))
        .timeout_per_read(Some(settings.patience))
        .build()
        .new_agent()
}

/// The authorities in a folder, which need not exist.
fn certificates_in(folder: &Path) -> Result<Vec<Certificate<'static>>> {
    let mut certificates = Vec::new();
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(certificates) };
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.extension().is_none_or(|extension| extension != "crt") {
            continue;
        }
        let told = || format!("reading the certificate {}", path.display());
        let pem = std::fs::read(&path).told(told)?;
        for item in ureq::tls::parse_pem(&pem) {
            let item = item.map_err(|error| Error::refused(format!("{}: {error}", told())))?;
            // A key beside it is nobody's who only asks.
            if let PemItem::Certificate(certificate) = item {
                certificates.push(certificate);
            }
        }
    }
    Ok(certificates)
}
