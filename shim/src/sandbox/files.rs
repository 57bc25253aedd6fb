//! Files that all containers of a pod see: /etc/hostname, /etc/hosts, /etc/resolv.conf and /dev/shm. With a pause container
//! containerd makes them; without one it leaves them to the shim.

use std::path::{Path, PathBuf};

use flint_runtime::Bundle;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};

use super::request::{Dns, Mode, PodConfig};
use crate::error::{Error, Result};

/// As containerd's: `/dev/shm` of a pod has 64 MiB.
const SHM_OPTIONS: &str = "mode=1777,size=67108864";
/// Below the pod's bundle.
const SHM: &str = "shm";
const HOSTS: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n";

/// The files, while this lives: then its memory file system is unmounted. The bundle is containerd's to remove.
#[derive(Debug)]
pub(crate) struct Files {
    folder: PathBuf,
    /// Destinations in containers, and what is bound there.
    binds: Vec<(&'static str, PathBuf)>,
}

impl Files {
    /// # Errors
    ///
    /// A file that cannot be written; a file system that cannot be mounted.
    pub(crate) fn make(folder: &Path, config: &PodConfig) -> Result<Self> {
        let mut files = Self { folder: folder.to_owned(), binds: Vec::new() };
        if config.network != Mode::Node {
            files.write("/etc/hostname", "hostname", &format!("{}\n", config.hostname))?;
        }
        // On the host's network its names and servers hold.
        let own_or_hosts = |own: String, host: &str| match config.network {
            Mode::Node => std::fs::read_to_string(host).unwrap_or(own),
            _ => own,
        };
        files.write("/etc/hosts", "hosts", &own_or_hosts(HOSTS.to_owned(), "/etc/hosts"))?;
        let resolvers = if config.dns == Dns::default() {
            std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default()
        } else {
            config.dns.to_string()
        };
        files.write("/etc/resolv.conf", "resolv.conf", &resolvers)?;
        if config.ipc == Mode::Pod {
            files.mount_shm()?;
        }
        Ok(files)
    }

    fn write(&mut self, destination: &'static str, name: &str, content: &str) -> Result<()> {
        let path = self.folder.join(name);
        std::fs::write(&path, content)
            .map_err(|error| Error::system(format!("write the pod's {}", path.display()), error))?;
        self.binds.push((destination, path));
        Ok(())
    }

    fn mount_shm(&mut self) -> Result<()> {
        let path = self.folder.join(SHM);
        let failure = |error: std::io::Error| Error::system(format!("mount the pod's {}", path.display()), error);
        std::fs::create_dir_all(&path).map_err(failure)?;
        let flags = MsFlags::MS_NOEXEC | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(Some("shm"), &path, Some("tmpfs"), flags, Some(SHM_OPTIONS)).map_err(|errno| failure(errno.into()))?;
        self.binds.push(("/dev/shm", path));
        Ok(())
    }

    /// The bundle with the pod's files mounted, where the container does not mount its own there.
    ///
    /// # Errors
    ///
    /// A config.json that is no longer one with them.
    pub(crate) fn furnish(&self, bundle: &Bundle) -> Result<Bundle> {
        let malformed = |error| Error::system("add the pod's files to config.json", error);
        let mut config: Value = serde_json::from_slice(bundle.json()).map_err(malformed)?;
        let read_only = config.pointer("/root/readonly").and_then(Value::as_bool).unwrap_or(false);
        let Some(config_object) = config.as_object_mut() else { return Ok(bundle.clone()) };
        let mounts = config_object.entry("mounts").or_insert_with(|| json!([]));
        let Some(mounts) = mounts.as_array_mut() else { return Ok(bundle.clone()) };
        // The default that containerd starts from: each container's own.
        mounts.retain(|mount| !(mount["destination"] == "/dev/shm" && mount["source"] == "shm"));
        for (destination, path) in &self.binds {
            if mounts.iter().any(|mount| mount["destination"] == *destination) {
                continue;
            }
            let writable = !read_only || *destination == "/dev/shm";
            let options = ["rbind", "rprivate", if writable { "rw" } else { "ro" }];
            mounts.push(json!({"destination": destination, "type": "bind", "source": path, "options": options}));
        }
        Ok(Bundle::from_parts(bundle.path().to_owned(), config.to_string().into_bytes())?)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        unmount(&self.folder);
    }
}

/// Unmounts what a pod left below its bundle, as far as there is something.
pub(crate) fn unmount(folder: &Path) {
    let _ = umount2(&folder.join(SHM), MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW);
}

impl std::fmt::Display for Dns {
    /// As resolv.conf(5).
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.searches.is_empty() {
            writeln!(f, "search {}", self.searches.join(" "))?;
        }
        for server in &self.servers {
            writeln!(f, "nameserver {server}")?;
        }
        if !self.options.is_empty() {
            writeln!(f, "options {}", self.options.join(" "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use flint_runtime::Bundle;
    use serde_json::{Value, json};

    use super::{Dns, Files, PodConfig};
    use crate::sandbox::request::Mode;

    #[test]
    fn containers_see_the_pods_files_and_keep_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let config = PodConfig {
            hostname: "web".to_owned(),
            ipc: Mode::Node,
            dns: Dns {
                servers: vec!["10.0.0.1".to_owned()],
                searches: vec!["a".to_owned(), "b".to_owned()],
                ..Dns::default()
            },
            ..PodConfig::default()
        };
        let files = Files::make(folder.path(), &config).unwrap();
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(read("hostname"), "web\n");
        assert_eq!(read("resolv.conf"), "search a b\nnameserver 10.0.0.1\n");
        let json = json!({
            "ociVersion": "1.0.2", "root": {"path": "rootfs", "readonly": true},
            "mounts": [{"destination": "/etc/hosts", "type": "bind", "source": "/x", "options": ["bind"]}]
        });
        let bundle = Bundle::from_parts(folder.path().to_owned(), json.to_string().into_bytes()).unwrap();
        let furnished: Value = serde_json::from_slice(files.furnish(&bundle).unwrap().json()).unwrap();
        let mounts = furnished["mounts"].as_array().unwrap();
        let destinations: Vec<_> = mounts.iter().map(|mount| mount["destination"].as_str().unwrap()).collect();
        assert_eq!(destinations, ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"]);
        assert_eq!(mounts[0]["source"], "/x");
        assert_eq!(mounts[1]["options"], json!(["rbind", "rprivate", "ro"]));
    }
}
