//! Volumes of a pod.

use std::path::PathBuf;

use super::context::From;
use super::downward::Myself;
use super::fields::{
    CLAIM_VOLUME, CONFIG_MAP_PROJECTION, CONFIG_MAP_VOLUME, DOWNWARD_FILE, DOWNWARD_PROJECTION, DOWNWARD_VOLUME,
    EMPTY_DIR, HOST_PATH, KEY_TO_PATH, PROJECTED_VOLUME, PROJECTION, SECRET_PROJECTION, SECRET_VOLUME, VOLUME,
};
use super::names::{check_label, check_subdomain};
use super::quantity::Quantity;
use super::reading::{At, Fields, shortened};
use crate::desired::{Item, PathKind, Volume, VolumeSource};

/// A volume, and whether it is read-only wherever it is mounted.
pub(super) struct Declared {
    pub(super) volume: Volume,
    pub(super) read_only: bool,
}

const DEFAULT_MODE: u32 = 0o644;
const KINDS: &str = "configMap, downwardAPI, emptyDir, hostPath, persistentVolumeClaim, projected and secret";

/// All of a pod.
pub(super) fn read(spec: &Fields<'_>, myself: &Myself<'_>) -> Vec<Declared> {
    let mut found: Vec<Declared> = Vec::new();
    for fields in spec.each("volumes", &VOLUME) {
        let Some(name) = fields.needed("name") else { continue };
        check_label(&fields.at.below("name"), name);
        if found.iter().any(|other| other.volume.name == name) {
            fields.refuse("name", "is another volume's already");
        }
        // One that is refused has its place all the same, so that its mounts are not told to be wrong, too.
        let (source, read_only) =
            source(&fields, myself).unwrap_or((VolumeSource::EmptyDir { size_limit: None }, false));
        found.push(Declared { volume: Volume { name: name.to_owned(), source }, read_only });
    }
    found
}

fn source(fields: &Fields<'_>, myself: &Myself<'_>) -> Option<(VolumeSource, bool)> {
    let mut found: Vec<Option<(VolumeSource, bool)>> = [
        fields.fields("emptyDir", &EMPTY_DIR).map(|inner| Some((empty_dir(&inner), false))),
        fields.fields("hostPath", &HOST_PATH).map(|inner| host_path(&inner).map(|source| (source, false))),
        fields.fields("persistentVolumeClaim", &CLAIM_VOLUME).map(|inner| claim(&inner, myself)),
        fields.fields("configMap", &CONFIG_MAP_VOLUME).map(|inner| {
            let files = files(&inner, From::ConfigMap, "name", default_mode(&inner), myself);
            Some((VolumeSource::Files(files), true))
        }),
        fields.fields("secret", &SECRET_VOLUME).map(|inner| {
            let files = files(&inner, From::Secret, "secretName", default_mode(&inner), myself);
            Some((VolumeSource::Secret(files), true))
        }),
        fields.fields("downwardAPI", &DOWNWARD_VOLUME).map(|inner| {
            let files = downward_files(&inner, default_mode(&inner), myself);
            Some((VolumeSource::Files(without_twins(&inner.at, files)), true))
        }),
        fields.fields("projected", &PROJECTED_VOLUME).map(|inner| Some((projected(&inner, myself), true))),
    ]
    .into_iter()
    .flatten()
    .collect();
    if found.len() > 1 || found.is_empty() && !fields.is_refused() {
        fields.at.refuse(format!("needs one of {KINDS}"));
    }
    found.pop().flatten()
}

fn empty_dir(fields: &Fields<'_>) -> VolumeSource {
    let in_memory = fields.word("medium", &[("Memory", true)]).unwrap_or(false);
    let limit = fields.get("sizeLimit").and_then(|(at, value)| Quantity::read(&at, value));
    // As in Kubernetes, a limit of 0 is none.
    let size_limit = limit.filter(|limit| !limit.is_zero()).map(Quantity::whole);
    if in_memory { VolumeSource::Memory { size_limit } } else { VolumeSource::EmptyDir { size_limit } }
}

fn host_path(fields: &Fields<'_>) -> Option<VolumeSource> {
    let path = fields.needed("path")?;
    if !path.starts_with('/') || path.split('/').any(|part| part == "..") {
        fields.refuse("path", "must be absolute, without ..");
    }
    let kinds = [
        ("DirectoryOrCreate", (true, false, Some(PathKind::Folder))),
        ("Directory", (false, false, Some(PathKind::Folder))),
        ("FileOrCreate", (false, true, Some(PathKind::File))),
        ("File", (false, false, Some(PathKind::File))),
        ("Socket", (false, false, Some(PathKind::Socket))),
        ("CharDevice", (false, false, Some(PathKind::CharDevice))),
        ("BlockDevice", (false, false, Some(PathKind::BlockDevice))),
    ];
    let (make_folder, make_file, kind) = fields.word("type", &kinds).unwrap_or((false, false, None));
    Some(VolumeSource::HostPath { path: PathBuf::from(path), make_folder, make_file, kind })
}

fn claim(fields: &Fields<'_>, myself: &Myself<'_>) -> Option<(VolumeSource, bool)> {
    let name = fields.needed("claimName")?;
    check_subdomain(&fields.at.below("claimName"), name);
    let namespace = &myself.metadata.namespace;
    // No name of Kubernetes has an underscore, so two namespaces cannot mean the same volume.
    let name = if namespace == "default" { name.to_owned() } else { format!("{namespace}_{name}") };
    Some((VolumeSource::Named(name), fields.boolean("readOnly").unwrap_or(false)))
}

fn default_mode(fields: &Fields<'_>) -> u32 {
    fields.integer("defaultMode", 0, 0o777).map_or(DEFAULT_MODE, |mode| mode as u32)
}

fn file(path: &str, content: Vec<u8>, mode: u32) -> Item {
    Item { path: path.to_owned(), content, mode, uid: 0, gid: 0 }
}

fn check_path(at: &At<'_>, path: &str) {
    if path.starts_with('/') || path.starts_with("..") || path.split('/').any(|part| matches!(part, ".." | "." | "")) {
        at.refuse("must be relative, without empty parts, . and .., and must not begin with ..");
    }
}

/// The keys of a ConfigMap or Secret as files: all, or those of `items`.
fn files(fields: &Fields<'_>, from: From, name: &str, default: u32, myself: &Myself<'_>) -> Vec<Item> {
    let optional = fields.boolean("optional").unwrap_or(false);
    let items = fields.each("items", &KEY_TO_PATH);
    let Some(name) = fields.needed(name).map(str::to_owned) else { return Vec::new() };
    let data = myself.context.data(from, &myself.metadata.namespace, &name, optional, &fields.at);
    if items.is_empty() {
        let entries = data.into_iter().flat_map(|data| &data.entries);
        return entries.map(|(key, content)| file(key, content.clone(), default)).collect();
    }
    let mut found = Vec::new();
    for item in items {
        let (Some(key), Some(path)) = (item.needed("key"), item.needed("path")) else { continue };
        check_path(&item.at.below("path"), path);
        let mode = item.integer("mode", 0, 0o777).map_or(default, |mode| mode as u32);
        match data.and_then(|data| data.entries.get(key)) {
            Some(content) => found.push(file(path, content.clone(), mode)),
            None if optional || data.is_none() => {}
            None => item.refuse("key", format!("{name} has no key {:?}", shortened(key))),
        }
    }
    without_twins(&fields.at, found)
}

fn downward_files(fields: &Fields<'_>, default: u32, myself: &Myself<'_>) -> Vec<Item> {
    let mut found = Vec::new();
    for item in fields.each("items", &DOWNWARD_FILE) {
        let Some(path) = item.needed("path") else { continue };
        check_path(&item.at.below("path"), path);
        let mode = item.integer("mode", 0, 0o777).map_or(default, |mode| mode as u32);
        let Some(text) = myself.of_file(&item) else { continue };
        found.push(file(path, text.into_bytes(), mode));
    }
    found
}

fn projected(fields: &Fields<'_>, myself: &Myself<'_>) -> VolumeSource {
    let default = default_mode(fields);
    let (mut found, mut has_secret) = (Vec::new(), false);
    for source in fields.each("sources", &PROJECTION) {
        if let Some(inner) = source.fields("configMap", &CONFIG_MAP_PROJECTION) {
            found.extend(files(&inner, From::ConfigMap, "name", default, myself));
        }
        if let Some(inner) = source.fields("secret", &SECRET_PROJECTION) {
            has_secret = true;
            found.extend(files(&inner, From::Secret, "name", default, myself));
        }
        if let Some(inner) = source.fields("downwardAPI", &DOWNWARD_PROJECTION) {
            found.extend(downward_files(&inner, default, myself));
        }
    }
    let found = without_twins(&fields.at, found);
    if has_secret { VolumeSource::Secret(found) } else { VolumeSource::Files(found) }
}

/// Two files at one path, or a file where another has its folder, cannot both be.
fn without_twins(at: &At<'_>, files: Vec<Item>) -> Vec<Item> {
    for (index, one) in files.iter().enumerate() {
        let is_in = |inner: &str, outer: &str| {
            inner == outer || inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('/'))
        };
        if files[..index].iter().any(|other| is_in(&one.path, &other.path) || is_in(&other.path, &one.path)) {
            at.refuse(format!("{:?} is there twice, or is a file and a folder", shortened(&one.path)));
        }
    }
    files
}
