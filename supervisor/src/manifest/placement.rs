//! Whether a pod may be on this node.

use serde_norway::Value;

use super::fields::{
    AFFINITY, NODE_AFFINITY, NODE_SELECTOR, NODE_SELECTOR_REQUIREMENT, NODE_SELECTOR_TERM, POD_AFFINITY, POD_OS,
};
use super::reading::{Fields, shortened};
use crate::scheduler::NodeDescription;

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";

/// Refuses what belongs elsewhere.
pub(super) fn check(spec: &Fields<'_>, node: &NodeDescription) {
    if let Some(name) = spec.string("nodeName")
        && name != node.hostname
    {
        spec.refuse("nodeName", format!("{:?} is another node: this is {}", shortened(name), node.hostname));
    }
    if let Some(os) = spec.fields("os", &POD_OS) {
        os.word("name", &[("linux", ())]);
    }
    for (name, value) in spec.texts("nodeSelector") {
        if label(node, &name) != Some(value.as_str()) {
            spec.refuse("nodeSelector", format!("this node has no label {}={}", shortened(&name), shortened(&value)));
        }
    }
    let Some(affinity) = spec.fields("affinity", &AFFINITY) else { return };
    affinity.fields("podAffinity", &POD_AFFINITY);
    affinity.fields("podAntiAffinity", &POD_AFFINITY);
    let selector = affinity.fields("nodeAffinity", &NODE_AFFINITY);
    let Some(selector) = selector.and_then(|fields| fields.fields(REQUIRED, &NODE_SELECTOR)) else { return };
    let terms = selector.each("nodeSelectorTerms", &NODE_SELECTOR_TERM);
    // One of the terms is enough. All are looked at for problems.
    let matching = terms.iter().filter(|term| matches(term, node)).count();
    if matching == 0 {
        selector.refuse("nodeSelectorTerms", "none of them is true of this node");
    }
}

/// A label of the node: what kubelet gives each node, and those of the configuration.
fn label<'a>(node: &'a NodeDescription, name: &str) -> Option<&'a str> {
    match name {
        "kubernetes.io/os" => Some("linux"),
        // In Go's words.
        "kubernetes.io/arch" => Some(match node.architecture.as_str() {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        }),
        "kubernetes.io/hostname" => Some(&node.hostname),
        _ => node.labels.get(name).map(String::as_str),
    }
}

fn matches(term: &Fields<'_>, node: &NodeDescription) -> bool {
    let labels = term.each("matchExpressions", &NODE_SELECTOR_REQUIREMENT);
    let fields = term.each("matchFields", &NODE_SELECTOR_REQUIREMENT);
    if labels.is_empty() && fields.is_empty() {
        return false;
    }
    let labels = labels.iter().map(|wanted| {
        let found = wanted.needed("key").and_then(|key| label(node, key));
        is_met(wanted, found)
    });
    let fields = fields
        .iter()
        .map(|wanted| wanted.word("key", &[("metadata.name", ())]).is_some() && is_met(wanted, Some(&node.hostname)));
    // Not all(): what is wrong with the second is told also if the first is not met.
    labels.chain(fields).fold(true, |all, one| all & one)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    Greater,
    Less,
}

fn is_met(wanted: &Fields<'_>, found: Option<&str>) -> bool {
    wanted.needed("operator");
    let operators = [
        ("In", Operator::In),
        ("NotIn", Operator::NotIn),
        ("Exists", Operator::Exists),
        ("DoesNotExist", Operator::DoesNotExist),
        ("Gt", Operator::Greater),
        ("Lt", Operator::Less),
    ];
    let Some(operator) = wanted.word("operator", &operators) else { return false };
    let values = wanted.get("values").map(|(at, value): (_, &Value)| {
        at.items(value).into_iter().filter_map(|(at, item)| at.string(item)).collect::<Vec<_>>()
    });
    let values = values.unwrap_or_default();
    let needs_one = matches!(operator, Operator::Greater | Operator::Less);
    if needs_one && values.len() != 1 || matches!(operator, Operator::In | Operator::NotIn) && values.is_empty() {
        wanted.refuse("values", "has too few or too many for this operator");
    }
    let number = |text: &str| text.parse::<i64>().ok();
    let compare = || Some((number(found?)?, number(values.first()?)?));
    match operator {
        Operator::In => found.is_some_and(|found| values.contains(&found)),
        Operator::NotIn => found.is_none_or(|found| !values.contains(&found)),
        Operator::Exists => found.is_some(),
        Operator::DoesNotExist => found.is_none(),
        Operator::Greater => compare().is_some_and(|(found, bound)| found > bound),
        Operator::Less => compare().is_some_and(|(found, bound)| found < bound),
    }
}
