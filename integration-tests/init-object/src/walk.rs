//! The walk over the call graph.

use std::collections::VecDeque;
use std::collections::btree_map::{BTreeMap, Entry};

use anyhow::{Result, ensure};

use crate::image::{Function, Image};
use crate::{Finding, Reached, Report, code, names};

/// Walks everything that the entries reach. `entries` are demangled names without generic arguments.
///
/// # Errors
///
/// When the program cannot be read, is not for x86_64, has no symbols, or lacks one of the entries: then nothing was
/// checked. What is wrong with the init side itself is in the report.
pub fn check(program: &[u8], entries: &[&str]) -> Result<Report> {
    let image = Image::parse(program)?;
    let mut walk =
        Walk { image: &image, callers: BTreeMap::new(), pending: VecDeque::new(), report: Report::default() };
    for name in entries {
        let found = image.named(name);
        ensure!(
            !found.is_empty(),
            "the program has no function {name}: it was inlined or renamed, or the program does not use flint-init"
        );
        for function in found {
            walk.reach(function, None);
        }
    }
    while let Some(address) = walk.pending.pop_front() {
        if let Some(function) = image.function(address) {
            walk.visit(function);
        }
    }
    Ok(walk.report)
}

struct Walk<'a> {
    image: &'a Image<'a>,
    /// Who reached each function first; an entry was reached by nobody.
    callers: BTreeMap<u64, Option<u64>>,
    pending: VecDeque<u64>,
    report: Report,
}

impl Walk<'_> {
    fn reach(&mut self, function: &Function, caller: Option<u64>) {
        if let Entry::Vacant(place) = self.callers.entry(function.address) {
            place.insert(caller);
            self.pending.push_back(function.address);
        }
    }

    fn visit(&mut self, function: &Function) {
        // An entry is what the caller says that it is.
        let entry = self.callers.get(&function.address).copied().flatten().is_none();
        if let (false, Some(objection)) = (entry, names::objection(&function.names)) {
            // What such a function reaches is its own matter.
            return self.find(function.address, function.address, objection);
        }
        let code = code::read(self.image, function);
        for (address, what) in code.faults {
            self.find(function.address, address, what);
        }
        for (address, target) in code.leaves {
            match self.image.function(target) {
                Some(callee) if callee.address == target => self.reach(callee, Some(function.address)),
                Some(other) => {
                    let what = format!("a branch into the middle of {}", other.name());
                    self.find(function.address, address, what);
                }
                None => self.find(function.address, address, format!("a branch to {target:#x}, which has no symbol")),
            }
        }
        self.report.functions.push(Reached {
            name: function.name(),
            address: function.address,
            instructions: code.instructions,
            system_calls: code.system_calls,
            traps: code.traps,
            tables: code.tables,
        });
    }

    fn find(&mut self, function: u64, address: u64, what: String) {
        let mut chain = Vec::new();
        let mut next = Some(function);
        while let Some(address) = next {
            chain.extend(self.image.function(address).map(Function::name));
            next = self.callers.get(&address).copied().flatten();
        }
        chain.reverse();
        self.report.findings.push(Finding { chain, address, what });
    }
}
