//! The options of a task: what containerd's configuration, or dockerd, says to this runtime.
//!
//! `containerd.runc.v1.Options` comes from containerd's runc types (`runtime_path` with `io.containerd.runc.v2`);
//! `runtimeoptions.v1.Options` from any other runtime type of its CRI plugin, with the same fields as TOML; dockerd sends none.

use std::path::PathBuf;

use containerd_shim_protos::shim::oci::Options as RuncOptions;
use flint_runtime::CriuOptions;
use protobuf::rt::WireType;
use protobuf::well_known_types::any::Any;
use protobuf::{CodedInputStream, Message as _, UnknownValueRef};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

const RUNC: &str = "containerd.runc.v1.Options";
const GENERIC: &str = "runtimeoptions.v1.Options";

/// Names as in containerd's configuration of runc; others are ignored there, and so they are here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Options {
    /// Move the root over `/` instead of pivot_root.
    pub(crate) no_pivot_root: bool,
    /// Keep the shim's session keyring.
    pub(crate) no_new_keyring: bool,
    /// A cgroup for the shim itself.
    pub(crate) shim_cgroup: String,
    /// Owner of the container's standard streams; 0: the container's user.
    pub(crate) io_uid: u32,
    /// Their group; 0: as it is.
    pub(crate) io_gid: u32,
    /// The state root; below it a folder for each namespace.
    pub(crate) root: Option<PathBuf>,
    /// Make cgroups by systemd.
    pub(crate) systemd_cgroup: bool,
    /// Where checkpoints are written when their request names no folder.
    pub(crate) criu_image_path: Option<PathBuf>,
    /// CRIU's working folder.
    pub(crate) criu_work_path: Option<PathBuf>,
    /// CRIU, if it is not the one in PATH.
    pub(crate) criu_path: Option<PathBuf>,
}

/// `Options.criu_path`, which containerd 1 has and later schemas have not.
const CRIU_PATH: u32 = 8;

impl Options {
    /// Decodes what a request brought. `None` for a type that is unknown.
    ///
    /// # Errors
    ///
    /// A known type that does not decode.
    pub(crate) fn decode(any: Option<&Any>) -> Result<Option<Self>> {
        let Some(any) = any.filter(|any| !any.type_url.is_empty() || !any.value.is_empty()) else {
            return Ok(Some(Self::default()));
        };
        // Go's typeurl writes the bare name, others put a host in front.
        match any.type_url.rsplit('/').next() {
            Some(RUNC) => Self::of_runc(&any.value).map(Some),
            Some(GENERIC) => Self::of_toml(&any.value).map(Some),
            _ => Ok(None),
        }
    }

    /// How CRIU is called for these images.
    pub(crate) fn criu(&self, images: PathBuf) -> CriuOptions {
        let default = CriuOptions { image_path: images, ..CriuOptions::default() };
        match &self.criu_path {
            Some(program) => CriuOptions { program: program.clone(), ..default },
            None => default,
        }
    }

    fn of_runc(bytes: &[u8]) -> Result<Self> {
        let failure = |error| Error::invalid(format!("decode {RUNC}: {error}"));
        let options = RuncOptions::parse_from_bytes(bytes).map_err(failure)?;
        let criu_path = options.special_fields.unknown_fields().get(CRIU_PATH);
        let criu_path = criu_path.and_then(|value| match value {
            UnknownValueRef::LengthDelimited(path) => String::from_utf8(path.to_vec()).ok(),
            _ => None,
        });
        let path = |path: String| Some(PathBuf::from(path)).filter(|path| !path.as_os_str().is_empty());
        Ok(Self {
            no_pivot_root: options.no_pivot_root,
            no_new_keyring: options.no_new_keyring,
            shim_cgroup: options.shim_cgroup,
            io_uid: options.io_uid,
            io_gid: options.io_gid,
            root: path(options.root),
            systemd_cgroup: options.systemd_cgroup,
            criu_image_path: path(options.criu_image_path),
            criu_work_path: path(options.criu_work_path),
            criu_path: criu_path.and_then(path),
        })
    }

    /// `runtimeoptions.v1.Options { type_url = 1; config_path = 2; config_body = 3 }` (containerd's api/types/runtimeoptions/v1).
    fn of_toml(bytes: &[u8]) -> Result<Self> {
        let (mut path, mut body) = (String::new(), Vec::new());
        let mut read = || -> protobuf::Result<()> {
            let mut stream = CodedInputStream::from_bytes(bytes);
            while let Some(tag) = stream.read_raw_tag_or_eof()? {
                match tag {
                    0x12 => path = stream.read_string()?,
                    0x1a => body = stream.read_bytes()?,
                    other => stream.skip_field(WireType::new(other & 7).unwrap_or(WireType::Varint))?,
                }
            }
            Ok(())
        };
        read().map_err(|error| Error::invalid(format!("decode {GENERIC}: {error}")))?;
        if body.is_empty() && !path.is_empty() {
            body = std::fs::read(&path).map_err(|error| Error::invalid(format!("options in {path}: {error}")))?;
        }
        let text =
            String::from_utf8(body).map_err(|error| Error::invalid(format!("the runtime's options: {error}")))?;
        toml_edit::de::from_str(&text).map_err(|error| Error::invalid(format!("the runtime's options: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use containerd_shim_protos::shim::oci::Options as RuncOptions;
    use protobuf::Message as _;
    use protobuf::well_known_types::any::Any;

    use super::{GENERIC, Options, RUNC};

    fn any(type_url: &str, value: Vec<u8>) -> Any {
        Any { type_url: type_url.to_owned(), value, ..Any::default() }
    }

    #[test]
    fn runcs() {
        let runc = RuncOptions { root: "/run/x".to_owned(), systemd_cgroup: true, io_uid: 7, ..RuncOptions::default() };
        for url in [RUNC.to_owned(), format!("types.googleapis.com/{RUNC}")] {
            let options = Options::decode(Some(&any(&url, runc.write_to_bytes().unwrap()))).unwrap().unwrap();
            assert_eq!((options.root, options.systemd_cgroup, options.io_uid), (Some("/run/x".into()), true, 7));
        }
        assert!(Options::decode(Some(&any(RUNC, vec![0xff]))).unwrap_err().to_string().contains(RUNC));
    }

    #[test]
    fn a_cri_plugins_toml() {
        let toml = b"SystemdCgroup = true\nRoot = \"/r\"\nBinaryName = \"ignored\"\n";
        let mut value = vec![0x0a, 1, b'x', 0x1a, toml.len() as u8];
        value.extend_from_slice(toml);
        let options = Options::decode(Some(&any(GENERIC, value))).unwrap().unwrap();
        assert_eq!((options.root, options.systemd_cgroup), (Some("/r".into()), true));
        let wrong = [&[0x1a, 3][..], b"a ="].concat();
        assert!(Options::decode(Some(&any(GENERIC, wrong))).is_err());
    }

    #[test]
    fn none_and_unknown_ones() {
        assert_eq!(Options::decode(None).unwrap(), Some(Options::default()));
        assert_eq!(Options::decode(Some(&Any::default())).unwrap(), Some(Options::default()));
        assert_eq!(Options::decode(Some(&any("kata.v1.Options", vec![1]))).unwrap(), None);
    }
}
