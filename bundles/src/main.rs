//! `flint-bundle`: images to bundles, on the command line.
//!
//! ```text
//!  Command (what may be typed) ──> one file per verb ──> the library ──> a line or JSON on stdout, progress on stderr
//! ```
#![forbid(unsafe_code)]

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
