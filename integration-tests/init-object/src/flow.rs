//! What an indirect branch can only mean: the values that reach its registers, within one function.
//!
//! A value is followed backwards from the branch along every path, to the instructions that define it. Paths
//! through jump tables exist only once the table is known, so tables are read again and again, each time with
//! the paths of the tables before, until none changes: what the last reading says holds for all paths.

use std::collections::{BTreeMap, BTreeSet};

use iced_x86::{FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};

use crate::image::Image;

/// Registers that a function of the System V ABI gives back as they were.
const KEPT_BY_CALLS: [Register; 6] =
    [Register::RBX, Register::RBP, Register::R12, Register::R13, Register::R14, Register::R15];
/// Registers that the kernel changes.
const CHANGED_BY_KERNEL: [Register; 3] = [Register::RAX, Register::RCX, Register::R11];

/// The paths of one function.
pub(crate) struct Flow<'a> {
    image: &'a Image<'a>,
    instructions: &'a [Instruction],
    by_address: BTreeMap<u64, usize>,
    /// Which registers each instruction writes, as their 64-bit wholes.
    writes: Vec<Vec<Register>>,
    before: Vec<BTreeSet<usize>>,
    /// Addresses that the function names: where one of them starts, a table before it has ended.
    named: BTreeSet<u64>,
    /// The jump table of each indirect jump, as the addresses that it leads to, or why it is none.
    tables: BTreeMap<usize, Result<Vec<u64>, String>>,
}

impl<'a> Flow<'a> {
    pub(crate) fn new(image: &'a Image<'a>, instructions: &'a [Instruction]) -> Self {
        let by_address = instructions.iter().enumerate().map(|(index, it)| (it.ip(), index)).collect();
        let mut factory = InstructionInfoFactory::new();
        let writes = instructions.iter().map(|instruction| written(&mut factory, instruction)).collect();
        let before = vec![BTreeSet::new(); instructions.len()];
        let relative = instructions.iter().filter(|it| it.is_ip_rel_memory_operand());
        let absolute = instructions.iter().filter_map(absolute_table);
        let named = relative.map(Instruction::ip_rel_memory_address).chain(absolute).collect();
        let mut flow = Self { image, instructions, by_address, writes, before, named, tables: BTreeMap::new() };
        flow.connect();
        flow.read_tables();
        flow
    }

    /// The instruction that starts at the address.
    pub(crate) fn index(&self, address: u64) -> Option<usize> {
        self.by_address.get(&address).copied()
    }

    /// How many jump tables the function has.
    pub(crate) fn tables(&self) -> usize {
        self.tables.values().filter(|table| table.is_ok()).count()
    }

    /// Where the jump table of the indirect jump leads to.
    pub(crate) fn table(&self, jump: usize) -> Result<&[u64], String> {
        match self.tables.get(&jump) {
            Some(Ok(targets)) => Ok(targets),
            Some(Err(why)) => Err(why.clone()),
            None => Err("it goes through memory".to_owned()),
        }
    }

    /// The instructions that some path from the function's start leads to.
    pub(crate) fn reached(&self) -> BTreeSet<usize> {
        let mut after = vec![Vec::new(); self.instructions.len()];
        for (index, before) in self.before.iter().enumerate() {
            for &it in before {
                after[it].push(index);
            }
        }
        let mut reached = BTreeSet::new();
        let mut pending = vec![0];
        while let Some(index) = pending.pop() {
            if reached.insert(index) {
                pending.extend(after.get(index).into_iter().flatten());
            }
        }
        reached
    }

    fn connect(&mut self) {
        for (index, instruction) in self.instructions.iter().enumerate() {
            let flow = instruction.flow_control();
            if matches!(flow, FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch)
                && let Some(target) = self.index(instruction.near_branch_target())
            {
                self.before[target].insert(index);
            }
            let goes_on = matches!(
                flow,
                FlowControl::Next | FlowControl::ConditionalBranch | FlowControl::Call | FlowControl::IndirectCall
            );
            if goes_on && let Some(after) = self.before.get_mut(index + 1) {
                after.insert(index);
            }
        }
    }

    fn read_tables(&mut self) {
        let jumps: Vec<usize> = (0..self.instructions.len())
            .filter(|&it| self.instructions[it].flow_control() == FlowControl::IndirectBranch)
            .filter(|&it| {
                let it = &self.instructions[it];
                it.op0_kind() == OpKind::Register || absolute_table(it).is_some()
            })
            .collect();
        loop {
            let tables: BTreeMap<_, _> = jumps.iter().map(|&jump| (jump, self.read_table(jump))).collect();
            for (&jump, table) in &tables {
                for &target in table.iter().flatten() {
                    if let Some(target) = self.index(target) {
                        self.before[target].insert(jump);
                    }
                }
            }
            if tables == self.tables {
                return;
            }
            self.tables = tables;
        }
    }

    /// `lea base, [rip+table]; movsxd entry, [base+index*4]; add entry, base; jmp entry`, in whatever order and
    /// with whatever between; at a fixed address `jmp [index*8+table]`, or the load of that and a jump.
    fn read_table(&self, jump: usize) -> Result<Vec<u64>, String> {
        if let Some(table) = absolute_table(&self.instructions[jump]) {
            return self.entries(table, 8);
        }
        let add = self.definition(jump, self.instructions[jump].op0_register())?;
        let sum = &self.instructions[add];
        if let Some(table) = absolute_table(sum) {
            return self.entries(table, 8);
        }
        let registers = [sum.op0_register(), sum.op1_register()];
        if sum.mnemonic() != Mnemonic::Add || registers.iter().any(|it| !it.is_gpr64()) {
            return Err(format!("its target comes from {:?} at {:#x}", sum.mnemonic(), sum.ip()));
        }
        // The sum's two terms, in either order.
        let [first, second] = registers;
        let (load, base) = match (self.entry_load(add, first), self.entry_load(add, second)) {
            (Some(load), _) => (load, second),
            (None, Some(load)) => (load, first),
            (None, None) => return Err(format!("what {:#x} adds is no entry of a table", sum.ip())),
        };
        let table = self.known(add, base)?;
        if self.known(load, self.instructions[load].memory_base())? != table {
            return Err("the entry is of one table and relative to another".to_owned());
        }
        self.entries(table, 4)
    }

    /// The load of a table's entry, if that is what defines the register.
    fn entry_load(&self, at: usize, register: Register) -> Option<usize> {
        let load = self.definition(at, register).ok()?;
        let it = &self.instructions[load];
        let entry = it.mnemonic() == Mnemonic::Movsxd
            && it.op1_kind() == OpKind::Memory
            && it.memory_index() != Register::None
            && it.memory_index_scale() == 4
            && it.memory_displacement64() == 0;
        entry.then_some(load)
    }

    /// The entries from the table's start to the first word that is no entry of it. How long a table is, is
    /// written nowhere when the compiler knows the index's range. Read too far, it would only add paths; read too
    /// short, it would leave code that no path leads to.
    /// Entries of four bytes are offsets from the table, those of eight are addresses.
    fn entries(&self, table: u64, width: usize) -> Result<Vec<u64>, String> {
        let start = self.instructions.first().map(Instruction::ip);
        let mut targets = Vec::new();
        for place in (table..).step_by(width) {
            if place != table && self.named.contains(&place) {
                break;
            }
            let Some(low) = self.image.constant(place) else { break };
            let target = if width == 4 {
                table.wrapping_add_signed(i64::from(low))
            } else {
                let Some(high) = self.image.constant(place + 4) else { break };
                u64::from(low.cast_unsigned()) | u64::from(high.cast_unsigned()) << 32
            };
            if Some(target) == start || self.index(target).is_none() {
                break;
            }
            targets.push(target);
        }
        if targets.is_empty() {
            return Err(format!("the table at {table:#x} leads outside the function, or is not read-only"));
        }
        Ok(targets)
    }

    /// The address that the register holds on every path to the instruction: the linker's, by `lea` or from the GOT, at a
    /// fixed address written into the instruction.
    pub(crate) fn known(&self, at: usize, register: Register) -> Result<u64, String> {
        let mut known = None;
        for definition in self.definitions(at, register)? {
            let it = &self.instructions[definition];
            let fixed = it.op0_register().is_gpr64() && it.is_ip_rel_memory_operand();
            let address = match it.mnemonic() {
                Mnemonic::Lea if fixed => Some(it.ip_rel_memory_address()),
                Mnemonic::Mov if fixed => self.image.got(it.ip_rel_memory_address()),
                Mnemonic::Mov if matches!(it.op1_kind(), OpKind::Immediate32 | OpKind::Immediate64) => {
                    Some(it.immediate(1))
                }
                _ => None,
            };
            let address =
                address.ok_or_else(|| format!("{register:?} comes from {:?} at {:#x}", it.mnemonic(), it.ip()))?;
            if known.is_some_and(|other| other != address) {
                return Err(format!("{register:?} has several values"));
            }
            known = Some(address);
        }
        known.ok_or_else(|| format!("nothing defines {register:?}"))
    }

    /// The only instruction that defines the register.
    fn definition(&self, at: usize, register: Register) -> Result<usize, String> {
        match self.definitions(at, register)?.as_slice() {
            [one] => Ok(*one),
            several => Err(format!("{register:?} has {} definitions", several.len())),
        }
    }

    /// All instructions whose value of the register may reach `at`.
    fn definitions(&self, at: usize, register: Register) -> Result<Vec<usize>, String> {
        let register = register.full_register();
        let mut definitions = Vec::new();
        let mut seen = BTreeSet::new();
        let mut pending = vec![at];
        while let Some(point) = pending.pop() {
            if point == 0 {
                return Err(format!("{register:?} comes from the caller"));
            }
            for &index in &self.before[point] {
                if !seen.insert(index) {
                    continue;
                }
                let instruction = &self.instructions[index];
                if self.writes[index].contains(&register) {
                    definitions.push(index);
                } else if changes(instruction, register) {
                    return Err(format!("{register:?} is changed by the call at {:#x}", instruction.ip()));
                } else {
                    pending.push(index);
                }
            }
        }
        Ok(definitions)
    }
}

/// The table that a load or a jump by `[index*8+table]` reads.
fn absolute_table(instruction: &Instruction) -> Option<u64> {
    let place = match instruction.mnemonic() {
        Mnemonic::Jmp => 0,
        Mnemonic::Mov => 1,
        _ => return None,
    };
    let table = instruction.op_kind(place) == OpKind::Memory
        && instruction.memory_base() == Register::None
        && instruction.memory_index() != Register::None
        && instruction.memory_index_scale() == 8;
    table.then(|| instruction.memory_displacement64())
}

/// Whether a call may change the register without naming it.
fn changes(instruction: &Instruction, register: Register) -> bool {
    match instruction.flow_control() {
        FlowControl::Call if instruction.mnemonic() == Mnemonic::Syscall => CHANGED_BY_KERNEL.contains(&register),
        FlowControl::Call | FlowControl::IndirectCall => !KEPT_BY_CALLS.contains(&register),
        _ => false,
    }
}

fn written(factory: &mut InstructionInfoFactory, instruction: &Instruction) -> Vec<Register> {
    let writes = |access: OpAccess| {
        matches!(access, OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite)
    };
    let used = factory.info(instruction).used_registers().iter();
    used.filter(|it| writes(it.access())).map(|it| it.register().full_register()).collect()
}
