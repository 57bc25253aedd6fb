//! v1.Pod, and what is right below its spec.

use super::{Shape, idle, no, within, yes};

const API_SERVERS: &str = "the API server's own; as `kubectl get -o yaml` writes it";

pub(in super::super) static POD: Shape = Shape {
    name: "Pod",
    fields: &[
        within("apiVersion", "`v1`"),
        within("kind", "`Pod`"),
        yes("metadata"),
        yes("spec"),
        idle("status", API_SERVERS),
    ],
};

pub(in super::super) static OBJECT_META: Shape = Shape {
    name: "ObjectMeta",
    fields: &[
        yes("name"),
        no("generateName", "a manifest that is read again has to name the same pod: give a name"),
        within("namespace", "`default` without it"),
        yes("labels"),
        yes("annotations"),
        within("uid", "at most 63 of `a-z`, `0-9` and `-`; without it the node gives one"),
        idle("creationTimestamp", API_SERVERS),
        idle("deletionGracePeriodSeconds", API_SERVERS),
        idle("deletionTimestamp", API_SERVERS),
        idle("finalizers", API_SERVERS),
        idle("generation", API_SERVERS),
        idle("managedFields", API_SERVERS),
        idle("ownerReferences", API_SERVERS),
        idle("resourceVersion", API_SERVERS),
        idle("selfLink", API_SERVERS),
    ],
};

const NO_ACCOUNTS: &str = "there is no API server that the account's token would open";

pub(in super::super) static POD_SPEC: Shape = Shape {
    name: "PodSpec",
    fields: &[
        yes("activeDeadlineSeconds"),
        within("affinity", "what is required of nodes; see NodeAffinity, PodAffinity"),
        idle("automountServiceAccountToken", NO_ACCOUNTS),
        yes("containers"),
        within("dnsConfig", "`nameservers` with `dnsPolicy: None` only"),
        within("dnsPolicy", "a node alone has no cluster DNS: ClusterFirst and ClusterFirstWithHostNet are Default"),
        idle("enableServiceLinks", "there are no Services whose variables would be set"),
        no("ephemeralContainers", "use `flintctl exec`: containers are not added to a running pod"),
        yes("hostAliases"),
        yes("hostIPC"),
        yes("hostNetwork"),
        yes("hostPID"),
        within("hostUsers", "`true`: pods have no user namespace of their own"),
        yes("hostname"),
        no("hostnameOverride", "use hostname"),
        within("imagePullSecrets", "Secrets of type kubernetes.io/dockerconfigjson or kubernetes.io/dockercfg"),
        within("initContainers", "one after the other; those with restartPolicy Always (sidecars) are refused"),
        within("nodeName", "this node's name"),
        within(
            "nodeSelector",
            "compared with this node's labels: those of the configuration, and kubernetes.io/os, /arch and /hostname",
        ),
        within("os", "`name: linux`"),
        no("overhead", "a RuntimeClass sets it, and there are none"),
        idle("preemptionPolicy", "there is no scheduler that would make room"),
        within("priority", "who goes first under pressure"),
        within("priorityClassName", "`system-node-critical` and `system-cluster-critical`; for others give priority"),
        no("readinessGates", "nobody sets the conditions that the pod would wait for"),
        no("resourceClaims", "dynamic resource allocation needs drivers that a node alone has not"),
        no("resources", "limits of the pod as a whole: give them to the containers"),
        yes("restartPolicy"),
        no("runtimeClassName", "there is one runtime, flint"),
        idle("schedulerName", "the manifest is on its node already"),
        no("schedulingGates", "nobody would ever lift them: the pod would wait for ever"),
        yes("securityContext"),
        within("serviceAccount", "its name, for `spec.serviceAccountName` of the downward API; no token"),
        within("serviceAccountName", "its name, for `spec.serviceAccountName` of the downward API; no token"),
        within("setHostnameAsFQDN", "`false`: there is no cluster domain"),
        yes("shareProcessNamespace"),
        no("subdomain", "the names of pods in a subdomain are a cluster's DNS's"),
        yes("terminationGracePeriodSeconds"),
        idle("tolerations", "taints keep pods off nodes; this one is here already"),
        idle("topologySpreadConstraints", "one node is one domain: no spread is uneven"),
        yes("volumes"),
        no("workloadRef", "groups of pods are a cluster's scheduler's"),
    ],
};

pub(in super::super) static POD_SECURITY_CONTEXT: Shape = Shape {
    name: "PodSecurityContext",
    fields: &[
        within("appArmorProfile", "`Unconfined`"),
        yes("fsGroup"),
        within("fsGroupChangePolicy", "OnRootMismatch spares named volumes"),
        within("runAsGroup", "with runAsUser"),
        yes("runAsNonRoot"),
        yes("runAsUser"),
        no("seLinuxChangePolicy", "labels of SELinux are not set"),
        no("seLinuxOptions", "labels of SELinux are not set"),
        within("seccompProfile", "without one RuntimeDefault holds, as with kubelet's --seccomp-default"),
        yes("supplementalGroups"),
        within("supplementalGroupsPolicy", "`Merge`"),
        within("sysctls", "namespaced ones: `kernel.shm*`, `kernel.msg*`, `kernel.sem`, `fs.mqueue.*`, `net.*`"),
        no("windowsOptions", "this is Linux"),
    ],
};

pub(in super::super) static SYSCTL: Shape = Shape { name: "Sysctl", fields: &[yes("name"), yes("value")] };

pub(in super::super) static SECCOMP_PROFILE: Shape = Shape {
    name: "SeccompProfile",
    fields: &[
        yes("type"),
        within("localhostProfile", "a file in the node's folder of profiles, see docs/supervisor.md"),
    ],
};

pub(in super::super) static APP_ARMOR_PROFILE: Shape = Shape {
    name: "AppArmorProfile",
    fields: &[within("type", "`Unconfined`"), no("localhostProfile", "profiles of AppArmor are not applied")],
};

pub(in super::super) static POD_DNS_CONFIG: Shape = Shape {
    name: "PodDNSConfig",
    fields: &[within("nameservers", "with `dnsPolicy: None`"), yes("options"), yes("searches")],
};

pub(in super::super) static POD_DNS_CONFIG_OPTION: Shape =
    Shape { name: "PodDNSConfigOption", fields: &[yes("name"), yes("value")] };

pub(in super::super) static HOST_ALIAS: Shape = Shape { name: "HostAlias", fields: &[yes("hostnames"), yes("ip")] };

pub(in super::super) static LOCAL_OBJECT_REFERENCE: Shape =
    Shape { name: "LocalObjectReference", fields: &[yes("name")] };

pub(in super::super) static POD_OS: Shape = Shape { name: "PodOS", fields: &[within("name", "`linux`")] };
