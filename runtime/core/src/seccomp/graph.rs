//! The decisions of a filter as a graph without cycles in which equal parts exist once.

use seccompiler::sock_filter;
use std::collections::HashMap;

/// The offset of the call's number in the kernel's `seccomp_data`.
pub(super) const NUMBER: u32 = 0;
/// The offset of the audit architecture.
pub(super) const ARCHITECTURE: u32 = 4;

/// The opcodes of classic BPF that occur here.
pub(super) mod opcode {
    /// `A = data[k]`, 32 bits.
    pub(in super::super) const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    /// `A &= k`.
    pub(in super::super) const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
    /// `return k`.
    pub(in super::super) const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    /// Skip `k` instructions.
    pub(in super::super) const JUMP: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
    /// `A == k`.
    pub(in super::super) const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    /// `A > k`.
    pub(in super::super) const GREATER: u16 = (libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K) as u16;
    /// `A >= k`.
    pub(in super::super) const AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
}

/// A comparison of the accumulator with a constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Comparison {
    /// `A == k`.
    Equal,
    /// `A > k`.
    Greater,
    /// `A >= k`.
    AtLeast,
}

impl Comparison {
    /// Its opcode.
    pub(super) fn opcode(self) -> u16 {
        match self {
            Self::Equal => opcode::EQUAL,
            Self::Greater => opcode::GREATER,
            Self::AtLeast => opcode::AT_LEAST,
        }
    }

    fn from_opcode(code: u16) -> Option<Self> {
        [Self::Equal, Self::Greater, Self::AtLeast].into_iter().find(|comparison| comparison.opcode() == code)
    }
}

/// A word of `seccomp_data`, as far as `mask` goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Word {
    /// Bytes from the start of `seccomp_data`.
    pub(super) offset: u32,
    /// The bits that are looked at.
    pub(super) mask: u32,
}

/// A node's place in its graph. A node's successors have smaller places.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct NodeId(u32);

impl NodeId {
    /// As an index into a list with one entry for each node.
    pub(super) fn index(self) -> usize {
        self.0 as usize
    }
}

/// One step of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Node {
    /// The end: the filter's return value.
    Return(u32),
    /// Loads a word into the accumulator.
    Load(Word, NodeId),
    /// Goes to the first node when the comparison holds, else to the second.
    Branch(Comparison, u32, NodeId, NodeId),
}

/// The graph. Adding a node that exists gives the existing one.
#[derive(Default)]
pub(super) struct Graph {
    nodes: Vec<Node>,
    known: HashMap<Node, NodeId>,
}

impl Graph {
    /// The node at `id`.
    pub(super) fn node(&self, id: NodeId) -> Node {
        self.nodes[id.index()]
    }

    /// The node whose [`NodeId::index`] is `index`.
    pub(super) fn at(&self, index: usize) -> Node {
        self.nodes[index]
    }

    /// How many nodes there are.
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    fn add(&mut self, node: Node) -> NodeId {
        let next = NodeId(self.nodes.len() as u32);
        let id = *self.known.entry(node).or_insert(next);
        if id == next {
            self.nodes.push(node);
        }
        id
    }

    /// An end with the return value `value`.
    pub(super) fn end(&mut self, value: u32) -> NodeId {
        self.add(Node::Return(value))
    }

    /// A load of `word` in front of `next`; only `next` itself when that does not look at the accumulator.
    pub(super) fn load(&mut self, word: Word, next: NodeId) -> NodeId {
        match self.node(next) {
            Node::Branch(..) => self.add(Node::Load(word, next)),
            Node::Return(_) | Node::Load(..) => next,
        }
    }

    /// A branch; only `yes` when both ways are the same.
    pub(super) fn branch(&mut self, comparison: Comparison, value: u32, yes: NodeId, no: NodeId) -> NodeId {
        if yes == no { yes } else { self.add(Node::Branch(comparison, value, yes, no)) }
    }

    /// Adds a straight program that ends in one of two ways: by running off its end (`matched`), or by jumping one
    /// instruction further (`otherwise`). `None` when it is not of this kind.
    pub(super) fn import(&mut self, program: &[sock_filter], matched: NodeId, otherwise: NodeId) -> Option<NodeId> {
        let length = program.len();
        // entries[i] is the node that does what the program does from instruction i on, where that is defined:
        // seccompiler's second instruction is never reached and jumps beyond the two ways out.
        let mut entries = vec![None; length];
        entries.extend([Some(matched), Some(otherwise)]);
        for (at, instruction) in program.iter().enumerate().rev() {
            let target = |skip: u32| entries.get(at + 1 + skip as usize).copied().flatten();
            entries[at] = match instruction.code {
                opcode::LOAD => {
                    let masked = program.get(at + 1).filter(|next| next.code == opcode::AND);
                    let mask = masked.map_or(u32::MAX, |next| next.k);
                    let next = target(u32::from(masked.is_some()));
                    next.map(|next| self.load(Word { offset: instruction.k, mask }, next))
                }
                // Belongs to the load before it, which has taken it up.
                opcode::AND => None,
                opcode::JUMP => target(instruction.k),
                code => {
                    let (yes, no) = (target(u32::from(instruction.jt)), target(u32::from(instruction.jf)));
                    let ways = Comparison::from_opcode(code).zip(yes.zip(no));
                    ways.map(|(comparison, (yes, no))| self.branch(comparison, instruction.k, yes, no))
                }
            };
        }
        entries[0]
    }
}
