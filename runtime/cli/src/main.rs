//! The program `flint`: the library's [`flint_command::main`] with the allocator that suits a command.
#![forbid(unsafe_code)]

use std::process::ExitCode;

/// musl's allocator maps and unmaps page by page: 70 system calls in a run, where this one makes a handful.
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> ExitCode {
    flint_command::main()
}
