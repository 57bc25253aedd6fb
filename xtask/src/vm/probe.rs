//! Whether the processor's own virtualisation works here.

use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::kernel::Kernel;
use super::{cache, machine};

const KVM: &[&str] = &["-accel", "kvm", "-cpu", "host"];
/// Emulation: tens of times slower. Of an old processor, since each thing that a newer one does more is emulated, too: with `max` the
/// short form takes 103 CPU seconds, not 89.
pub(super) const TCG: &[&str] = &["-accel", "tcg,thread=multi", "-cpu", "Nehalem"];

/// How long KVM may take to boot a kernel that does nothing. It needs less than a second.
const PATIENCE: Duration = Duration::from_secs(10);

/// qemu's options for the fastest way to run a machine here.
///
/// A device that can be opened says little: in some machines it is there and nothing runs on it. So one machine is
/// booted to its first process, once for each boot of the host.
///
/// # Errors
///
/// When the answer cannot be kept.
pub(super) fn accelerator(kernel: &Kernel, archive: &Path) -> anyhow::Result<&'static [&'static str]> {
    if File::options().read(true).write(true).open("/dev/kvm").is_err() {
        return Ok(TCG);
    }
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let answer = cache::folder()?.join("kvm");
    let known = fs::read_to_string(&answer).unwrap_or_default();
    let works = match known.strip_prefix(boot.trim()).map(str::trim) {
        Some("works") => true,
        Some("fails") => false,
        _ => {
            let works = boots(kernel, archive)?;
            let text = format!("{} {}\n", boot.trim(), if works { "works" } else { "fails" });
            let new = answer.with_extension(format!("{}.new", std::process::id()));
            fs::write(&new, text).and_then(|()| fs::rename(&new, &answer)).context("keeping whether KVM works")?;
            works
        }
    };
    Ok(if works { KVM } else { TCG })
}

fn boots(kernel: &Kernel, archive: &Path) -> anyhow::Result<bool> {
    let console = tempfile::NamedTempFile::new().context("making a file for the console")?;
    let mut qemu = machine::bare(kernel, archive, KVM);
    qemu.args(["-m", "256", "-append", "console=ttyS0 panic=-1 reboot=t quiet flint.probe=1", "-serial"]);
    qemu.arg(format!("file:{}", console.path().display())).stderr(Stdio::null());
    let mut child = qemu.spawn().context("starting qemu-system-x86_64 (install qemu-system-x86)")?;
    let started = Instant::now();
    while started.elapsed() < PATIENCE && child.try_wait().context("waiting for qemu")?.is_none() {
        std::thread::sleep(Duration::from_millis(50));
    }
    let _ = child.kill();
    child.wait().context("waiting for qemu")?;
    let said = fs::read(console.path()).context("reading the console")?;
    Ok(String::from_utf8_lossy(&said).contains("flint-vm: alive"))
}
