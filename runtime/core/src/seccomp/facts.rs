//! Leaves out of a chain of rules what its earlier comparisons have settled: loads of the word that is loaded, and
//! comparisons whose result follows from one before.

use super::graph::{Comparison, Graph, Node, NodeId, Word};
use std::collections::HashMap;

/// How deep the walk goes; behind that the chain stays as it is. Keeps the stack small.
const MAX_DEPTH: usize = 512;

/// What is known about one word: its smallest and greatest possible value.
type Fact = (Word, u32, u32);

/// Where the walk is: the node, the accumulator's content, and the facts.
type State = (NodeId, Option<Word>, Vec<Fact>);

/// Gives a node that decides as `entry` does, in fewer steps where that is possible.
///
/// `entry` must not depend on the accumulator.
pub(super) fn settle(graph: &mut Graph, entry: NodeId) -> NodeId {
    // The walk copies a node for each set of facts it is reached with. Real chains need about one copy; the budget
    // stops profiles made to explode.
    let budget = graph.len() * 4 + 256;
    let mut walk = Walk { graph, done: HashMap::new(), budget, depth: 0 };
    let settled = walk.visit(entry, None, &[]);
    if walk.budget == 0 { entry } else { settled }
}

struct Walk<'a> {
    graph: &'a mut Graph,
    done: HashMap<State, NodeId>,
    budget: usize,
    depth: usize,
}

impl Walk<'_> {
    fn visit(&mut self, id: NodeId, loaded: Option<Word>, facts: &[Fact]) -> NodeId {
        // A node as it stood is always right: it finds the accumulator that it expects.
        if self.budget == 0 || self.depth == MAX_DEPTH {
            return id;
        }
        let state = (id, loaded, facts.to_vec());
        if let Some(done) = self.done.get(&state) {
            return *done;
        }
        self.budget -= 1;
        self.depth += 1;
        let result = match self.graph.node(id) {
            Node::Return(_) => id,
            Node::Load(word, next) => self.visit_load(word, next, loaded, facts),
            Node::Branch(comparison, value, yes, no) => match loaded {
                Some(word) => self.visit_branch((comparison, value), (yes, no), word, facts),
                None => id,
            },
        };
        self.depth -= 1;
        self.done.insert(state, result);
        result
    }

    fn visit_branch(
        &mut self,
        (comparison, value): (Comparison, u32),
        (yes, no): (NodeId, NodeId),
        word: Word,
        facts: &[Fact],
    ) -> NodeId {
        let (low, high) = range(facts, word);
        match decided(comparison, value, low, high) {
            Some(true) => self.visit(yes, Some(word), facts),
            Some(false) => self.visit(no, Some(word), facts),
            None => {
                let ((yes_low, yes_high), (no_low, no_high)) = split(comparison, value, low, high);
                let yes = self.visit(yes, Some(word), &with(facts, (word, yes_low, yes_high)));
                let no = self.visit(no, Some(word), &with(facts, (word, no_low, no_high)));
                self.graph.branch(comparison, value, yes, no)
            }
        }
    }

    fn visit_load(&mut self, word: Word, next: NodeId, loaded: Option<Word>, facts: &[Fact]) -> NodeId {
        let (low, high) = range(facts, word);
        let mut next = next;
        while let Node::Branch(comparison, value, yes, no) = self.graph.node(next) {
            match decided(comparison, value, low, high) {
                Some(true) => next = yes,
                Some(false) => next = no,
                None => break,
            }
        }
        if !matches!(self.graph.node(next), Node::Branch(..)) {
            return self.visit(next, loaded, facts);
        }
        let next = self.visit(next, Some(word), facts);
        if loaded == Some(word) { next } else { self.graph.load(word, next) }
    }
}

fn range(facts: &[Fact], word: Word) -> (u32, u32) {
    facts.iter().find(|fact| fact.0 == word).map_or((0, word.mask), |fact| (fact.1, fact.2))
}

fn with(facts: &[Fact], fact: Fact) -> Vec<Fact> {
    let mut facts: Vec<Fact> = facts.iter().copied().filter(|known| known.0 != fact.0).collect();
    facts.push(fact);
    // One order, so that equal states are found again.
    facts.sort_unstable_by_key(|known| (known.0.offset, known.0.mask));
    facts
}

fn decided(comparison: Comparison, value: u32, low: u32, high: u32) -> Option<bool> {
    let (always, never) = match comparison {
        Comparison::Equal => (low == value && high == value, value < low || value > high),
        Comparison::Greater => (low > value, high <= value),
        Comparison::AtLeast => (low >= value, high < value),
    };
    if always {
        Some(true)
    } else if never {
        Some(false)
    } else {
        None
    }
}

/// The ranges on both ways of a comparison that `low..=high` does not decide (so nothing here wraps).
fn split(comparison: Comparison, value: u32, low: u32, high: u32) -> ((u32, u32), (u32, u32)) {
    match comparison {
        Comparison::Equal if value == low => ((value, value), (low + 1, high)),
        Comparison::Equal if value == high => ((value, value), (low, high - 1)),
        Comparison::Equal => ((value, value), (low, high)),
        Comparison::Greater => ((value + 1, high), (low, value)),
        Comparison::AtLeast => ((value, high), (low, value - 1)),
    }
}
