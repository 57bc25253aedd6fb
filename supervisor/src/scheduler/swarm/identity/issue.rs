//! Getting a certificate: for the first time with a join token, later with the one that is about to expire.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use sha2::{Digest as _, Sha256};
use tonic::Code;

use super::{Identity, Token};
use crate::scheduler::swarm::rpc::{Connection, Trust};
use crate::scheduler::swarm::wire::Empty;
use crate::scheduler::swarm::wire::ca::{
    Availability, GetRootCaCertificateResponse, Issuance, IssueNodeCertificateRequest, IssueNodeCertificateResponse,
    NodeCertificateStatusRequest, NodeCertificateStatusResponse,
};

const ROOT_CERTIFICATE: &str = "/docker.swarmkit.v1.CA/GetRootCACertificate";
const ISSUE: &str = "/docker.swarmkit.v1.NodeCA/IssueNodeCertificate";
const STATUS: &str = "/docker.swarmkit.v1.NodeCA/NodeCertificateStatus";

/// A manager signs at once, or is about to change its leader.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(500);

/// Joins a swarm by a manager's `HOST:PORT`.
///
/// # Errors
///
/// A manager that cannot be reached, is of another swarm than the token, or does not take it.
pub async fn join(token: &Token, manager: &str, availability: Availability) -> anyhow::Result<Identity> {
    let root = root_certificate(token, manager).await?;
    let connection = Connection::open(manager, &Trust::Root(root.clone())).await?;
    let (key, csr) = request()?;
    let ask =
        IssueNodeCertificateRequest { csr: csr.clone(), token: token.text.clone(), availability: availability.into() };
    let issued: IssueNodeCertificateResponse = connection.unary(ISSUE, ask).await.map_err(|status| {
        let advice = match status.code() {
            Code::InvalidArgument => ": `docker swarm join-token worker` prints the present one on a manager",
            _ => "",
        };
        anyhow::anyhow!("the manager {manager} does not let this node join: {}{advice}", status.message())
    })?;
    let chain = wait(&connection, &issued.node_id, &csr).await?;
    Identity::new(key, chain, root).context("the certificate that the manager issued")
}

async fn root_certificate(token: &Token, manager: &str) -> anyhow::Result<Vec<u8>> {
    let connection = Connection::open(manager, &Trust::Nothing).await?;
    let answer: GetRootCaCertificateResponse =
        connection.unary(ROOT_CERTIFICATE, Empty {}).await.with_context(|| format!("ask {manager} for its root"))?;
    ensure!(
        Sha256::digest(&answer.certificate)[..] == token.digest,
        "the root certificate of the manager {manager} is not the one of the join token: the token is of another swarm or \
         from before a rotation of its root, or somebody sits between"
    );
    Ok(answer.certificate)
}

/// Gets a new certificate for the same node.
///
/// # Errors
///
/// Those of the connection, or the manager's.
pub async fn renew(identity: &Identity, manager: &str) -> anyhow::Result<Identity> {
    let connection = Connection::open(manager, &identity.trust()).await?;
    let (key, csr) = request()?;
    let ask = IssueNodeCertificateRequest { csr: csr.clone(), ..Default::default() };
    let issued: IssueNodeCertificateResponse =
        connection.unary(ISSUE, ask).await.with_context(|| format!("ask {manager} for a new certificate"))?;
    let chain = wait(&connection, &issued.node_id, &csr).await?;
    let renewed = Identity::new(key, chain, identity.root().to_vec()).context("the renewed certificate")?;
    ensure!(
        renewed.chain().node_id == identity.chain().node_id,
        "the manager renewed the certificate of {} with one of {}",
        identity.chain().node_id,
        renewed.chain().node_id
    );
    Ok(renewed)
}

/// A new key and a request for its certificate, both PEM. Who it is of the manager decides.
fn request() -> anyhow::Result<(Vec<u8>, Vec<u8>)> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("make a key")?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let csr = params.serialize_request(&key).and_then(|request| request.pem()).context("make a certificate request")?;
    Ok((key.serialize_pem().into_bytes(), csr.into_bytes()))
}

/// Waits until the manager has signed our request, and not an older one.
async fn wait(connection: &Connection, node_id: &str, csr: &[u8]) -> anyhow::Result<Vec<u8>> {
    let ask = async {
        loop {
            let request = NodeCertificateStatusRequest { node_id: node_id.to_owned() };
            let answer: NodeCertificateStatusResponse = match connection.unary(STATUS, request).await {
                Ok(answer) => answer,
                // The manager answers when the state changes: it may take longer than a call.
                Err(status) if matches!(status.code(), Code::DeadlineExceeded | Code::Unavailable) => {
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
                Err(status) => bail!("ask for the certificate of {node_id}: {}", status.message()),
            };
            let state = answer.status.unwrap_or_default();
            let certificate = answer.certificate.unwrap_or_default();
            match Issuance::try_from(state.state).unwrap_or(Issuance::Unknown) {
                Issuance::Issued | Issuance::Rotate if certificate.csr == csr => return Ok(certificate.certificate),
                Issuance::Failed => bail!("the manager does not sign the certificate of {node_id}: {}", state.err),
                _ => tokio::time::sleep(PAUSE).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, ask)
        .await
        .with_context(|| format!("the manager has not signed the certificate of {node_id} in {PATIENCE:?}"))?
}
