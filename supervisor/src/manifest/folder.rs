//! A folder of manifests.
//!
//! ```text
//!  file ─> stamp changed? ─> documents ─┬─ good: kept as the file's last good ones
//!                                       └─ bad: told, and the last good ones stay
//!  all last good documents ─> objects ─> the pods of each file ─> told if they are others than before
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::Context;
use super::documents::{Content, Document, PodDocument, read};
use super::objects::{Object, Objects};
use super::problem::Problem;
use crate::desired::{Key, Pod, Source};
use crate::scheduler::NodeDescription;

/// What a folder has to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// All pods that a file wants: those that it wanted before and that are not among them are to go. None at all if the
    /// file is gone. Their source is [`Source::Manifest`] of this path.
    Pods {
        /// The file.
        file: PathBuf,
        /// Its pods.
        pods: Vec<Pod>,
    },
    /// A file (or the folder) cannot be taken as it is. The pods that it wanted before stay as they are.
    Bad {
        /// The file, or the folder.
        file: PathBuf,
        /// Why.
        problems: Vec<Problem>,
    },
    /// Once, after the first look at a folder that could be read: these are all the files that there are. Pods of other files are
    /// to go: they were removed while nobody looked. (Pods of a bad file stay.)
    Files(BTreeSet<PathBuf>),
}

/// Gives the uid of the pod of this name and source in the store.
pub(super) type KnownUid<'a> = &'a dyn Fn(&Key, &Source) -> Option<String>;

/// A folder, and what was last seen in it.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    files: BTreeMap<PathBuf, File>,
    is_complete: bool,
    trouble: Option<String>,
}

/// What tells one content of a file from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp([i64; 6]);

#[derive(Debug, Default)]
struct File {
    stamp: Option<Stamp>,
    /// The last good ones; none before there were any.
    documents: Option<Vec<Document>>,
    /// Why the present content is not good.
    problems: Vec<Problem>,
    told: Option<Told>,
    /// The uids of pods that were told, until the store has them.
    uids: BTreeMap<Key, String>,
}

#[derive(Debug, PartialEq, Eq)]
enum Told {
    Pods(Vec<Pod>),
    Bad(Vec<Problem>),
}

impl Folder {
    /// Nothing is read before the first [`Folder::scan`].
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), files: BTreeMap::new(), is_complete: false, trouble: None }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Looks at the folder, and tells what is new since the last look. Files with these names are being written: they are left
    /// for another time. `known_uid` must say nothing of a pod whose removal is written down.
    pub fn scan(&mut self, node: &NodeDescription, known_uid: KnownUid<'_>, busy: &BTreeSet<PathBuf>) -> Vec<Change> {
        let found = match self.list() {
            Ok(found) => found,
            // Nothing is known, so nothing was removed.
            Err(error) => return self.in_trouble(&error),
        };
        self.trouble = None;
        for path in &found {
            if !busy.contains(path) {
                self.files.entry(path.clone()).or_default().look(path);
            }
        }
        let gone: Vec<PathBuf> = self.files.keys().filter(|path| !found.contains(*path)).cloned().collect();
        let mut changes = Vec::new();
        for path in gone {
            self.files.remove(&path);
            changes.push(Change::Pods { file: path, pods: Vec::new() });
        }
        self.resolve(node, known_uid, &mut changes);
        if !std::mem::replace(&mut self.is_complete, true) {
            changes.push(Change::Files(found));
        }
        changes
    }

    /// Manifests: `*.yaml`, `*.yml`, `*.json`, without hidden ones, which editors and copies make.
    fn list(&self) -> std::io::Result<BTreeSet<PathBuf>> {
        let mut found = BTreeSet::new();
        for entry in fs::read_dir(&self.path)? {
            let path = entry?.path();
            let is_hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
            let is_manifest =
                path.extension().and_then(|ext| ext.to_str()).is_some_and(|ext| matches!(ext, "yaml" | "yml" | "json"));
            if is_manifest && !is_hidden && !path.is_dir() {
                found.insert(path);
            }
        }
        Ok(found)
    }

    fn in_trouble(&mut self, error: &std::io::Error) -> Vec<Change> {
        let text = format!("the folder cannot be read: {error}");
        if self.trouble.replace(text.clone()).as_ref() == Some(&text) {
            return Vec::new();
        }
        vec![Change::Bad { file: self.path.clone(), problems: vec![Problem::of_all(text)] }]
    }

    fn resolve(&mut self, node: &NodeDescription, known_uid: KnownUid<'_>, changes: &mut Vec<Change>) {
        let (objects, mut problems) = self.objects();
        let owners = self.owners(known_uid);
        let paths: Vec<PathBuf> = self.files.keys().cloned().collect();
        for path in paths {
            let Some(file) = self.files.get_mut(&path) else { continue };
            let mut wrong = file.problems.clone();
            wrong.extend(problems.remove(&path).unwrap_or_default());
            let pods = if wrong.is_empty() { file.pods(&path, node, &objects, &owners, known_uid) } else { Err(wrong) };
            let told = match pods {
                Ok(pods) => Told::Pods(pods),
                Err(problems) => Told::Bad(problems),
            };
            if file.told.as_ref() == Some(&told) {
                continue;
            }
            changes.push(match &told {
                Told::Pods(pods) => Change::Pods { file: path, pods: pods.clone() },
                Told::Bad(problems) => Change::Bad { file: path, problems: problems.clone() },
            });
            file.told = Some(told);
        }
    }

    /// All objects, and problems of files whose objects another one has.
    fn objects(&self) -> (Objects, BTreeMap<PathBuf, Vec<Problem>>) {
        let (mut objects, mut problems) = (Objects::default(), BTreeMap::<PathBuf, Vec<Problem>>::new());
        let mut places: BTreeMap<(&str, &Key), &PathBuf> = BTreeMap::new();
        for (path, file) in &self.files {
            for object in file.objects() {
                if let Some(other) = places.insert((object.kind(), object.key()), path) {
                    let twice = Problem::of_all(format!(
                        "{} {} is in {} already",
                        object.kind(),
                        object.key(),
                        other.display()
                    ));
                    places.insert((object.kind(), object.key()), other);
                    problems.entry(path.clone()).or_default().push(twice);
                } else {
                    objects.set(object.clone());
                }
            }
        }
        (objects, problems)
    }

    /// Which file a pod's name belongs to, where several want it: the one whose pod is in the store, else the first by name.
    fn owners(&self, known_uid: KnownUid<'_>) -> BTreeMap<Key, PathBuf> {
        let mut owners: BTreeMap<Key, PathBuf> = BTreeMap::new();
        for (path, file) in &self.files {
            for (key, _) in file.pod_documents() {
                let is_known = |path: &PathBuf| known_uid(key, &Source::Manifest(path.clone())).is_some();
                match owners.get(key) {
                    Some(other) if is_known(other) || !is_known(path) => {}
                    _ => drop(owners.insert(key.clone(), path.clone())),
                }
            }
        }
        owners
    }
}

impl File {
    /// Reads it if it is another than last time.
    fn look(&mut self, path: &Path) {
        let (stamp, text) = match content(path, self.stamp) {
            Ok(Some(found)) => found,
            Ok(None) => return,
            Err(error) => {
                self.stamp = None;
                self.problems = vec![Problem::of_all(format!("cannot be read: {error}"))];
                return;
            }
        };
        self.stamp = Some(stamp);
        match read(&text) {
            Ok(documents) => {
                let refused = |document: &Document| match &document.content {
                    Content::Refused(problems) => problems.iter().map(|problem| named(document, problem)).collect(),
                    _ => Vec::new(),
                };
                self.problems = documents.iter().flat_map(refused).collect();
                if self.problems.is_empty() {
                    self.documents = Some(documents);
                }
            }
            Err(problem) => self.problems = vec![problem],
        }
    }

    fn objects(&self) -> impl Iterator<Item = &Object> {
        self.documents.iter().flatten().filter_map(|document| match &document.content {
            Content::Object(object) => Some(object),
            _ => None,
        })
    }

    fn pod_documents(&self) -> impl Iterator<Item = (&Key, &PodDocument)> {
        self.documents.iter().flatten().filter_map(|document| match &document.content {
            Content::Pod(pod) => Some((&document.key, pod)),
            _ => None,
        })
    }

    /// All pods of the file, or all that is wrong with any of them.
    fn pods(
        &mut self,
        path: &Path,
        node: &NodeDescription,
        objects: &Objects,
        owners: &BTreeMap<Key, PathBuf>,
        known_uid: KnownUid<'_>,
    ) -> Result<Vec<Pod>, Vec<Problem>> {
        let source = Source::Manifest(path.to_path_buf());
        let uid = |key: &Key| known_uid(key, &source).or_else(|| self.uids.get(key).cloned());
        let context = Context { source: &source, node, objects, known_uid: &uid };
        let (mut pods, mut problems) = (Vec::<Pod>::new(), Vec::new());
        for document in self.documents.iter().flatten() {
            let Content::Pod(pod) = &document.content else { continue };
            if let Some(owner) = owners.get(&document.key).filter(|owner| *owner != path) {
                let taken = Problem::of_all(format!("pod {} is in {} already", document.key, owner.display()));
                problems.push(taken);
                continue;
            }
            match pod.resolve(&context) {
                Ok(pod) if pods.iter().any(|other| other.key == pod.key) => {
                    problems.push(Problem::of_all(format!("pod {} is there twice", pod.key)));
                }
                Ok(pod) => pods.push(pod),
                Err(wrong) => problems.extend(wrong.iter().map(|problem| named(document, problem))),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        self.uids = pods.iter().map(|pod| (pod.key.clone(), pod.uid.clone())).collect();
        Ok(pods)
    }
}

/// A file has several documents: which one it is.
fn named(document: &Document, problem: &Problem) -> Problem {
    let kind = if document.kind.is_empty() { "document" } else { &document.kind };
    let reason = format!("{} ({kind} {})", problem.reason, document.key);
    Problem { path: problem.path.clone(), reason }
}

/// A file's content, unless it is the one of this stamp.
fn content(path: &Path, known: Option<Stamp>) -> std::io::Result<Option<(Stamp, Vec<u8>)>> {
    let status = fs::metadata(path)?;
    if !status.is_file() {
        return Err(std::io::Error::other("it is no regular file"));
    }
    if known == Some(stamp(&status)) {
        return Ok(None);
    }
    let file = fs::File::open(path)?;
    // Of the file that was opened: the name may lead to another one meanwhile, which the next look then finds.
    let stamp = stamp(&file.metadata()?);
    let mut text = Vec::new();
    file.take(MOST_BYTES).read_to_end(&mut text)?;
    Ok(Some((stamp, text)))
}

/// One more than a manifest may have.
const MOST_BYTES: u64 = (10 << 20) + 1;

fn stamp(status: &fs::Metadata) -> Stamp {
    Stamp([
        status.dev() as i64,
        status.ino() as i64,
        status.size() as i64,
        status.mtime().wrapping_mul(1_000_000_000).wrapping_add(status.mtime_nsec()),
        status.ctime().wrapping_mul(1_000_000_000).wrapping_add(status.ctime_nsec()),
        i64::from(status.mode()),
    ])
}

#[cfg(test)]
mod tests;
