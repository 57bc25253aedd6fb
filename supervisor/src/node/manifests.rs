//! Manifests that were sent to the local API: pods, and what pods refer to.

use std::sync::Arc;

use super::{Applied, Node};
use crate::api::{Action, Change, Manifest, Refusal};
use crate::desired::{Key, Pod, Source};
use crate::manifest::{Content, Context, Document, Object, Objects, PodDocument, Problem, read};
use crate::store::Table;

impl Node {
    /// Applies documents in their order, each by itself; what became of each. A dry run answers the same and does nothing.
    pub async fn apply_manifests(self: &Arc<Self>, manifests: Vec<Manifest>, dry_run: bool) -> Vec<Change> {
        let mut changes = Vec::new();
        let mut objects = self.objects.lock().await;
        // What a dry run would have stored counts for the documents behind it.
        let mut known = objects.clone();
        for manifest in manifests {
            let change = |kind: &str, key: Key, action| Change {
                file: manifest.name.clone(),
                kind: kind.to_owned(),
                key,
                action,
            };
            let documents = match read(manifest.text.as_bytes()) {
                Ok(documents) => documents,
                Err(problem) => {
                    changes.push(change("", Key::new("", ""), refused(vec![problem])));
                    continue;
                }
            };
            for Document { kind, key, content } in documents {
                let action = match content {
                    Content::Refused(problems) => refused(problems),
                    Content::Object(object) => self.apply_object(&mut known, object, dry_run).await,
                    Content::Pod(document) => self.apply_document(&known, &document, dry_run).await,
                };
                changes.push(change(&kind, key, action));
            }
        }
        if !dry_run {
            *objects = known;
        }
        changes
    }

    /// Writes a ConfigMap, a Secret, a claim down.
    async fn apply_object(&self, known: &mut Objects, object: Object, dry_run: bool) -> Action {
        let before = known.clone();
        let id = format!("{}/{}", object.kind(), object.key());
        let is_new = match &object {
            Object::ConfigMap(data) => known.config_map(&data.key).is_none(),
            Object::Secret(data) => known.secret(&data.key).is_none(),
            Object::Claim(_) => false,
        };
        known.set(object.clone());
        if *known == before {
            return Action::Unchanged;
        }
        if !dry_run && let Err(error) = self.store.put(Table::Objects, &id, &object).await {
            *known = before;
            return refused_whole(format!("{error:#}"));
        }
        if is_new { Action::Created } else { Action::Changed { containers: Vec::new(), sandbox: false } }
    }

    async fn apply_document(self: &Arc<Self>, known: &Objects, document: &PodDocument, dry_run: bool) -> Action {
        let pod = {
            let known_uid = |key: &Key| self.uid_of(key, &Source::Api);
            let node = self.describe();
            let context = Context { source: &Source::Api, node: &node, objects: known, known_uid: &known_uid };
            match document.resolve(&context) {
                Ok(pod) => pod,
                Err(problems) => return refused(problems),
            }
        };
        let before = self.pod(&pod.key).map(|view| view.pod);
        let wanted = pod.clone();
        let applied = if dry_run { self.dry_run(pod) } else { self.apply(pod).await };
        match applied {
            Ok(Applied::Created) => Action::Created,
            Ok(Applied::Unchanged) => Action::Unchanged,
            Ok(applied) => {
                let sandbox = applied == Applied::Replaced;
                Action::Changed {
                    containers: before.map(|before| changed(&before, &wanted)).unwrap_or_default(),
                    sandbox,
                }
            }
            Err(why) => refused_whole(why.0),
        }
    }

    /// The uid of the pod of this name and source, unless its removal is written down.
    pub(crate) fn uid_of(&self, key: &Key, source: &Source) -> Option<String> {
        let view = self.pod(key).filter(|view| !view.status.terminating && view.pod.source == *source)?;
        Some(view.pod.uid.clone())
    }
}

/// Containers that are made anew when one pod becomes another.
fn changed(before: &Pod, after: &Pod) -> Vec<String> {
    let same = |name: &str, pod: &Pod| {
        pod.all_containers().find(|container| container.name == name).map(crate::desired::Container::spec_hash)
    };
    let names = after.all_containers().map(|container| &container.name);
    names.filter(|name| same(name, before) != same(name, after)).cloned().collect()
}

fn refused(problems: Vec<Problem>) -> Action {
    let fields = problems.into_iter().map(|problem| Refusal { path: problem.path, reason: problem.reason });
    Action::Refused { fields: fields.collect() }
}

fn refused_whole(reason: String) -> Action {
    Action::Refused { fields: vec![Refusal { path: String::new(), reason }] }
}
