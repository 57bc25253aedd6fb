//! What a certificate says, and whether it is of a root.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::x509::X509Name;

use crate::scheduler::swarm::rpc::{certificates, provider, root_store};

/// What matters of a node's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// The common name.
    pub node_id: String,
    /// The organization.
    pub cluster_id: String,
    /// From when on it is valid.
    pub not_before: SystemTime,
    /// Until when.
    pub not_after: SystemTime,
    /// Its issuer's name, DER.
    pub issuer_subject: Vec<u8>,
    /// Its issuer's public key (SubjectPublicKeyInfo), DER.
    pub issuer_key: Vec<u8>,
}

impl Chain {
    /// Reads a certificate and its intermediates, and checks that the root stands behind them (not whether they have
    /// expired: that is asked for often).
    ///
    /// # Errors
    ///
    /// When one is none, or the root does not.
    pub fn parse(pem: &[u8], root: &[u8]) -> anyhow::Result<Self> {
        let all = certificates(pem)?;
        let (_, leaf) = X509Certificate::from_der(&all[0]).context("the node's certificate cannot be read")?;
        let at = |seconds: i64| UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        let not_before = at(leaf.validity().not_before.timestamp());
        let not_after = at(leaf.validity().not_after.timestamp());
        // A moment at which it is valid.
        let moment = not_after.checked_sub(Duration::from_secs(1)).unwrap_or(not_before).min(SystemTime::now());
        let moment = moment.max(not_before);
        verify(&all, root_store(root)?, moment).context("the node's certificate is not of the swarm's root")?;
        let issuer = issuer(&all, &certificates(root)?, moment)?;
        let (_, issuer) = X509Certificate::from_der(&issuer).context("the issuer's certificate cannot be read")?;
        Ok(Self {
            node_id: first(leaf.subject().iter_common_name(), "common name")?,
            cluster_id: first(leaf.subject().iter_organization(), "organization")?,
            not_before,
            not_after,
            issuer_subject: subject(leaf.issuer()),
            issuer_key: issuer.public_key().raw.to_vec(),
        })
    }
}

fn subject(name: &X509Name<'_>) -> Vec<u8> {
    name.as_raw().to_vec()
}

fn first<'a>(
    mut values: impl Iterator<Item = &'a x509_parser::x509::AttributeTypeAndValue<'a>>,
    what: &str,
) -> anyhow::Result<String> {
    let value = values.next().and_then(|value| value.as_str().ok());
    Ok(value.with_context(|| format!("the node's certificate has no {what}"))?.to_owned())
}

/// Whether roots stand behind a chain at a moment.
///
/// # Errors
///
/// Why not.
pub fn verify(chain: &[CertificateDer<'_>], roots: RootCertStore, at: SystemTime) -> anyhow::Result<()> {
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build()?;
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    verifier.verify_client_cert(&chain[0], &chain[1..], UnixTime::since_unix_epoch(since))?;
    Ok(())
}

/// Of two roots during a rotation both are called `swarm-ca`: the issuer is the one whose key made the signature.
fn issuer(
    chain: &[CertificateDer<'static>],
    roots: &[CertificateDer<'static>],
    at: SystemTime,
) -> anyhow::Result<CertificateDer<'static>> {
    let signs = |candidate: &&CertificateDer<'static>| {
        let mut alone = RootCertStore::empty();
        alone.add((*candidate).clone()).is_ok() && verify(&chain[..1], alone, at).is_ok()
    };
    let found = chain[1..].iter().chain(roots).find(signs);
    found.cloned().context("the issuer of the node's certificate is neither in its chain nor a root")
}

/// A moment for people, as RFC 2822 has it.
pub(super) fn date(at: SystemTime) -> String {
    let seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() as i64;
    x509_parser::time::ASN1Time::from_timestamp(seconds)
        .map_or_else(|_| format!("{seconds} s"), |time| time.to_string())
}
