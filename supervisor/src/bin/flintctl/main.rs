//! `flintctl`: asks the node's supervisor, and shows what it says.
//!
//! ```text
//!  command (what may be typed) ──> one file per verb ──> flintd::api::client ──> table, JSON or bytes on stdout; the rest on stderr
//!                                  terminal (raw, sizes, restored whatever happens) <── exec, attach, run, top
//! ```
#![forbid(unsafe_code)]
#![allow(clippy::cast_precision_loss, reason = "numbers for people have three digits")]

mod applying;
mod command;
mod control;
mod detaching;
mod events;
mod images;
mod logs;
mod node;
mod pages;
mod ps;
mod run;
mod session;
mod table;
mod terminal;
mod top;
mod usage;
mod values;
mod waiting;

use std::process::ExitCode;

fn main() -> ExitCode {
    command::run()
}
