//! Documents that anybody may have written, read to the end. Shared by the tests and the fuzz target `manifest` (`fuzz/`).

use std::collections::BTreeMap;

use super::{Content, Context, Objects, read};
use crate::desired::Source;
use crate::scheduler::NodeDescription;

/// A node of no particular kind.
#[must_use]
pub fn node() -> NodeDescription {
    NodeDescription {
        hostname: "node-1".to_owned(),
        architecture: "x86_64".to_owned(),
        milli_cpus: 2000,
        memory: 4 << 30,
        version: "0.1.0".to_owned(),
        labels: BTreeMap::new(),
    }
}

/// Reads a file, and its pods with the objects in it. How many pods were taken, and how many documents refused.
#[must_use]
pub fn manifest(text: &[u8]) -> (usize, usize) {
    let Ok(documents) = read(text) else { return (0, 1) };
    let objects: Objects = documents
        .iter()
        .filter_map(|document| match &document.content {
            Content::Object(object) => Some(object.clone()),
            _ => None,
        })
        .collect();
    let (node, source) = (node(), Source::Api);
    let context = Context { source: &source, node: &node, objects: &objects, known_uid: &|_| Some("uid".to_owned()) };
    let (mut taken, mut refused) = (0, 0);
    for document in &documents {
        match &document.content {
            Content::Pod(pod) => match pod.resolve(&context) {
                Ok(pod) => {
                    // What is taken is stored.
                    let json = serde_json::to_vec(&pod).expect("a pod is JSON");
                    assert_eq!(serde_json::from_slice::<crate::desired::Pod>(&json).expect("and read again"), pod);
                    taken += 1;
                }
                Err(problems) => {
                    assert!(!problems.is_empty(), "refused without a reason");
                    refused += 1;
                }
            },
            Content::Refused(problems) => {
                assert!(!problems.is_empty(), "refused without a reason");
                refused += 1;
            }
            Content::Object(_) => {}
        }
    }
    (taken, refused)
}
