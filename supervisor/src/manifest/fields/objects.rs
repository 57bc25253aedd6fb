//! Documents beside pods.

use super::{Shape, idle, no, within, yes};

pub(in super::super) static CONFIG_MAP: Shape = Shape {
    name: "ConfigMap",
    fields: &[
        within("apiVersion", "`v1`"),
        yes("binaryData"),
        yes("data"),
        idle("immutable", "what is applied anew is new"),
        within("kind", "`ConfigMap`"),
        yes("metadata"),
    ],
};

pub(in super::super) static SECRET: Shape = Shape {
    name: "Secret",
    fields: &[
        within("apiVersion", "`v1`"),
        yes("data"),
        idle("immutable", "what is applied anew is new"),
        within("kind", "`Secret`"),
        yes("metadata"),
        yes("stringData"),
        within("type", "counts for imagePullSecrets"),
    ],
};

pub(in super::super) static CLAIM: Shape = Shape {
    name: "PersistentVolumeClaim",
    fields: &[
        within("apiVersion", "`v1`"),
        within("kind", "`PersistentVolumeClaim`"),
        within("metadata", "the claim's name is the volume's; of another namespace than default, NAMESPACE_NAME"),
        yes("spec"),
        idle("status", "the API server's own; as `kubectl get -o yaml` writes it"),
    ],
};

const ONE_PLACE: &str = "all named volumes are folders below flintd's data folder";

pub(in super::super) static CLAIM_SPEC: Shape = Shape {
    name: "PersistentVolumeClaimSpec",
    fields: &[
        idle("accessModes", "every pod of the node may mount it"),
        no("dataSource", "snapshots and clones need a driver that a node alone has not"),
        no("dataSourceRef", "snapshots and clones need a driver that a node alone has not"),
        idle("resources", "named volumes have no quota: they share their file system"),
        no("selector", ONE_PLACE),
        idle("storageClassName", ONE_PLACE),
        idle("volumeAttributesClassName", ONE_PLACE),
        within("volumeMode", "`Filesystem`"),
        idle("volumeName", ONE_PLACE),
    ],
};

pub(in super::super) static LIST: Shape = Shape {
    name: "List",
    fields: &[
        within("apiVersion", "`v1`"),
        yes("items"),
        within("kind", "`List`, `PodList`, `ConfigMapList`, `SecretList`, `PersistentVolumeClaimList`"),
        idle("metadata", "the API server's own; as `kubectl get -o yaml` writes it"),
    ],
};
