//! What must hold of any `linux.seccomp`: refused with a sentence, or compiled to a program that the kernel takes, the
//! same each time, and whose results are libseccomp's wherever those are sure.
//!
//! libseccomp (2.5) merges several rules with conditions on one call into a tree and now and then loses or invents a
//! match, so a call is compared only where at most one rule with conditions, or none but unconditional ones, decides it.
//! In filters for several architectures it errs with single rules too, now and then: where the two differ, the profile's own
//! words decide.

use std::collections::{BTreeMap, BTreeSet};

use oci_spec::runtime::{Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall};
use serde_json::Value;

use super::abi::{self, Abi};
use super::interpreter::{self, Call};
use super::oracle::{self, Oracle, keep_known_names};
use super::{Filter, action, compile};
use crate::fuzzing::Verdict;

/// Docker's default profile in OCI form, as moby writes it for a container with the default capabilities.
pub(super) const DOCKER: &str = include_str!("../../tests/fixtures/docker-default-seccomp.json");

const SMALL: &str = r#"{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "flags": ["SECCOMP_FILTER_FLAG_LOG"],
    "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_AARCH64"], "syscalls": [
    {"names": ["read", "socket"], "action": "SCMP_ACT_ALLOW"},
    {"names": ["clone"], "action": "SCMP_ACT_TRACE", "errnoRet": 7, "args": [
        {"index": 0, "value": 2114060288, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"},
        {"index": 1, "value": 9, "op": "SCMP_CMP_GE"}]}]}"#;

/// Names that are compared in one profile: a profile of thousands takes its time by itself.
const NAMES: usize = 64;

/// Profiles that compile, to be damaged.
pub(crate) fn seeds() -> Vec<Value> {
    [SMALL, DOCKER].map(|json| serde_json::from_str(json).expect("JSON")).to_vec()
}

/// Compiles `json` and compares the result with libseccomp's.
///
/// # Panics
///
/// When what must hold does not.
#[allow(clippy::must_use_candidate, reason = "what counts is that it returns")]
pub fn check(json: &[u8]) -> Verdict {
    let Ok(spec) = serde_json::from_slice::<LinuxSeccomp>(json) else { return Verdict::Refused };
    match compile(&spec) {
        Ok(filter) => {
            if let Some(filter) = filter {
                interpreter::check(&filter.program);
                let again = compile(&spec).expect("compiles again").expect("filters something again");
                let code = |filter: &Filter| format!("{:?}", filter.program);
                assert_eq!(code(&filter), code(&again), "{}", String::from_utf8_lossy(json));
            }
            compare(spec);
            Verdict::Taken
        }
        Err(error) => {
            assert!(!error.to_string().trim().is_empty());
            Verdict::Refused
        }
    }
}

/// What was compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Compared {
    /// Results of a call with its arguments.
    pub(super) results: usize,
    /// Those in which libseccomp does not do what the profile says.
    pub(super) wrong: usize,
}

/// Compares the results of the profile's known names with libseccomp's. None where libseccomp does not take the profile.
pub(super) fn compare(mut spec: LinuxSeccomp) -> Compared {
    keep_known_names(&mut spec);
    let spec = &spec;
    let listed = spec.architectures().as_deref().unwrap_or_default();
    let mut compared = Compared::default();
    if !comparable(spec, listed) {
        return compared;
    }
    let Ok(Some(filter)) = compile(spec) else { return compared };
    let Some(oracle) = Oracle::new(spec) else { return compared };
    let mut random = crate::mutation::Random(0);
    let families = abi::families(listed, &mut Vec::new());
    for abi in families.iter().flatten() {
        let numbers: BTreeMap<_, _> = (abi.calls)().into_iter().map(|(number, name)| (name, number)).collect();
        for number in sure_numbers(spec, abi, &numbers) {
            for arguments in arguments(spec, &mut random) {
                let call = Call { number, architecture: abi.audit, arguments };
                let (ours, theirs) = (interpreter::run(&filter.program, &call).0, oracle.run(&call));
                compared.results += 1;
                if ours != theirs {
                    let name = numbers.iter().find(|(_, known)| **known == number).map(|(name, _)| *name);
                    let meant = name.and_then(|name| meant(spec, name, abi.wide, &arguments));
                    assert_eq!(
                        Some(ours),
                        meant,
                        "ours {ours:#x}, libseccomp's {theirs:#x}, meant {meant:#x?} for {call:#x?} under {}",
                        serde_json::to_string(spec).unwrap_or_default()
                    );
                    compared.wrong += 1;
                }
            }
        }
    }
    compared
}

/// What the profile itself says of a call that it names: the action of its only rule, or of the first unconditional
/// one, if that is met, else the default one.
fn meant(spec: &LinuxSeccomp, name: &str, wide: bool, arguments: &[u64; 6]) -> Option<u32> {
    let value = |action, number| action::return_value(action, number, "", &mut Vec::new()).ok();
    let default = value(spec.default_action(), spec.default_errno_ret())?;
    let mut rules = spec.syscalls().iter().flatten().filter(|block| block.names().iter().any(|known| known == name));
    let met = rules
        .find(|block| value(block.action(), block.errno_ret()) != Some(default) && matches(block, wide, arguments));
    met.map_or(Some(default), |block| value(block.action(), block.errno_ret()))
}

/// Whether a rule's conditions hold: all of them, or any if they name an argument twice.
pub(super) fn matches(block: &LinuxSyscall, wide: bool, arguments: &[u64; 6]) -> bool {
    let low = if wide { u64::MAX } else { u64::from(u32::MAX) };
    let holds = |argument: &LinuxSeccompArg| {
        let (actual, value) = (arguments[argument.index()] & low, argument.value() & low);
        match argument.op() {
            LinuxSeccompOperator::ScmpCmpNe => actual != value,
            LinuxSeccompOperator::ScmpCmpLt => actual < value,
            LinuxSeccompOperator::ScmpCmpLe => actual <= value,
            LinuxSeccompOperator::ScmpCmpEq => actual == value,
            LinuxSeccompOperator::ScmpCmpGe => actual >= value,
            LinuxSeccompOperator::ScmpCmpGt => actual > value,
            LinuxSeccompOperator::ScmpCmpMaskedEq => actual & value == argument.value_two().unwrap_or_default() & value,
        }
    };
    let conditions = block.args().as_deref().unwrap_or_default();
    let repeated = conditions
        .iter()
        .enumerate()
        .any(|(at, argument)| conditions[..at].iter().any(|before| before.index() == argument.index()));
    if repeated { conditions.iter().any(holds) } else { conditions.iter().all(holds) }
}

/// Whether runc has the same way: no agent (that is another call of libseccomp's), architectures that both know.
fn comparable(spec: &LinuxSeccomp, listed: &[Arch]) -> bool {
    let known = |arch: &Arch| !abi::families(&[*arch], &mut Vec::new()).is_empty() && oracle::knows(*arch);
    let asks = |block: &LinuxSyscall| block.action() == LinuxSeccompAction::ScmpActNotify;
    spec.default_action() != LinuxSeccompAction::ScmpActNotify
        && !spec.syscalls().iter().flatten().any(asks)
        && listed.iter().all(known)
}

/// Numbers of `abi` on which libseccomp's result is sure: of names with one rule at most, or with unconditional ones
/// alone, and of some calls that the profile does not name.
fn sure_numbers(spec: &LinuxSeccomp, abi: &Abi, numbers: &BTreeMap<&str, u32>) -> BTreeSet<u32> {
    let blocks: Vec<_> = spec.syscalls().iter().flatten().collect();
    let named: BTreeSet<&str> = blocks.iter().flat_map(|block| block.names()).map(String::as_str).collect();
    let sure = |name: &&str| {
        let rules: Vec<_> = blocks
            .iter()
            .flat_map(|block| block.names().iter().filter(|other| other == name).map(|_| block.args()))
            .map(|arguments| arguments.as_deref().unwrap_or_default())
            .collect();
        let indexes: BTreeSet<_> = rules.iter().flat_map(|rule| rule.iter()).map(LinuxSeccompArg::index).collect();
        let conditions = rules.iter().map(|rule| rule.len()).sum::<usize>();
        // libseccomp reaches these by two ways, one of which forgets a condition.
        let multiplexed = abi.multiplexers.is_some() && abi::multiplexed(name).is_some();
        (conditions == 0) || (rules.len() == 1 && indexes.len() == conditions && !multiplexed)
    };
    let of_names = named.iter().filter(|name| sure(name)).take(NAMES).filter_map(|name| numbers.get(name).copied());
    let base = if abi.is_x32() { abi::X32_BIT } else { 0 };
    let multiplexers = abi.multiplexers.map(|(socket, ipc)| [socket, ipc]).unwrap_or_default();
    let unnamed = |number: &u32| {
        let name = numbers.iter().find(|(_, other)| *other == number).map(|(name, _)| *name);
        name.is_none_or(|name| !named.contains(name)) && !multiplexers.contains(number)
    };
    let others = [0, 1, 5, 59, 101, 160, 231, 439, 460, 999, 100_000].map(|number| number | base);
    of_names.chain(others.into_iter().filter(unnamed)).collect()
}

/// Arguments around the values of the profile's conditions, and some that have nothing to do with them.
fn arguments(spec: &LinuxSeccomp, random: &mut crate::mutation::Random) -> Vec<[u64; 6]> {
    let mut values: Vec<u64> = vec![0, 1, u64::from(u32::MAX), 1 << 32, u64::MAX];
    let conditions = spec.syscalls().iter().flatten().flat_map(|block| block.args().iter().flatten());
    for condition in conditions.take(NAMES) {
        let (value, second) = (condition.value(), condition.value_two().unwrap_or_default());
        values.extend([value, value.wrapping_add(1), value.wrapping_sub(1), value ^ 1 << 32, value & second, second]);
    }
    let mut sets: Vec<[u64; 6]> = values.iter().take(24).map(|value| [*value; 6]).collect();
    sets.extend((0..8).map(|_| std::array::from_fn(|_| *random.pick(&values))));
    sets
}
