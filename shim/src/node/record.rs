//! `sandbox.json` in a sandbox's folder: what the next shim has to know of it, and what is to be taken away.

use std::path::{Path, PathBuf};

use flint_shim_protocol::{Network, Sandbox};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

const FILE: &str = "sandbox.json";
/// A newer one is refused.
const VERSION: u32 = 1;

/// A process that its start time tells from another with its pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Init {
    pub(super) pid: i32,
    pub(super) started: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) version: u32,
    pub(super) id: String,
    /// A network namespace that is bound here by us.
    pub(super) own_network: Option<PathBuf>,
    /// Process 1 of the pids that are shared.
    pub(super) init: Option<Init>,
    /// Whether there is a file system for /dev/shm.
    pub(super) has_shm: bool,
    /// A cgroup that goes with it.
    pub(super) cgroup: Option<String>,
}

impl Record {
    pub(super) fn new(sandbox: &Sandbox) -> Self {
        let own = sandbox.network() == Network::Own;
        Self {
            version: VERSION,
            id: sandbox.id.clone(),
            own_network: own.then(|| sandbox.network_path.clone().into()),
            init: None,
            has_shm: sandbox.shm_bytes != 0,
            cgroup: Some(sandbox.cgroup.clone()).filter(|cgroup| !cgroup.is_empty()),
        }
    }

    /// Whole, or not at all.
    ///
    /// # Errors
    ///
    /// A folder that cannot be written.
    pub(super) fn save(&self, folder: &Path) -> Result<()> {
        let (path, new) = (folder.join(FILE), folder.join(".sandbox.json"));
        let json = serde_json::to_vec(self).map_err(|error| Error::system("encode a sandbox's record", error))?;
        std::fs::write(&new, json)
            .and_then(|()| std::fs::rename(&new, &path))
            .map_err(|error| Error::system(format!("write {}", path.display()), error))
    }

    /// # Errors
    ///
    /// One that is damaged, or of a newer version.
    pub(super) fn load(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(FILE);
        let json = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(|error| Error::system(format!("read {}", path.display()), error))?,
        };
        let record: Self = serde_json::from_slice(&json)
            .map_err(|error| Error::system(format!("{} is damaged", path.display()), error))?;
        if record.version > VERSION {
            let version = record.version;
            return Err(Error::wrong_state(format!(
                "{} has version {version}, this shim reads up to {VERSION}: it was written by a newer one",
                path.display()
            )));
        }
        Ok(Some(record))
    }

    /// # Errors
    ///
    /// A folder that cannot be written.
    pub(super) fn remove(folder: &Path) -> Result<()> {
        match std::fs::remove_file(folder.join(FILE)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::system(format!("remove {} in {}", FILE, folder.display()), error))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use flint_shim_protocol::{Network, Sandbox};

    use super::{Init, Record};

    #[test]
    fn records_come_back_and_newer_ones_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Record::load(folder.path()).unwrap(), None);
        let sandbox = Sandbox {
            id: "a".to_owned(),
            network: Network::Own.into(),
            network_path: "/run/x".to_owned(),
            ..Sandbox::default()
        };
        let mut record = Record::new(&sandbox);
        record.init = Some(Init { pid: 7, started: 99 });
        record.save(folder.path()).unwrap();
        assert_eq!(Record::load(folder.path()).unwrap(), Some(record.clone()));
        record.version = 2;
        record.save(folder.path()).unwrap();
        assert!(Record::load(folder.path()).unwrap_err().to_string().contains("version 2"));
        Record::remove(folder.path()).unwrap();
        Record::remove(folder.path()).unwrap();
        assert_eq!(Record::load(folder.path()).unwrap(), None);
    }
}
