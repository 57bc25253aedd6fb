//! `flint-payload`: what runs inside the benchmarks' containers, chosen by the name it is started as or, under its
//! own name, by its first argument.
//!
//! - `true`: ends at once with 0.
//! - `pause`: waits for SIGTERM or SIGINT, then ends with 0 (as pid 1 it must ask for them: signals(7)).
//! - `echo`: writes its arguments.
//!
//! It must be linked static: a rootfs with nothing else has no dynamic loader, and glibc's start-up costs more
//! than the container.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;

use nix::sys::signal::{SigSet, Signal};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    let name = Path::new(&name).file_name().unwrap_or(OsStr::new("")).to_owned();
    if let Some(code) = behave(&name, &mut arguments) {
        return code;
    }
    let first = arguments.next().unwrap_or_default();
    behave(&first, &mut arguments).unwrap_or_else(|| {
        eprintln!("flint-payload: use one of: true, pause, echo TEXT...");
        ExitCode::from(2)
    })
}

/// Does what `name` says; `None` when it says nothing.
fn behave(name: &OsStr, arguments: &mut dyn Iterator<Item = OsString>) -> Option<ExitCode> {
    match name.to_str()? {
        "true" => Some(ExitCode::SUCCESS),
        "pause" => Some(pause()),
        "echo" => Some(echo(arguments)),
        _ => None,
    }
}

fn pause() -> ExitCode {
    let ends: SigSet = [Signal::SIGTERM, Signal::SIGINT].into_iter().collect();
    if ends.thread_block().is_err() || ends.wait().is_err() {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn echo(arguments: &mut dyn Iterator<Item = OsString>) -> ExitCode {
    let words: Vec<OsString> = arguments.collect();
    let bytes: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
    let mut line = bytes.join(&b' ');
    line.push(b'\n');
    if std::io::stdout().write_all(&line).is_err() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
