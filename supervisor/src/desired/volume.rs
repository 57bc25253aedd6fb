//! Volumes of a pod, and where its containers have them.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A volume of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Volume {
    /// Its name in the pod.
    pub name: String,
    /// What is in it.
    pub source: VolumeSource,
}

/// A file of a volume whose content is known.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Item {
    /// Its path in the volume; relative, without `..`.
    pub path: String,
    /// Its content.
    pub content: Vec<u8>,
    /// Its mode.
    pub mode: u32,
    /// Its owner.
    #[serde(default)]
    pub uid: u32,
    /// Its group.
    #[serde(default)]
    pub gid: u32,
}

impl std::fmt::Debug for Item {
    /// Without the content: it may be a secret.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Item({:?}, {} bytes, {:o})", self.path, self.content.len(), self.mode)
    }
}

/// What a path of the host leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PathKind {
    /// A folder.
    Folder,
    /// A regular file.
    File,
    /// A unix socket.
    Socket,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
}

/// What is in a volume.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VolumeSource {
    /// An empty folder on disk that lives as long as the pod.
    EmptyDir {
        /// Bytes; more evicts the pod.
        size_limit: Option<u64>,
    },
    /// The same in memory.
    Memory {
        /// Bytes; more is refused to the writer. None: half of the node's memory.
        size_limit: Option<u64>,
    },
    /// A file or folder of the host.
    HostPath {
        /// Its path.
        path: PathBuf,
        /// Whether a missing folder is made (0755, root's).
        make_folder: bool,
        /// Whether a missing file is made (0644, root's).
        make_file: bool,
        /// What it has to be; none: anything.
        #[serde(default)]
        kind: Option<PathKind>,
    },
    /// A volume of the node that outlives its pods, by its name. It is made at its first use.
    Named(String),
    /// Files of known content on disk.
    Files(Vec<Item>),
    /// Files of known content in memory, never on disk as files. Those of a scheduler are not in the store either: see
    /// [`crate::desired::Pod::to_keep`].
    Secret(Vec<Item>),
}

impl Volume {
    /// The same without the bytes of its files: these are put in place while containers run, without a new sandbox.
    #[must_use]
    pub fn without_content(&self) -> Self {
        let bare = |items: &[Item]| items.iter().map(|item| Item { content: Vec::new(), ..item.clone() }).collect();
        let source = match &self.source {
            VolumeSource::Files(items) => VolumeSource::Files(bare(items)),
            VolumeSource::Secret(items) => VolumeSource::Secret(bare(items)),
            other => other.clone(),
        };
        Self { name: self.name.clone(), source }
    }
}

/// Whether mounts below a volume show on the other side (mount_namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Propagation {
    /// Neither way.
    #[default]
    Private,
    /// The host's show in the container.
    HostToContainer,
    /// Both ways.
    Bidirectional,
}

/// A volume in a container.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Mount {
    /// The volume's name.
    pub volume: String,
    /// Where it is in the container; absolute.
    pub path: String,
    /// The part of the volume that is shown; relative, without `..`. Resolved inside the volume.
    #[serde(default)]
    pub sub_path: Option<String>,
    /// Whether it is read-only.
    #[serde(default)]
    pub read_only: bool,
    /// Which way mounts below it show.
    #[serde(default)]
    pub propagation: Propagation,
}
