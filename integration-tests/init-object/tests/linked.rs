//! The shipped `flint`: its init side reaches no allocator, no panic machinery and no std.
//!
//! `FLINT_DEBUG_BIN` names the program by an absolute path (`cargo xtask dist` puts it at target/dist/debug/flint);
//! without it, it is built here.
#![cfg(target_arch = "x86_64")]
#![forbid(unsafe_code)]

mod dist;

use std::io::Write;
use std::path::PathBuf;

#[test]
fn the_linked_init_side_reaches_no_allocator_no_panic_and_no_std() {
    let program = std::env::var_os("FLINT_DEBUG_BIN").map_or_else(|| dist::build("flint", "flint"), PathBuf::from);
    let bytes = std::fs::read(&program).unwrap_or_else(|error| panic!("reading {}: {error}", program.display()));
    let report = init_object::check(&bytes, &init_object::ENTRIES)
        .unwrap_or_else(|error| panic!("checking {}: {error:#}", program.display()));
    // Past the test harness, which keeps what a passing test prints.
    let _ = writeln!(std::io::stderr(), "init side of {}: {report}", program.display());
    let findings: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    assert!(findings.is_empty(), "{}:\n{}", program.display(), findings.join("\n"));
    // init's loop and all its steps; fewer would mean that the walk lost its way.
    assert!(report.instructions() > 3000, "{report}");
}
