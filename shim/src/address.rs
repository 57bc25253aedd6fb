//! The socket that containerd reaches a shim by.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

/// containerd's own folder for shims' sockets: short, as their paths may have 106 bytes.
const FOLDER: &str = "/run/containerd/s";
/// The file in a bundle that holds the address; containerd before 2.0 reads it when it comes back.
const FILE: &str = "address";

/// Where the shim of a group listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address(PathBuf);

/// What was found there.
#[derive(Debug)]
pub(crate) enum Claim {
    /// Nobody: it is ours now.
    Ours(UnixListener),
    /// The group's shim, alive.
    Alive,
}

impl Address {
    /// As containerd's own shims name it: by the hash of its gRPC address, the namespace and the group.
    pub(crate) fn of(grpc_address: &str, namespace: &str, group: &str, folder: Option<&str>) -> Self {
        let path = Path::new(grpc_address).join(namespace).join(group);
        let hash = Sha256::digest(path.as_os_str().as_encoded_bytes());
        let name = hash.iter().fold(String::new(), |name, byte| name + &format!("{byte:02x}"));
        Self(Path::new(folder.unwrap_or(FOLDER)).join(name))
    }

    pub(crate) fn parse(address: &str) -> Self {
        Self(address.strip_prefix("unix://").unwrap_or(address).into())
    }

    pub(crate) fn url(&self) -> String {
        format!("unix://{}", self.0.display())
    }

    /// Listens there, unless a live shim does. What a dead one left is replaced.
    ///
    /// # Errors
    ///
    /// A folder that cannot be made, a socket that cannot be bound.
    pub(crate) fn claim(&self) -> Result<Claim> {
        let folder = self.0.parent().unwrap_or(Path::new("/"));
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .with_context(|| format!("make the folder of shims' sockets {}", folder.display()))?;
        // One at a time: a socket is bound before it listens, and would look dead to the next in between.
        let lock = File::open(folder).and_then(|folder| folder.lock().map(|()| folder));
        let _lock = lock.with_context(|| format!("lock the folder of shims' sockets {}", folder.display()))?;
        loop {
            match UnixListener::bind(&self.0) {
                Ok(listener) => {
                    std::fs::set_permissions(&self.0, std::fs::Permissions::from_mode(0o600))
                        .with_context(|| format!("protect the socket {}", self.0.display()))?;
                    return Ok(Claim::Ours(listener));
                }
                Err(error) if error.kind() == ErrorKind::AddrInUse => {
                    if UnixStream::connect(&self.0).is_ok() {
                        return Ok(Claim::Alive);
                    }
                    self.remove();
                }
                Err(error) => return Err(error).with_context(|| format!("listen on {}", self.0.display())),
            }
        }
    }

    /// Writes the address into a bundle, at once or not at all.
    ///
    /// # Errors
    ///
    /// A bundle that cannot be written.
    pub(crate) fn write(&self, bundle: &Path) -> Result<()> {
        let (path, new) = (bundle.join(FILE), bundle.join(".address"));
        std::fs::write(&new, self.url())
            .and_then(|()| std::fs::rename(&new, &path))
            .with_context(|| format!("write {}", path.display()))
    }

    /// What was written into a bundle.
    pub(crate) fn kept(bundle: &Path) -> Option<Self> {
        std::fs::read_to_string(bundle.join(FILE)).ok().map(|url| Self::parse(&url))
    }

    /// Takes away what a dead shim left; a live one keeps it.
    pub(crate) fn remove_dead(&self) {
        let Some(Ok(folder)) = self.0.parent().map(File::open) else { return };
        let refused = || UnixStream::connect(&self.0).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused);
        if folder.lock().is_ok() && refused() {
            self.remove();
        }
    }

    pub(crate) fn remove(&self) {
        // Gone already is as good.
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::{Address, Claim};

    #[test]
    fn one_address_a_group() {
        let of = |namespace, group| Address::of("/run/containerd/containerd.sock", namespace, group, None);
        assert_eq!(of("a", "b"), of("a", "b"));
        assert_ne!(of("a", "b"), of("b", "a"));
        let url = of("default", "c1").url();
        // printf '%s' /run/containerd/containerd.sock/default/c1 | sha256sum
        assert_eq!(url.len(), "unix:///run/containerd/s/".len() + 64);
        assert_eq!(Address::parse(&url), of("default", "c1"));
    }

    #[test]
    fn live_and_dead_sockets() {
        let folder = tempfile::tempdir().unwrap();
        let address = Address::of("x", "n", "g", folder.path().to_str());
        let Claim::Ours(listener) = address.claim().unwrap() else { panic!("nobody was there") };
        assert!(matches!(address.claim().unwrap(), Claim::Alive));
        address.remove_dead();
        assert!(address.0.exists(), "it is alive");
        drop(listener);
        address.remove_dead();
        assert!(!address.0.exists(), "it is dead");
        let Claim::Ours(listener) = address.claim().unwrap() else { panic!("nobody was there") };
        drop(listener);
        assert!(matches!(address.claim().unwrap(), Claim::Ours(_)));
        address.write(folder.path()).unwrap();
        assert_eq!(std::fs::read_to_string(folder.path().join("address")).unwrap(), address.url());
        assert_eq!(Address::kept(folder.path()), Some(address.clone()));
        address.remove();
        address.remove();
    }
}
