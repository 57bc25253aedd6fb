//! System calls of a running process that wait, or fail, by strace(1).

use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::{find_program, skip, wait_until};

/// strace(1), found in PATH; None after a skip.
#[must_use]
pub fn strace() -> Option<std::path::PathBuf> {
    let found = find_program("strace");
    if found.is_none() {
        skip("no strace(1): it holds system calls, or lets them fail");
    }
    found
}

/// strace at work on a process, until it is dropped.
#[derive(Debug)]
pub struct Tampered(Child);

impl Tampered {
    /// Attaches it to a process, with these options (`--inject=...`), and a log of the calls. None after a skip.
    #[must_use]
    pub fn attach(pid: i32, log: &Path, options: &[&str]) -> Option<Self> {
        let child = Command::new(strace()?)
            .args(options)
            .args(["--attach", &pid.to_string(), "--output"])
            .arg(log)
            .stderr(Stdio::null())
            .spawn()
            .expect("start strace");
        let tampered = Self(child);
        let (status, tracer) = (format!("/proc/{pid}/status"), format!("TracerPid:\t{}\n", tampered.0.id()));
        wait_until("strace is attached", || std::fs::read_to_string(&status).is_ok_and(|text| text.contains(&tracer)));
        Some(tampered)
    }
}

impl Drop for Tampered {
    fn drop(&mut self) {
        // The kernel lets go what it held.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
