//! What a pod's document is read with.

use std::fmt;

use super::objects::{Data, Objects};
use super::reading::At;
use crate::desired::{Key, Source};
use crate::scheduler::NodeDescription;

/// What is known beside a pod's document.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Who wants it.
    pub source: &'a Source,
    /// Where it is to run.
    pub node: &'a NodeDescription,
    /// What it may refer to.
    pub objects: &'a Objects,
    /// The uid that the pod of this name and [`Context::source`] has in the store, see [`super::PodDocument::resolve`].
    pub known_uid: &'a dyn Fn(&Key) -> Option<String>,
}

impl fmt::Debug for Context<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Context").field("source", self.source).field("node", self.node).finish_non_exhaustive()
    }
}

/// Where bytes come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    ConfigMap,
    Secret,
}

impl<'a> Context<'a> {
    /// An object that a field names; a missing one that is not optional is a problem of the field.
    pub(super) fn data(
        &self,
        from: From,
        namespace: &str,
        name: &str,
        optional: bool,
        at: &At<'_>,
    ) -> Option<&'a Data> {
        let key = Key::new(namespace, name);
        let (found, kind) = match from {
            From::ConfigMap => (self.objects.config_map(&key), "ConfigMap"),
            From::Secret => (self.objects.secret(&key), "Secret"),
        };
        if found.is_none() && !optional {
            at.refuse(format!(
                "there is no {kind} {key}: apply it before the pod, or put it into the folder of manifests"
            ));
        }
        found
    }
}
