//! Checks the *linked* init side of flint: what runs between clone and exec in the shipped program reaches no
//! allocator, no panic machinery and no std.
//!
//! ```text
//!   ELF program ─▶ image: functions by their symbols, GOT, read-only data
//!                    │
//!   entries ───────▶ walk ─▶ code: one function's instructions, each decoded and looked at
//!                    │  ▲      │
//!                    │  └──────┤ calls and jumps to other functions
//!                    │         └─▶ flow: what an indirect call or jump can only mean
//!                    └─▶ names: may this function be reached at all?
//! ```
//!
//! no_std without alloc cannot promise this: core panics on its own account (an index, a length, an overflow),
//! the panic handler that the program links is std's, and libc stands beside it. So the final object is asked.
//! Every instruction of every reached function is checked, whether or not the path to it can be taken; nothing is
//! executed.
//!
//! # Where the walk starts
//!
//! At every instance of `flint_sys::process::spawn`: the child begins behind the system call *inside* that
//! function, so its body is the first thing the child executes. It is never inlined and calls the child's function
//! directly, so the walk gets from there to init (`run`), the throw-away process (`join`), a process that is born late
//! (`born`) and the hook's process (`execute`). These are entries too, by name: a program in which one of them cannot be found is no program that
//! was checked. They are found by their demangled symbols since `no_mangle` is unsafe code by the lint that the
//! crate forbids.
//!
//! # What fails
//!
//! - a reached function that by its name is an allocator, panic machinery, of std or alloc, of libc (but for a few
//!   pure ones), or of any crate but core, flint-init, flint-sys;
//! - an indirect call, unless it can go to one function only, which the linker wrote: through a slot of the GOT, or by
//!   a register that holds the same address on every path (calls of memset look so in a static-pie program);
//! - an indirect jump that is no jump table: the table must lie in read-only data, and its entries must be starts of
//!   instructions inside the same function, but not its own start;
//! - code that no path leads to once all tables are read: one of them was read too short;
//! - thread-local storage (`fs:`, `gs:`), software interrupts, far and unknown instructions;
//! - a branch to where no function starts.
//!
//! # What is allowed
//!
//! `memcpy`, `memmove`, `memset`, `memcmp`, `bcmp`, `strlen`: the compiler itself writes calls of these; they are
//! pure, and they are walked as everything else is. `syscall` is what init is made of; which calls are
//! made is not looked at. `ud2` is allowed and counted: the compiler puts it where it has proven that nothing gets
//! to; it ends the process with SIGILL, without memory, locks or messages, which is what trap 13 of the design asks
//! of a bug. Panics are no `ud2` with the std that Rust ships (`panic_immediate_abort` would make them so).
//!
//! # What is taken on trust
//!
//! The symbols' sizes, the ABI's callee-saved registers, that there is no data amid the code of a function, that a
//! table whose first entry is a label inside the function has no function's address further on (a `switch` is
//! compiled to one or the other), and that a call at the very end of a function does not return.
//!
//! What must not happen here: a list of exceptions for functions of flint, or of core.
#![forbid(unsafe_code)]

mod code;
mod flow;
mod image;
mod names;
mod walk;

use std::fmt;

pub use walk::check;

/// The functions that the child of a clone executes first. A name stands for all instances of a generic function;
/// each must be in the program at least once.
pub const ENTRIES: [&str; 5] = [
    "flint_sys::process::spawn",
    "flint_init::executor::run",
    "flint_init::executor::join",
    "flint_init::birth::born",
    "flint_init::hook::execute",
];

/// What was found in a program.
#[derive(Debug, Default)]
pub struct Report {
    /// Every reached function, in the order in which it was reached.
    pub functions: Vec<Reached>,
    /// What must not be; empty when the program is good.
    pub findings: Vec<Finding>,
}

impl Report {
    /// The instructions of all reached functions.
    #[must_use]
    pub fn instructions(&self) -> usize {
        self.functions.iter().map(|function| function.instructions).sum()
    }

    /// The `ud2` in all reached functions.
    #[must_use]
    pub fn traps(&self) -> usize {
        self.functions.iter().map(|function| function.traps).sum()
    }
}

/// A reached function.
#[derive(Debug)]
pub struct Reached {
    /// Its demangled name.
    pub name: String,
    /// Where it is, as a virtual address of the program.
    pub address: u64,
    /// How many instructions it has.
    pub instructions: usize,
    /// How many of these are `syscall`.
    pub system_calls: usize,
    /// How many of these are `ud2`.
    pub traps: usize,
    /// How many are jumps through a table.
    pub tables: usize,
}

/// Something that the init side must not reach or do.
#[derive(Debug)]
pub struct Finding {
    /// The functions from an entry to the one at fault.
    pub chain: Vec<String>,
    /// Where the fault is: an instruction, or the function itself.
    pub address: u64,
    /// What it is.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}: {}", self.address, self.what)?;
        for (depth, name) in self.chain.iter().enumerate() {
            write!(f, "\n  {}{name}", if depth == 0 { "" } else { "-> " })?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sum = |of: fn(&Reached) -> usize| self.functions.iter().map(of).sum::<usize>();
        write!(
            f,
            "{} functions, {} instructions, {} system calls, {} jump tables, {} ud2: {} findings",
            self.functions.len(),
            self.instructions(),
            sum(|function| function.system_calls),
            sum(|function| function.tables),
            self.traps(),
            self.findings.len()
        )
    }
}
