//! Who this node is in the swarm: its key and certificate, and the root that managers are checked with.
//!
//! ```text
//!  token ─> root certificate (digest checked) ─> request signed ─> certificate ─> session ... renewal, new root ...
//! ```
//!
//! Kept in the scheduler's folder, 0600, each file replaced as a whole and synced: `root.pem`, and `identity.pem` with the key and the
//! chain together, so that they always fit. Where `identity.pem` is, the node is a member.

mod certificate;
pub mod files;
mod issue;
#[cfg(test)]
pub(super) mod tests;
mod token;

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, ensure};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;

pub use certificate::{Chain, verify};
pub use issue::{join, renew};
pub use token::Token;

use super::rpc::Trust;
use super::wire::node::TlsInfo;

/// The file whose being there makes the node a member.
pub const IDENTITY: &str = "identity.pem";
const ROOT: &str = "root.pem";

/// A key, its certificate and the root. Its Debug shows no key.
#[derive(Clone)]
pub struct Identity {
    key: Vec<u8>,
    chain_pem: Vec<u8>,
    root: Vec<u8>,
    chain: Chain,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Identity({} of {})", self.chain.node_id, self.chain.cluster_id)
    }
}

impl Identity {
    /// Puts it together of PEM texts.
    ///
    /// # Errors
    ///
    /// When they are not of one kind, or the certificate is not of that root.
    pub fn new(key: Vec<u8>, chain_pem: Vec<u8>, root: Vec<u8>) -> anyhow::Result<Self> {
        let chain = Chain::parse(&chain_pem, &root)?;
        PrivateKeyDer::from_pem_slice(&key).context("there is no private key")?;
        Ok(Self { key, chain_pem, root, chain })
    }

    /// Reads what [`Self::save`] wrote; None: the node is no member.
    ///
    /// # Errors
    ///
    /// When the files cannot be read, or do not make sense.
    pub fn load(folder: &Path) -> anyhow::Result<Option<Self>> {
        let Some(identity) = files::read(&folder.join(IDENTITY))? else { return Ok(None) };
        let root = files::read(&folder.join(ROOT))?.with_context(|| {
            format!("{} is missing: leave the swarm, and join it again", folder.join(ROOT).display())
        })?;
        let end = b"-----END PRIVATE KEY-----\n";
        let cut = identity.windows(end.len()).position(|window| window == end).map(|at| at + end.len());
        let broken = || format!("{} is damaged: leave the swarm, and join it again", folder.join(IDENTITY).display());
        let cut = cut.with_context(broken)?;
        Self::new(identity[..cut].to_vec(), identity[cut..].to_vec(), root).map(Some).with_context(broken)
    }

    /// Writes it to the folder. The root comes first: a certificate without its root would be of no use.
    ///
    /// # Errors
    ///
    /// Those of the filesystem.
    pub fn save(&self, folder: &Path) -> anyhow::Result<()> {
        files::write(&folder.join(ROOT), &self.root)?;
        files::write(&folder.join(IDENTITY), &[self.key.as_slice(), &self.chain_pem].concat())
    }

    /// Ends the membership: what makes it one goes first.
    ///
    /// # Errors
    ///
    /// Those of the filesystem.
    pub fn remove(folder: &Path) -> anyhow::Result<()> {
        files::remove(&folder.join(IDENTITY))?;
        files::remove(&folder.join(ROOT))
    }

    /// The same node under another root, once a manager says that it is the swarm's.
    ///
    /// # Errors
    ///
    /// When this node's certificate is not of that root: it would lock the node out.
    pub fn with_root(&self, root: &[u8]) -> anyhow::Result<Self> {
        Self::new(self.key.clone(), self.chain_pem.clone(), root.to_vec())
            .context("the swarm's new root certificate does not fit this node's certificate")
    }

    /// Root certificates, as a manager sent them.
    #[must_use]
    pub fn root(&self) -> &[u8] {
        &self.root
    }

    /// Who the certificate is of, and when it is valid.
    #[must_use]
    pub const fn chain(&self) -> &Chain {
        &self.chain
    }

    /// For connections as this node.
    #[must_use]
    pub fn trust(&self) -> Trust {
        Trust::Mutual { root: self.root.clone(), chain: self.chain_pem.clone(), key: self.key.clone() }
    }

    /// What managers want to know of it while they rotate their root.
    #[must_use]
    pub fn tls_info(&self) -> TlsInfo {
        TlsInfo {
            trust_root: self.root.clone(),
            cert_issuer_subject: self.chain.issuer_subject.clone(),
            cert_issuer_public_key: self.chain.issuer_key.clone(),
        }
    }

    /// Whether it can no longer be shown to anybody.
    #[must_use]
    pub fn has_expired(&self, now: SystemTime) -> bool {
        now >= self.chain.not_after
    }

    /// How long from now to its renewal: at a random 50 to 80 per cent of its validity. `random` is from 0 to 1.
    #[must_use]
    pub fn renew_in(&self, now: SystemTime, random: f64) -> Duration {
        let validity = self.chain.not_after.duration_since(self.chain.not_before).unwrap_or_default();
        let at = self.chain.not_before + validity.mul_f64(0.3_f64.mul_add(random, 0.5));
        at.duration_since(now).unwrap_or_default()
    }
}

/// Fails with a plain sentence when the certificate has expired.
///
/// # Errors
///
/// When it has.
pub fn check_validity(identity: &Identity, now: SystemTime) -> anyhow::Result<()> {
    ensure!(
        !identity.has_expired(now),
        "the swarm's certificate of this node expired at {} (is the clock right?): managers do not take it any more. \
         Run `docker node rm {}` on a manager, here `flintd leave`, and join again",
        certificate::date(identity.chain().not_after),
        identity.chain().node_id
    );
    Ok(())
}
