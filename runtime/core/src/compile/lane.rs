//! The host's lane.

use flint_init::plan::{Barrier, Slot};
use oci_spec::runtime::Process;

use super::Compiler;
use crate::cgroup;
use crate::plan::{HostHookStage, HostStep, SlotSource};

/// The host's lane, as drawn in [`crate::plan`].
///
/// systemd makes a scope only with a process in it, so the cgroups come behind the clone with it; init waits at its first barrier.
pub(super) fn host_lane(
    compiler: &Compiler<'_>,
    process: &Process,
    net_devices: bool,
    host_hooks: bool,
    start_ahead: bool,
    cgroup: &cgroup::Plan,
) -> Vec<HostStep> {
    let systemd = cgroup.systemd.is_some();
    let mut lane = vec![HostStep::ClaimId];
    let shows_cgroup = |source: &SlotSource| matches!(source, SlotSource::CgroupMount { .. });
    if !systemd {
        lane.push(HostStep::MakeCgroup);
    } else if compiler.tables.slots.iter().any(shows_cgroup) {
        lane.push(HostStep::MakeCgroupFolders);
    }
    let early = |source: &SlotSource| *source != SlotSource::Made && !source.is_bound_late();
    let slots = compiler.tables.slots.iter().enumerate().filter(|(_, source)| early(source));
    lane.extend(slots.map(|(slot, _)| HostStep::Bind(Slot(slot as u16))));
    lane.extend([HostStep::Clone, HostStep::Await(Barrier::Born)]);
    if compiler.namespaces.is_new(libc::CLONE_NEWUSER) {
        lane.push(HostStep::IdMaps);
    }
    let limited = process.rlimits().iter().flatten().next().is_some();
    if limited && compiler.namespaces.has_user() && !compiler.host.caller.is_unprivileged() {
        lane.push(HostStep::HardLimits);
    }
    if process.oom_score_adj().is_some() {
        lane.push(HostStep::OomScore);
    }
    if systemd {
        lane.extend([HostStep::StartUnit, HostStep::MakeCgroup]);
    }
    lane.push(HostStep::JoinCgroup);
    if cgroup.subgroup.is_some() {
        lane.push(HostStep::EnterSubgroup);
    }
    if compiler.linux.is_some_and(|linux| linux.intel_rdt().is_some()) {
        lane.push(HostStep::Resctrl);
    }
    lane.extend([HostStep::SaveState, HostStep::Release(Barrier::Born)]);
    if net_devices {
        lane.extend([HostStep::Await(Barrier::Network), HostStep::NetDevices, HostStep::Release(Barrier::Network)]);
    }
    if compiler.tables.slots.iter().any(SlotSource::is_bound_late) {
        lane.extend([HostStep::Await(Barrier::Sources), HostStep::BindMounts, HostStep::Release(Barrier::Sources)]);
    }
    if host_hooks {
        lane.extend([
            HostStep::Await(Barrier::Mounted),
            HostStep::Hooks(HostHookStage::Prestart),
            HostStep::Hooks(HostHookStage::CreateRuntime),
            HostStep::Release(Barrier::Mounted),
        ]);
    }
    if start_ahead {
        lane.push(HostStep::Start);
    }
    lane.push(HostStep::AwaitReady);
    if cgroup.delegate.is_some() {
        lane.push(HostStep::Delegate);
    }
    lane
}
