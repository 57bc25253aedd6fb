//! Blobs: written once, verified on the way in, continued after a cut.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::{Store, open_alone, sync};
use crate::digest::Digest;
use crate::error::{Error, Result, Told, invalid};
use crate::image::Blob;
use crate::progress::{Event, Progress, go_on};
use crate::source::Source;

/// How many bytes come between two events.
const STEP: u64 = 1 << 20;

/// Whether a blob has to be taken.
pub(crate) enum Taken<'a> {
    /// It is here.
    Here,
    /// It comes by this reader.
    Arriving(Box<Arriving<'a>>),
}

impl Store {
    /// Where a blob is, or would be.
    #[must_use]
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    /// Whether a blob is here. What is here is whole.
    #[must_use]
    pub fn has_blob(&self, digest: &Digest) -> bool {
        self.blob_path(digest).is_file()
    }

    /// Opens a blob that is here.
    ///
    /// # Errors
    ///
    /// When it is not.
    pub fn open_blob(&self, digest: &Digest) -> Result<File> {
        File::open(self.blob_path(digest)).told(|| format!("opening the blob {digest}"))
    }

    /// Reads a small blob, and checks that it is what it was.
    ///
    /// # Errors
    ///
    /// When it is missing, larger than `limit` bytes, or damaged.
    pub fn read_blob(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
        // As large as most manifests and configs are: one read.
        let mut content = Vec::with_capacity(16 << 10);
        let told = || format!("reading the blob {digest}");
        self.open_blob(digest)?.take(limit + 1).read_to_end(&mut content).told(told)?;
        if content.len() as u64 > limit || Digest::of(&content) != *digest {
            let path = self.blob_path(digest);
            return Err(Error::refused(format!("the blob {} is damaged; remove it and pull again", path.display())));
        }
        Ok(content)
    }

    /// Puts a small blob into the store.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn put_blob(&self, content: &[u8]) -> Result<Digest> {
        let digest = Digest::of(content);
        if !self.has_blob(&digest) {
            self.write(&self.blob_path(&digest), content)?;
        }
        Ok(digest)
    }

    /// Begins to take a blob. While another thread or process takes the same one, this waits for it.
    pub(crate) fn take_blob<'a>(
        &self,
        blob: &Blob,
        source: &'a dyn Source,
        progress: &'a dyn Progress,
    ) -> Result<Taken<'a>> {
        let path = self.tmp().join(format!("blob-{}", blob.digest.hex()));
        let told = || format!("making {}", path.display());
        if self.has_blob(&blob.digest) {
            return Ok(Taken::Here);
        }
        let file = open_alone(&path, progress)?;
        // Whoever had the file meanwhile may have put it into its place.
        if self.has_blob(&blob.digest) {
            fs::remove_file(&path).told(told)?;
            return Ok(Taken::Here);
        }
        let mut replay = file.metadata().told(told)?.len();
        if replay > blob.size {
            file.set_len(0).told(told)?;
            replay = 0;
        }
        Ok(Taken::Arriving(Box::new(Arriving {
            store: self.clone(),
            blob: blob.clone(),
            path,
            file,
            replay,
            replayed: replay > 0,
            position: 0,
            hasher: Sha256::new(),
            source,
            progress,
            told: 0,
            body: None,
            failure: None,
        })))
    }
}

/// A blob on its way in: what an earlier try left, then what the source sends. All of it is written and hashed.
pub(crate) struct Arriving<'a> {
    store: Store,
    blob: Blob,
    path: PathBuf,
    file: File,
    /// Bytes that the file had at the start.
    replay: u64,
    replayed: bool,
    position: u64,
    hasher: Sha256,
    source: &'a dyn Source,
    progress: &'a dyn Progress,
    /// The position that was told last.
    told: u64,
    body: Option<Box<dyn Read + Send + 'a>>,
    /// Why a read failed, in full: through `Read` goes only that it did.
    failure: Option<Error>,
}

impl Arriving<'_> {
    /// Bytes that have come until now.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Why reading failed, if it did: what read from here told only that it failed.
    pub(crate) fn failure(&mut self) -> Option<Error> {
        self.failure.take()
    }

    /// Whether this was continued: then what was there may have been wrong, and a new start may help.
    pub(crate) fn was_continued(&self) -> bool {
        self.replayed
    }

    /// Throws away what has come, after wrong content.
    pub(crate) fn discard(&self) {
        let _ = fs::remove_file(&self.path);
    }

    /// Reads what is left, verifies the whole and puts it into its place.
    ///
    /// # Errors
    ///
    /// When the content is not the digest's; it is thrown away then.
    pub(crate) fn finish(mut self) -> Result<()> {
        if let Err(error) = io::copy(&mut self, &mut io::sink()) {
            return Err(self.failure().unwrap_or_else(|| {
                let told: Result<()> = Err(error).told(|| format!("taking the blob {}", self.blob.digest));
                told.expect_err("it is an error")
            }));
        }
        let told = || format!("writing the blob {}", self.blob.digest);
        let digest = Digest::of_hash(self.hasher.clone());
        if digest != self.blob.digest {
            self.discard();
            return Err(Error::refused(format!(
                "the blob {} came with other content: its digest is {digest}",
                self.blob.digest
            )));
        }
        self.file.set_permissions(fs::Permissions::from_mode(0o644)).told(told)?;
        self.file.sync_data().told(told)?;
        let place = self.store.blob_path(&self.blob.digest);
        fs::rename(&self.path, &place).told(told)?;
        sync(place.parent().unwrap_or(Path::new("/")))
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize> {
        go_on(self.progress)?;
        let told = || format!("reading what {} holds already", self.path.display());
        if self.position < self.replay {
            if self.position == 0 {
                self.file.seek(SeekFrom::Start(0)).told(told)?;
            }
            let left = usize::try_from(self.replay - self.position).unwrap_or(usize::MAX).min(buffer.len());
            let count = self.file.read(buffer.get_mut(..left).unwrap_or_default()).told(told)?;
            if count == 0 {
                return Err(Error::refused(format!("{} became shorter while it was read", self.path.display())));
            }
            return Ok(count);
        }
        if self.position == self.blob.size {
            return Ok(0);
        }
        if self.body.is_none() {
            self.file.seek(SeekFrom::Start(self.position)).told(told)?;
            self.body = Some(self.source.open(&self.blob, self.position)?);
        }
        let left = usize::try_from(self.blob.size - self.position).unwrap_or(usize::MAX).min(buffer.len());
        let Some(body) = &mut self.body else { return Ok(0) };
        let part = buffer.get_mut(..left).unwrap_or_default();
        let count = body.read(part).map_err(|error| Error::of_source(&self.blob.digest, &error))?;
        if count == 0 {
            return Err(Error::refused(format!(
                "the blob {} ended after {} of {} bytes",
                self.blob.digest, self.position, self.blob.size
            )));
        }
        let told = || format!("writing {}", self.path.display());
        self.file.write_all(part.get(..count).unwrap_or_default()).told(told)?;
        Ok(count)
    }
}

impl Read for Arriving<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.fill(buffer) {
            Ok(count) => {
                self.hasher.update(buffer.get(..count).unwrap_or_default());
                self.position += count as u64;
                if self.position - self.told >= STEP {
                    self.told = self.position;
                    self.progress.tell(Event::LayerComes { digest: &self.blob.digest, bytes: self.position });
                }
                Ok(count)
            }
            Err(error) => {
                let message = error.to_string();
                self.failure = Some(error);
                Err(invalid(message))
            }
        }
    }
}
