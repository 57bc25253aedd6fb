//! v1.Container and what is in it.

use super::{Shape, idle, no, within, yes};

pub(in super::super) static CONTAINER: Shape = Shape {
    name: "Container",
    fields: &[
        yes("args"),
        yes("command"),
        yes("env"),
        yes("envFrom"),
        yes("image"),
        yes("imagePullPolicy"),
        yes("lifecycle"),
        yes("livenessProbe"),
        yes("name"),
        within("ports", "host ports are opened; the others name ports for probes"),
        yes("readinessProbe"),
        within("resizePolicy", "`NotRequired`: limits are changed while the container runs"),
        yes("resources"),
        no("restartPolicy", "sidecar containers are not offered: put it under containers"),
        no("restartPolicyRules", "the pod's restartPolicy counts for all its containers"),
        yes("securityContext"),
        yes("startupProbe"),
        within("stdin", "input is kept open for `flintctl attach`"),
        within("stdinOnce", "input ends with the first client that attached to it; a terminal stays"),
        within("terminationMessagePath", "its first 4,096 bytes are the message of the container's end"),
        idle("terminationMessagePolicy", "the file alone is read: `flintctl logs --tail` shows the end of the log"),
        yes("tty"),
        no("volumeDevices", "block devices are not offered by a node alone"),
        yes("volumeMounts"),
        yes("workingDir"),
    ],
};

pub(in super::super) static CONTAINER_PORT: Shape = Shape {
    name: "ContainerPort",
    fields: &[
        yes("containerPort"),
        yes("hostIP"),
        within("hostPort", "in the host's network it has to be the containerPort"),
        yes("name"),
        yes("protocol"),
    ],
};

pub(in super::super) static ENV_VAR: Shape =
    Shape { name: "EnvVar", fields: &[yes("name"), yes("value"), yes("valueFrom")] };

pub(in super::super) static ENV_VAR_SOURCE: Shape = Shape {
    name: "EnvVarSource",
    fields: &[
        yes("configMapKeyRef"),
        yes("fieldRef"),
        no("fileKeyRef", "variables are known before the volume has a file"),
        yes("resourceFieldRef"),
        yes("secretKeyRef"),
    ],
};

pub(in super::super) static KEY_SELECTOR: Shape =
    Shape { name: "ConfigMapKeySelector, SecretKeySelector", fields: &[yes("key"), yes("name"), yes("optional")] };

pub(in super::super) static OBJECT_FIELD_SELECTOR: Shape = Shape {
    name: "ObjectFieldSelector",
    fields: &[
        within("apiVersion", "`v1`"),
        within(
            "fieldPath",
            "metadata.name, .namespace, .uid, .labels, .annotations; spec.nodeName, .serviceAccountName; in variables \
             status.podIP, .podIPs, .hostIP, .hostIPs",
        ),
    ],
};

pub(in super::super) static RESOURCE_FIELD_SELECTOR: Shape = Shape {
    name: "ResourceFieldSelector",
    fields: &[
        yes("containerName"),
        yes("divisor"),
        within(
            "resource",
            "requests and limits of cpu, memory and ephemeral-storage; a limit that is not given is the node's",
        ),
    ],
};

pub(in super::super) static ENV_FROM_SOURCE: Shape =
    Shape { name: "EnvFromSource", fields: &[yes("configMapRef"), yes("prefix"), yes("secretRef")] };

pub(in super::super) static OPTIONAL_REFERENCE: Shape =
    Shape { name: "ConfigMapEnvSource, SecretEnvSource", fields: &[yes("name"), yes("optional")] };

pub(in super::super) static RESOURCE_REQUIREMENTS: Shape = Shape {
    name: "ResourceRequirements",
    fields: &[
        no("claims", "dynamic resource allocation needs drivers that a node alone has not"),
        within("limits", "cpu, memory, ephemeral-storage"),
        within("requests", "cpu, memory, ephemeral-storage"),
    ],
};

pub(in super::super) static RESIZE_POLICY: Shape =
    Shape { name: "ContainerResizePolicy", fields: &[yes("resourceName"), within("restartPolicy", "`NotRequired`")] };

pub(in super::super) static SECURITY_CONTEXT: Shape = Shape {
    name: "SecurityContext",
    fields: &[
        yes("allowPrivilegeEscalation"),
        within("appArmorProfile", "`Unconfined`"),
        yes("capabilities"),
        yes("privileged"),
        within("procMount", "`Default`"),
        yes("readOnlyRootFilesystem"),
        within("runAsGroup", "with runAsUser"),
        yes("runAsNonRoot"),
        yes("runAsUser"),
        no("seLinuxOptions", "labels of SELinux are not set"),
        within(
            "seccompProfile",
            "without one, and the pod's, RuntimeDefault holds; Unconfined for a privileged container",
        ),
        no("windowsOptions", "this is Linux"),
    ],
};

pub(in super::super) static CAPABILITIES: Shape = Shape { name: "Capabilities", fields: &[yes("add"), yes("drop")] };

pub(in super::super) static PROBE: Shape = Shape {
    name: "Probe",
    fields: &[
        yes("exec"),
        yes("failureThreshold"),
        yes("grpc"),
        yes("httpGet"),
        yes("initialDelaySeconds"),
        yes("periodSeconds"),
        within("successThreshold", "1 but for readiness probes"),
        yes("tcpSocket"),
        within("terminationGracePeriodSeconds", "not for readiness probes"),
        yes("timeoutSeconds"),
    ],
};

pub(in super::super) static EXEC_ACTION: Shape = Shape { name: "ExecAction", fields: &[yes("command")] };

pub(in super::super) static HTTP_GET_ACTION: Shape = Shape {
    name: "HTTPGetAction",
    fields: &[
        yes("host"),
        yes("httpHeaders"),
        yes("path"),
        yes("port"),
        within("scheme", "certificates are not looked at"),
    ],
};

pub(in super::super) static HTTP_HEADER: Shape = Shape { name: "HTTPHeader", fields: &[yes("name"), yes("value")] };

pub(in super::super) static TCP_SOCKET_ACTION: Shape =
    Shape { name: "TCPSocketAction", fields: &[yes("host"), yes("port")] };

pub(in super::super) static GRPC_ACTION: Shape = Shape { name: "GRPCAction", fields: &[yes("port"), yes("service")] };

pub(in super::super) static LIFECYCLE: Shape = Shape {
    name: "Lifecycle",
    fields: &[yes("postStart"), yes("preStop"), within("stopSignal", "a name of signal(7)")],
};

pub(in super::super) static LIFECYCLE_HANDLER: Shape = Shape {
    name: "LifecycleHandler",
    fields: &[
        yes("exec"),
        yes("httpGet"),
        yes("sleep"),
        no("tcpSocket", "Kubernetes does nothing with it either, and keeps it for old manifests only"),
    ],
};

pub(in super::super) static SLEEP_ACTION: Shape = Shape { name: "SleepAction", fields: &[yes("seconds")] };
