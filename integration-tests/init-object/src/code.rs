//! One function's instructions, each looked at.

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register};

use crate::flow::Flow;
use crate::image::{Function, Image};

/// What one function does.
#[derive(Debug, Default)]
pub(crate) struct Code {
    pub(crate) instructions: usize,
    pub(crate) system_calls: usize,
    pub(crate) traps: usize,
    pub(crate) tables: usize,
    /// Where it calls or jumps to outside itself: the instruction and its target.
    pub(crate) leaves: Vec<(u64, u64)>,
    /// What it must not do: the instruction and what it is.
    pub(crate) faults: Vec<(u64, String)>,
}

/// Decodes and looks at all of a function, from its first byte to its last.
pub(crate) fn read(image: &Image<'_>, function: &Function) -> Code {
    let mut code = Code::default();
    let Some(bytes) = image.code(function) else {
        code.faults.push((function.address, "the symbol is not within the program's code".to_owned()));
        return code;
    };
    let mut decoder = Decoder::with_ip(64, bytes, function.address, DecoderOptions::NONE);
    let instructions: Vec<Instruction> = decoder.iter().collect();
    let flow = Flow::new(image, &instructions);
    code.instructions = instructions.len();
    code.tables = flow.tables();
    for (index, instruction) in instructions.iter().enumerate() {
        if let Err(what) = look(image, &flow, &mut code, index, instruction) {
            code.faults.push((instruction.ip(), what));
        }
    }
    let reached = flow.reached();
    let padding = [Mnemonic::Nop, Mnemonic::Int3, Mnemonic::Ud2];
    for (index, instruction) in instructions.iter().enumerate() {
        if !reached.contains(&index) && !padding.contains(&instruction.mnemonic()) {
            code.faults.push((instruction.ip(), "no known path leads here: a jump table was misread".to_owned()));
            break;
        }
    }
    if let Some(last) = instructions.last()
        && matches!(last.flow_control(), FlowControl::Next | FlowControl::ConditionalBranch)
        && reached.contains(&(instructions.len() - 1))
    {
        // Hand-written assembly runs on into its next label.
        code.leaves.push((last.ip(), function.end));
    }
    code
}

fn look(
    image: &Image<'_>,
    flow: &Flow<'_>,
    code: &mut Code,
    index: usize,
    instruction: &Instruction,
) -> Result<(), String> {
    let thread_local = [Register::FS, Register::GS];
    let base_access = [Mnemonic::Rdfsbase, Mnemonic::Rdgsbase, Mnemonic::Wrfsbase, Mnemonic::Wrgsbase];
    if thread_local.contains(&instruction.segment_prefix()) || base_access.contains(&instruction.mnemonic()) {
        return Err("thread-local storage".to_owned());
    }
    let target = instruction.near_branch_target();
    match instruction.flow_control() {
        FlowControl::Next | FlowControl::Return => Ok(()),
        FlowControl::Call if instruction.mnemonic() == Mnemonic::Syscall => {
            code.system_calls += 1;
            Ok(())
        }
        FlowControl::Exception if instruction.mnemonic() == Mnemonic::Ud2 => {
            code.traps += 1;
            Ok(())
        }
        FlowControl::Call if instruction.is_call_near() => {
            code.leaves.push((instruction.ip(), target));
            Ok(())
        }
        FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch if is_near(instruction) => {
            if flow.index(target).is_none() {
                code.leaves.push((instruction.ip(), target));
            }
            Ok(())
        }
        FlowControl::IndirectCall if instruction.is_call_near_indirect() => {
            code.leaves.push((instruction.ip(), indirect(image, flow, index, instruction)?));
            Ok(())
        }
        FlowControl::IndirectBranch if instruction.is_jmp_near_indirect() => {
            if let Ok(target) = indirect(image, flow, index, instruction) {
                code.leaves.push((instruction.ip(), target));
                return Ok(());
            }
            flow.table(index).map(drop).map_err(|why| format!("an indirect jump that is no jump table: {why}"))
        }
        _ => Err(format!("the instruction {:?}", instruction.mnemonic())),
    }
}

fn is_near(instruction: &Instruction) -> bool {
    matches!(instruction.op0_kind(), OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64)
}

/// The one function that an indirect call or jump can go to.
fn indirect(image: &Image<'_>, flow: &Flow<'_>, index: usize, instruction: &Instruction) -> Result<u64, String> {
    match instruction.op0_kind() {
        OpKind::Memory if instruction.is_ip_rel_memory_operand() => {
            let slot = instruction.ip_rel_memory_address();
            image.got(slot).ok_or_else(|| format!("an indirect call through {slot:#x}, which is no slot of the GOT"))
        }
        OpKind::Register => {
            flow.known(index, instruction.op0_register()).map_err(|why| format!("an indirect call: {why}"))
        }
        _ => Err("an indirect call through memory".to_owned()),
    }
}
