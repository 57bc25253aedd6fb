//! Writes a graph down as instructions.
//!
//! The program is built from its end, so that a target's place is known when a jump to it is written. A conditional
//! jump reaches 255 instructions; for a target further away a copy of it (a return) or a jump to it is put right
//! behind, where later jumps find it too.

use super::graph::{Graph, Node, NodeId, opcode};
use crate::{Error, Result};
use libc::sock_filter;

/// The kernel's limit (`BPF_MAXINSNS`).
const MAX_INSTRUCTIONS: usize = 4096;
/// How far a conditional jump reaches.
const REACH: usize = 255;

/// The program that starts at `entry`.
///
/// # Errors
/// `Kind::Invalid` when it has more than 4096 instructions.
pub(super) fn instructions(graph: &Graph, entry: NodeId) -> Result<Vec<sock_filter>> {
    let sizes = sizes(graph, entry)?;
    let mut layout = Layout { graph, code: Vec::new(), places: vec![None; entry.index() + 1] };
    // Successors first; of two, the larger first, so that the smaller one is the one that has to be jumped over.
    let mut open = vec![(entry, false)];
    while let Some((id, ready)) = open.pop() {
        if layout.places[id.index()].is_some() {
            continue;
        }
        if ready {
            layout.place(id);
            continue;
        }
        open.push((id, true));
        match graph.node(id) {
            Node::Return(_) => {}
            Node::Load(_, next) => open.push((next, false)),
            Node::Branch(_, _, yes, no) => {
                let (small, large) = if sizes[yes.index()] < sizes[no.index()] { (yes, no) } else { (no, yes) };
                open.push((small, false));
                open.push((large, false));
            }
        }
    }
    if layout.code.len() > MAX_INSTRUCTIONS {
        return Err(too_long(layout.code.len()));
    }
    layout.code.reverse();
    Ok(layout.code)
}

fn too_long(length: usize) -> Error {
    Error::invalid(format!(
        "seccomp: the profile needs {length} instructions and the kernel takes {MAX_INSTRUCTIONS}: \
         list fewer architectures or use fewer conditions on arguments"
    ))
}

/// How many nodes each node leads to, shared ones counted as often as they are reached.
fn sizes(graph: &Graph, entry: NodeId) -> Result<Vec<u32>> {
    let mut sizes = vec![0_u32; entry.index() + 1];
    let mut reached = vec![false; entry.index() + 1];
    let mut count = 0;
    let mut open = vec![entry];
    while let Some(id) = open.pop() {
        if std::mem::replace(&mut reached[id.index()], true) {
            continue;
        }
        count += 1;
        match graph.node(id) {
            Node::Return(_) => {}
            Node::Load(_, next) => open.push(next),
            Node::Branch(_, _, yes, no) => open.extend([yes, no]),
        }
    }
    // Each node becomes one instruction at least.
    if count > MAX_INSTRUCTIONS {
        return Err(too_long(count));
    }
    for at in 0..=entry.index() {
        if reached[at] {
            sizes[at] = match graph.at(at) {
                Node::Return(_) => 1,
                Node::Load(_, next) => sizes[next.index()].saturating_add(1),
                Node::Branch(_, _, yes, no) => sizes[yes.index()].saturating_add(sizes[no.index()]).saturating_add(1),
            };
        }
    }
    Ok(sizes)
}

/// Where a node stands, counted from the program's end.
#[derive(Clone, Copy)]
struct Place {
    /// The node itself, or its newest copy.
    own: usize,
    /// The newest instruction that leads to it: itself or a jump.
    near: usize,
}

struct Layout<'a> {
    graph: &'a Graph,
    /// The program, last instruction first.
    code: Vec<sock_filter>,
    places: Vec<Option<Place>>,
}

impl Layout<'_> {
    fn push(&mut self, code: u16, k: u32, jt: u8, jf: u8) -> usize {
        self.code.push(sock_filter { code, jt, jf, k });
        self.code.len() - 1
    }

    /// How many instructions a jump written now skips on its way to `id`, which has been placed.
    fn distance(&self, id: NodeId) -> usize {
        self.places[id.index()].map_or(0, |place| self.code.len() - 1 - place.near)
    }

    /// Makes `id` reachable with at most `reach` instructions between it and the one written next.
    fn bring_near(&mut self, id: NodeId, reach: usize) -> bool {
        if self.distance(id) <= reach {
            return false;
        }
        if let Node::Return(value) = self.graph.node(id) {
            let own = self.push(opcode::RETURN, value, 0, 0);
            self.places[id.index()] = Some(Place { own, near: own });
        } else if let Some(place) = self.places[id.index()] {
            let skip = self.code.len() - 1 - place.own;
            let near = self.push(opcode::JUMP, skip as u32, 0, 0);
            self.places[id.index()] = Some(Place { near, ..place });
        }
        true
    }

    /// Writes `id`, whose successors have been written.
    fn place(&mut self, id: NodeId) {
        let own = match self.graph.node(id) {
            Node::Return(value) => self.push(opcode::RETURN, value, 0, 0),
            Node::Load(word, next) => {
                self.bring_near(next, 0);
                if word.mask != u32::MAX {
                    self.push(opcode::AND, word.mask, 0, 0);
                }
                self.push(opcode::LOAD, word.offset, 0, 0)
            }
            Node::Branch(comparison, value, yes, no) => {
                // Bringing one near pushes the other away by one.
                while self.bring_near(yes, REACH) || self.bring_near(no, REACH) {}
                let (jt, jf) = (self.distance(yes) as u8, self.distance(no) as u8);
                self.push(comparison.opcode(), value, jt, jf)
            }
        };
        self.places[id.index()] = Some(Place { own, near: own });
    }
}
