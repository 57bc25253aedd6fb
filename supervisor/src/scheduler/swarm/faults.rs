//! Managers that are broken: each ends the session with a sentence and in time, and nothing else happens.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::identity::tests::Root;
use super::rpc::{Connection, PATIENCE, Trust, certificates, provider};
use super::session::{End, Session};
use super::wire::node::NodeDescription;

/// Empty SETTINGS.
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
/// GOAWAY: last stream 0, ENHANCE_YOUR_CALM, "too_many_pings".
const GOAWAY: &[u8] = b"\x00\x00\x16\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x0btoo_many_pings";

/// A manager that says these bytes to everybody, and then nothing; its address.
async fn manager(root: &Root, says: &'static [u8], from: i64, to: i64) -> String {
    let (key, chain) = root.node("manager", from, to);
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(certificates(&chain).unwrap(), PrivateKeyDer::from_pem_slice(&key).unwrap())
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let _ = stream.write_all(says).await;
                let mut buffer = [0; 1024];
                while stream.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
            });
        }
    });
    address
}

/// How a session with it ends.
async fn end(root: &Root, address: &str) -> anyhow::Error {
    let trust = root.identity("node", -60, 3600).trust();
    let connection = match Connection::open(address, &trust).await {
        Ok(connection) => connection,
        Err(error) => return error,
    };
    match Session::open(connection, NodeDescription::default(), "").await {
        Ok(_) => panic!("a session with a broken manager"),
        Err(End::Broken(error)) => error,
        Err(End::Removed(why)) => panic!("it does not mean that the node was removed: {why}"),
    }
}

#[tokio::test]
async fn a_silent_manager_is_given_up() {
    let root = Root::new();
    let begin = Instant::now();
    let error = format!("{:#}", end(&root, &manager(&root, b"", -60, 3600).await).await);
    assert!(error.contains("no first message"), "{error}");
    assert!(begin.elapsed() < PATIENCE * 3);
}

#[tokio::test]
async fn garbage_and_goaway_end_the_session_alone() {
    let root = Root::new();
    let garbage: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\r\nthis is no gRPC at all, and goes on for a while............";
    let goaway: &'static [u8] = Box::leak([SETTINGS, GOAWAY].concat().into_boxed_slice());
    for says in [garbage, goaway] {
        let address = manager(&root, says, -60, 3600).await;
        let ended = tokio::time::timeout(Duration::from_secs(20), end(&root, &address)).await;
        assert!(ended.is_ok(), "it hangs after {says:?}");
    }
}

#[tokio::test]
async fn a_manager_of_another_root_or_with_an_expired_certificate_is_told_nothing() {
    let (root, other) = (Root::new(), Root::new());
    let stranger = manager(&other, b"", -60, 3600).await;
    let error = format!("{:#}", Connection::open(&stranger, &Trust::Root(root.pem())).await.unwrap_err());
    assert!(error.contains("invalid peer certificate") && error.contains(&stranger), "{error}");
    let old = manager(&root, b"", -7200, -3600).await;
    let error = format!("{:#}", end(&root, &old).await);
    assert!(error.contains("xpired"), "{error}");
    let nobody = format!("{:#}", Connection::open("127.0.0.1:1", &Trust::Nothing).await.unwrap_err());
    assert!(nobody.contains("127.0.0.1:1") && nobody.contains("refused"), "{nobody}");
}
