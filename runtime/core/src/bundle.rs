//! A bundle: a folder with config.json (runtime-spec, "Filesystem Bundle").

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Arch, Capability, Process, Spec};
use serde_json::Value;

use crate::spelling::{Misread, read_in_any_letters, respell_process};
use crate::unique_keys::read_json;
use crate::{Error, Kind, Result};

const CONFIG: &str = "config.json";
/// Largest config.json that is read, in bytes. Docker's, with its seccomp profile, has 30 KB.
const LARGEST: u64 = 16 << 20;

/// A bundle whose config.json was read and understood.
#[derive(Clone, Debug)]
pub struct Bundle {
    path: PathBuf,
    spec: Spec,
    json: Vec<u8>,
    warnings: Vec<String>,
}

impl Bundle {
    /// Reads a bundle.
    ///
    /// # Errors
    ///
    /// `NotFound` without folder or config.json; `Invalid` for one that is too large, malformed (with line and
    /// column) or of another specification version than 1.x.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        Self::load_with(path, CONFIG)
    }

    /// Reads a bundle whose configuration is in the file `config`; a relative path starts at the bundle's folder.
    ///
    /// # Errors
    ///
    /// As [`Bundle::load`].
    pub fn load_with(path: impl AsRef<Path>, config: impl AsRef<Path>) -> Result<Self> {
        let given = path.as_ref();
        let path = std::fs::canonicalize(given)
            .map_err(|error| Error::os(format!("open the bundle {}", given.display()), error))?;
        let json = read_config(&path.join(config))?;
        Self::from_parts(path, json)
    }

    /// A bundle from a config.json that was read before; relative paths in it start at `path`.
    ///
    /// # Errors
    ///
    /// As [`Bundle::load`].
    pub fn from_parts(path: PathBuf, json: Vec<u8>) -> Result<Self> {
        let (spec, json, warnings) = parse(json)?;
        check_version(spec.version())?;
        Ok(Self { path, spec, json, warnings })
    }

    /// The folder, absolute.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// config.json as it was understood.
    #[must_use]
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// config.json as it was read; what had to be changed for oci-spec is changed here, too.
    #[must_use]
    pub fn json(&self) -> &[u8] {
        &self.json
    }

    /// What was left out of config.json because this host does not know it, each a sentence.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

fn read_config(path: &Path) -> Result<Vec<u8>> {
    let failure = |error| Error::os(format!("read {}", path.display()), error);
    let file = File::open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            Error::new(Kind::NotFound, format!("JSON specification file {} not found: no such file or directory (is this a bundle? `flint spec` makes one)", path.display()))
        }
        _ => failure(error),
    })?;
    let metadata = file.metadata().map_err(failure)?;
    if !metadata.is_file() {
        return Err(Error::invalid(format!("{} is not a file", path.display())));
    }
    let size = metadata.len();
    if size > LARGEST {
        return Err(Error::invalid(format!(
            "{} has {size} bytes, more than the {LARGEST} that are read",
            path.display()
        )));
    }
    let mut json = Vec::with_capacity(size as usize + 1);
    file.take(LARGEST + 1).read_to_end(&mut json).map_err(failure)?;
    Ok(json)
}

/// config.json as it is understood, its text, and what was left out of it.
///
/// The good path parses once. What oci-spec refuses or leaves out is looked at again: it refuses a whole config for one
/// capability that it does not know, where the specification wants a warning, and spells some names its own way. What was
/// changed is text once more, for those who read it later, and so that what is still wrong is named with its field.
fn parse(json: Vec<u8>) -> Result<(Spec, Vec<u8>, Vec<String>)> {
    if json.iter().all(u8::is_ascii_whitespace) {
        return Err(Error::invalid("config.json is empty"));
    }
    let (first, has_unknown) = read(&json);
    let mut warnings = Vec::new();
    if !has_unknown && let Ok(spec) = first {
        return Ok((spec, json, warnings));
    }
    let mended = mend(&json, &mut warnings).map_err(|error| error.context("config.json"))?;
    let (spec, json) = match mended {
        Some(json) => (read(&json).0, json),
        None => (first, json),
    };
    match spec {
        Ok(spec) => Ok((spec, json, warnings)),
        Err(error) => Err(Error::invalid(format!("config.json: {}", name_field(&json, &error)))),
    }
}

/// Reads a config; and whether it has keys that oci-spec does not know, as far as it was read.
fn read(json: &[u8]) -> (serde_json::Result<Spec>, bool) {
    let mut has_unknown = false;
    let mut reader = serde_json::Deserializer::from_slice(json);
    let spec = serde_ignored::deserialize(&mut reader, |_| has_unknown = true);
    (spec.and_then(|spec| reader.end().map(|()| spec)), has_unknown)
}

/// The config as oci-spec reads it; `None` where there was nothing to change.
fn mend(json: &[u8], warnings: &mut Vec<String>) -> Result<Option<Vec<u8>>> {
    let mut config = read_json(json).map_err(|error| Error::invalid(error.to_string()))?;
    let mut mended = false;
    // What is refused hides the keys behind it.
    while read_in_any_letters::<Spec>(&mut config)?.respelled
        | config.get_mut("process").is_some_and(|process| mend_process(process, "process.", warnings))
        | drop_unset_pids(&mut config)
        | respell_freebsd(&mut config)
        | drop_unknown_architectures(&mut config, warnings)
    {
        mended = true;
    }
    Ok(mended.then(|| config.to_string().into_bytes()))
}

/// Reads a process as it stands in config.json, and as `exec --process` and containerd give it: with what was left
/// out of it because it is not known here, each a sentence.
///
/// # Errors
///
/// `Invalid` for what is no process.
pub fn read_process(json: &[u8]) -> Result<(Process, Vec<String>)> {
    let mut value = read_json(json).map_err(|error| Error::invalid(error.to_string()))?;
    let mut warnings = Vec::new();
    loop {
        let reading = read_in_any_letters(&mut value)?;
        if !(reading.respelled | mend_process(&mut value, "", &mut warnings)) {
            let misread = |misread| Error::invalid(format!("{misread}"));
            return reading.read.map(|process| (process, warnings)).map_err(misread);
        }
    }
}

/// What callers may leave out or name freely, and oci-spec may not; tells whether something was changed.
fn mend_process(process: &mut Value, prefix: &str, warnings: &mut Vec<String>) -> bool {
    let changed = drop_unknown_capabilities(process, prefix, warnings) | respell_process(process);
    let Some(process) = process.as_object_mut().filter(|process| !process.contains_key("user")) else {
        return changed;
    };
    // root, as for runc, whose structures start as zeros.
    process.insert("user".to_owned(), Value::Object(serde_json::Map::new()));
    true
}

/// The error with the field that it is about; asked for only when there is one.
fn name_field(json: &[u8], error: &serde_json::Error) -> String {
    let text = error.to_string();
    let reading =
        serde_json::from_slice(json).ok().and_then(|mut config| read_in_any_letters::<Spec>(&mut config).ok());
    let Some(Misread { path, message }) = reading.and_then(|reading| reading.read.err()) else { return text };
    // It may be another mistake than the text's first. Where it is the same, the line and the column are told, too.
    let message = if text.starts_with(&message) { text } else { message };
    // Words of runc's that its callers know.
    let hint = match path.strip_prefix("linux.memoryPolicy") {
        Some(rest) if rest.starts_with(".flags") => "invalid memory policy flag: ",
        Some(_) => "invalid memory policy mode: ",
        None => "",
    };
    Misread { path, message: format!("{hint}{message}") }.to_string()
}

/// Tells whether there were such.
fn drop_unknown_capabilities(process: &mut Value, prefix: &str, warnings: &mut Vec<String>) -> bool {
    let Some(sets) = process.get_mut("capabilities").and_then(Value::as_object_mut) else { return false };
    let mut unknown = BTreeSet::new();
    for names in sets.values_mut().filter_map(Value::as_array_mut) {
        names.retain(|name| {
            let known = serde_json::from_value::<Capability>(name.clone()).is_ok();
            if !known {
                unknown.insert(name.as_str().map_or_else(|| name.to_string(), str::to_owned));
            }
            known
        });
    }
    let were_there = !unknown.is_empty();
    if were_there {
        warnings.push(format!("{prefix}capabilities: {}", ignoring_capabilities(unknown)));
    }
    were_there
}

/// Takes out a limit of pids that is null, which is none; tells whether there was one.
fn drop_unset_pids(config: &mut Value) -> bool {
    let pids = config.pointer_mut("/linux/resources/pids").and_then(Value::as_object_mut);
    pids.is_some_and(|pids| pids.get("limit").is_some_and(Value::is_null) && pids.remove("limit").is_some())
}

/// Gives `freebsd`, which oci-spec does not know and flint refuses, its letters; tells whether it had others.
fn respell_freebsd(config: &mut Value) -> bool {
    let Some(members) = config.as_object_mut().filter(|members| !members.contains_key("freebsd")) else { return false };
    let key = members.keys().find(|key| key.eq_ignore_ascii_case("freebsd")).cloned();
    let section = key.and_then(|key| members.remove(&key));
    section.is_some_and(|section| members.insert("freebsd".to_owned(), section).is_none())
}

/// runc's words, which its callers know.
pub(crate) fn ignoring_capabilities(names: impl IntoIterator<Item = String>) -> String {
    let names: Vec<_> = names.into_iter().collect();
    format!("ignoring unknown or unavailable capabilities: [{}]", names.join(" "))
}

/// Their calls cannot be made here, whatever the profile says of them. Tells whether there were such.
fn drop_unknown_architectures(config: &mut Value, warnings: &mut Vec<String>) -> bool {
    let names = config.pointer_mut("/linux/seccomp/architectures").and_then(Value::as_array_mut);
    let Some(names) = names else { return false };
    let before = names.len();
    names.retain(|name| {
        // What is no string is malformed, not unknown.
        let known = !name.is_string() || serde_json::from_value::<Arch>(name.clone()).is_ok();
        if !known {
            warnings.push(format!("linux.seccomp.architectures: {name} is unknown and ignored"));
        }
        known
    });
    names.len() < before
}

fn check_version(version: &str) -> Result<()> {
    let major_is_one = version.split_once('.').is_some_and(|(major, rest)| major == "1" && !rest.is_empty());
    if major_is_one {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "ociVersion {version:?} is not supported: flint follows versions 1.x of the specification"
    )))
}

#[cfg(test)]
mod tests {
    use super::Bundle;
    use crate::Kind;

    fn load(json: &str) -> crate::Result<Bundle> {
        Bundle::from_parts("/bundle".into(), json.as_bytes().to_vec())
    }

    #[test]
    fn versions() {
        for good in ["1.0.0", "1.0.2-dev", "1.3.0", "1.99.0+x"] {
            assert!(load(&format!(r#"{{"ociVersion": "{good}"}}"#)).is_ok(), "{good}");
        }
        for bad in ["", "1", "1.", "0.9.0", "2.0.0", "10.0.0", "v1.0.0"] {
            let error = load(&format!(r#"{{"ociVersion": "{bad}"}}"#)).unwrap_err();
            assert!(error.to_string().contains("ociVersion"), "{bad}: {error}");
        }
    }

    #[test]
    fn malformed_configs_are_one_clear_sentence() {
        assert_eq!(load("").unwrap_err().to_string(), "config.json is empty");
        assert_eq!(load(" \n").unwrap_err().to_string(), "config.json is empty");
        let error = load("{\"ociVersion\": \"1.0.0\",\n \"process\": 3}").unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid);
        assert!(error.to_string().contains("line 2"), "{error}");
        assert!(load("{").unwrap_err().to_string().contains("line 1"));
    }

    #[test]
    fn unknown_capabilities_are_dropped_with_a_warning() {
        let json = r#"{"ociVersion": "1.0.0", "process": {"cwd": "/", "user": {"uid": 0, "gid": 0}, "args": ["a"],
            "capabilities": {"bounding": ["CAP_KILL", "CAP_OF_TOMORROW"]}}}"#;
        let bundle = load(json).unwrap();
        assert_eq!(bundle.warnings().len(), 1);
        assert!(bundle.warnings()[0].contains("CAP_OF_TOMORROW"));
        let bounding = bundle.spec().process().as_ref().unwrap().capabilities().as_ref().unwrap().bounding().clone();
        assert_eq!(bounding.unwrap().len(), 1);
    }

    #[test]
    fn keys_are_read_in_any_letters() {
        let bundle = load(
            r#"{"OCIversion": "1.0.0", "extra": 1, "process": {"CWD": "/", "Args": ["a"],
            "Capabilities": {"Bounding": ["CAP_OF_TOMORROW"]}, "NoNewPrivileges": true},
            "linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "Architectures": ["SCMP_ARCH_PDP11"]},
            "resources": {"PIDs": {"Limit": null}, "CPU": {"shares": 7}}}}"#,
        )
        .unwrap();
        assert_eq!(bundle.warnings().len(), 2, "{:?}", bundle.warnings());
        assert_eq!(bundle.spec().process().as_ref().unwrap().no_new_privileges(), Some(true));
        let resources = bundle.spec().linux().as_ref().unwrap().resources().as_ref().unwrap();
        assert_eq!(resources.cpu().as_ref().unwrap().shares(), Some(7));
        let text = std::str::from_utf8(bundle.json()).unwrap();
        assert!(text.contains(r#""cpu":{"shares":7}"#) && text.contains("extra"), "others read it so, too: {text}");
        let freebsd = load(r#"{"ociVersion": "1.0.0", "FreeBSD": {}}"#).unwrap();
        assert!(freebsd.json().starts_with(br#"{"freebsd":{}"#), "to be refused");
        // Nothing is lost where something else has to be mended.
        let twice =
            r#"{"OCIVersion": "1.0.0", "linux": {"seccomp": {"defaultAction": "SCMP_ACT_ERRNO"}}, "linux": {}}"#;
        assert!(load(twice).unwrap_err().to_string().starts_with("config.json: duplicate field `linux`"));
        let error = load(r#"{"ociVersion": "1.0.0", "hostname": "a", "HostName": "b"}"#).unwrap_err();
        assert!(error.to_string().contains("config.json: duplicate field `hostname`"), "{error}");
        let (process, _) =
            super::read_process(br#"{"Cwd": "/", "ARGS": ["a"], "user": {"UID": 3, "gid": 0}}"#).unwrap();
        assert_eq!((process.user().uid(), process.args().as_ref().unwrap().len()), (3, 1));
    }

    #[test]
    fn a_config_that_is_understood_is_kept_as_it_is() {
        let json = r#"{"ociVersion":  "1.0.0", "unknown": {}}"#;
        assert_eq!(load(json).unwrap().json(), json.as_bytes());
        assert!(load(&format!("{json} x")).unwrap_err().to_string().contains("trailing"));
    }

    #[test]
    fn a_limit_of_pids_that_is_null_is_none() {
        let pids = |limit: &str| {
            load(&format!(r#"{{"ociVersion": "1.0.0", "linux": {{"resources": {{"pids": {{"limit": {limit}}}}}}}}}"#))
        };
        assert!(pids("null").is_ok());
        let error = pids("[]").unwrap_err();
        assert!(error.to_string().contains("linux.resources.pids.limit"), "{error}");
    }

    #[test]
    fn a_process_without_user_is_roots() {
        let bundle = load(r#"{"ociVersion": "1.0.0", "process": {"cwd": "/", "args": ["a"]}}"#).unwrap();
        assert_eq!(bundle.spec().process().as_ref().unwrap().user().uid(), 0);
        let (process, warnings) =
            super::read_process(br#"{"cwd": "/", "args": ["a"], "capabilities": {"bounding": ["CAP_OF_TOMORROW"]}}"#)
                .unwrap();
        assert_eq!(process.user().gid(), 0);
        assert_eq!(warnings, ["capabilities: ignoring unknown or unavailable capabilities: [CAP_OF_TOMORROW]"]);
        assert!(super::read_process(b"[]").is_err());
    }

    #[test]
    fn folders_without_config_say_so() {
        let folder = tempfile::tempdir().unwrap();
        let error = Bundle::load(folder.path()).unwrap_err();
        assert!(error.to_string().contains("config.json not found: no such file or directory"), "{error}");
        assert_eq!(Bundle::load(folder.path().join("missing")).unwrap_err().kind(), Kind::NotFound);
        let large = std::fs::File::create(folder.path().join("config.json")).unwrap();
        large.set_len(100 << 20).unwrap();
        assert!(Bundle::load(folder.path()).unwrap_err().to_string().contains("104857600 bytes"));
    }
}
