//! Manifests, as people write them.

mod damaged;
mod documentation;
mod pods;
mod references;
mod refused;
mod strategy;

use super::fuzzing::node;
use super::{Content, Context, Object, Objects, read};
use crate::desired::{Pod, Source};

/// What a text of documents becomes: its pods, or all problems as lines.
fn pods(text: &str) -> Result<Vec<Pod>, Vec<String>> {
    let documents = read(text.as_bytes()).map_err(|problem| vec![problem.to_string()])?;
    let objects: Objects = documents.iter().filter_map(|document| object(&document.content)).collect();
    let (node, source) = (node(), Source::Api);
    let context = Context { source: &source, node: &node, objects: &objects, known_uid: &|_| Some("known".to_owned()) };
    let (mut pods, mut problems) = (Vec::new(), Vec::new());
    for document in &documents {
        match &document.content {
            Content::Pod(pod) => match pod.resolve(&context) {
                Ok(pod) => pods.push(pod),
                Err(found) => problems.extend(found.iter().map(ToString::to_string)),
            },
            Content::Refused(found) => problems.extend(found.iter().map(ToString::to_string)),
            Content::Object(_) => {}
        }
    }
    if problems.is_empty() { Ok(pods) } else { Err(problems) }
}

fn object(content: &Content) -> Option<Object> {
    match content {
        Content::Object(object) => Some(object.clone()),
        _ => None,
    }
}

/// The one pod of a text that is taken.
fn pod(text: &str) -> Pod {
    match pods(text) {
        Ok(mut pods) if pods.len() == 1 => pods.remove(0),
        other => panic!("not one pod: {other:#?}"),
    }
}

/// What is wrong with a text.
fn problems(text: &str) -> Vec<String> {
    pods(text).expect_err("it is taken")
}

/// A pod of one container, with more lines of its spec (two spaces in front) and of its container (four).
fn with(spec: &str, container: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: web\n  labels: {{app: web, tier: \"1\"}}\nspec:\n{spec}\n  containers:\n  - name: main\n    \
         image: registry.example/web:1\n{container}\n"
    )
}
