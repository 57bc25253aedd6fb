//! What the scenarios of all engines ask for.

use std::fs;
use std::path::{Path, PathBuf};

use crate::leaks::cgroups_with;

/// Counts in `/tmp/count`: whether it goes on can be seen, and that it did not begin anew.
pub const COUNTING: &str = "i=0; while :; do i=$((i+1)); echo $i > /tmp/new; mv /tmp/new /tmp/count; sleep 0.05; done";

/// A seccomp profile of one's own, in docker's form, and what shows in a container that it is in force.
pub const SECCOMP_PROFILE: &str = r#"{"defaultAction": "SCMP_ACT_ALLOW",
    "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"], "syscalls": [
    {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95},
    {"names": ["sethostname"], "action": "SCMP_ACT_KILL_PROCESS"}]}"#;

/// Tries what [`SECCOMP_PROFILE`] forbids; needs CAP_SYS_ADMIN.
pub const SECCOMP_TRIES: &str =
    "mkdir /tmp/x 2>&1; { (hostname x); echo $?; } 2>/dev/null; grep Seccomp: /proc/self/status";

/// What [`SECCOMP_TRIES`] prints then.
pub const SECCOMP_DENIED: &str = "mkdir: can't create directory '/tmp/x': Operation not supported\n159\nSeccomp:\t2\n";

/// The cgroup folder of container `id` in the v1 hierarchy of `controller`, or in v2's when there is none.
#[must_use]
pub fn cgroup_of(controller: &str, id: &str) -> PathBuf {
    let all = cgroups_with(id);
    let found = all.iter().find(|dir| dir.starts_with(Path::new("/sys/fs/cgroup").join(controller)));
    found.or(all.first()).cloned().unwrap_or_default()
}

/// What stands in a file of container `id`'s cgroup, by its names on v1 and on v2.
///
/// # Panics
///
/// When there is no such file.
#[must_use]
#[track_caller]
pub fn cgroup_value(controller: &str, id: &str, v1: &str, v2: &str) -> String {
    let folder = cgroup_of(controller, id);
    let file = [v1, v2].map(|name| folder.join(name)).into_iter().find(|file| file.exists());
    let file = file.unwrap_or_else(|| panic!("{} has neither {v1} nor {v2}", folder.display()));
    fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display())).trim().to_owned()
}
