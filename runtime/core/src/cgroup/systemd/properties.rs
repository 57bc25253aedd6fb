//! Limits of config.json as properties of a unit (systemd.resource-control(5)). The list and the conversions are runc's: what
//! systemd knows it does not overwrite when it reloads. Everything is written to the cgroup's files as well.

use oci_spec::runtime::{Linux, LinuxCpu, LinuxResources};

use super::super::devices::{self, DeviceKind, DeviceRule};
use super::super::layout::Mode;
use super::super::v2;
use super::value::{Property, Value};
use crate::{Error, Result};

/// Microseconds of `cpu.max` when only a quota is given.
const DEFAULT_PERIOD: u64 = 100_000;
/// systemd counts processor time in hundredths: 10 ms of a second.
const HUNDREDTH: u64 = 10_000;
const SECOND: u64 = 1_000_000;

/// What systemd makes of a quota: rounded up to a hundredth of a processor. The files get the same, so that the two agree.
///
/// In microseconds for each period.
pub(super) fn rounded_quota(quota: i64, period: Option<u64>) -> i64 {
    let period = period.filter(|&period| period != 0).unwrap_or(DEFAULT_PERIOD);
    match u64::try_from(quota) {
        Ok(quota) if quota > 0 => {
            let per_second = per_second(quota, period);
            i64::try_from(u128::from(per_second) * u128::from(period) / u128::from(SECOND)).unwrap_or(i64::MAX)
        }
        _ => quota,
    }
}

fn per_second(quota: u64, period: u64) -> u64 {
    let exact = u128::from(quota) * u128::from(SECOND) / u128::from(period);
    u64::try_from(exact.next_multiple_of(u128::from(HUNDREDTH))).unwrap_or(u64::MAX)
}

/// The same config with the quota that systemd will make of it.
pub(super) fn with_rounded_quota(linux: &Linux) -> Linux {
    let mut linux = linux.clone();
    if let Some(resources) = linux.resources_mut() {
        round_quota(resources);
    }
    linux
}

/// The same in place.
pub(in super::super) fn round_quota(resources: &mut LinuxResources) {
    if let Some(cpu) = resources.cpu_mut()
        && let Some(quota) = cpu.quota()
    {
        cpu.set_quota(Some(rounded_quota(quota, cpu.period())));
    }
}

/// The device rules. systemd knows only lists of what is allowed, so what it cannot say depends on who has the last word: on v2 the
/// kernel asks systemd's program and ours, and systemd's may be the wider; on v1 systemd writes its list over ours when
/// it reloads, so it must be the narrower (runc's is that everywhere).
pub(super) fn of_devices(mode: Mode, rules: &[DeviceRule]) -> Vec<Property> {
    let policy = |policy: &str, allowed: Vec<Value>| {
        let mut properties = vec![
            Property::new("DeviceAllow", Value::list("(ss)", [])),
            Property::new("DevicePolicy", Value::text(policy)),
        ];
        if !allowed.is_empty() {
            properties.push(Property::new("DeviceAllow", Value::list("(ss)", allowed)));
        }
        properties
    };
    if devices::allow_all(rules) {
        return policy("auto", Vec::new());
    }
    let Ok((false, allowed)) = devices::folded(rules) else {
        return policy(if mode == Mode::V2 { "auto" } else { "strict" }, Vec::new());
    };
    // systemd has no word for one minor number of every major one.
    let can_be_said = |rule: &&DeviceRule| mode == Mode::V2 || rule.major.is_some() || rule.minor.is_none();
    let entry = |rule: &DeviceRule| {
        let (folder, group) = if rule.kind == DeviceKind::Block { ("block", "block-") } else { ("char", "char-") };
        let device = match (rule.major, rule.minor) {
            (Some(major), Some(minor)) => format!("/dev/{folder}/{major}:{minor}"),
            (Some(major), None) => format!("{group}{major}"),
            (None, _) => format!("{group}*"),
        };
        Value::Struct(vec![Value::Text(device), Value::Text(rule.access.to_string())])
    };
    policy("strict", allowed.iter().filter(can_be_said).map(entry).collect())
}

/// The limits of `linux.resources`, without the devices.
///
/// # Errors
///
/// A value of `unified` or a list of processors that systemd could not read.
pub(in super::super) fn of_resources(mode: Mode, resources: &LinuxResources) -> Result<Vec<Property>> {
    let is_v2 = mode == Mode::V2;
    let mut all = Vec::new();
    let mut add = |name: &str, value: u64| all.push(Property::new(name, Value::Uint64(value)));
    let set = |value: Option<i64>| value.filter(|&value| value != 0).map(|value| value as u64);
    if let Some(memory) = resources.memory() {
        if let Some(limit) = set(memory.limit()) {
            add(if is_v2 { "MemoryMax" } else { "MemoryLimit" }, limit);
        }
        if is_v2 {
            if let Some(reservation) = set(memory.reservation()) {
                add("MemoryLow", reservation);
            }
            let swap = v2::swap_alone(memory.limit().filter(|&l| l != 0), memory.swap().filter(|&s| s != 0))?;
            if let Some(swap) = swap {
                add("MemorySwapMax", swap as u64);
            }
        }
    }
    if !is_v2
        && let Some(weight) =
            resources.block_io().as_ref().and_then(oci_spec::runtime::LinuxBlockIo::weight).filter(|&w| w != 0)
    {
        add("BlockIOWeight", weight.into());
    }
    if let Some(pids) = resources.pids() {
        add("TasksMax", u64::try_from(pids.limit()).map_or(u64::MAX, |limit| limit.max(1)));
    }
    if let Some(cpu) = resources.cpu() {
        of_cpu(is_v2, cpu, &mut all)?;
    }
    if is_v2 {
        for (file, value) in resources.unified().iter().flatten() {
            of_file(file, value.trim(), &mut all)?;
        }
    }
    Ok(all)
}

fn of_cpu(is_v2: bool, cpu: &LinuxCpu, all: &mut Vec<Property>) -> Result<()> {
    let is_idle = is_v2 && cpu.idle() == Some(1);
    if is_idle {
        all.push(idle());
    } else if let Some(shares) = cpu.shares().filter(|&shares| shares != 0) {
        let weight = if is_v2 { v2::weight_of_shares(shares) } else { shares };
        all.push(Property::new(if is_v2 { "CPUWeight" } else { "CPUShares" }, Value::Uint64(weight)));
    }
    let quota = cpu.quota().filter(|&quota| quota != 0);
    of_quota(quota, cpu.period().filter(|&period| period != 0), all);
    for (name, list) in [("AllowedCPUs", cpu.cpus()), ("AllowedMemoryNodes", cpu.mems())] {
        if let Some(list) = list.as_deref().filter(|list| !list.is_empty()) {
            all.push(Property::new(name, bits(list)?));
        }
    }
    Ok(())
}

/// Takes away what cannot be told to systemd; what to say of it, each a sentence (runc's). To systemd an idle cgroup is one of the
/// weight 0, and the kernel takes no weight for it.
pub(in super::super) fn leave_out(mode: Mode, resources: &mut LinuxResources) -> Vec<String> {
    let mut warnings = Vec::new();
    if mode != Mode::V2 {
        return warnings;
    }
    if let Some(cpu) = resources.cpu_mut()
        && cpu.idle() == Some(1)
        && cpu.shares().unwrap_or(0) != 0
    {
        cpu.set_shares(None);
        warnings.push("unable to apply both CPUWeight and CpuIdle to systemd, ignoring CPUWeight".to_owned());
    }
    if let Some(files) = resources.unified_mut()
        && files.get("cpu.idle").is_some_and(|idle| idle.trim() == "1")
        && files.remove("cpu.weight").is_some()
    {
        warnings.push("unable to apply both cpu.weight and cpu.idle to systemd, ignoring cpu.weight".to_owned());
    }
    warnings
}

/// systemd sets cpu.idle for the weight 0 (systemd 252).
fn idle() -> Property {
    Property::new("CPUWeight", Value::Uint64(0))
}

fn of_quota(quota: Option<i64>, period: Option<u64>, all: &mut Vec<Property>) {
    if let Some(period) = period {
        all.push(Property::new("CPUQuotaPeriodUSec", Value::Uint64(period)));
    }
    if quota.is_some() || period.is_some() {
        let quota = quota.and_then(|quota| u64::try_from(quota).ok()).filter(|&quota| quota != 0);
        let value = quota.map_or(u64::MAX, |quota| per_second(quota, period.unwrap_or(DEFAULT_PERIOD)));
        all.push(Property::new("CPUQuotaPerSecUSec", Value::Uint64(value)));
    }
}

/// A file of `linux.resources.unified`; those that systemd has no property for are written as files alone.
fn of_file(file: &str, value: &str, all: &mut Vec<Property>) -> Result<()> {
    let wrong = || Error::invalid(format!("linux.resources.unified: {value:?} is no value for {file}"));
    let number = |value: &str| if value == "max" { Ok(u64::MAX) } else { value.parse::<u64>().map_err(|_| wrong()) };
    let simple = match file {
        "memory.high" => "MemoryHigh",
        "memory.low" => "MemoryLow",
        "memory.min" => "MemoryMin",
        "memory.max" => "MemoryMax",
        "memory.swap.max" => "MemorySwapMax",
        "memory.zswap.max" => "MemoryZSwapMax",
        "pids.max" => "TasksMax",
        "cpu.weight" => "CPUWeight",
        "cpu.idle" => {
            if value == "1" {
                all.push(idle());
            }
            return Ok(());
        }
        "cpuset.cpus" | "cpuset.mems" => {
            let name = if file == "cpuset.cpus" { "AllowedCPUs" } else { "AllowedMemoryNodes" };
            all.push(Property::new(name, bits(value)?));
            return Ok(());
        }
        "cpu.max" => {
            let mut parts = value.split_ascii_whitespace();
            let quota = parts.next().ok_or_else(wrong)?;
            let quota = if quota == "max" { None } else { Some(quota.parse::<i64>().map_err(|_| wrong())?) };
            let period = parts.next().map(|period| period.parse::<u64>().map_err(|_| wrong())).transpose()?;
            of_quota(quota, Some(period.filter(|&period| period != 0).unwrap_or(DEFAULT_PERIOD)), all);
            return Ok(());
        }
        _ => return Ok(()),
    };
    // systemd does not take 0 for TasksMax.
    let number = number(value)?;
    all.push(Property::new(simple, Value::Uint64(if file == "pids.max" { number.max(1) } else { number })));
    Ok(())
}

/// A list such as `0-2,4` as a set of bits, the lowest byte first.
fn bits(list: &str) -> Result<Value> {
    /// `CONFIG_NR_CPUS` goes to 8192.
    const MOST: usize = 8192;
    let wrong =
        || Error::invalid(format!("linux.resources.cpu: {list:?} is no list such as 0-2,4 of numbers below {MOST}"));
    let number = |text: &str| text.trim().parse::<usize>().ok().filter(|&number| number < MOST).ok_or_else(wrong);
    let mut octets: Vec<u8> = Vec::new();
    for range in list.split(',').map(str::trim).filter(|range| !range.is_empty()) {
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        let (first, end) = (number(from)?, number(to)?);
        if first > end {
            return Err(wrong());
        }
        octets.resize(octets.len().max(end / 8 + 1), 0);
        for bit in first..=end {
            octets[bit / 8] |= 1 << (bit % 8);
        }
    }
    if octets.is_empty() { Err(wrong()) } else { Ok(Value::list("y", octets.into_iter().map(Value::Byte))) }
}

#[cfg(test)]
#[path = "properties_tests.rs"]
mod tests;
