//! Names of config.json that the specification and oci-spec spell differently: brought to oci-spec's spelling where its
//! own is refused.

use serde_json::Value;

/// Brings a `process` object (of config.json, or of `exec --process`) to the spelling that oci-spec reads; tells whether
/// anything changed.
pub(crate) fn respell_process(process: &mut Value) -> bool {
    let mut changed = false;
    let flags = process.pointer_mut("/scheduler/flags").and_then(Value::as_array_mut);
    for flag in flags.into_iter().flatten() {
        let theirs = match flag.as_str() {
            Some("SCHED_FLAG_RESET_ON_FORK") => "SCHED_RESET_ON_FORK",
            Some("SCHED_FLAG_DL_OVERRUN") => "SCHED_FLAG_D_L_OVERRUN",
            _ => continue,
        };
        *flag = theirs.into();
        changed = true;
    }
    let affinity = process.get_mut("execCPUAffinity").and_then(Value::as_object_mut);
    for list in affinity.into_iter().flat_map(|affinity| affinity.values_mut()) {
        let Some(text) = list.as_str() else { continue };
        // Blanks and empty entries are allowed by runc, an empty list is none.
        let entries: Vec<_> = text.split(',').map(str::trim).filter(|entry| !entry.is_empty()).collect();
        let respelled = if text.is_empty() { Value::Null } else { entries.join(",").into() };
        changed |= respelled != *list;
        *list = respelled;
    }
    changed
}

/// Brings `pageSize` in `linux.resources.hugepageLimits` of a config to its spelling; tells whether anything changed. Go
/// reads keys in any letters, and of all keys this one is met so, in runc's own tests.
pub(crate) fn respell_hugepages(config: &mut Value) -> bool {
    let mut changed = false;
    let limits = config.pointer_mut("/linux/resources/hugepageLimits").and_then(Value::as_array_mut);
    for limit in limits.into_iter().flatten().filter_map(Value::as_object_mut) {
        let theirs = limit.keys().find(|key| *key != "pageSize" && key.eq_ignore_ascii_case("pageSize")).cloned();
        if let Some(size) = theirs.and_then(|key| limit.remove(&key)) {
            limit.entry("pageSize").or_insert(size);
            changed = true;
        }
    }
    changed
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::Process;
    use serde_json::json;

    use super::{respell_hugepages, respell_process};

    #[test]
    fn the_specifications_names_are_read() {
        let flags = [
            "SCHED_FLAG_RESET_ON_FORK",
            "SCHED_FLAG_RECLAIM",
            "SCHED_FLAG_DL_OVERRUN",
            "SCHED_FLAG_KEEP_POLICY",
            "SCHED_FLAG_KEEP_PARAMS",
            "SCHED_FLAG_UTIL_CLAMP_MIN",
            "SCHED_FLAG_UTIL_CLAMP_MAX",
        ];
        let mut process = json!({"user": {"uid": 0, "gid": 0}, "cwd": "/",
            "scheduler": {"policy": "SCHED_DEADLINE", "flags": flags},
            "execCPUAffinity": {"initial": "", "final": " 0-1,, 3"}});
        assert!(respell_process(&mut process));
        let process: Process = serde_json::from_value(process).unwrap();
        assert_eq!(process.scheduler().as_ref().unwrap().flags().as_ref().unwrap().len(), flags.len());
        let affinity = process.exec_cpu_affinity().as_ref().unwrap();
        assert_eq!(affinity.cpu_affinity_final().as_deref(), Some("0-1,3"));
        assert!(affinity.initial().is_none());
        assert!(!respell_process(&mut json!({"cwd": "/"})));
    }

    #[test]
    fn page_sizes_are_read_in_any_letters() {
        let config = |key: &str| json!({"linux": {"resources": {"hugepageLimits": [{key: "2MB", "limit": 1}]}}});
        let mut other = config("pagesize");
        assert!(respell_hugepages(&mut other));
        assert_eq!(other, config("pageSize"));
        assert!(!respell_hugepages(&mut other));
    }
}
