//! ConfigMaps, Secrets and claims: what pods refer to.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::fields::{CLAIM, CLAIM_SPEC, CONFIG_MAP, SECRET};
use super::metadata::Metadata;
use super::names::is_key;
use super::reading::{At, Fields, shortened};
use crate::desired::Key;

/// As much as Kubernetes lets one ConfigMap or Secret have.
const MOST_BYTES: usize = 1 << 20;

/// What a document that is no pod says. It can be stored: as JSON, and only where a secret may be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Object {
    /// A ConfigMap.
    ConfigMap(Data),
    /// A Secret.
    Secret(Data),
    /// A PersistentVolumeClaim: nothing but a name, of the node's volume.
    Claim(Key),
}

/// Bytes by key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Data {
    /// Its name.
    pub key: Key,
    /// A Secret's type; empty: `Opaque`.
    #[serde(default)]
    pub kind: String,
    /// Bytes by key.
    pub entries: BTreeMap<String, Vec<u8>>,
}

impl fmt::Debug for Data {
    /// Without the bytes: they may be a secret.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Data({}, {:?})", self.key, self.entries.keys().collect::<Vec<_>>())
    }
}

impl Object {
    /// `ConfigMap`, `Secret`, `PersistentVolumeClaim`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::ConfigMap(_) => "ConfigMap",
            Self::Secret(_) => "Secret",
            Self::Claim(_) => "PersistentVolumeClaim",
        }
    }

    /// Its name.
    #[must_use]
    pub fn key(&self) -> &Key {
        match self {
            Self::ConfigMap(data) | Self::Secret(data) => &data.key,
            Self::Claim(key) => key,
        }
    }
}

/// All objects that pods may refer to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Objects {
    config_maps: BTreeMap<Key, Data>,
    secrets: BTreeMap<Key, Data>,
}

impl Objects {
    /// Adds one, in place of one of its kind and name.
    pub fn set(&mut self, object: Object) {
        match object {
            Object::ConfigMap(data) => drop(self.config_maps.insert(data.key.clone(), data)),
            Object::Secret(data) => drop(self.secrets.insert(data.key.clone(), data)),
            // A claim needs no record: its volume is made when a pod first mounts it.
            Object::Claim(_) => {}
        }
    }

    /// A ConfigMap.
    #[must_use]
    pub fn config_map(&self, key: &Key) -> Option<&Data> {
        self.config_maps.get(key)
    }

    /// A Secret.
    #[must_use]
    pub fn secret(&self, key: &Key) -> Option<&Data> {
        self.secrets.get(key)
    }
}

impl FromIterator<Object> for Objects {
    fn from_iter<T: IntoIterator<Item = Object>>(objects: T) -> Self {
        let mut all = Self::default();
        for object in objects {
            all.set(object);
        }
        all
    }
}

/// Reads a document of one of these kinds.
pub(super) fn read(at: &At<'_>, value: &serde_norway::Value, kind: &str) -> Option<Object> {
    match kind {
        "ConfigMap" => {
            let fields = at.fields(value, &CONFIG_MAP)?;
            let mut data = begin(&fields)?;
            texts(&fields, "data", &mut data);
            bytes(&fields, "binaryData", &mut data);
            Some(Object::ConfigMap(data))
        }
        "Secret" => {
            let fields = at.fields(value, &SECRET)?;
            let mut data = begin(&fields)?;
            fields.string("type").unwrap_or_default().clone_into(&mut data.kind);
            bytes(&fields, "data", &mut data);
            // What is in both is what stringData says.
            let mut strings = Data { entries: BTreeMap::new(), ..data.clone() };
            texts(&fields, "stringData", &mut strings);
            data.entries.extend(strings.entries);
            Some(Object::Secret(data))
        }
        _ => {
            let fields = at.fields(value, &CLAIM)?;
            let metadata = Metadata::read(&fields)?;
            if let Some(spec) = fields.fields("spec", &CLAIM_SPEC) {
                spec.word("volumeMode", &[("Filesystem", ())]);
            }
            Some(Object::Claim(metadata.key()))
        }
    }
}

fn begin(fields: &Fields<'_>) -> Option<Data> {
    let metadata = Metadata::read(fields)?;
    Some(Data { key: metadata.key(), kind: String::new(), entries: BTreeMap::new() })
}

fn texts(fields: &Fields<'_>, name: &str, data: &mut Data) {
    let Some((at, value)) = fields.get(name) else { return };
    for (key, value) in at.entries(value) {
        let at = at.below(&shortened(key));
        if let Some(text) = value.as_str() {
            add(&at, key, text.as_bytes().to_vec(), data);
        } else {
            at.refuse(format!("is {}, not a string: put it in quotes", super::reading::kind(value)));
        }
    }
}

fn bytes(fields: &Fields<'_>, name: &str, data: &mut Data) {
    let Some((at, value)) = fields.get(name) else { return };
    for (key, value) in at.entries(value) {
        let at = at.below(&shortened(key));
        // YAML breaks long lines.
        let text = value.as_str().map(|text| text.split_ascii_whitespace().collect::<String>());
        match text.and_then(|text| STANDARD.decode(text).ok()) {
            Some(bytes) => add(&at, key, bytes, data),
            None => at.refuse("is not base64"),
        }
    }
}

fn add(at: &At<'_>, key: &str, bytes: Vec<u8>, data: &mut Data) {
    if !is_key(key) {
        at.refuse("a key is at most 253 letters, digits, -, _ and ., and does not begin with ..");
        return;
    }
    let size: usize = data.entries.iter().map(|(key, value)| key.len() + value.len()).sum();
    if size + bytes.len() > MOST_BYTES {
        at.refuse("with this there is more than 1 MiB in it");
        return;
    }
    if data.entries.insert(key.to_owned(), bytes).is_some() {
        at.refuse("is there twice");
    }
}
