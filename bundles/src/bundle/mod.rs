//! Bundles: a folder with config.json and a root filesystem, made of an image.
//!
//! ```text
//!  DIR/config.json          of the image's config and the caller's wishes
//!      rootfs/              an overlay on the store's layers, mounted here   | or a copy of their content
//!      upper/ work/         what the container writes                        |
//!      flint-bundle.json    what it was made of
//! ```
//!
//! The overlay is an ordinary mount of the host: any runtime takes the bundle as it is. After a restart of the host it is
//! gone; `create` on the same folder mounts it again, with what the container had written. Where overlayfs is missing, or
//! to a user without privileges, the root filesystem is a copy.

mod overlay;

use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use serde_json::Value;

use crate::config::{self, Wishes};
use crate::error::{Error, Result, Told};
use crate::fetch::{self, Fetch};
use crate::image::Image;
use crate::progress::{Progress, Silent};
use crate::rootfs;
use crate::store::{BundleRecord, ImageRecord, LayerPlace, Store, imitate_root, sync};
use crate::unpack::{Form, Options, Ownership, unpack};

const RECORD: &str = "flint-bundle.json";
const CONFIG: &str = "config.json";
const ROOTFS: &str = "rootfs";
const UPPER: &str = "upper";
const WORK: &str = "work";

/// How the root filesystem is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RootfsForm {
    /// An overlay where the host and the caller's rights allow it, else a copy.
    Any,
    /// An overlay, or an error.
    Overlay,
    /// A copy.
    Copy,
}

/// Changes a config before it is written.
pub type Edit<'a> = dyn Fn(&mut Value) -> Result<()> + Sync + 'a;

/// How a bundle is made.
#[derive(Clone, Copy)]
pub struct Making<'a> {
    /// What the caller wants otherwise than the image.
    pub wishes: &'a Wishes,
    /// How the root filesystem is made.
    pub form: RootfsForm,
    /// How layers are unpacked that are not yet.
    pub fetch: Fetch,
    /// Told about it, and asked whether to go on.
    pub progress: &'a dyn Progress,
    /// Whether the bundle is to outlive a restart of the host: then all of it is on the disk when `create` returns, which
    /// costs the time of one or two writes to the disk. A bundle that need not is as safe from the death of processes and from the
    /// collection; after a restart it can only be removed.
    pub lasting: bool,
    /// Changes the config.json, as a caller wants it who knows more than [`Wishes`] can say.
    pub edit: Option<&'a Edit<'a>>,
}

impl<'a> Making<'a> {
    /// An overlay or a copy that lasts, without progress.
    #[must_use]
    pub fn new(wishes: &'a Wishes) -> Self {
        let fetch = Fetch::default();
        Self { wishes, form: RootfsForm::Any, fetch, progress: &Silent, lasting: true, edit: None }
    }
}

/// What was made.
#[derive(Debug, Clone)]
pub struct Created {
    /// The bundle's folder.
    pub folder: PathBuf,
    /// Whether the root filesystem is an overlay.
    pub overlay: bool,
    /// Whether the bundle was there and only its overlay was mounted again.
    pub mounted_again: bool,
    /// Devices that were left out of a copy, since only root may make them.
    pub devices_left_out: u64,
    /// Whom the image or the caller names, in a bundle of a user without privileges: there root runs the program.
    pub user_left_out: Option<String>,
    /// config.json as it was written; None when the overlay alone was mounted.
    pub config: Option<Value>,
}

/// Whether a folder holds a bundle that this program made.
pub(crate) fn is_bundle(folder: &Path) -> bool {
    folder.join(RECORD).is_file()
}

/// Whether there is no such bundle any more. One that cannot be looked at (a disk with errors, a server that is away) is there.
pub(crate) fn is_gone(folder: &Path) -> bool {
    match fs::symlink_metadata(folder.join(RECORD)) {
        Ok(status) => !status.is_file(),
        Err(error) => matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory),
    }
}

/// Makes a bundle of an image that is in the store, in `folder`, which must be missing, empty, or a bundle of the same
/// image whose overlay is not mounted. Any number of threads may make bundles at once.
///
/// # Errors
///
/// When the folder has something else in it, the image's user does not exist in it, or a system call fails. Nothing is
/// left then.
pub fn create(store: &Store, record: &ImageRecord, folder: &Path, making: &Making<'_>) -> Result<Created> {
    let _lease = store.lease()?;
    store.used(record);
    let folder = std::path::absolute(folder).told(|| format!("the folder {}", folder.display()))?;
    if is_bundle(&folder) {
        return mount_again(store, record, &folder);
    }
    let made = make_folder(&folder)?;
    let result = fill(store, record, &folder, making);
    result.map_err(|error| {
        let undone = undo(store, &folder).and_then(|()| {
            if made { fs::remove_dir(&folder).told(|| format!("removing {}", folder.display())) } else { Ok(()) }
        });
        let error = error.during(&format!("making the bundle {}", folder.display()));
        match undone {
            Ok(()) => error,
            Err(another) => error.and(&another),
        }
    })
}

fn make_folder(folder: &Path) -> Result<bool> {
    let told = || format!("making the bundle's folder {}", folder.display());
    match fs::create_dir(folder) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            if fs::read_dir(folder).told(told)?.next().is_some() {
                return Err(Error::refused(format!(
                    "the folder {} is not empty; name one that is, or that does not exist",
                    folder.display()
                )));
            }
            Ok(false)
        }
        Err(error) => Err(error).told(told),
    }
}

fn fill(store: &Store, record: &ImageRecord, folder: &Path, making: &Making<'_>) -> Result<Created> {
    let Making { wishes, form, fetch, progress, .. } = *making;
    let image = store.image(record)?;
    let is_root = rustix::process::geteuid().is_root();
    if form == RootfsForm::Overlay && !is_root {
        return Err(Error::refused("an overlay takes root; without --rootfs overlay the root filesystem is a copy"));
    }
    // The image's set-id programs and devices are for nobody else on this host, however open the folder was (as CVE-2021-41103).
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).told(|| "its folder".to_owned())?;
    let rootfs = folder.join(ROOTFS);
    fs::create_dir(&rootfs).told(|| format!("making {}", rootfs.display()))?;
    let mut overlay = None;
    if is_root && form != RootfsForm::Copy {
        let stack = if let Some(stack) = store.whole_stack(&image)? {
            stack
        } else {
            fetch::unpack_layers(store, &image, &fetch, progress)?;
            store.stack(&image)?
        };
        let is_new = make_writable(folder)?;
        let keeping = note(store, record, folder, &stack, making.lasting)?;
        match stack_up(folder, &stack, is_new) {
            Ok(()) => overlay = Some(keeping),
            Err(error) if form == RootfsForm::Overlay || !overlay::is_missing(&error) => return Err(error.into_error()),
            Err(_) => unmade(folder)?,
        }
    }
    let mut devices_left_out = 0;
    let is_overlay = overlay.is_some();
    let keeping = if let Some(keeping) = overlay {
        keeping
    } else {
        let ownership = if is_root { Ownership::Kept } else { Ownership::Mine };
        let keeping = note(store, record, folder, &[], making.lasting)?;
        devices_left_out = copy(store, &image, &rootfs, ownership, &fetch)?;
        keeping
    };
    let config::Generated { mut config, user_left_out } = config::generate(&image, &record.name, &rootfs, wishes)?;
    if let Some(edit) = making.edit {
        edit(&mut config)?;
    }
    write(folder, CONFIG, &config)?;
    if let Some(keeping) = keeping {
        if !is_overlay {
            // The copy's files, of which there are too many to sync each.
            let told = || format!("writing {} to the disk", folder.display());
            fs::File::open(folder).and_then(|folder| Ok(rustix::fs::syncfs(folder)?)).told(told)?;
        }
        sync(&folder.join(CONFIG))?;
        keeping.finish()?;
    }
    let (folder, config) = (folder.to_owned(), Some(config));
    Ok(Created { folder, overlay: is_overlay, mounted_again: false, devices_left_out, user_left_out, config })
}

/// A bundle's record and the names of its files on their way to the disk, beside the making of the rest: nothing else waits for
/// them, and syncs of several threads wait for one commit of the file system's journal together.
struct Keeping(Vec<JoinHandle<Result<()>>>);

impl Keeping {
    fn begin(store: &Store, folder: &Path) -> Result<Self> {
        let mut keeping = Self(Vec::new());
        let (store, of_store) = (store.clone(), folder.to_owned());
        keeping.add(move || store.keep_bundle(&of_store))?;
        let folder = folder.to_owned();
        keeping.add(move || {
            sync(&folder)?;
            // The folder's own name.
            sync(folder.parent().unwrap_or(&folder))
        })?;
        Ok(keeping)
    }

    fn add(&mut self, keep: impl FnOnce() -> Result<()> + Send + 'static) -> Result<()> {
        let thread = std::thread::Builder::new().name("keep".to_owned()).spawn(keep);
        self.0.push(thread.told(|| "starting a thread".to_owned())?);
        Ok(())
    }

    fn finish(mut self) -> Result<()> {
        // All of them are waited for, whatever the first says.
        let ended: Vec<_> = self.0.drain(..).map(|thread| thread.join().expect("it does not panic")).collect();
        ended.into_iter().collect()
    }
}

impl Drop for Keeping {
    /// What is undone after a failure must not come back.
    fn drop(&mut self) {
        for thread in self.0.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Writes JSON to a file of the bundle.
fn write(folder: &Path, name: &str, value: &impl serde::Serialize) -> Result<()> {
    let path = folder.join(name);
    let told = || format!("writing {}", path.display());
    let mut json = serde_json::to_vec_pretty(value).map_err(|error| Error::refused(format!("{}: {error}", told())))?;
    json.push(b'\n');
    fs::write(&path, json).told(told)
}

/// Writes down what the bundle is, in it and in the store: before anything is mounted. What its own file says is for people; that
/// it is there counts.
fn note(
    store: &Store,
    record: &ImageRecord,
    folder: &Path,
    stack: &[LayerPlace],
    lasting: bool,
) -> Result<Option<Keeping>> {
    let record = BundleRecord {
        folder: folder.to_owned(),
        image: record.name.clone(),
        manifest: record.manifest.clone(),
        layers: stack.iter().map(|place| place.key.clone()).collect(),
    };
    write(folder, RECORD, &record)?;
    // The last name that the folder gets, so that all of them can go to the disk by now.
    fs::write(folder.join(CONFIG), "").told(|| "making its config.json".to_owned())?;
    store.note_bundle(&record)?;
    lasting.then(|| Keeping::begin(store, folder)).transpose()
}

/// Makes the folders that an overlay writes to where they are missing; whether nothing has been written by it.
fn make_writable(folder: &Path) -> Result<bool> {
    let make = |name: &str| match fs::create_dir(folder.join(name)) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        made => made.map(|()| true).told(|| format!("making {}", folder.join(name).display())),
    };
    let is_new = make(UPPER)?;
    make(WORK)?;
    Ok(is_new)
}

/// Mounts the overlay over the folders of [`make_writable`].
fn stack_up(folder: &Path, stack: &[LayerPlace], is_new: bool) -> std::result::Result<(), overlay::Failure> {
    let upper = folder.join(UPPER);
    if is_new {
        fs::set_permissions(&upper, fs::Permissions::from_mode(0o755)).told(|| "its upper folder".to_owned())?;
        imitate_root(&upper, stack)?;
    }
    let lower: Vec<&Path> = stack.iter().map(|place| place.folder.as_path()).collect();
    overlay::mount(&lower, &upper, &folder.join(WORK), &folder.join(ROOTFS))
}

/// Takes away what an overlay would have needed.
fn unmade(folder: &Path) -> Result<()> {
    let told = || format!("removing what is in {}", folder.display());
    let opened = fs::File::open(folder).told(told)?;
    for name in [UPPER, WORK] {
        rootfs::remove(&opened, name.as_ref())?;
    }
    Ok(())
}

/// Whether a bundle was made to its end: its config.json is written last. A kill leaves a part of it at most, and a power cut
/// perhaps nothing in it.
fn is_finished(folder: &Path) -> bool {
    let config = fs::read(folder.join(CONFIG)).unwrap_or_default();
    serde_json::from_slice::<serde::de::IgnoredAny>(&config).is_ok()
}

fn mount_again(store: &Store, record: &ImageRecord, folder: &Path) -> Result<Created> {
    let told = |why: &str| Error::refused(format!("there is a bundle in {} already: {why}", folder.display()));
    let Some(noted) = store.bundle(folder)? else {
        return Err(told("another store's, or one that was to last until the host's restart; remove it"));
    };
    if noted.manifest != record.manifest {
        return Err(told(&format!("of {}, {}", noted.image, noted.manifest)));
    }
    if noted.layers.is_empty() {
        return Err(told("its root filesystem is a copy and needs nothing"));
    }
    if !is_finished(folder) {
        return Err(told("whoever made it ended before it was whole; remove it"));
    }
    if overlay::is_mounted(&folder.join(ROOTFS))? {
        return Err(told("its root filesystem is mounted"));
    }
    let is_new = make_writable(folder)?;
    stack_up(folder, &store.noted_stack(&noted.layers)?, is_new).map_err(overlay::Failure::into_error)?;
    Ok(Created {
        folder: folder.to_owned(),
        overlay: true,
        mounted_again: true,
        devices_left_out: 0,
        user_left_out: None,
        config: None,
    })
}

/// Unpacks an image's layers over each other into the existing, empty folder `target`; how many devices were left out.
///
/// # Errors
///
/// When a layer is missing or damaged. Nothing is left in the folder then.
pub fn copy(store: &Store, image: &Image, target: &Path, ownership: Ownership, fetch: &Fetch) -> Result<u64> {
    stack_in(store, image, target, ownership, fetch).map_err(|error| {
        let emptied = fs::File::open(target).told(|| format!("opening {}", target.display())).and_then(|folder| {
            let mut names = rootfs::names(&folder)?.into_iter();
            names.try_for_each(|name| rootfs::remove(&folder, OsStr::from_bytes(&name)))
        });
        match emptied {
            Ok(()) => error,
            Err(another) => error.and(&another),
        }
    })
}

fn stack_in(store: &Store, image: &Image, target: &Path, ownership: Ownership, fetch: &Fetch) -> Result<u64> {
    let options = Options { form: Form::Merged, ownership, limits: fetch.limits };
    let mut left_out = 0;
    for layer in &image.layers {
        let unpacked = unpack(store.open_blob(&layer.blob.digest)?, target, &options)
            .map_err(|error| error.during(&format!("the layer {}", layer.blob.digest)))?;
        if unpacked.diff_id != layer.diff_id {
            return Err(Error::refused(format!("the layer {} is damaged; pull the image again", layer.blob.digest)));
        }
        left_out += unpacked.devices_left_out;
    }
    Ok(left_out)
}

/// Takes a bundle away: unmounts its root filesystem, and removes its folder with all that the container wrote.
///
/// # Errors
///
/// When it is no bundle of this store, or a container still runs from it.
pub fn remove(store: &Store, folder: &Path) -> Result<()> {
    let _lease = store.lease()?;
    let folder = std::path::absolute(folder).told(|| format!("the folder {}", folder.display()))?;
    if !is_bundle(&folder) {
        return Err(Error::not_found(format!("there is no bundle of flint-bundle in {}", folder.display())));
    }
    let result = undo(store, &folder);
    let result = result.map_err(|error| error.during(&format!("removing the bundle {}", folder.display())));
    match result {
        // Its maker may have put files of its own beside.
        Ok(()) => match fs::remove_dir(&folder) {
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => Ok(()),
            result => result.told(|| format!("removing {}", folder.display())),
        },
        error => error,
    }
}

fn undo(store: &Store, folder: &Path) -> Result<()> {
    overlay::unmount(&folder.join(ROOTFS))?;
    let opened = fs::File::open(folder).told(|| format!("opening {}", folder.display()))?;
    // Its record goes last: what is interrupted here can be removed again.
    for name in [CONFIG, ROOTFS, UPPER, WORK, RECORD] {
        rootfs::remove(&opened, name.as_ref())?;
    }
    store.forget_bundle(folder)
}
