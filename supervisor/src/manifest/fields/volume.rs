//! v1.Volume, its kinds, and v1.VolumeMount.

use super::{Shape, no, within, yes};

const CLOUD: &str = "network storage needs drivers that a node alone has not: mount it on the host and use hostPath";

pub(in super::super) static VOLUME_MOUNT: Shape = Shape {
    name: "VolumeMount",
    fields: &[
        yes("mountPath"),
        within("mountPropagation", "Bidirectional in privileged containers only"),
        yes("name"),
        yes("readOnly"),
        within("recursiveReadOnly", "`Disabled` and `IfPossible`"),
        within("subPath", "resolved inside the volume"),
        within("subPathExpr", "resolved inside the volume; without addresses"),
    ],
};

pub(in super::super) static VOLUME: Shape = Shape {
    name: "Volume",
    fields: &[
        no("awsElasticBlockStore", CLOUD),
        no("azureDisk", CLOUD),
        no("azureFile", CLOUD),
        no("cephfs", CLOUD),
        no("cinder", CLOUD),
        yes("configMap"),
        no("csi", CLOUD),
        yes("downwardAPI"),
        yes("emptyDir"),
        no("ephemeral", "it asks for a driver's volume: use emptyDir"),
        no("fc", CLOUD),
        no("flexVolume", CLOUD),
        no("flocker", CLOUD),
        no("gcePersistentDisk", CLOUD),
        no("gitRepo", "Kubernetes has removed it: clone in an init container into an emptyDir"),
        no("glusterfs", CLOUD),
        yes("hostPath"),
        no("image", "volumes of images are not offered: copy from the image in an init container into an emptyDir"),
        no("iscsi", CLOUD),
        yes("name"),
        no("nfs", CLOUD),
        within("persistentVolumeClaim", "a named volume of the node; `flintctl` lists and removes them"),
        no("photonPersistentDisk", CLOUD),
        no("portworxVolume", CLOUD),
        yes("projected"),
        no("quobyte", CLOUD),
        no("rbd", CLOUD),
        no("scaleIO", CLOUD),
        yes("secret"),
        no("storageos", CLOUD),
        no("vsphereVolume", CLOUD),
    ],
};

pub(in super::super) static EMPTY_DIR: Shape = Shape {
    name: "EmptyDirVolumeSource",
    fields: &[
        within("medium", "on disk, or `Memory`"),
        within("sizeLimit", "on disk more evicts the pod; in memory more cannot be written"),
    ],
};

pub(in super::super) static HOST_PATH: Shape =
    Shape { name: "HostPathVolumeSource", fields: &[yes("path"), yes("type")] };

pub(in super::super) static CONFIG_MAP_VOLUME: Shape =
    Shape { name: "ConfigMapVolumeSource", fields: &[yes("defaultMode"), yes("items"), yes("name"), yes("optional")] };

pub(in super::super) static SECRET_VOLUME: Shape = Shape {
    name: "SecretVolumeSource",
    fields: &[yes("defaultMode"), yes("items"), yes("optional"), within("secretName", "its files are in memory only")],
};

pub(in super::super) static KEY_TO_PATH: Shape =
    Shape { name: "KeyToPath", fields: &[yes("key"), yes("mode"), yes("path")] };

pub(in super::super) static CLAIM_VOLUME: Shape = Shape {
    name: "PersistentVolumeClaimVolumeSource",
    fields: &[
        within("claimName", "the volume is made at its first use; the claim itself may be missing"),
        yes("readOnly"),
    ],
};

pub(in super::super) static DOWNWARD_VOLUME: Shape =
    Shape { name: "DownwardAPIVolumeSource", fields: &[yes("defaultMode"), yes("items")] };

pub(in super::super) static DOWNWARD_FILE: Shape = Shape {
    name: "DownwardAPIVolumeFile",
    fields: &[yes("fieldRef"), yes("mode"), yes("path"), yes("resourceFieldRef")],
};

pub(in super::super) static PROJECTED_VOLUME: Shape =
    Shape { name: "ProjectedVolumeSource", fields: &[yes("defaultMode"), yes("sources")] };

pub(in super::super) static PROJECTION: Shape = Shape {
    name: "VolumeProjection",
    fields: &[
        no("clusterTrustBundle", "trust bundles are a cluster's"),
        yes("configMap"),
        yes("downwardAPI"),
        no("podCertificate", "there is no API server that would sign it"),
        yes("secret"),
        no("serviceAccountToken", "there is no API server that would issue it"),
    ],
};

pub(in super::super) static CONFIG_MAP_PROJECTION: Shape =
    Shape { name: "ConfigMapProjection", fields: &[yes("items"), yes("name"), yes("optional")] };

pub(in super::super) static SECRET_PROJECTION: Shape =
    Shape { name: "SecretProjection", fields: &[yes("items"), yes("name"), yes("optional")] };

pub(in super::super) static DOWNWARD_PROJECTION: Shape =
    Shape { name: "DownwardAPIProjection", fields: &[yes("items")] };
