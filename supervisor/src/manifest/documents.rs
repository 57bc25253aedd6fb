//! The documents of a file.

use std::fmt;

use serde::Deserialize as _;
use serde_norway::Value;

use super::fields::{LIST, nearest};
use super::objects::{self, Object};
use super::problem::{Problem, Problems};
use super::reading::{At, shortened};
use super::{Context, pod};
use crate::desired::{Key, Pod};

/// More is no manifest: kubelet's limit of a file.
const MOST_BYTES: usize = 10 << 20;
/// Lists in lists.
const DEPTH: usize = 4;

/// A document.
#[derive(Debug)]
pub struct Document {
    /// Its kind as it says it; empty if it does not.
    pub kind: String,
    /// What it names, as far as it does.
    pub key: Key,
    /// What it says.
    pub content: Content,
}

/// What a document says.
#[derive(Debug)]
pub enum Content {
    /// A pod, to be read with what it refers to.
    Pod(PodDocument),
    /// Something that pods refer to.
    Object(Object),
    /// It is refused.
    Refused(Vec<Problem>),
}

/// A pod's document. What it refers to may change, so it is kept.
pub struct PodDocument(Value);

impl fmt::Debug for PodDocument {
    /// Without its text: people put passwords into variables.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("PodDocument")
    }
}

impl PodDocument {
    /// The pod.
    ///
    /// Its uid is the document's; else the one that the store has for this name and source ([`Context::known_uid`]); else a
    /// new one. So the same manifest means the same pod after a restart of flintd, after an edit, and after a reboot; and a pod
    /// that was removed, which took it out of the store, is another one when it is made again. A uid that were computed from names
    /// would bring the old one's volumes, logs and restarts back to life. A manifest that was removed and came back while flintd was
    /// away cannot be told from one that was edited, and is taken for that.
    ///
    /// # Errors
    ///
    /// All that is wrong, refused or missing, with the paths of the fields.
    pub fn resolve(&self, context: &Context<'_>) -> Result<Pod, Vec<Problem>> {
        let problems = Problems::default();
        let pod = pod::read(&self.0, context, &problems);
        problems.or(pod)
    }
}

/// Reads a file: YAML or JSON, of any number of documents; items of lists count as documents.
///
/// # Errors
///
/// It is neither, or has a key twice: then nothing behind that is known, so nothing of the file is.
pub fn read(text: &[u8]) -> Result<Vec<Document>, Problem> {
    if text.len() > MOST_BYTES {
        return Err(Problem::of_all(format!("has more than {} MiB", MOST_BYTES >> 20)));
    }
    let text = std::str::from_utf8(text).map_err(|error| Problem::of_all(format!("is not UTF-8: {error}")))?;
    let mut documents = Vec::new();
    for value in values(text)? {
        flatten(value, 0, &mut documents);
    }
    Ok(documents)
}

fn values(text: &str) -> Result<Vec<Value>, Problem> {
    let text = text.trim_start_matches('\u{feff}');
    // Most JSON is YAML, but not all: tabs, and characters in two halves.
    if text.trim_start().starts_with('{') {
        let values: Result<Vec<Value>, _> = serde_json::Deserializer::from_str(text).into_iter().collect();
        if let Ok(values) = values {
            return Ok(values);
        }
    }
    if is_too_deep(text) {
        return Err(Problem::of_all("too many levels or aliases"));
    }
    let mut values = Vec::new();
    for document in serde_norway::Deserializer::from_str(text) {
        let wrong = |error: serde_norway::Error| Problem::of_all(syntax(&error));
        let mut value = Value::deserialize(document).map_err(wrong)?;
        value.apply_merge().map_err(wrong)?;
        if !value.is_null() {
            values.push(value);
        }
    }
    Ok(values)
}

/// The parser's time is the square of the depth, and its own limit comes only behind it: 100,000 brackets were minutes. No text
/// that means anything leaves so many open, not even one that is not YAML (a file in a ConfigMap).
fn is_too_deep(text: &str) -> bool {
    let mut depth = 0_usize;
    for byte in text.bytes() {
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > 2000 {
            return true;
        }
    }
    false
}

/// The parser quotes what it read, which may be a secret: only where and what sort of fault is told.
fn syntax(error: &serde_norway::Error) -> String {
    let place = error.location().map(|at| format!("line {}, column {}: ", at.line(), at.column())).unwrap_or_default();
    let text = error.to_string();
    let sort = if let Some((_, key)) = text.split_once("duplicate entry with key ") {
        let key = key.split(" at line").next().unwrap_or(key);
        format!("key {} is there twice", shortened(key))
    } else if text.contains("limit exceeded") {
        "too many levels or aliases".to_owned()
    } else {
        let end = text.find(" at line").unwrap_or(text.len());
        format!("not YAML or JSON ({})", shortened(&text[..end]))
    };
    format!("{place}{sort}")
}

fn flatten(value: Value, depth: usize, documents: &mut Vec<Document>) {
    let problems = Problems::default();
    let at = At { path: String::new(), problems: &problems };
    let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (version, kind) = (text("apiVersion"), text("kind"));
    let key = key_of(&value);
    let refused = |problems: Problems| {
        let problems = problems.or(None::<()>).err().unwrap_or_default();
        Document { kind: kind.clone(), key: key.clone(), content: Content::Refused(problems) }
    };
    let is_list =
        matches!(kind.as_str(), "List" | "PodList" | "ConfigMapList" | "SecretList" | "PersistentVolumeClaimList");
    if version == "v1" && is_list && depth < DEPTH {
        at.fields(&value, &LIST);
        let Some(Value::Sequence(items)) = value.get("items") else {
            at.below("items").refuse("is missing, or no list");
            return documents.push(refused(problems));
        };
        let items = items.clone();
        if problems.is_empty() {
            for item in items {
                flatten(item, depth + 1, documents);
            }
        } else {
            documents.push(refused(problems));
        }
        return;
    }
    check_kind(&at, &version, &kind);
    if !problems.is_empty() {
        return documents.push(refused(problems));
    }
    if kind == "Pod" {
        documents.push(Document { kind, key, content: Content::Pod(PodDocument(value)) });
        return;
    }
    let object = objects::read(&at, &value, &kind);
    documents.push(match problems.or(object) {
        Ok(object) => Document { kind, key, content: Content::Object(object) },
        Err(problems) => Document { kind, key, content: Content::Refused(problems) },
    });
}

/// What a document seems to name, for messages.
fn key_of(value: &Value) -> Key {
    let text = |name: &str| value.get("metadata").and_then(|metadata| metadata.get(name)).and_then(Value::as_str);
    Key::new(shortened(text("namespace").unwrap_or("default")), shortened(text("name").unwrap_or_default()))
}

const KINDS: [&str; 4] = ["Pod", "ConfigMap", "Secret", "PersistentVolumeClaim"];

fn check_kind(at: &At<'_>, version: &str, kind: &str) {
    if kind.is_empty() || version.is_empty() {
        at.refuse("has no apiVersion and kind: a document begins with `apiVersion: v1` and `kind: Pod`");
        return;
    }
    if KINDS.contains(&kind) {
        if version != "v1" {
            at.below("apiVersion").refuse(format!("{:?} is not v1", shortened(version)));
        }
        return;
    }
    let hint = match kind {
        "Deployment" | "ReplicaSet" | "ReplicationController" | "StatefulSet" | "DaemonSet" => {
            "replicas are kept by a cluster; write what is below its template as a Pod (with apiVersion, kind and a name)"
        }
        "Job" => "write what is below its template as a Pod with restartPolicy OnFailure or Never",
        "CronJob" => "let a timer of systemd apply a Pod with restartPolicy Never",
        "Service" | "Endpoints" | "EndpointSlice" => "give the pod's ports a hostPort",
        "Ingress" | "Gateway" | "HTTPRoute" => "run a proxy as a pod with a hostPort",
        "Namespace" => "namespaces need not be made: a pod's metadata.namespace is enough",
        "ServiceAccount" | "Role" | "RoleBinding" | "ClusterRole" | "ClusterRoleBinding" => {
            "there is no API server that accounts and roles would count for"
        }
        "PersistentVolume" | "StorageClass" => {
            "a PersistentVolumeClaim names a volume of the node, which is made at its first use"
        }
        "NetworkPolicy" => "networks of pods are not filtered by policies",
        "PriorityClass" => "give the pods a priority, a number",
        "RuntimeClass" => "there is one runtime, flint",
        "HorizontalPodAutoscaler" | "PodDisruptionBudget" | "LimitRange" | "ResourceQuota" => "it is a cluster's",
        "PodTemplate" => "write what is below its template as a Pod",
        _ => {
            let meant = nearest(kind, KINDS.into_iter());
            let meant = meant.map(|kind| format!("; did you mean {kind:?}?")).unwrap_or_default();
            at.below("kind").refuse(format!(
                "{:?} is not known to a node alone: it takes {}{meant}",
                shortened(kind),
                KINDS.join(", ")
            ));
            return;
        }
    };
    at.below("kind").refuse(format!("a node alone runs no {kind}: {hint}"));
}
