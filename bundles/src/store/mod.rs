//! The store: what was pulled and unpacked, by the digest of its content.
//!
//! ```text
//!  ROOT/version             the form of all this
//!       lock                flock: shared by who works here, exclusive for who collects
//!       images/HASH.json    a name ──> the digest of a manifest      (roots of the collection)
//!       bundles/HASH.json   a bundle's folder ──> what it uses       (roots of the collection)
//!       blobs/sha256/HEX    manifests, configs, layers as they came
//!       layers/HEX/         fs/: the unpacked layer for overlayfs; layer.json
//!       tmp/                what is being written; nothing there is believed
//! ```
//!
//! What stands under its digest is whole: it is written in tmp/, verified, and renamed. A kill at any moment leaves
//! something in tmp/ at most; a blob's beginning there is checked and continued by the next who wants that blob.
//! Processes meet in `lock` and in the locks on the files of tmp/.

mod blobs;
mod gc;
mod layers;
mod names;
mod usage;

pub(crate) use blobs::{Arriving, Taken};
pub use gc::{Collected, Policy, collect, trim};
pub(crate) use layers::{Draft, LayerPlace, imitate_root};
pub use names::{BundleRecord, ImageRecord};
pub use usage::{ImageUsage, Usage};

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result, Told};
use crate::image::{CONFIG_LIMIT, Document, Image, Layer, MANIFEST_LIMIT, Parts};
use crate::progress::{Progress, go_on};

/// The form of the store's folders. Another form gets another number.
const VERSION: &str = "1\n";

/// A folder with images.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

/// Keeps what one is working with from being collected, as long as it lives; the kernel ends it with its process.
#[derive(Debug)]
pub struct Lease {
    _lock: File,
}

/// Keeps others from unpacking a layer, as long as it lives; the kernel ends it with its process.
pub(crate) struct Claim {
    _file: File,
    path: PathBuf,
}

impl Drop for Claim {
    fn drop(&mut self) {
        // While it is locked: who waits for it sees that it is gone. What stays, the collection takes.
        let _ = fs::remove_file(&self.path);
    }
}

impl Store {
    /// Where a store is unless one says so: /var/lib/flint-bundle for root, else `$XDG_DATA_HOME/flint-bundle`.
    ///
    /// # Errors
    ///
    /// When neither XDG_DATA_HOME nor HOME is an absolute path.
    pub fn default_root() -> Result<PathBuf> {
        if rustix::process::geteuid().is_root() {
            return Ok(PathBuf::from("/var/lib/flint-bundle"));
        }
        let variable = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        variable("XDG_DATA_HOME")
            .or_else(|| Some(variable("HOME")?.join(".local/share")))
            .map(|data| data.join("flint-bundle"))
            .ok_or_else(|| Error::not_found("there is no HOME for the store; name a folder with --root"))
    }

    /// Opens the store in `root`, which is made where it is missing.
    ///
    /// # Errors
    ///
    /// When the folder cannot be made, or holds a store of another version.
    pub fn open(root: &Path) -> Result<Self> {
        let told = || format!("making the store {}", root.display());
        let store = Self { root: std::path::absolute(root).told(told)? };
        for folder in ["images", "bundles", "blobs/sha256", "layers", "tmp"] {
            fs::create_dir_all(store.root.join(folder)).told(told)?;
        }
        // Unpacked layers have the image's set-id programs: nobody else gets to them.
        for folder in ["layers", "tmp"] {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
            fs::set_permissions(store.root.join(folder), mode).told(told)?;
        }
        let version = store.root.join("version");
        match fs::read_to_string(&version) {
            Ok(text) if text == VERSION => {}
            Ok(text) => {
                return Err(Error::refused(format!(
                    "the store {} is of version {:?}, this program's is {:?}",
                    root.display(),
                    text.trim(),
                    VERSION.trim()
                )));
            }
            Err(_) => store.write(&version, VERSION.as_bytes())?,
        }
        Ok(store)
    }

    /// Its folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Takes a lease; waits while somebody collects.
    ///
    /// # Errors
    ///
    /// When the lock's file cannot be opened.
    pub fn lease(&self) -> Result<Lease> {
        let (lock, told) = self.lock_file()?;
        flock(&lock, FlockOperation::LockShared).told(|| told)?;
        Ok(Lease { _lock: lock })
    }

    /// Takes the store for itself; `waiting` is called when others work in it, before their end is awaited.
    fn exclusive(&self, waiting: impl FnOnce()) -> Result<Lease> {
        let (lock, told) = self.lock_file()?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            waiting();
            flock(&lock, FlockOperation::LockExclusive).told(|| told)?;
        }
        Ok(Lease { _lock: lock })
    }

    /// The same, for as long as others work in it or until `patience` is over.
    fn exclusive_within(&self, patience: Duration) -> Result<Lease> {
        let (lock, told) = self.lock_file()?;
        let end = Instant::now() + patience;
        loop {
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::WOULDBLOCK) if Instant::now() < end => std::thread::sleep(Duration::from_millis(5)),
                Err(Errno::WOULDBLOCK) => {
                    return Err(Error::unavailable(format!("others work in the store {}", self.root.display())));
                }
                result => return result.told(|| told).map(|()| Lease { _lock: lock }),
            }
        }
    }

    fn lock_file(&self) -> Result<(File, String)> {
        let path = self.root.join("lock");
        let told = format!("locking {}", path.display());
        let file = File::options().create(true).truncate(false).write(true).open(&path).told(|| told.clone())?;
        Ok((file, told))
    }

    fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// Claims a layer, to unpack it; None while another thread or process has it.
    pub(crate) fn claim(&self, layer: &Layer) -> Result<Option<Claim>> {
        let path = self.claim_path(layer);
        Ok(try_open_alone(&path)?.map(|file| Claim { _file: file, path }))
    }

    /// Waits until nobody unpacks a layer. Who waits must not have claims of its own: two could wait for each other.
    pub(crate) fn unclaimed(&self, layer: &Layer, progress: &dyn Progress) -> Result<()> {
        let path = self.claim_path(layer);
        let file = open_alone(&path, progress)?;
        drop(Claim { _file: file, path });
        Ok(())
    }

    fn claim_path(&self, layer: &Layer) -> PathBuf {
        self.tmp().join(format!("layer-{}", layer.diff_id.hex()))
    }

    /// A temporary folder that others tell from a dead process's by its lock, and that goes when it is dropped.
    pub(crate) fn scratch(&self) -> Result<tempfile::TempDir> {
        tempfile::Builder::new()
            .prefix("scratch-")
            .tempdir_in(self.tmp())
            .told(|| format!("making a folder in {}", self.tmp().display()))
    }

    /// Writes a whole file, or none: others see the old content or the new, after a power cut as well.
    fn write(&self, path: &Path, content: &[u8]) -> Result<()> {
        let told = || format!("writing {}", path.display());
        self.put(path, content, File::sync_all).told(told)?;
        sync(path.parent().unwrap_or(&self.root))
    }

    /// The same, while a power cut does not matter.
    fn write_for_now(&self, path: &Path, content: &[u8]) -> Result<()> {
        self.put(path, content, |_| Ok(())).told(|| format!("writing {}", path.display()))
    }

    fn put(
        &self,
        path: &Path,
        content: &[u8],
        written: impl FnOnce(&File) -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(self.tmp())?;
        file.write_all(content)?;
        written(file.as_file())?;
        file.persist(path).map(drop).map_err(|error| error.error)
    }

    /// Loads an image whose manifest and config are here.
    ///
    /// # Errors
    ///
    /// When one of them is missing or damaged.
    pub fn image(&self, record: &ImageRecord) -> Result<Image> {
        let told = |error: Error| error.during(&record.name);
        let manifest = self.read_blob(&record.manifest, MANIFEST_LIMIT).map_err(told)?;
        let Document::Manifest(manifest) = Document::parse(&manifest, None).map_err(told)? else {
            return Err(Error::refused(format!("{}: {} is an index", record.name, record.manifest)));
        };
        let parts = Parts::of(&manifest).map_err(told)?;
        let config = self.read_blob(&parts.config.digest, CONFIG_LIMIT).map_err(told)?;
        Image::new(record.manifest.clone(), parts, &config).map_err(told)
    }
}

/// Opens or makes a file that nobody else has, once they are done with it and as long as the caller wants it.
fn open_alone(path: &Path, progress: &dyn Progress) -> Result<File> {
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(file) = try_open_alone(path)? {
            return Ok(file);
        }
        // flock cannot be ended from outside but by a signal, which a library has none of.
        go_on(progress)?;
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// The same at once; None while somebody has it.
fn try_open_alone(path: &Path) -> Result<Option<File>> {
    let told = || format!("locking {}", path.display());
    loop {
        let mut options = File::options();
        let file = options.read(true).write(true).create(true).truncate(false).open(path).told(told)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => return Ok(None),
            result => result.told(told)?,
        }
        // Whoever had the lock may have moved the file, or removed it.
        let ours = file.metadata().told(told)?;
        if fs::metadata(path).is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())) {
            return Ok(Some(file));
        }
    }
}

fn flock(file: impl AsFd, operation: FlockOperation) -> rustix::io::Result<()> {
    rustix::io::retry_on_intr(|| rustix::fs::flock(file.as_fd(), operation))
}

/// Writes a file's content, or a folder's names, to the disk.
pub(crate) fn sync(path: &Path) -> Result<()> {
    File::open(path).and_then(|file| file.sync_all()).told(|| format!("writing {} to the disk", path.display()))
}

fn to_json(value: &impl Serialize) -> Vec<u8> {
    let mut json = serde_json::to_vec_pretty(value).expect("the store's records are plain data");
    json.push(b'\n');
    json
}

/// Reads a record of the store; None for a missing one.
fn read_record<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let content = match fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        content => content.told(|| format!("reading {}", path.display()))?,
    };
    serde_json::from_slice(&content)
        .map(Some)
        .map_err(|error| Error::refused(format!("the store's record {} is damaged: {error}", path.display())))
}

#[cfg(test)]
mod tests;
