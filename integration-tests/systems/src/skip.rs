//! Skipping out loud: a test that cannot run here says so in a file that the closing summary reads.

use std::io::Write;
use std::path::{Path, PathBuf};

/// The name of the running test. libtest names each test's thread after it.
#[must_use]
pub fn test_name() -> String {
    std::thread::current().name().unwrap_or("unnamed").to_owned()
}

/// Reports that the running test is skipped for `reason`: one line `SKIP <test>: <reason>` on stderr and, if
/// `FLINT_SKIP_LOG` names a file, at its end. The caller returns after it.
pub fn skip(reason: &str) {
    let line = format!("SKIP {}: {reason}\n", test_name());
    eprint!("{line}");
    if let Some(path) = std::env::var_os("FLINT_SKIP_LOG") {
        let mut log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .unwrap_or_else(|error| panic!("open FLINT_SKIP_LOG {}: {error}", path.display()));
        // One write, so that the lines of parallel tests do not mix.
        log.write_all(line.as_bytes()).expect("write FLINT_SKIP_LOG");
    }
}

/// Skips the test when one of `programs` is not installed; true when it did.
#[must_use]
pub fn missing(programs: &[&str]) -> bool {
    for program in programs {
        if find_program(program).is_none() {
            skip(&format!("{program} is not installed"));
            return true;
        }
    }
    false
}

/// Looks a program up in PATH and the sbin folders.
#[must_use]
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"])
        .map(|dir| Path::new(dir).join(name))
        .find(|candidate| candidate.is_file())
}
