use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, PKCS_ECDSA_P256_SHA256};

use super::*;

/// A swarm's root, and what it signs.
pub(crate) struct Root {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Root {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "swarm-ca");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        Self { issuer: CertifiedIssuer::self_signed(params, key).unwrap() }
    }

    pub(crate) fn pem(&self) -> Vec<u8> {
        self.issuer.pem().into_bytes()
    }

    /// Key and certificate of a node that is valid from a moment to another, in seconds from now.
    pub(crate) fn node(&self, id: &str, from: i64, to: i64) -> (Vec<u8>, Vec<u8>) {
        let names = ["swarm-manager".to_owned(), "swarm-ca".to_owned(), id.to_owned()];
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, id);
        params.distinguished_name.push(DnType::OrganizationName, "cluster");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
        let at = |seconds: i64| (UNIX_EPOCH + Duration::from_secs((now + seconds) as u64)).into();
        (params.not_before, params.not_after) = (at(from), at(to));
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (key.serialize_pem().into_bytes(), certificate.pem().into_bytes())
    }

    pub(crate) fn identity(&self, id: &str, from: i64, to: i64) -> Identity {
        let (key, chain) = self.node(id, from, to);
        Identity::new(key, chain, self.pem()).unwrap()
    }
}

#[test]
fn an_identity_is_kept_and_read_again() {
    let folder = tempfile::tempdir().unwrap();
    assert!(Identity::load(folder.path()).unwrap().is_none());
    let identity = Root::new().identity("node", -60, 3600);
    identity.save(folder.path()).unwrap();
    let loaded = Identity::load(folder.path()).unwrap().unwrap();
    assert_eq!((loaded.chain(), loaded.root()), (identity.chain(), identity.root()));
    assert_eq!((loaded.chain().node_id.as_str(), loaded.chain().cluster_id.as_str()), ("node", "cluster"));
    assert!(!format!("{loaded:?}").contains("KEY"));
    std::fs::write(folder.path().join(IDENTITY), "rubbish").unwrap();
    let error = Identity::load(folder.path()).unwrap_err().to_string();
    assert!(error.contains("damaged"), "{error}");
    Identity::remove(folder.path()).unwrap();
    assert!(Identity::load(folder.path()).unwrap().is_none());
}

#[test]
fn another_root_is_taken_only_if_it_stands_behind_the_certificate() {
    let (root, other) = (Root::new(), Root::new());
    let identity = root.identity("node", -60, 3600);
    assert!(identity.with_root(&other.pem()).is_err());
    assert!(identity.with_root(b"rubbish").is_err());
    // During a rotation there are two.
    let both = [other.pem(), root.pem()].concat();
    let with_both = identity.with_root(&both).unwrap();
    assert_eq!(with_both.tls_info().cert_issuer_public_key, identity.tls_info().cert_issuer_public_key);
    assert_ne!(
        identity.tls_info().cert_issuer_public_key,
        other.identity("node", -60, 3600).tls_info().cert_issuer_public_key
    );
    let (key, chain) = other.node("node", -60, 3600);
    assert!(Identity::new(key, chain, root.pem()).is_err());
}

#[test]
fn it_is_renewed_in_time_and_an_expired_one_is_told() {
    let root = Root::new();
    let now = SystemTime::now();
    let identity = root.identity("node", -3600, 3600);
    let hour = |factor: f64| Duration::from_secs_f64(3600.0 * factor);
    let about = |found: Duration, wanted: Duration| found.abs_diff(wanted) < Duration::from_secs(5);
    assert!(about(identity.renew_in(now, 0.0), hour(0.0)), "half of two hours is over");
    assert!(about(identity.renew_in(now, 1.0), hour(0.6)), "80 per cent");
    assert_eq!(identity.renew_in(now + hour(2.0), 0.5), Duration::ZERO);
    check_validity(&identity, now).unwrap();
    let expired = root.identity("node", -7200, -3600);
    let error = check_validity(&expired, now).unwrap_err().to_string();
    assert!(error.contains("expired at") && error.contains("docker node rm node"), "{error}");
}
