//! Conditions on a call's arguments: their meaning, their order, and their instructions, which seccompiler makes.

use super::graph::{Graph, NodeId};
use super::profile::Rule;
use crate::{Error, Result};
use oci_spec::runtime::{LinuxSeccompArg, LinuxSeccompOperator};
use seccompiler::{BpfProgram, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};
use std::cmp::Ordering;

/// A condition on one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    /// Which argument, 0 to 5.
    pub(super) index: u8,
    operator: LinuxSeccompOperator,
    /// What to compare with.
    value: u64,
    /// The argument's bits that count; all of them but for `SCMP_CMP_MASKED_EQ`.
    mask: u64,
}

impl Condition {
    /// The bundle's `argument`, checked; `place` names the rule in the message.
    ///
    /// # Errors
    /// `Kind::Invalid` for an index above 5.
    pub(super) fn new(argument: LinuxSeccompArg, place: &str) -> Result<Self> {
        let index = argument.index();
        let Some(index) = u8::try_from(index).ok().filter(|index| *index <= 5) else {
            return Err(Error::invalid(format!("seccomp: {place}: argument {index}: a syscall has arguments 0 to 5")));
        };
        // For a masked comparison the bundle's first value is the mask.
        let (value, mask) = match argument.op() {
            LinuxSeccompOperator::ScmpCmpMaskedEq => {
                (argument.value_two().unwrap_or_default() & argument.value(), argument.value())
            }
            _ => (argument.value(), u64::MAX),
        };
        Ok(Self { index, operator: argument.op(), value, mask })
    }

    /// "Argument `index` is `value`".
    pub(super) fn equal(index: u8, value: u64) -> Self {
        Self { index, operator: LinuxSeccompOperator::ScmpCmpEq, value, mask: u64::MAX }
    }

    /// The same condition as a 32-bit ABI sees it.
    pub(super) fn narrowed(self) -> Self {
        let low = u64::from(u32::MAX);
        Self { value: self.value & low, mask: self.mask & low, ..self }
    }

    /// Whether every argument fulfils it (libseccomp leaves such conditions out, which can make a rule
    /// unconditional).
    pub(super) fn is_always_true(self) -> bool {
        self.mask == 0
    }

    /// The rank among conditions, the first to try being the greatest.
    fn rank(self) -> (u8, u8, u64) {
        let (class, value) = match self.operator {
            LinuxSeccompOperator::ScmpCmpMaskedEq
            | LinuxSeccompOperator::ScmpCmpEq
            | LinuxSeccompOperator::ScmpCmpNe => (3, self.value),
            // The tighter bound is the smaller value.
            LinuxSeccompOperator::ScmpCmpLe | LinuxSeccompOperator::ScmpCmpLt => (2, !self.value),
            LinuxSeccompOperator::ScmpCmpGe | LinuxSeccompOperator::ScmpCmpGt => (1, self.value),
        };
        (self.index, class, value)
    }

    fn for_seccompiler(self, wide: bool) -> seccompiler::Result<SeccompCondition> {
        let operator = match self.operator {
            LinuxSeccompOperator::ScmpCmpNe => SeccompCmpOp::Ne,
            LinuxSeccompOperator::ScmpCmpLt => SeccompCmpOp::Lt,
            LinuxSeccompOperator::ScmpCmpLe => SeccompCmpOp::Le,
            LinuxSeccompOperator::ScmpCmpEq => SeccompCmpOp::Eq,
            LinuxSeccompOperator::ScmpCmpGe => SeccompCmpOp::Ge,
            LinuxSeccompOperator::ScmpCmpGt => SeccompCmpOp::Gt,
            LinuxSeccompOperator::ScmpCmpMaskedEq => SeccompCmpOp::MaskedEq(self.mask),
        };
        let length = if wide { SeccompCmpArgLen::Qword } else { SeccompCmpArgLen::Dword };
        Ok(SeccompCondition::new(self.index, length, operator, self.value)?)
    }
}

/// The order in which two rules are tried: libseccomp's, see the module's text. Rules that compare equal keep the
/// profile's order.
pub(super) fn order(a: &Rule, b: &Rule) -> Ordering {
    for (left, right) in a.conditions.iter().zip(&b.conditions) {
        let ordering = right.rank().cmp(&left.rank());
        if ordering != Ordering::Equal {
            return ordering;
        }
    }
    a.conditions.len().cmp(&b.conditions.len())
}

/// Adds the check of `rule` to the graph: `matched` when all its conditions hold, else `otherwise`. `wide` tells
/// whether arguments are compared in 64 bits.
///
/// # Errors
/// `Kind::System` if seccompiler's instructions are not the ones we know how to place.
pub(super) fn check(graph: &mut Graph, rule: &Rule, wide: bool, matched: NodeId, otherwise: NodeId) -> Result<NodeId> {
    let refused = |error| Error::invalid(format!("seccomp: a rule's conditions: {error}"));
    let conditions = rule
        .conditions
        .iter()
        // seccompiler puts the last condition first.
        .rev()
        .map(|condition| condition.for_seccompiler(wide))
        .collect::<seccompiler::Result<Vec<_>>>()
        .map_err(refused)?;
    let program = BpfProgram::from(SeccompRule::new(conditions).map_err(|error| refused(error.into()))?);
    // The program expects the action's instruction behind itself and jumps over it when a condition fails.
    graph.import(&program, matched, otherwise).ok_or_else(|| {
        Error::new(crate::Kind::System, "seccomp: seccompiler made an instruction that cannot be placed; report this")
    })
}
