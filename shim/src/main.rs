//! `containerd-shim-flint-v1`: keeps containers alive for containerd, dockerd and flintd (task API v2 and v3).
//!
//! ```text
//!  ttrpc request -> service   decodes only
//!                -> tasks     a lock per task, never the table's across an await
//!                -> task      a state machine
//!                -> flint-runtime, on a blocking thread
//!                -> events    one ordered queue, retried until delivered
//!
//!  exits: settles the races between start and exit in one place (pidfds; init's exit last; OOM before exit)
//! ```
//!
//! `start` is called once for each container: it answers with the address of the shim of the container's group, and starts
//! that shim if there is none. `delete` is called when a shim is gone, or at a container's normal end by old containerds.
//!
//! It must not make raw system calls of its own (flint-sys), start the runtime as a program, reap children that
//! are not its own, or hold a lock across a create.
#![forbid(unsafe_code)]

mod address;
mod arguments;
mod bootstrap;
mod change;
mod clients;
mod clock;
mod config;
mod delete;
mod error;
mod events;
mod exec;
mod exits;
mod info;
mod layers;
mod log;
mod metrics;
mod node;
mod options;
mod pause;
mod process;
mod readiness;
mod restore;
mod rootfs;
mod sandbox;
mod serve;
mod service;
mod start;
mod stdio;
mod task;
mod tasks;

use std::process::ExitCode;

use arguments::{Action, Arguments};

/// As of the runtime's command: musl's makes a system call for nearly every page.
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

/// The program's name in messages, as containerd derives it from `io.containerd.flint.v1`.
const NAME: &str = "containerd-shim-flint-v1";

fn main() -> ExitCode {
    // What the caller had blocked outlives execve, and would not end a shim (daemon(7)). There is one thread, so this cannot fail.
    let _ = nix::sys::signal::SigSet::empty().thread_set_mask();
    let done = Arguments::parse(std::env::args().skip(1)).and_then(|arguments| match arguments.action {
        Action::Help => {
            print!("{}", arguments::HELP);
            Ok(())
        }
        Action::Version => {
            println!("{NAME}:\n  Version:  {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        Action::Info => info::run(),
        Action::Start => start::run(&arguments),
        Action::Delete => delete::run(&arguments),
        Action::Pause => pause::run(false),
        Action::PauseLasting => pause::run(true),
        Action::Serve => serve::run(&arguments),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{NAME}: {error:#}");
            ExitCode::FAILURE
        }
    }
}
