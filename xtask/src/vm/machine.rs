//! One run of qemu: its disks, its ports, and what came of it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::kernel::Kernel;
use super::options::{Cgroup, Init, Options, Then};
use super::{initramfs, probe, program};
use crate::interrupt::Interrupt;

/// What is needed to start a machine.
pub(super) struct Parts {
    pub(super) kernel: Kernel,
    pub(super) image: PathBuf,
    pub(super) carried: PathBuf,
    /// A disk that the next boot finds again.
    pub(super) kept: Option<PathBuf>,
    /// For sockets and scratch disks of one boot; removed by the caller.
    pub(super) folder: PathBuf,
}

/// One of the boots of a machine.
#[derive(Clone, Copy)]
pub(super) struct Boot {
    /// From 1.
    pub(super) number: u32,
    /// How it ends; None for the last.
    pub(super) then: Option<Then>,
}

/// How the command ended.
#[derive(Debug, Default)]
pub(crate) struct Ended {
    /// Its exit status as a shell has it (128 + signal).
    pub(crate) code: u8,
    /// The lines `SKIP test: reason` of its tests.
    pub(crate) skips: Vec<String>,
    /// Seconds from the kernel's start to the command's.
    pub(crate) boot: String,
}

/// What the machine's ports said.
enum Said {
    Stdout(Vec<u8>),
    Stderr(Vec<u8>),
    Report(String),
    /// The end of a port: the machine is gone.
    End,
}

const PORTS: [&str; 3] = ["stdout", "stderr", "report"];
/// How many of the console's last lines are told when the machine died.
const CONSOLE_LINES: usize = 30;
/// How long a machine may take to end after it reported the exit status.
const END: Duration = Duration::from_secs(20);
/// The same for one that ends its services first: systemd gives each of them 90 s.
const REBOOT: Duration = Duration::from_secs(300);
/// Bytes of the disk that is kept, a file with holes.
const KEPT: u64 = 2 << 30;

/// Makes the disk that is kept from one boot to the next.
///
/// # Errors
///
/// When mkfs.ext4 is missing or fails.
pub(super) fn kept_disk(folder: &Path) -> anyhow::Result<PathBuf> {
    let path = folder.join("kept");
    let file = File::create(&path).with_context(|| format!("making {}", path.display()))?;
    file.set_len(KEPT).with_context(|| format!("sizing {}", path.display()))?;
    program::run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&path), "e2fsprogs")?;
    Ok(path)
}

/// Runs the machine to its end. `stdout` gets what the command writes to its stdout, line by line or in bigger pieces;
/// its stderr goes to xtask's.
///
/// # Errors
///
/// When qemu cannot be started, xtask was interrupted, or the machine ended without the command's exit status: a panic
/// of the kernel, no boot, the time limit.
pub(super) fn run(
    options: &Options,
    parts: &Parts,
    boot: Boot,
    interrupt: &Interrupt,
    stdout: &mut dyn FnMut(&[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<Ended> {
    let archive = parts.folder.join("initramfs");
    initramfs::write(&parts.kernel, &archive)?;
    let accelerator = probe::accelerator(&parts.kernel, &archive)?;
    let console = parts.folder.join("console");
    let mut qemu = qemu(options, parts, boot, &archive, accelerator)?;
    qemu.arg("-serial").arg(format!("file:{}", escape(&console)));

    let (sender, said) = mpsc::channel();
    let listeners = PORTS.map(|name| listen(name, &parts.folder, &mut qemu));
    let started = Instant::now();
    let stderr = parts.folder.join("qemu-stderr");
    qemu.stderr(File::create(&stderr).context("making a file for what qemu says")?);
    let mut child = Guard(qemu.spawn().context("starting qemu-system-x86_64 (install qemu-system-x86)")?);
    let readers = listeners.into_iter().zip(PORTS).map(|(listener, name)| Ok(read(listener?, name, sender.clone())));
    let readers: Vec<_> = readers.collect::<anyhow::Result<_>>()?;
    drop(sender);

    let mut run = Run { options, then: boot.then, interrupt, started, child: &mut child, said: &said };
    let outcome = run.wait(stdout);
    drop(child);
    for reader in readers {
        // They end with qemu's sockets; one that waits for qemu's first connection is let go with xtask.
        if reader.is_finished() {
            let _ = reader.join();
        }
    }
    let console = fs::read(&console).unwrap_or_default();
    let console = String::from_utf8_lossy(&console);
    if options.console {
        eprintln!("{}", console.trim_end());
    }
    match outcome? {
        (Some(code), ended) => Ok(Ended { code, ..ended }),
        (None, _) => bail!("{}", why(&console, &fs::read_to_string(&stderr).unwrap_or_default())),
    }
}

/// The machine ended without a word: what its console says.
fn why(console: &str, stderr: &str) -> String {
    let panic = console.lines().find_map(|line| line.split_once("Kernel panic - ").map(|(_, what)| what));
    let own = console.lines().find_map(|line| line.split_once("flint-vm: ").map(|(_, what)| what));
    let what = match (own, panic) {
        (Some(own), _) => own.to_owned(),
        (None, Some(panic)) => format!("the machine's kernel panicked: {panic}"),
        (None, None) => "the machine ended before the command did".to_owned(),
    };
    let lines: Vec<&str> = console.lines().collect();
    let last = lines.get(lines.len().saturating_sub(CONSOLE_LINES)..).unwrap_or_default().join("\n");
    format!("{what}\n{}\nthe end of its console:\n{last}", stderr.trim_end())
}

struct Run<'a> {
    options: &'a Options,
    then: Option<Then>,
    interrupt: &'a Interrupt,
    started: Instant,
    child: &'a mut Guard,
    said: &'a Receiver<Said>,
}

impl Run<'_> {
    /// Until the machine has ended. Returns the exit status, if the command came to one.
    fn wait(&mut self, stdout: &mut dyn FnMut(&[u8]) -> anyhow::Result<()>) -> anyhow::Result<(Option<u8>, Ended)> {
        let mut ended = Ended::default();
        let mut code = None;
        let mut reported = None;
        let mut open = PORTS.len();
        while open > 0 {
            match self.said.recv_timeout(Duration::from_millis(100)) {
                Ok(Said::Stdout(bytes)) => stdout(&bytes)?,
                Ok(Said::Stderr(bytes)) => std::io::stderr().write_all(&bytes).context("writing to stderr")?,
                Ok(Said::Report(line)) => match line.split_once(' ') {
                    Some(("exit", number)) => {
                        code = Some(number.parse().with_context(|| format!("the machine reported {line}"))?);
                        reported = Some(Instant::now());
                        if code == Some(0) && self.then == Some(Then::Cut) {
                            self.child.0.kill().context("killing qemu")?;
                        }
                    }
                    Some(("ready", seconds)) => seconds.clone_into(&mut ended.boot),
                    Some(("SKIP", _)) => ended.skips.push(line),
                    _ => bail!("the machine reported {line}, which means nothing"),
                },
                Ok(Said::End) => open -= 1,
                // Nothing is left to read of one that is dead: its sockets ended with it, or were never connected.
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    if self.child.0.try_wait().context("waiting for qemu")?.is_some() {
                        break;
                    }
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            }
            self.interrupt.check()?;
            if self.started.elapsed() > self.options.timeout {
                bail!("the machine was stopped: it took more than {} s (--timeout)", self.options.timeout.as_secs());
            }
            let reboots = code == Some(0) && self.then == Some(Then::Reboot);
            if reported.is_some_and(|reported| reported.elapsed() > if reboots { REBOOT } else { END }) {
                anyhow::ensure!(!reboots, "the machine did not go down within {} s", REBOOT.as_secs());
                break;
            }
        }
        if let (Some(then), Some(reported), Some(0)) = (self.then, reported, code) {
            eprintln!("{} took {:.1} s", then.name(), reported.elapsed().as_secs_f64());
        }
        Ok((code, ended))
    }
}

/// Kills qemu when it goes out of scope.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn qemu(options: &Options, parts: &Parts, boot: Boot, archive: &Path, accelerator: &[&str]) -> anyhow::Result<Command> {
    let mut qemu = bare(&parts.kernel, archive, accelerator);
    qemu.args(["-smp", &options.cpus.to_string(), "-m", &options.memory.to_string()]);
    let mut words = vec![
        // Nobody reads the console of a machine that does well.
        "console=ttyS0 panic=-1 reboot=t".to_owned(),
        "quiet loglevel=5 mitigations=off random.trust_cpu=on".to_owned(),
        "systemd.show_status=no systemd.mask=tmp.mount rd.systemd.show_status=no".to_owned(),
        "lsm=landlock,yama,apparmor,bpf apparmor=1 swapaccount=1 systemd.firstboot=no".to_owned(),
        clock(accelerator).to_owned(),
        format!("flint.init={}", if options.init == Init::Systemd { "systemd" } else { "none" }),
        format!("flint.boot={} flint.then={}", boot.number, boot.then.map_or("off", Then::name)),
    ];
    words.push(match options.cgroup {
        // systemd from 256 on asks for the second word, since it is about to drop v1.
        Cgroup::V1 => "systemd.unified_cgroup_hierarchy=0 systemd.legacy_systemd_cgroup_controller=1 \
                       SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1"
            .to_owned(),
        Cgroup::Hybrid => "systemd.unified_cgroup_hierarchy=0 SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1".to_owned(),
        Cgroup::V2 => "systemd.unified_cgroup_hierarchy=1".to_owned(),
    });
    let disks = [("image", &parts.image), ("modules", &parts.kernel.modules), ("carried", &parts.carried)];
    for (name, path) in disks {
        disk(&mut qemu, name, path, true);
    }
    for (name, size) in [("swap", options.swap), ("scratch", options.scratch)] {
        if size > 0 {
            let path = parts.folder.join(name);
            let file = File::create(&path).with_context(|| format!("making {}", path.display()))?;
            file.set_len(u64::from(size) << 20).with_context(|| format!("sizing {}", path.display()))?;
            disk(&mut qemu, name, &path, false);
        }
    }
    if let Some(kept) = &parts.kept {
        disk(&mut qemu, "kept", kept, false);
        words.push("flint.kept=1".to_owned());
    }
    if options.swap > 0 {
        words.push("flint.swap=1".to_owned());
    }
    words.extend(options.kernel_words.iter().cloned());
    qemu.args(["-append", &words.join(" ")]);
    qemu.args(["-device", "virtio-serial-pci"]);
    Ok(qemu)
}

/// An emulated processor counts by the host's clock, and a kernel that measured it on a busy host is wrong by as much as it
/// had to wait: its seconds were seen to last a tenth of one. The emulated timer is slower to read and right.
fn clock(accelerator: &[&str]) -> &'static str {
    if accelerator == probe::TCG { "tsc=unstable clocksource=hpet" } else { "" }
}

/// A machine with nothing but a kernel.
pub(super) fn bare(kernel: &Kernel, archive: &Path, accelerator: &[&str]) -> Command {
    // With xtask goes its machine, whatever ended xtask.
    let mut qemu = Command::new("setpriv");
    qemu.args(["--pdeathsig", "KILL", "--", "qemu-system-x86_64"]);
    qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-machine", "pc"]);
    qemu.args(accelerator);
    qemu.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(archive);
    qemu.stdin(Stdio::null()).stdout(Stdio::null());
    qemu
}

/// Adds a disk that the machine knows by its serial.
fn disk(qemu: &mut Command, name: &str, path: &Path, read_only: bool) {
    let mode = if read_only { "read-only=on,file.locking=off" } else { "cache=unsafe" };
    qemu.arg("-drive").arg(format!("if=none,id={name},format=raw,{mode},file={}", escape(path)));
    qemu.arg("-device").arg(format!("virtio-blk-pci,drive={name},serial={name}"));
}

/// qemu reads two commas as one.
fn escape(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

/// Makes a port that qemu connects to when it starts.
fn listen(name: &str, folder: &Path, qemu: &mut Command) -> anyhow::Result<UnixListener> {
    let path = folder.join(format!("{name}.socket"));
    let listener = UnixListener::bind(&path).with_context(|| format!("making {}", path.display()))?;
    qemu.arg("-chardev").arg(format!("socket,id={name},path={}", escape(&path)));
    qemu.arg("-device").arg(format!("virtserialport,chardev={name},name={name}"));
    Ok(listener)
}

fn read(listener: UnixListener, name: &'static str, said: Sender<Said>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        if let Ok((stream, _)) = listener.accept() {
            // An error is the end, too: it can only be that qemu is gone.
            let _ = forward(stream, name, &said);
        }
        let _ = said.send(Said::End);
    })
}

fn forward(mut stream: UnixStream, name: &str, said: &Sender<Said>) -> std::io::Result<()> {
    if name == "report" {
        for line in BufReader::new(stream).lines() {
            let _ = said.send(Said::Report(line?));
        }
        return Ok(());
    }
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = stream.read(&mut buffer)?;
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else {
            return Ok(());
        };
        let bytes = bytes.to_vec();
        let _ = said.send(if name == "stdout" { Said::Stdout(bytes) } else { Said::Stderr(bytes) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_told_as_one() {
        let told = why("[ 1.0] x\n[ 2.0] Kernel panic - not syncing: Attempted to kill init!\n", "");
        assert!(told.starts_with("the machine's kernel panicked: not syncing: Attempted to kill init!"), "{told}");
    }

    #[test]
    fn what_the_machines_own_scripts_say_comes_first() {
        let told = why("flint-vm: there is no disk carried\nKernel panic - not syncing: x\n", "");
        assert!(told.starts_with("there is no disk carried"), "{told}");
    }
}
