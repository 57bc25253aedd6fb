//! How far init goes ahead of the host, which works on meanwhile.
//!
//! Each time that the one waits for the other costs two changes of the CPU, a tenth of a millisecond of a container that starts
//! in four.

use flint_init::plan::{Barrier, Step};

use super::Compiler;
use crate::cgroup;
use crate::plan::SlotSource;

impl Compiler<'_> {
    /// Has init make its mounts while the host records its pid, and wait before it does what is seen from outside, talks to the
    /// host of something else, or cannot be taken back.
    ///
    /// Where the host must do something to init or for it first (id maps, a unit of systemd), or where init works on the host's
    /// own mounts, it waits where it is born.
    pub(super) fn let_init_go_ahead(&mut self, cgroup: &cgroup::Plan) {
        let depends = self.namespaces.has_user() || cgroup.systemd.is_some();
        if depends || !self.namespaces.is_new(libc::CLONE_NEWNS) {
            return;
        }
        let steps = &mut self.tables.steps;
        let Some(born) = steps.iter().position(|step| *step == Step::Barrier(Barrier::Born)) else { return };
        let after = born + 1;
        let Some(ahead) = steps.iter().skip(after).position(is_seen_outside) else { return };
        if let Some(step) = steps.get_mut(born) {
            *step = Step::Announce(Barrier::Born);
        }
        steps.insert(after + ahead, Step::Barrier(Barrier::Born));
    }

    /// Whether the host has nothing to do between init's first barrier and its start, so that `run` can say both at once.
    pub(super) fn is_straight(&self, cgroup: &cgroup::Plan) -> bool {
        let asks = |source: &SlotSource| *source == SlotSource::HookState || source.is_bound_late();
        self.seccomp_listener.is_none()
            && cgroup.delegate.is_none()
            && !self.tables.slots.iter().any(asks)
            && !self.tables.steps.iter().any(|step| matches!(step, Step::Barrier(barrier) if *barrier != Barrier::Born))
            && !self.tables.steps.iter().any(has_owners_mapped_by_the_host)
    }
}

fn has_owners_mapped_by_the_host(step: &Step) -> bool {
    matches!(step, Step::Mount(mount) if mount.idmap.is_some_and(|idmap| idmap.by_host))
}

fn is_seen_outside(step: &Step) -> bool {
    let meets = matches!(
        step,
        Step::Barrier(_)
            | Step::RunHook(_)
            | Step::Console { .. }
            | Step::OwnStdio { .. }
            | Step::Seccomp { .. }
            | Step::PivotRoot
            | Step::MoveRoot { .. }
            | Step::ChangeRoot
            | Step::AwaitStart { .. }
    );
    meets || has_owners_mapped_by_the_host(step)
}
