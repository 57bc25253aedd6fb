//! The tree over syscall numbers: the one with the shortest mean path.
//!
//! The mean matters at load: the kernel walks the program once for each number to fill its cache of always allowed
//! calls. So every number weighs the same, but for two kinds that the kernel does not try and hardly anyone calls.

use super::abi::X32_BIT;
use super::graph::{Comparison, Graph, NodeId};

/// The numbers from `first` up to the next range's first (or the last number there is) and what happens to them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range {
    /// The first number.
    pub(super) first: u32,
    /// Where such a call goes.
    pub(super) node: NodeId,
}

/// The weight of a number that the kernel tries.
const WEIGHT: u32 = 16;
/// From this many numbers on a range is mostly numbers that do not exist; it weighs as this many do.
const WIDE: u64 = 4096;
/// The weight of such a range.
const WEIGHT_OF_WIDE: u32 = 2 * WEIGHT;
/// The most ranges for which the best tree is looked up; more are cut first, at the x32 calls or in the middle.
/// Bounds time and memory (the table has a square of this many entries).
const MAX_TABLE: usize = 64;
/// The most single numbers that are tested one by one.
const MAX_SINGLES: usize = 4;

/// Gives a node that finds a number's range with the number in the accumulator. `ranges` are ascending, without
/// gaps, from 0 on, and neighbours have different nodes.
pub(super) fn tree(graph: &mut Graph, ranges: &[Range]) -> NodeId {
    if ranges.len() > MAX_TABLE {
        let x32 = ranges.partition_point(|range| range.first < X32_BIT);
        let cut = if x32 < ranges.len() && x32 > MAX_TABLE / 4 { x32 } else { ranges.len() / 2 };
        let (below, above) = ranges.split_at(cut);
        let (below, first) = (tree(graph, below), above[0].first);
        let above = tree(graph, above);
        return graph.branch(Comparison::AtLeast, first, above, below);
    }
    let mut search = Search { ranges, weights: vec![0], table: vec![Best::default(); ranges.len() * ranges.len()] };
    for (at, range) in ranges.iter().enumerate() {
        let count = search.end(at) - u64::from(range.first);
        let weight = match count {
            WIDE.. => WEIGHT_OF_WIDE,
            _ if range.first >= X32_BIT => count as u32,
            _ => count as u32 * WEIGHT,
        };
        search.weights.push(search.weights[at] + weight);
    }
    search.fill();
    search.build(graph, 0, ranges.len())
}

/// What the best tree over some neighbouring ranges looks like.
#[derive(Clone, Copy, Default)]
struct Best {
    /// The sum over the ranges of weight times comparisons.
    cost: u32,
    /// Where it is cut in two.
    cut: u16,
    /// One past the range whose outcome is the common one, when there is no cut: the other ranges are single numbers
    /// that are tested one by one. Else 0.
    common: u16,
}

struct Search<'a> {
    ranges: &'a [Range],
    /// The weight of all ranges before each one, and of all.
    weights: Vec<u32>,
    /// The best trees over the ranges from a row's up to and with a column's.
    table: Vec<Best>,
}

impl Search<'_> {
    /// One past the last number of the range at `at`. For the last of the ranges that is not known here, and it is
    /// taken to be wide: at worst it is not tested as a single number.
    fn end(&self, at: usize) -> u64 {
        self.ranges.get(at + 1).map_or(1 << 32, |next| u64::from(next.first))
    }

    fn weight(&self, from: usize, to: usize) -> u32 {
        self.weights[to] - self.weights[from]
    }

    fn best(&self, from: usize, to: usize) -> Best {
        self.table[from * self.ranges.len() + to - 1]
    }

    /// Fills the table, shorter stretches first (Knuth's optimum search tree, whose cuts lie between those of the
    /// two stretches that are shorter by one).
    fn fill(&mut self) {
        let length = self.ranges.len();
        for width in 1..=length {
            for from in 0..=length - width {
                let to = from + width;
                let cut = if width > 1 { self.cut(from, to) } else { Best::default() };
                let best = match self.singles(from, to) {
                    Some(singles) if width == 1 || singles.cost <= cut.cost => Best { cut: cut.cut, ..singles },
                    _ => cut,
                };
                self.table[from * length + to - 1] = best;
            }
        }
    }

    fn cut(&self, from: usize, to: usize) -> Best {
        let first = usize::from(self.best(from, to - 1).cut).clamp(from + 1, to - 1);
        let last = usize::from(self.best(from + 1, to).cut).clamp(first, to - 1);
        let cost = |cut: usize| self.best(from, cut).cost + self.best(cut, to).cost;
        let cut = (first..=last).min_by_key(|cut| cost(*cut)).unwrap_or(first);
        Best { cost: cost(cut) + self.weight(from, to), cut: cut as u16, common: 0 }
    }

    /// The tree that tests single numbers one by one, when all but a few ranges have one outcome and those few are
    /// one number each.
    fn singles(&self, from: usize, to: usize) -> Option<Best> {
        if to - from > 2 * MAX_SINGLES + 1 {
            return None;
        }
        // Neighbours differ, so the common outcome is that of the first or the second range.
        let candidates = from..to.min(from + 2);
        candidates
            .filter_map(|common| {
                let cost = self.cost_of_singles(from, to, self.ranges[common].node)?;
                Some(Best { cost, cut: 0, common: common as u16 + 1 })
            })
            .min_by_key(|best| best.cost)
    }

    fn cost_of_singles(&self, from: usize, to: usize, common: NodeId) -> Option<u32> {
        let (mut tests, mut cost, mut others) = (0, 0, 0);
        for at in from..to {
            let weight = self.weight(at, at + 1);
            if self.ranges[at].node == common {
                others += weight;
                continue;
            }
            tests += 1;
            cost += tests * weight;
            if tests as usize > MAX_SINGLES || self.end(at) != u64::from(self.ranges[at].first) + 1 {
                return None;
            }
        }
        Some(cost + tests * others)
    }

    fn build(&self, graph: &mut Graph, from: usize, to: usize) -> NodeId {
        let best = self.best(from, to);
        if let Some(common) = usize::from(best.common).checked_sub(1) {
            let common = self.ranges[common].node;
            let singles = self.ranges[from..to].iter().rev().filter(|range| range.node != common);
            return singles.fold(common, |rest, range| graph.branch(Comparison::Equal, range.first, range.node, rest));
        }
        let cut = usize::from(best.cut);
        let below = self.build(graph, from, cut);
        let above = self.build(graph, cut, to);
        graph.branch(Comparison::AtLeast, self.ranges[cut].first, above, below)
    }
}
