//! What pods ask of their place.

use super::{Shape, idle, no, within, yes};

pub(in super::super) static AFFINITY: Shape =
    Shape { name: "Affinity", fields: &[yes("nodeAffinity"), yes("podAffinity"), yes("podAntiAffinity")] };

const PREFERRED: &str = "a preference among nodes, and there is one";

pub(in super::super) static NODE_AFFINITY: Shape = Shape {
    name: "NodeAffinity",
    fields: &[
        idle("preferredDuringSchedulingIgnoredDuringExecution", PREFERRED),
        within(
            "requiredDuringSchedulingIgnoredDuringExecution",
            "compared with this node's name and labels (see nodeSelector)",
        ),
    ],
};

pub(in super::super) static NODE_SELECTOR: Shape = Shape { name: "NodeSelector", fields: &[yes("nodeSelectorTerms")] };

pub(in super::super) static NODE_SELECTOR_TERM: Shape =
    Shape { name: "NodeSelectorTerm", fields: &[yes("matchExpressions"), within("matchFields", "`metadata.name`")] };

pub(in super::super) static NODE_SELECTOR_REQUIREMENT: Shape =
    Shape { name: "NodeSelectorRequirement", fields: &[yes("key"), yes("operator"), yes("values")] };

pub(in super::super) static POD_AFFINITY: Shape = Shape {
    name: "PodAffinity, PodAntiAffinity",
    fields: &[
        idle("preferredDuringSchedulingIgnoredDuringExecution", PREFERRED),
        no(
            "requiredDuringSchedulingIgnoredDuringExecution",
            "which pods meet on a node is a scheduler's decision, and the manifest is on its node already",
        ),
    ],
};
