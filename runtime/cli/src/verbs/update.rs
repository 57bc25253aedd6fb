//! `flint update`

use std::io::Read as _;

use anyhow::{Context, Result};
use flint_runtime::cgroup::parse_resources;
use oci_spec::runtime::LinuxResources;
use serde_json::{Value, json};

use super::{CONTAINER, Verb};
use crate::Session;
use crate::arguments::{Arguments, UsageError, integer, invalid, option};

pub(super) const VERB: Verb = Verb {
    name: "update",
    summary: "change the limits of a container",
    description: "What is not given stays as it is. With --resources all other options are ignored; the JSON is
linux.resources of config.json, but its devices are not looked at. When a limit is
refused, those that were set before it are put back.",
    flags: &[
        option("resources", Some('r'), "FILE", "the limits as JSON, as in config.json; - reads stdin"),
        integer("blkio-weight", None, "N", "share of the block devices' time, 10 to 1000"),
        option("cpu-period", None, "N", "period of the CPU quota, in microseconds"),
        option("cpu-quota", None, "N", "CPU time in a period, in microseconds"),
        option("cpu-burst", None, "N", "CPU time that may be saved up, in microseconds"),
        option("cpu-share", None, "N", "share of the CPU time"),
        option("cpu-rt-period", None, "N", "period of the real-time quota, in microseconds"),
        option("cpu-rt-runtime", None, "N", "real-time CPU time in a period, in microseconds"),
        option("cpu-idle", None, "N", "1 makes it run only when the CPUs are idle"),
        option("cpuset-cpus", None, "LIST", "CPUs it may use"),
        option("cpuset-mems", None, "LIST", "memory nodes it may use"),
        option("memory", None, "N", "memory limit in bytes, or with a unit (50M); -1 for none"),
        option("memory-reservation", None, "N", "soft memory limit, likewise"),
        option("memory-swap", None, "N", "limit of memory and swap together, likewise"),
        integer("pids-limit", None, "N", "most processes; -1 for any number"),
        option("l3-cache-schema", None, "SCHEMA", "Intel RDT L3 cache schema"),
        option("mem-bw-schema", None, "SCHEMA", "Intel RDT memory bandwidth schema"),
        option("kernel-memory", None, "N", ""),
        option("kernel-memory-tcp", None, "N", ""),
    ],
    run,
    ..CONTAINER
};

/// The largest JSON that is read, in bytes.
const LARGEST: u64 = 16 << 20;

fn run(session: &Session, arguments: &Arguments) -> Result<u8> {
    let id = arguments.operand(0)?;
    let resources = match arguments.value("resources") {
        Some(file) if file == "-" => read(std::io::stdin().lock(), "stdin")?,
        Some(file) => {
            let shown = file.display().to_string();
            read(std::fs::File::open(file).with_context(|| format!("open {shown}"))?, &shown)?
        }
        None => given(session, arguments)?,
    };
    let schema = |flag| arguments.text(flag).map(|text| text.filter(|text| !text.is_empty()));
    let (cache, bandwidth) = (schema("l3-cache-schema")?, schema("mem-bw-schema")?);
    // First: where there is no resctrl, nothing is changed.
    if cache.is_some() || bandwidth.is_some() {
        session.runtime()?.update_schemata(id, cache, bandwidth)?;
    }
    let warnings = session.runtime()?.update(id, &resources)?;
    session.warn(&warnings);
    Ok(0)
}

fn read(file: impl std::io::Read, shown: &str) -> Result<LinuxResources> {
    let mut json = Vec::new();
    file.take(LARGEST).read_to_end(&mut json).with_context(|| format!("read the resources from {shown}"))?;
    parse_resources(&json).with_context(|| format!("read the resources from {shown}"))
}

/// The resources that the options name.
fn given(session: &Session, arguments: &Arguments) -> Result<LinuxResources> {
    // Ignored, but not when they are malformed.
    if size(arguments, "kernel-memory")?.or(size(arguments, "kernel-memory-tcp")?).is_some() {
        session.log.warning("Kernel memory settings are ignored and will be removed");
    }
    let mut resources = json!({"cpu": {}, "memory": {}, "blockIO": {}, "pids": {}});
    let mut set = |place: &str, value: Option<Value>| {
        if let (Some((group, field)), Some(value)) = (place.split_once('.'), value) {
            resources[group][field] = value;
        }
    };
    for (flag, place) in [
        ("cpu-period", "cpu.period"),
        ("cpu-burst", "cpu.burst"),
        ("cpu-share", "cpu.shares"),
        ("cpu-rt-period", "cpu.realtimePeriod"),
    ] {
        set(place, number::<u64>(arguments, flag)?);
    }
    for (flag, place) in
        [("cpu-quota", "cpu.quota"), ("cpu-rt-runtime", "cpu.realtimeRuntime"), ("cpu-idle", "cpu.idle")]
    {
        set(place, number::<i64>(arguments, flag)?);
    }
    for (flag, place) in
        [("memory", "memory.limit"), ("memory-swap", "memory.swap"), ("memory-reservation", "memory.reservation")]
    {
        set(place, size(arguments, flag)?.map(Value::from));
    }
    set("cpu.cpus", arguments.text("cpuset-cpus")?.map(Value::from));
    set("cpu.mems", arguments.text("cpuset-mems")?.map(Value::from));
    if let Some(weight) = arguments.integer("blkio-weight").filter(|weight| *weight != 0) {
        let refused = |_| invalid(&weight.to_string(), "blkio-weight", OUT_OF_RANGE);
        set("blockIO.weight", Some(u16::try_from(weight).map_err(refused)?.into()));
    }
    set("pids.limit", arguments.integer("pids-limit").map(Value::from));
    Ok(parse_resources(&serde_json::to_vec(&resources)?)?)
}

const OUT_OF_RANGE: &str = "it must be a whole number in the range of the limit";

/// A decimal number, with a sign only where one may be below 0, as Go's `ParseInt` and `ParseUint` have it.
fn number<N: std::str::FromStr + Into<Value>>(arguments: &Arguments, flag: &str) -> Result<Option<Value>, UsageError> {
    let Some(text) = arguments.text(flag)? else { return Ok(None) };
    let is_signed = "-1".parse::<N>().is_ok();
    let number = text.parse::<N>().ok().filter(|_| is_signed || !text.starts_with('+'));
    number.map(|number| Some(number.into())).ok_or_else(|| invalid(text, flag, OUT_OF_RANGE))
}

fn size(arguments: &Arguments, flag: &str) -> Result<Option<i64>, UsageError> {
    let Some(text) = arguments.text(flag)? else { return Ok(None) };
    let why = "it must be a number of bytes, a size such as 50M, or -1";
    parse_size(text).map(Some).ok_or_else(|| invalid(text, flag, why))
}

/// A size as docker and runc write it: bytes, or a number with one of k, m, g, t, p (and `b` or `ib` behind it), binary;
/// -1 for none.
fn parse_size(text: &str) -> Option<i64> {
    if text == "-1" {
        return Some(-1);
    }
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = text[digits.len()..].to_ascii_lowercase();
    let shift = match unit.strip_suffix("ib").or(unit.strip_suffix('b')).unwrap_or(&unit) {
        "" if unit != "ib" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return None,
    };
    let digits = digits.trim_end_matches(' ');
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return None;
    }
    if let Ok(whole) = digits.parse::<i64>() {
        return whole.checked_mul(1 << shift);
    }
    #[allow(clippy::cast_precision_loss, reason = "a fraction of a unit is no exact number of bytes anyway")]
    let (scaled, largest) = (digits.parse::<f64>().ok()? * (1u64 << shift) as f64, i64::MAX as f64);
    (scaled < largest).then_some(scaled as i64)
}

#[cfg(test)]
mod tests {
    use super::parse_size;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("-1", Some(-1)),
            ("0", Some(0)),
            ("67108864", Some(67_108_864)),
            ("50M", Some(50 << 20)),
            ("50m", Some(50 << 20)),
            ("50MB", Some(50 << 20)),
            ("50MiB", Some(50 << 20)),
            ("50 M", Some(50 << 20)),
            ("1.5g", Some(3 << 29)),
            ("7b", Some(7)),
            ("2t", Some(2 << 40)),
            ("8192p", None),
            ("8191p", Some(8191 << 50)),
            ("-2", None),
            ("", None),
            ("M", None),
            ("5x", None),
            ("5ib", None),
            ("1e3", None),
            ("+5", None),
            ("1..5k", None),
        ] {
            assert_eq!(parse_size(text), bytes, "{text}");
        }
    }
}
