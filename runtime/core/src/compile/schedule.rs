//! Where and when the program runs: scheduler, I/O priority, CPUs, memory policy, personality.

use flint_init::SchedulerAttributes;
use flint_init::plan::{Range, Step};
use oci_spec::runtime::{
    ExecCPUAffinity, IOPriorityClass, LinuxIOPriority, LinuxMemoryPolicy, LinuxPersonalityDomain, LinuxSchedulerFlag,
    LinuxSchedulerPolicy, MemoryPolicyFlagType, MemoryPolicyModeType, Process, Scheduler,
};

use super::Compiler;
use crate::{Error, Result};

/// The highest CPU or node that is taken, as in runc: more than any kernel can have.
const HIGHEST: u32 = 65_536;

impl Compiler<'_> {
    /// The CPUs that `process.execCPUAffinity` says: before the move into the cgroup (`initial`) and after it.
    /// Without it the caller's own affinity is undone after the move, as runc does: a pinned daemon shall not pin its
    /// containers.
    ///
    /// config.json's applies to exec alone (runtime-spec, config.md "execCPUAffinity").
    pub(super) fn exec_affinity(&mut self, affinity: Option<&ExecCPUAffinity>) -> Result<[Option<Step>; 2]> {
        let mut step = |field: &str, list: Option<&String>| -> Result<Option<Step>> {
            let Some(list) = list.filter(|list| !list.is_empty()) else { return Ok(None) };
            let mask = numbers(&format!("process.execCPUAffinity.{field}"), list)?;
            Ok(Some(Step::CpuAffinity { mask: self.tables.mask(&mask) }))
        };
        let initial = step("initial", affinity.and_then(|affinity| affinity.initial().as_ref()))?;
        let last = step("final", affinity.and_then(|affinity| affinity.cpu_affinity_final().as_ref()))?;
        let reset = (initial.is_none() && last.is_none()).then_some(Step::CpuAffinity { mask: Range::default() });
        Ok([initial, last.or(reset)])
    }

    /// With root's rights, so that what fails does so in `create`; before the filter, which may forbid the calls.
    pub(super) fn scheduling(&mut self, process: &Process) -> Result<()> {
        if let Some(scheduler) = process.scheduler() {
            self.tables.push(Step::Scheduler { attributes: attributes(scheduler)? });
        }
        if let Some(priority) = process.io_priority() {
            self.tables.push(Step::IoPriority { priority: io_priority(*priority)? });
        }
        let Some(linux) = self.linux else { return Ok(()) };
        if let Some(personality) = linux.personality() {
            if let Some(flags) = personality.flags().as_ref().filter(|flags| !flags.is_empty()) {
                let flags = flags.join(" ");
                self.warnings.push(format!("linux.personality.flags: {flags} are not supported and ignored"));
            }
            let domain = match personality.domain() {
                LinuxPersonalityDomain::PerLinux => PER_LINUX,
                LinuxPersonalityDomain::PerLinux32 => PER_LINUX32,
            };
            self.tables.push(Step::Personality { domain });
        }
        if let Some(policy) = linux.memory_policy() {
            let (mode, nodes) = memory_policy(policy)?;
            let nodes = self.tables.mask(&nodes);
            self.tables.push(Step::MemoryPolicy { mode, nodes });
        }
        Ok(())
    }
}

/// personality(2)
const PER_LINUX: u32 = 0;
const PER_LINUX32: u32 = 8;

/// `enum sched_policy` and `SCHED_FLAG_*` of the kernel's linux/sched.h; the rules are runc's.
fn attributes(scheduler: &Scheduler) -> Result<SchedulerAttributes> {
    let policy = *scheduler.policy();
    let (nice, priority) = (scheduler.nice().unwrap_or(0), scheduler.priority().unwrap_or(0));
    let times = [scheduler.runtime(), scheduler.deadline(), scheduler.period()].map(|time| time.unwrap_or(0));
    if matches!(policy, LinuxSchedulerPolicy::SchedOther | LinuxSchedulerPolicy::SchedBatch)
        && !(-20..=19).contains(&nice)
    {
        return Err(Error::invalid(format!("invalid scheduler.nice: {nice} with {policy}: it goes from -20 to 19")));
    }
    let real_time = matches!(policy, LinuxSchedulerPolicy::SchedFifo | LinuxSchedulerPolicy::SchedRr);
    if priority != 0 && !real_time {
        return Err(Error::invalid(
            "process: scheduler.priority can only be specified for SchedFIFO or SchedRR policy",
        ));
    }
    if priority < 0 {
        return Err(Error::invalid(format!("process.scheduler.priority: {priority} is below 0")));
    }
    if policy != LinuxSchedulerPolicy::SchedDeadline && times != [0; 3] {
        return Err(Error::invalid(
            "process: scheduler runtime/deadline/period can only be specified for SchedDeadline policy",
        ));
    }
    let policy = match policy {
        LinuxSchedulerPolicy::SchedOther => 0,
        LinuxSchedulerPolicy::SchedFifo => 1,
        LinuxSchedulerPolicy::SchedRr => 2,
        LinuxSchedulerPolicy::SchedBatch => 3,
        LinuxSchedulerPolicy::SchedIso => 4,
        LinuxSchedulerPolicy::SchedIdle => 5,
        LinuxSchedulerPolicy::SchedDeadline => 6,
    };
    let flags = scheduler.flags().iter().flatten().fold(0, |flags, flag| flags | scheduler_flag(*flag));
    let [runtime, deadline, period] = times;
    Ok(SchedulerAttributes::new(policy, flags, nice, priority as u32).with_times(runtime, deadline, period))
}

fn scheduler_flag(flag: LinuxSchedulerFlag) -> u64 {
    match flag {
        LinuxSchedulerFlag::SchedResetOnFork => 0x01,
        LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
        LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
        LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
        LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
        LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
        LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
    }
}

/// `IOPRIO_PRIO_VALUE` of the kernel's linux/ioprio.h.
fn io_priority(priority: LinuxIOPriority) -> Result<u32> {
    let class = match priority.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    match u32::try_from(priority.priority()) {
        Ok(level @ 0..=7) => Ok(class << 13 | level),
        _ => Err(Error::invalid(format!(
            "invalid ioPriority.Priority: {}: it goes from 0 (highest) to 7",
            priority.priority()
        ))),
    }
}

/// The mode with its flags, and the nodes (`MPOL_*` of the kernel's linux/mempolicy.h).
fn memory_policy(policy: &LinuxMemoryPolicy) -> Result<(u32, Vec<u64>)> {
    let nodes = match policy.nodes().as_deref().filter(|nodes| !nodes.is_empty()) {
        Some(list) => numbers("linux.memoryPolicy: invalid memory policy nodes", list)?,
        None => Vec::new(),
    };
    let count: u32 = nodes.iter().map(|word| word.count_ones()).sum();
    let mode = match policy.mode() {
        MemoryPolicyModeType::MpolDefault => 0,
        MemoryPolicyModeType::MpolPreferred => 1,
        MemoryPolicyModeType::MpolBind => 2,
        MemoryPolicyModeType::MpolInterleave => 3,
        MemoryPolicyModeType::MpolLocal => 4,
        MemoryPolicyModeType::MpolPreferredMany => 5,
        MemoryPolicyModeType::MpolWeightedInterleave => 6,
    };
    match policy.mode() {
        MemoryPolicyModeType::MpolDefault | MemoryPolicyModeType::MpolLocal if count > 0 => {
            return Err(Error::invalid(format!(
                "linux.memoryPolicy: {}: the mode requires 0 nodes but got {count}",
                policy.mode()
            )));
        }
        MemoryPolicyModeType::MpolBind
        | MemoryPolicyModeType::MpolInterleave
        | MemoryPolicyModeType::MpolPreferredMany
        | MemoryPolicyModeType::MpolWeightedInterleave
            if count == 0 =>
        {
            return Err(Error::invalid(format!(
                "linux.memoryPolicy: {}: the mode requires at least one node but got 0",
                policy.mode()
            )));
        }
        _ => {}
    }
    let flags = policy.flags().iter().flatten().fold(0, |flags, flag| {
        flags
            | match flag {
                MemoryPolicyFlagType::MpolFNumaBalancing => 1 << 13,
                MemoryPolicyFlagType::MpolFRelativeNodes => 1 << 14,
                MemoryPolicyFlagType::MpolFStaticNodes => 1 << 15,
            }
    });
    Ok((mode | flags, nodes))
}

/// Reads a list as in cpuset(7), `0-3,5,7-9`, into a set: bit n of the words is number n. Blanks around and empty
/// entries between commas are allowed, as in runc; nothing else is.
fn numbers(field: &str, list: &str) -> Result<Vec<u64>> {
    let wrong = |entry: &str, why: &str| Err(Error::invalid(format!("{field}: {entry:?} in {list:?}: {why}")));
    let number = |text: &str| match text.parse::<u32>() {
        Ok(number) if text.bytes().all(|byte| byte.is_ascii_digit()) && number <= HIGHEST => Some(number),
        _ => None,
    };
    let mut set = Vec::new();
    for entry in list.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        let (from, to) = entry.split_once('-').unwrap_or((entry, entry));
        let (Some(from), Some(to)) = (number(from), number(to)) else {
            return wrong(entry, "it must be a number up to 65536, or two with a dash");
        };
        if from > to {
            return wrong(entry, "the range ends before it begins");
        }
        for number in from..=to {
            let word = number as usize / 64;
            if set.len() <= word {
                set.resize(word + 1, 0u64);
            }
            set[word] |= 1 << (number % 64);
        }
    }
    if set.is_empty() {
        return wrong(list, "no members found in the list");
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::numbers;

    #[test]
    fn lists_of_numbers() {
        let read = |list: &str| numbers("f", list).unwrap();
        assert_eq!(read("0"), [1]);
        assert_eq!(read("0-3,5"), [0b10_1111]);
        assert_eq!(read("63-64"), [1 << 63, 1]);
        assert_eq!(read(" 1 ,, 3 ,"), [0b1010]);
        assert_eq!(read("65536").len(), 1025);
        for wrong in ["", ",", "a", "1-", "-1", "3-1", "+1", "1-2-3", "0x1", "1 2", "65537", "0-9876543210", "-"] {
            let error = numbers("the.field", wrong).unwrap_err().to_string();
            assert!(error.starts_with("the.field: "), "{error}");
        }
    }
}
