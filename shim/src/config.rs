//! What the shim itself looks at in a bundle's config.json.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::options::Options;

/// Annotations that put containers into one shim, the strongest first.
const GROUPS: [&str; 2] = ["io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id"];
/// What the shim keeps beside config.json, for `delete` after its death.
const KEPT: &str = "flint-shim.json";
/// Where containers' state is without another word; containerd's for runc is beside it.
const ROOT: &str = "/run/containerd/flint";

#[derive(Debug, Default, Deserialize)]
struct Annotated {
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// The group of the container whose bundle it is: containers of a group share a shim. The bundle of a pod's sandbox has no
/// config.json: that shim is the pod's.
///
/// # Errors
///
/// A config.json that cannot be read or is none.
pub(crate) fn group(bundle: &Path, id: &str) -> anyhow::Result<String> {
    let path = bundle.join("config.json");
    let bytes = match std::fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(id.to_owned()),
        read => read.with_context(|| format!("read {}", path.display()))?,
    };
    let config: Annotated =
        serde_json::from_slice(&bytes).with_context(|| format!("{} is no config.json", path.display()))?;
    let group = GROUPS.iter().find_map(|name| config.annotations.get(*name)).filter(|group| !group.is_empty());
    Ok(group.cloned().unwrap_or_else(|| id.to_owned()))
}

/// Which runtime state a container has: enough to delete it without its shim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    /// The state root.
    pub(crate) root: std::path::PathBuf,
    /// Whether systemd makes the cgroups.
    pub(crate) systemd: bool,
    /// Whether its root filesystem was mounted by the shim, which then unmounts it.
    #[serde(default)]
    pub(crate) rootfs: bool,
}

impl Place {
    /// As the options say. dockerd's shims get none: there the form of `linux.cgroupsPath` tells systemd's.
    pub(crate) fn of(options: &Options, namespace: &str, cgroups_path: Option<&Path>) -> Self {
        let root = options.root.clone().unwrap_or_else(|| ROOT.into()).join(namespace);
        Self { rootfs: false, root, systemd: options.systemd_cgroup || cgroups_path.is_some_and(is_systemds) }
    }

    /// # Errors
    ///
    /// A bundle that cannot be written.
    pub(crate) fn keep(&self, bundle: &Path) -> Result<()> {
        let path = bundle.join(KEPT);
        let json = serde_json::to_vec(self).map_err(|error| Error::system("encode the shim's file", error))?;
        std::fs::write(&path, json).map_err(|error| Error::system(format!("write {}", path.display()), error))
    }

    /// What was kept.
    pub(crate) fn find(bundle: &Path) -> Option<Self> {
        std::fs::read(bundle.join(KEPT)).ok().and_then(|json| serde_json::from_slice(&json).ok())
    }

    /// What was kept; without it, what the namespace alone says.
    pub(crate) fn kept(bundle: &Path, namespace: &str) -> Self {
        Self::find(bundle).unwrap_or_else(|| Self::of(&Options::default(), namespace, None))
    }
}

/// `slice:prefix:name`, where a path would have slashes.
fn is_systemds(path: &Path) -> bool {
    path.to_str().is_some_and(|path| !path.starts_with('/') && path.split(':').count() == 3)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Place, group};
    use crate::options::Options;

    fn bundle(config: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.json"), config).unwrap();
        folder
    }

    #[test]
    fn groups() {
        let of = |config: &str| group(bundle(config).path(), "c1").unwrap();
        assert_eq!(of("{}"), "c1");
        assert_eq!(of(r#"{"annotations": {"io.kubernetes.cri.sandbox-id": "pod"}}"#), "pod");
        let both = r#"{"annotations": {"io.kubernetes.cri.sandbox-id": "pod", "io.containerd.runc.v2.group": "g"}}"#;
        assert_eq!(of(both), "g");
        assert!(group(bundle("{").path(), "c1").unwrap_err().to_string().contains("config.json"));
        assert_eq!(group(Path::new("/nowhere"), "pod").unwrap(), "pod");
    }

    #[test]
    fn places() {
        let place = |options: &Options, path: &str| Place::of(options, "k8s.io", Some(Path::new(path)));
        let default = Options::default();
        assert_eq!(place(&default, "/a/b").root, Path::new("/run/containerd/flint/k8s.io"));
        assert!(!place(&default, "/a:b:c").systemd);
        assert!(place(&default, "system.slice:docker:0123").systemd);
        assert!(place(&default, ":docker:0123").systemd);
        let options = Options { root: Some("/r".into()), systemd_cgroup: true, ..Options::default() };
        assert_eq!(place(&options, "/a"), Place { root: "/r/k8s.io".into(), systemd: true, rootfs: false });
    }

    #[test]
    fn a_place_is_found_again() {
        let folder = bundle("{}");
        let kept = Place { root: "/r/x".into(), systemd: true, rootfs: true };
        kept.keep(folder.path()).unwrap();
        assert_eq!(Place::kept(folder.path(), "x"), kept);
        assert_eq!(Place::kept(Path::new("/nowhere"), "x").root, Path::new("/run/containerd/flint/x"));
    }
}
