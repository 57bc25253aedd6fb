//! Calls to one manager: TLS by our own connector, gRPC by tonic.
//!
//! A manager's certificate names its role, not its host: it is looked for as `swarm-manager`, or `swarm-ca` before this node
//! has a certificate. The one call that cannot check it (the root certificate's, whose digest the join token has) says so.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Context as _;
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::client::Grpc;
use tonic::codec::Streaming;
use tonic::codegen::Service;
use tonic::codegen::http::Uri;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

/// No connection and no call for one answer takes longer (swarmkit's dispatcherRPCTimeout).
pub const PATIENCE: Duration = Duration::from_secs(5);

/// A first message has the whole of a node's tasks, secrets and configs (each up to 500 kB) in it.
const LARGEST: usize = 256 << 20;

/// How a manager's certificate is checked, and what this node shows.
#[derive(Debug, Clone)]
pub enum Trust {
    /// Not at all: only for what is checked by its digest afterwards.
    Nothing,
    /// Its root must be this; this node has no certificate yet.
    Root(Vec<u8>),
    /// Its root must be this, and this node shows its own chain and key (PEM).
    Mutual {
        /// Root certificates.
        root: Vec<u8>,
        /// This node's certificate, then the intermediates.
        chain: Vec<u8>,
        /// Its key.
        key: Vec<u8>,
    },
}

/// A connection to a manager.
#[derive(Debug, Clone)]
pub struct Connection {
    channel: Channel,
}

impl Connection {
    /// Connects to `HOST:PORT`.
    ///
    /// # Errors
    ///
    /// When it cannot be reached in [`PATIENCE`], or is not who it should be.
    pub async fn open(address: &str, trust: &Trust) -> anyhow::Result<Self> {
        let connector = Connector { address: address.into(), tls: tls(trust)?, name: server_name(trust) };
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .with_context(|| format!("{address} is no address of a manager: give HOST:PORT"))?;
        let channel = endpoint.connect_with_connector(connector).await.map_err(|error| {
            let cause = deepest(&error);
            anyhow::anyhow!("connect to the manager {address}: {cause}")
        })?;
        Ok(Self { channel })
    }

    async fn ready(&self) -> Result<Grpc<Channel>, Status> {
        let mut client = Grpc::new(self.channel.clone()).max_decoding_message_size(LARGEST);
        client.ready().await.map_err(|error| Status::unavailable(deepest(&error)))?;
        Ok(client)
    }

    /// A request, an answer, in [`PATIENCE`].
    ///
    /// # Errors
    ///
    /// The manager's, or those of the connection.
    pub async fn unary<Q, A>(&self, method: &'static str, request: Q) -> Result<A, Status>
    where
        Q: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        let call = async {
            let codec = ProstCodec::<Q, A>::default();
            let mut client = self.ready().await?;
            client.unary(Request::new(request), PathAndQuery::from_static(method), codec).await
        };
        let late = |_| Status::deadline_exceeded(format!("no answer to {method} in {PATIENCE:?}"));
        tokio::time::timeout(PATIENCE, call).await.map_err(late)?.map(tonic::Response::into_inner)
    }

    /// A request, many answers. How long the first may take is the caller's to say.
    ///
    /// # Errors
    ///
    /// The manager's, or those of the connection.
    pub async fn stream<Q, A>(&self, method: &'static str, request: Q) -> Result<Streaming<A>, Status>
    where
        Q: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        let codec = ProstCodec::<Q, A>::default();
        let mut client = self.ready().await?;
        let answer = client.server_streaming(Request::new(request), PathAndQuery::from_static(method), codec).await;
        answer.map(tonic::Response::into_inner)
    }

    /// Many requests, an answer when they end.
    ///
    /// # Errors
    ///
    /// The manager's, or those of the connection.
    pub async fn upload<Q, A>(
        &self,
        method: &'static str,
        requests: impl futures::Stream<Item = Q> + Send + 'static,
    ) -> Result<A, Status>
    where
        Q: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        let codec = ProstCodec::<Q, A>::default();
        let mut client = self.ready().await?;
        let answer = client.client_streaming(Request::new(requests), PathAndQuery::from_static(method), codec).await;
        answer.map(tonic::Response::into_inner)
    }
}

fn deepest(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

fn server_name(trust: &Trust) -> ServerName<'static> {
    let name = if matches!(trust, Trust::Mutual { .. }) { "swarm-manager" } else { "swarm-ca" };
    ServerName::try_from(name).expect("a valid name")
}

/// Certificates of a PEM text.
///
/// # Errors
///
/// When it is none, or has none.
pub fn certificates(pem: &[u8]) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.context("the certificates are no PEM")?;
    anyhow::ensure!(!all.is_empty(), "there is no certificate in the PEM");
    Ok(all)
}

/// A store of roots of a PEM text.
///
/// # Errors
///
/// When it is none, or has none.
pub fn root_store(pem: &[u8]) -> anyhow::Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(pem)? {
        store.add(certificate).context("a root certificate cannot be used")?;
    }
    Ok(store)
}

/// The one implementation of cryptography that is linked.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn tls(trust: &Trust) -> anyhow::Result<Arc<ClientConfig>> {
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let mut config = match trust {
        Trust::Nothing => builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody)).with_no_client_auth(),
        Trust::Root(root) => builder.with_root_certificates(root_store(root)?).with_no_client_auth(),
        Trust::Mutual { root, chain, key } => {
            let key = PrivateKeyDer::from_pem_slice(key).context("the node's key is no PEM")?;
            builder
                .with_root_certificates(root_store(root)?)
                .with_client_auth_cert(certificates(chain)?, key)
                .context("the node's certificate and key do not fit together")?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    // The manager sees who it is at each connection: nothing is resumed with an old certificate.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

#[derive(Clone)]
struct Connector {
    address: Arc<str>,
    tls: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self { address, tls, name } = self.clone();
        Box::pin(async move {
            let connect = async {
                let stream = TcpStream::connect(&*address).await?;
                stream.set_nodelay(true)?;
                TlsConnector::from(tls).connect(name, stream).await
            };
            let late = |_| std::io::Error::new(std::io::ErrorKind::TimedOut, "no connection in 5 s");
            tokio::time::timeout(PATIENCE, connect).await.map_err(late)?.map(TokioIo::new)
        })
    }
}

/// Takes every certificate: see [`Trust::Nothing`].
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
