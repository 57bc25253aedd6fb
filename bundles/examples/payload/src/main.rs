//! The program of the example bundles: one static file that is the whole root filesystem's content, so that a
//! bundle can be made without a download.
//!
//! Its behaviour is chosen by the name it is called by, or, called as `payload`, by the first argument.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

const BEHAVIOURS: &str = "true, false, hello, echo [WORD...], exit CODE, pause";

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let called = arguments.next().unwrap_or_default();
    let mut behaviour = Path::new(&called).file_name().unwrap_or_default().to_os_string();
    if behaviour == "payload" {
        behaviour = arguments.next().unwrap_or_default();
    }
    let rest: Vec<OsString> = arguments.collect();
    match behaviour.to_str() {
        Some("true") => ExitCode::SUCCESS,
        Some("false") => ExitCode::FAILURE,
        Some("hello") => hello(),
        Some("echo") => {
            let words: Vec<_> = rest.iter().map(|word| word.to_string_lossy()).collect();
            println!("{}", words.join(" "));
            ExitCode::SUCCESS
        }
        Some("exit") => match rest.first().and_then(|code| code.to_str()?.parse::<u8>().ok()) {
            Some(code) => ExitCode::from(code),
            None => unknown("exit needs a code from 0 to 255"),
        },
        // Ends by a signal only; park may return early, hence the loop.
        Some("pause") => loop {
            std::thread::park();
        },
        _ => unknown("no such behaviour"),
    }
}

fn unknown(why: &str) -> ExitCode {
    eprintln!("payload: {why}; there are: {BEHAVIOURS}");
    ExitCode::from(2)
}

/// Says what a process inside a container sees of itself.
fn hello() -> ExitCode {
    let file = |path: &str| std::fs::read_to_string(path).unwrap_or_else(|error| format!("({path}: {error})"));
    let status = file("/proc/self/status");
    let field = |name: &str| {
        let found = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        found.unwrap_or("?").split_whitespace().collect::<Vec<_>>().join(" ")
    };
    println!("hello from pid {} of host {}", std::process::id(), file("/proc/sys/kernel/hostname").trim());
    println!("  uid {} gid {}", field("Uid"), field("Gid"));
    println!("  capabilities {} no_new_privs {} seccomp {}", field("CapEff"), field("NoNewPrivs"), field("Seccomp"));
    println!("  mounts {}", file("/proc/self/mountinfo").lines().count());
    ExitCode::SUCCESS
}
