//! Annotations with a meaning for the runtime: crun's `run.oci.*` (crun(1), "Extensions to OCI"), which podman and others set.
//!
//! What flint cannot do is refused, as the container would not be what was asked for: those run by a virtual machine or by
//! WebAssembly, and filters that come from elsewhere than `linux.seccomp`. An unknown one is left alone.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

const SUBGROUP: &str = "run.oci.systemd.subgroup";
const DELEGATE: &str = "run.oci.delegate-cgroup";
/// How a label may be an option of a file system (mount(8)).
const CONTEXTS: [&str; 4] = ["context", "fscontext", "defcontext", "rootcontext"];

/// Why each of these is refused.
const REFUSED: [(&str, &str); 3] = [
    ("run.oci.seccomp.plugins", "flint is static and loads no plugins: use linux.seccomp.listenerPath"),
    ("run.oci.seccomp_bpf_data", "a ready filter is not supported: say it in linux.seccomp"),
    (
        "run.oci.systemd.force_cgroup_v1",
        "a cgroup v1 hierarchy inside a container on cgroup v2 is not supported: bind the host's by mounts",
    ),
];

/// The annotations of a bundle, understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Annotations {
    /// The program keeps its maker's supplementary groups.
    pub(super) keep_groups: bool,
    /// Where the hooks' output goes.
    pub(super) hooks_stdout: Option<PathBuf>,
    /// Where what they say of errors goes.
    pub(super) hooks_stderr: Option<PathBuf>,
    /// A system call that no architecture has is an error.
    pub(super) fail_unknown_calls: bool,
    /// A seccomp agent, where `linux.seccomp` names none.
    pub(super) seccomp_receiver: Option<PathBuf>,
    /// What `timens_offsets` gets.
    pub(super) time_offsets: Option<String>,
    /// The option that a mount's label is.
    pub(super) context: &'static str,
    /// Below the unit's cgroup, where the container goes.
    pub(super) subgroup: Option<String>,
    /// Below that, what the container manages itself.
    pub(super) delegate: Option<String>,
}

impl Annotations {
    /// Reads them.
    ///
    /// # Errors
    ///
    /// `Invalid` for wrong values, `Unsupported` for what flint cannot do; each names the annotation.
    pub(super) fn read(annotations: Option<&HashMap<String, String>>) -> Result<Self> {
        let value = |name: &str| annotations.and_then(|all| all.get(name)).map(String::as_str);
        let is_set = |name: &str| value(name).is_some_and(|value| value != "0");
        for (name, why) in REFUSED {
            if value(name).is_some() {
                return Err(Error::unsupported(format!("annotation {name}: {why}")));
            }
        }
        // A pod's own container is run as usual, as under crun.
        let is_pod = value("io.kubernetes.cri.container-type") == Some("sandbox");
        if let Some(handler) = value("run.oci.handler").filter(|handler| !handler.is_empty() && !is_pod) {
            return Err(Error::unsupported(format!(
                "annotation run.oci.handler: flint runs containers as processes, not by {handler:?}: use a crun that has it"
            )));
        }
        let path = |name: &str| match value(name) {
            Some(path) if !Path::new(path).is_absolute() => {
                Err(Error::invalid(format!("annotation {name}: {path:?} is not an absolute path")))
            }
            path => Ok(path.map(PathBuf::from)),
        };
        let context = match value("run.oci.mount_context_type") {
            None => CONTEXTS[0],
            Some(name) => CONTEXTS.into_iter().find(|known| *known == name).ok_or_else(|| {
                Error::invalid(format!(
                    "annotation run.oci.mount_context_type: invalid mount context type {name:?}: it must be one of {}",
                    CONTEXTS.join(", ")
                ))
            })?,
        };
        let time_offsets = value("run.oci.timens_offset").filter(|text| !text.trim().is_empty());
        Ok(Self {
            keep_groups: is_set("run.oci.keep_original_groups"),
            hooks_stdout: path("run.oci.hooks.stdout")?,
            hooks_stderr: path("run.oci.hooks.stderr")?,
            fail_unknown_calls: is_set("run.oci.seccomp_fail_unknown_syscall"),
            seccomp_receiver: path("run.oci.seccomp.receiver")?,
            time_offsets: time_offsets.map(|text| format!("{}\n", text.trim_end())),
            context,
            subgroup: cgroup_path(SUBGROUP, value(SUBGROUP))?,
            delegate: cgroup_path(DELEGATE, value(DELEGATE))?,
        })
    }
}

/// A path below a cgroup; the empty one asks for none.
fn cgroup_path(name: &str, value: Option<&str>) -> Result<Option<String>> {
    let Some(path) = value.map(|path| path.trim_matches('/')).filter(|path| !path.is_empty()) else { return Ok(None) };
    let is_wrong = |part: &str| matches!(part, "" | "." | "..");
    if path.split('/').any(is_wrong) || path.contains(['\0', '\n']) {
        return Err(Error::invalid(format!("annotation {name}: {path:?} is no path below the container's cgroup")));
    }
    Ok(Some(path.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::path::Path;

    use super::Annotations;
    use crate::{Kind, Result};

    fn read(pairs: &[(&str, &str)]) -> Result<Annotations> {
        let map: HashMap<_, _> = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Annotations::read(Some(&map))
    }

    #[test]
    fn values() {
        let found = read(&[
            ("run.oci.keep_original_groups", "1"),
            ("run.oci.seccomp_fail_unknown_syscall", "0"),
            ("run.oci.hooks.stdout", "/log/out"),
            ("run.oci.mount_context_type", "rootcontext"),
            ("run.oci.systemd.subgroup", "/payload/"),
            ("run.oci.delegate-cgroup", ""),
            ("run.oci.timens_offset", "monotonic 5 0"),
            ("run.oci.unknown", "x"),
        ])
        .unwrap();
        assert!(found.keep_groups && !found.fail_unknown_calls);
        assert_eq!(found.hooks_stdout.as_deref(), Some(Path::new("/log/out")));
        assert_eq!((found.context, found.subgroup.as_deref(), found.delegate), ("rootcontext", Some("payload"), None));
        assert_eq!(found.time_offsets.as_deref(), Some("monotonic 5 0\n"));
        assert_eq!(Annotations::read(None).unwrap().context, "context");
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_annotation() {
        for (name, value, kind) in [
            ("run.oci.handler", "krun", Kind::Unsupported),
            ("run.oci.handler", "wasm", Kind::Unsupported),
            ("run.oci.seccomp.plugins", "x.so", Kind::Unsupported),
            ("run.oci.seccomp_bpf_data", "AAAA", Kind::Unsupported),
            ("run.oci.systemd.force_cgroup_v1", "/sys/fs/cgroup/systemd", Kind::Unsupported),
            ("run.oci.mount_context_type", "x", Kind::Invalid),
            ("run.oci.hooks.stderr", "relative", Kind::Invalid),
            ("run.oci.seccomp.receiver", "relative", Kind::Invalid),
            ("run.oci.systemd.subgroup", "a/../../b", Kind::Invalid),
            ("run.oci.delegate-cgroup", "..", Kind::Invalid),
        ] {
            let error = read(&[(name, value)]).unwrap_err();
            assert!(error.kind() == kind && error.to_string().contains(name), "{name} {value}: {error}");
        }
        read(&[("run.oci.handler", "krun"), ("io.kubernetes.cri.container-type", "sandbox")]).unwrap();
    }
}
