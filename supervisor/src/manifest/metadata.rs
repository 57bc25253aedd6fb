//! Names, labels and annotations of a document.

use std::collections::BTreeMap;

use super::fields::OBJECT_META;
use super::names::{check_label, check_labels, check_qualified, check_subdomain};
use super::reading::Fields;
use crate::desired::Key;

/// What a document says of itself.
#[derive(Debug, Clone, Default)]
pub(super) struct Metadata {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) uid: Option<String>,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) annotations: BTreeMap<String, String>,
}

impl Metadata {
    pub(super) fn read(document: &Fields<'_>) -> Option<Self> {
        let Some(fields) = document.fields("metadata", &OBJECT_META) else {
            document.refuse("metadata", "is missing: it has the name");
            return None;
        };
        let name = fields.needed("name")?.to_owned();
        check_subdomain(&fields.at.below("name"), &name);
        let namespace = fields.string("namespace").unwrap_or("default").to_owned();
        check_label(&fields.at.below("namespace"), &namespace);
        let uid = fields.string("uid").map(str::to_owned);
        if let Some(uid) = &uid {
            check_label(&fields.at.below("uid"), uid);
        }
        let (labels, annotations) = (fields.texts("labels"), fields.texts("annotations"));
        check_labels(&fields.at.below("labels"), &labels);
        for name in annotations.keys() {
            check_qualified(&fields.at.below("annotations"), name);
        }
        Some(Self { name, namespace, uid, labels, annotations })
    }

    pub(super) fn key(&self) -> Key {
        Key::new(&self.namespace, &self.name)
    }
}
