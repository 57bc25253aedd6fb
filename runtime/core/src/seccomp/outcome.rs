//! What happens to each number of each ABI.

use super::abi::{self, Abi};
use super::action;
use super::argument::{self, Condition};
use super::facts;
use super::graph::{ARCHITECTURE, Comparison, Graph, NUMBER, NodeId, Word};
use super::profile::{Profile, Rule};
use super::search::{self, Range};
use crate::{Error, Result};

/// A chain of rules with more nodes than this could never be laid out, even when most of them are settled.
const MAX_NODES: usize = 64 * 1024;

/// The whole filter: by audit architecture, then by number.
///
/// # Errors
/// See [`super::compile`].
pub(super) fn dispatch(graph: &mut Graph, profile: &Profile<'_>, families: &[Vec<&'static Abi>]) -> Result<NodeId> {
    let mut entry = graph.end(action::BAD_ARCHITECTURE);
    // Backwards, for the first family (the native one) is to be tested first.
    for family in families.iter().rev() {
        let numbers = numbers(graph, profile, family)?;
        entry = graph.branch(Comparison::Equal, family[0].audit, numbers, entry);
    }
    Ok(graph.load(Word { offset: ARCHITECTURE, mask: u32::MAX }, entry))
}

/// All numbers of one audit architecture.
fn numbers(graph: &mut Graph, profile: &Profile<'_>, family: &[&'static Abi]) -> Result<NodeId> {
    let default = graph.end(profile.default);
    let bad = graph.end(action::BAD_ARCHITECTURE);
    let stub = graph.end(action::NO_SUCH_CALL);
    let mut line = Line::new(default);
    let x32 = family.iter().any(|abi| abi.is_x32());
    if family.iter().all(|abi| abi.is_x32()) {
        line.paint(0, abi::X32_BIT - 1, bad);
    }
    let shared = family[0].audit == abi::X86_64_AUDIT;
    if shared && !x32 {
        // Not the number -1: seccomp looks at a call again after a tracer has set that to skip it.
        line.paint(abi::X32_BIT, u32::MAX - 1, bad);
    }
    let resolved: Vec<_> = family.iter().map(|abi| (*abi, resolve(profile, abi))).collect();
    for (abi, calls) in &resolved {
        if let Some(highest) = calls.highest.filter(|_| action::has_stub(profile.default)) {
            let end = if shared && !abi.is_x32() { abi::X32_BIT - 1 } else { u32::MAX };
            line.paint(highest + 1, end, stub);
        }
    }
    for (abi, calls) in &resolved {
        for rules in calls.rules.chunk_by(|a, b| a.number == b.number) {
            let node = outcome(graph, profile, abi, rules, default)?;
            line.singles.push((rules[0].number, node));
        }
    }
    let tree = search::tree(graph, &line.ranges());
    Ok(graph.load(Word { offset: NUMBER, mask: u32::MAX }, tree))
}

/// That a rule concerns a number. In this order: by number, then as the profile has it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Use {
    number: u32,
    /// The rule's place in the profile.
    rule: usize,
    /// For a multiplexed call: its number inside the multiplexer.
    sub_number: Option<u64>,
}

/// The profile as one ABI sees it.
struct Resolved {
    /// The rules of all numbers, in order.
    rules: Vec<Use>,
    /// The highest number that the profile names.
    highest: Option<u32>,
}

impl Resolved {
    fn add(&mut self, number: u32, rules: &[usize], sub_number: Option<u64>) {
        self.rules.extend(rules.iter().map(|rule| Use { number, rule: *rule, sub_number }));
    }
}

fn resolve(profile: &Profile<'_>, abi: &Abi) -> Resolved {
    let mut resolved = Resolved { rules: Vec::with_capacity(512), highest: None };
    for (number, name) in (abi.calls)() {
        if let Some(places) = profile.names.get(name) {
            resolved.add(number, places, None);
            if !(abi::ARM_PRIVATE..abi::X32_BIT).contains(&number) {
                resolved.highest = resolved.highest.max(Some(number));
            }
        }
    }
    if let Some((socketcall, ipc)) = abi.multiplexers {
        for (name, places) in &profile.names {
            if let Some((socket, sub_number)) = abi::multiplexed(name) {
                resolved.add(if socket { socketcall } else { ipc }, places, Some(sub_number));
            }
        }
    }
    resolved.rules.sort_unstable();
    resolved.rules.dedup();
    resolved
}

/// Where a call goes whose rules (at least one) are `uses`.
fn outcome(graph: &mut Graph, profile: &Profile<'_>, abi: &Abi, uses: &[Use], default: NodeId) -> Result<NodeId> {
    let number = uses[0].number;
    let mut rules: Vec<Rule> = uses.iter().map(|used| rule(profile, abi, *used)).collect();
    if let Some(decisive) = rules.iter().find(|rule| rule.conditions.is_empty()) {
        // Not worth a warning, whatever the others say: podman's own profile allows setns and refuses it.
        return Ok(graph.end(decisive.action));
    }
    rules.sort_by(argument::order);
    let mut entry = default;
    for rule in rules.iter().rev() {
        let matched = graph.end(rule.action);
        entry = argument::check(graph, rule, abi.wide, matched, entry)?;
        if graph.len() > MAX_NODES {
            return Err(Error::invalid(format!(
                "seccomp: the profile has too many conditions on arguments (at syscall {number}); use fewer"
            )));
        }
    }
    Ok(facts::settle(graph, entry))
}

/// The used rule as `abi` sees it, without conditions that always hold.
fn rule(profile: &Profile<'_>, abi: &Abi, used: Use) -> Rule {
    let rule = &profile.rules[used.rule];
    let conditions = rule.conditions.iter().map(|condition| if abi.wide { *condition } else { condition.narrowed() });
    let conditions = conditions.filter(|condition| !condition.is_always_true());
    let conditions = match used.sub_number {
        // As libseccomp has it: the sub-number takes the place of a condition on argument 0.
        Some(sub_number) => std::iter::once(Condition::equal(0, sub_number))
            .chain(conditions.filter(|condition| condition.index != 0))
            .collect(),
        None => conditions.collect(),
    };
    Rule { conditions, action: rule.action }
}

/// What happens to all numbers.
struct Line {
    /// The first number of each stretch with one outcome, ascending from 0 on.
    stretches: Vec<Range>,
    /// Numbers with an outcome of their own.
    singles: Vec<(u32, NodeId)>,
}

impl Line {
    /// Every number has the outcome `node`.
    fn new(node: NodeId) -> Self {
        Self { stretches: vec![Range { first: 0, node }], singles: Vec::with_capacity(512) }
    }

    /// Gives the numbers from `first` to `last` the outcome `node`.
    fn paint(&mut self, first: u32, last: u32, node: NodeId) {
        if first > last {
            return;
        }
        let behind = last.checked_add(1).and_then(|next| {
            let at = self.stretches.iter().rfind(|stretch| stretch.first <= next)?;
            Some(Range { first: next, node: at.node })
        });
        let kept = self
            .stretches
            .iter()
            .filter(|stretch| stretch.first < first || behind.is_some_and(|behind| stretch.first > behind.first));
        let mut stretches: Vec<Range> = kept.copied().chain([Range { first, node }]).chain(behind).collect();
        stretches.sort_unstable_by_key(|stretch| stretch.first);
        self.stretches = stretches;
    }

    /// All stretches, with the single numbers among them, neighbours with the same outcome made one.
    fn ranges(mut self) -> Vec<Range> {
        self.singles.sort_unstable_by_key(|single| single.0);
        let mut ranges: Vec<Range> = Vec::with_capacity(2 * self.singles.len() + self.stretches.len());
        let mut singles = self.singles.iter().peekable();
        for (at, stretch) in self.stretches.iter().enumerate() {
            let end = self.stretches.get(at + 1).map_or(u64::MAX, |next| u64::from(next.first));
            let mut rest = *stretch;
            while let Some((number, node)) = singles.next_if(|single| u64::from(single.0) < end) {
                if rest.first < *number {
                    ranges.push(rest);
                }
                ranges.push(Range { first: *number, node: *node });
                rest.first = number.saturating_add(1);
            }
            if u64::from(rest.first) < end {
                ranges.push(rest);
            }
        }
        ranges.dedup_by_key(|range| range.node);
        ranges
    }
}
