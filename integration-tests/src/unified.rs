//! Cgroup v2 alone, in a mount namespace of the test's own.

use std::sync::{Mutex, PoisonError};

use crate::{Case, Command, Output};

/// What the v2 root hands down; flint enables what there is, as runc does, and the host gets it back as it was.
const RESTORED: &str = "mount --make-rprivate / && umount -R /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup || exit 99; \
    before=$(cat /sys/fs/cgroup/cgroup.subtree_control); \"$@\"; code=$?; \
    for name in $(cat /sys/fs/cgroup/cgroup.subtree_control); do \
        case \" $before \" in *\" $name \"*) ;; *) echo -$name > /sys/fs/cgroup/cgroup.subtree_control;; esac; \
    done; exit $code";

/// One at a time: what the root hands down is put back at the end.
static TREE: Mutex<()> = Mutex::new(());

/// Runs a script (`sh -e`) where the v2 tree alone is mounted, as `$FLINT --root $ROOT`.
#[must_use]
pub fn on_v2(case: &Case, script: &str) -> Output {
    let _one = TREE.lock().unwrap_or_else(PoisonError::into_inner);
    let state = case.state_root();
    let flint = crate::flint().path;
    Command::new("unshare")
        .args(["--mount", "sh", "-c", RESTORED, "sh", "sh", "-ec", script])
        .env("FLINT", flint)
        .env("ROOT", state)
        .output()
}
