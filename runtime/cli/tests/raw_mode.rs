//! Our terminal is cooked again after every way out, seen on a real tty made by script(1).
#![forbid(unsafe_code)]

#[allow(dead_code, unreachable_pub)] // Only the raw mode is tested here.
#[path = "../src/terminal.rs"]
mod terminal;

use std::process::Command;

use rustix::termios::{LocalModes, tcgetattr};

/// The part that runs on the tty; without one, nothing is done to it.
#[test]
fn on_a_tty() {
    let Ok(way_out) = std::env::var("RAW_MODE_WAY_OUT") else {
        return;
    };
    let guard = terminal::RawMode::enter().expect("raw").expect("a tty in the foreground");
    let modes = tcgetattr(rustix::stdio::stdin()).expect("settings").local_modes;
    println!("raw={}", !modes.intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG));
    if way_out == "drop" {
        drop(guard);
    } else {
        // As where a panic aborts: nothing is unwound, so nothing is dropped.
        std::mem::forget(guard);
        panic!("on purpose");
    }
}

#[test]
fn the_tty_is_restored() {
    let program = std::env::current_exe().expect("this test");
    for way_out in ["drop", "panic"] {
        let line = format!(
            "RAW_MODE_WAY_OUT={way_out} {} --exact on_a_tty --nocapture --test-threads=1; stty -a",
            program.display()
        );
        let Ok(output) = Command::new("script").args(["-qec", &line, "/dev/null"]).output() else {
            eprintln!("skipped: script(1) is not installed");
            return;
        };
        let shown = String::from_utf8_lossy(&output.stdout);
        assert!(shown.contains("raw=true"), "{way_out}: {shown}");
        for mode in [" icanon", " echo ", " isig", " opost"] {
            assert!(shown.contains(mode) || shown.contains(&format!("\n{}", mode.trim_start())), "{way_out}: {shown}");
        }
    }
}
