//! What is kept of an attachment: one small file each, there before the first device and gone after the last.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::cni::List;
use super::{Error, Result};
use crate::desired::{HostPort, Key};

/// The version that this program writes. A higher one is left alone: it is a newer program's.
const VERSION: u32 = 1;
const EXTENSION: &str = "json";

/// An attachment, from before its first device until after its last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    version: u32,
    /// The pod's uid.
    pub(super) uid: String,
    /// The pod's name.
    pub(super) key: Key,
    /// Where its namespace was.
    pub(super) netns: PathBuf,
    /// Host ports, all chosen.
    #[serde(default)]
    pub(super) ports: Vec<HostPort>,
    /// The pod whose ports it has, or waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) heir: Option<Heir>,
    /// What was made.
    pub(super) place: Place,
}

/// A pod that takes the place of another one. That its ports are open and those of the other are closed is one word in one
/// file: at no moment are both so, or neither.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Heir {
    /// The other pod's uid.
    pub(super) of: String,
    /// Whether it has its ports.
    pub(super) has_them: bool,
}

/// Where a pod is attached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Place {
    /// The node's own network, at this distance from its first addresses.
    Node {
        /// The distance.
        offset: u32,
    },
    /// A network by plugins of CNI.
    Cni {
        /// The list, as it was then: it is removed by the same plugins that made it.
        list: List,
        /// What they said; null until all are done.
        #[serde(default)]
        result: serde_json::Value,
    },
}

impl Record {
    pub(super) fn new(uid: &str, key: &Key, netns: &Path, ports: Vec<HostPort>, place: Place) -> Self {
        Self {
            version: VERSION,
            uid: uid.to_owned(),
            key: key.clone(),
            netns: netns.to_owned(),
            ports,
            heir: None,
            place,
        }
    }
}

/// The folder of records.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// Kept open for fsync: a name is on the disk only once its folder is.
    handle: File,
}

impl Folder {
    /// Opens the folder, makes it if need be, and reads what is in it. What cannot be read is set aside as `NAME.damaged`,
    /// with a warning: the pod's devices are then strangers, which `retain` removes.
    pub(super) fn open(path: &Path) -> Result<(Self, HashMap<String, Record>)> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Record { path, source }
        };
        fs::create_dir_all(path).map_err(failed(path))?;
        let handle = File::open(path).map_err(failed(path))?;
        let folder = Self { path: path.to_owned(), handle };
        let mut records = HashMap::new();
        for entry in fs::read_dir(path).map_err(failed(path))? {
            let file = entry.map_err(failed(path))?.path();
            if file.extension().is_none_or(|extension| extension != EXTENSION) {
                if file.extension().is_some_and(|extension| extension == "new") {
                    // Written by a program that was killed before it could be a record.
                    fs::remove_file(&file).map_err(failed(&file))?;
                }
                continue;
            }
            match read(&file) {
                Ok(record) => drop(records.insert(record.uid.clone(), record)),
                Err(error) if error.kind() == io::ErrorKind::Unsupported => return Err(failed(&file)(error)),
                Err(error) => {
                    let aside = file.with_extension("json.damaged");
                    tracing::warn!(file = %file.display(), %error, aside = %aside.display(),
                        "a record of a pod's network cannot be read: it is set aside");
                    fs::rename(&file, &aside).map_err(failed(&file))?;
                }
            }
        }
        Ok((folder, records))
    }

    /// Writes a record so that it is there after a power cut, in whole or not at all.
    pub(super) fn write(&self, record: &Record) -> Result<()> {
        let path = self.file(&record.uid);
        let new = path.with_extension("new");
        let write = || {
            let mut file = File::create(&new)?;
            file.write_all(&serde_json::to_vec(record).map_err(io::Error::other)?)?;
            file.sync_data()?;
            fs::rename(&new, &path)?;
            self.handle.sync_data()
        };
        write().map_err(|source| {
            let _ = fs::remove_file(&new);
            Error::Record { path, source }
        })
    }

    /// Removes a record. It need not be on the disk at once: one that comes back after a power cut tells of devices that
    /// went with the power, and is removed like any other.
    pub(super) fn remove(&self, uid: &str) -> Result<()> {
        let path = self.file(uid);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::Record { path, source }),
            _ => Ok(()),
        }
    }

    fn file(&self, uid: &str) -> PathBuf {
        self.path.join(format!("{uid}.{EXTENSION}"))
    }
}

fn read(file: &Path) -> io::Result<Record> {
    let bytes = fs::read(file)?;
    let value: serde_json::Value = serde_json::from_slice(&bytes).map_err(io::Error::other)?;
    let version = value.get("version").and_then(serde_json::Value::as_u64).unwrap_or(0);
    if version > u64::from(VERSION) {
        let text = format!("it has version {version}, and this program knows {VERSION}: run the newer flintd");
        return Err(io::Error::new(io::ErrorKind::Unsupported, text));
    }
    let record: Record = serde_json::from_value(value).map_err(io::Error::other)?;
    let name = file.file_stem().and_then(|name| name.to_str());
    if name != Some(record.uid.as_str()) {
        return Err(io::Error::other(format!("it tells of pod {:?}, whose file has another name", record.uid)));
    }
    Ok(record)
}

/// Whether a uid can be the name of a file and of devices: [`crate::desired::Pod::uid`] says what it is made of.
pub(super) fn is_uid(uid: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&uid.len()) && uid.bytes().all(letter)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(uid: &str) -> Record {
        let key = Key::new("default", uid);
        Record::new(uid, &key, Path::new("/run/netns/x"), Vec::new(), Place::Node { offset: 2 })
    }

    #[test]
    fn records_last() {
        let dir = tempfile::tempdir().expect("a folder");
        let (folder, none) = Folder::open(dir.path()).expect("open");
        assert!(none.is_empty());
        folder.write(&record("a")).expect("write");
        folder.write(&record("b")).expect("write");
        folder.remove("b").expect("remove");
        folder.remove("b").expect("remove what is gone");
        let (_, records) = Folder::open(dir.path()).expect("open again");
        assert_eq!(records.into_iter().collect::<Vec<_>>(), [("a".to_owned(), record("a"))]);
    }

    #[test]
    fn what_cannot_be_read_is_set_aside() {
        let dir = tempfile::tempdir().expect("a folder");
        let (folder, _) = Folder::open(dir.path()).expect("open");
        folder.write(&record("a")).expect("write");
        fs::write(dir.path().join("cut.json"), "{\"version\":1,\"uid\"").expect("write");
        fs::copy(dir.path().join("a.json"), dir.path().join("other.json")).expect("copy");
        fs::write(dir.path().join("half.new"), "{").expect("write");
        let (_, records) = Folder::open(dir.path()).expect("open again");
        assert_eq!(records.len(), 1, "{records:?}");
        assert!(dir.path().join("cut.json.damaged").exists());
        assert!(dir.path().join("other.json.damaged").exists());
        assert!(!dir.path().join("half.new").exists());
    }

    #[test]
    fn a_newer_programs_record_is_left_alone() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("a.json");
        fs::write(&file, "{\"version\":99}").expect("write");
        let error = Folder::open(dir.path()).expect_err("refused").to_string();
        assert!(error.contains("version 99") && error.contains("a.json"), "{error}");
        assert!(file.exists());
    }

    #[test]
    fn uids_are_names_of_files() {
        assert!(is_uid("0a-9"));
        for bad in ["", "..", "a/b", "A", "a.b", &"a".repeat(64)] {
            assert!(!is_uid(bad), "{bad}");
        }
    }
}
