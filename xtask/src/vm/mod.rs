//! `cargo xtask vm`: a command in a virtual machine, for what the host cannot show.
//!
//! ```text
//!  kernel (apt-get download, unpacked) ─┐
//!  image (mmdebstrap, one erofs disk) ──┼─> machine: qemu ─> initramfs: overlay of the disks ─> init or systemd ─> run
//!  carry (checkout, programs, command) ─┘       └── ports: stdout, stderr, report (exit status, skipped tests) <──┘
//! ```
//!
//! Kernels and images are built once and kept in a cache outside the checkout. Nothing is installed on the host, and a
//! machine changes nothing: its root filesystem is read-only disks below a tmpfs.

mod cache;
mod carry;
mod image;
mod initramfs;
mod kernel;
mod machine;
mod options;
mod probe;
mod program;
mod suite;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, ensure};

pub(crate) use machine::Ended;
pub(crate) use options::Options;
pub(crate) use suite::{missing, short};

use crate::interrupt::Interrupt;
use crate::test::programs::TestProgram;
use crate::workspace;
use options::Asked;
use suite::Chosen;

const HELP: &str = "\
usage: cargo xtask vm [OPTION...] [--] COMMAND [ARGUMENT...]
       cargo xtask vm [OPTION...] --test NAME... [-- OPTION of the test program...]
       cargo xtask vm --clean

Runs a command as root in a virtual machine with Debian's cloud kernel, where cgroups, AppArmor, swap, systemd
and CRIU are all there. What it writes comes out on stdout and stderr, and its exit status is the exit status
of xtask (125 when the machine itself failed: a panic of the kernel, no boot, the time limit). Its stdin is
empty. The machine has no network. It is emulated (tens of times slower than the host) unless KVM really works.

The command finds the checkout's files and target/dist at the host's paths, read-only, and runs in the
checkout's root. FLINT_BIN and FLINT_SHIM are the host's, else target/dist/flint. /tmp can be written and is lost.

  --cgroup v1|v2|hybrid   which hierarchies are mounted (v2, with all controllers)
  --init none|systemd     process 1: a short script (boots in seconds), or systemd with dbus and the user
                          tester, who has subordinate ids and a lingering manager (none)
  --kernel SUITE          Debian's suite of the kernel: bullseye (5.10), bookworm (6.1), trixie (6.12), sid
  --image SUITE           Debian's suite of the programs: bookworm, trixie, sid (bookworm)
  --memory MIB            (1536)
  --swap MIB              a swap device of this size; 0 for none (256)
  --scratch MIB           an empty disk, /dev/disk/by-id/virtio-scratch or the one with the serial scratch (64)
  --cpus N                (2)
  --then cut|reboot       once the command has ended well, the machine's power is cut, or systemd reboots it; it comes
                          up again with all that was on its disk, and the command is run again. May be given more
                          than once. FLINT_BOOT says to the command which boot it is: 1, 2, ...
  --timeout SECONDS       after which the machine is stopped (1800)
  --carry PATH            carries in one more file or folder, at its own path
  --env NAME=VALUE        sets a variable for the command
  --test NAME             builds that integration test (a program of them, or one of its files), carries it in and
                          runs it; may be given again. Words behind -- are beginnings of names in that file
  --kernel-option WORD    one more word on the kernel's command line
  --console               shows the kernel's console, afterwards, on stderr
  --clean                 removes all kernels and images from the cache ($XDG_CACHE_HOME/flint-vm)

The first use of a kernel or image downloads and builds it, as root (1 to 2 minutes).";

/// xtask's exit status when the machine failed and not the command.
const MACHINE_FAILED: u8 = 125;

/// Runs the command.
pub(crate) fn command(parser: lexopt::Parser) -> anyhow::Result<ExitCode> {
    let options = match options::parse(parser)? {
        Asked::Help => {
            println!("{HELP}");
            return Ok(ExitCode::SUCCESS);
        }
        Asked::Clean => return cache::clean().map(|()| ExitCode::SUCCESS),
        Asked::Run(options) => options,
    };
    let interrupt = Interrupt::watch()?;
    let ended = run(&options, &[], &interrupt, &mut |bytes| {
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(bytes).and_then(|()| stdout.flush()).context("writing to stdout")
    });
    match ended {
        Ok(ended) => {
            for skip in &ended.skips {
                eprintln!("{skip}");
            }
            Ok(ExitCode::from(ended.code))
        }
        Err(error) => {
            eprintln!("xtask: {error:#}");
            Ok(ExitCode::from(MACHINE_FAILED))
        }
    }
}

/// Builds what is missing, starts the machine and waits for its end.
///
/// # Errors
///
/// When something cannot be built, or the machine failed (and not the command).
pub(crate) fn run(
    options: &Options,
    built: &[TestProgram],
    interrupt: &Interrupt,
    stdout: &mut dyn FnMut(&[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<Ended> {
    ensure!(cfg!(target_arch = "x86_64"), "the machines of `cargo xtask vm` are x86-64, and so must be the host");
    let mut options = options.clone();
    let mut programs = flint(&mut options)?;
    let tests = suite::choose(&options.tests, built)?;
    let script = script(&options, &tests)?;
    programs.extend(tests.into_iter().map(|test| test.program));
    programs.sort();
    programs.dedup();
    let kernel = kernel::kernel(&options.kernel)?;
    let image = image::disk(&options.image)?;
    // In the target folder: there, programs can be linked and need not be copied.
    let work = workspace::target_folder().join("vm");
    std::fs::create_dir_all(&work).with_context(|| format!("making {}", work.display()))?;
    let work = tempfile::Builder::new().prefix("run-").tempdir_in(&work).context("making a folder for the machine")?;
    let carried = carry::disk(&options, &programs, &script, work.path())?;
    let kept = if options.then.is_empty() { None } else { Some(machine::kept_disk(work.path())?) };
    let mut parts = machine::Parts { kernel, image, carried, kept, folder: PathBuf::new() };
    let (mut ended, mut skips) = (Ended::default(), Vec::new());
    for (number, then) in (1..).zip(options.then.iter().copied().map(Some).chain([None])) {
        parts.folder = work.path().join(format!("boot-{number}"));
        std::fs::create_dir(&parts.folder).with_context(|| format!("making {}", parts.folder.display()))?;
        ended = machine::run(&options, &parts, machine::Boot { number, then }, interrupt, stdout)?;
        skips.append(&mut ended.skips);
        if ended.code != 0 {
            break;
        }
    }
    Ok(Ended { skips, ..ended })
}

/// Builds the kernel and the image that machines have by default where they are missing: minutes, most of them spent on
/// waiting for a mirror.
///
/// # Errors
///
/// When one cannot be built.
pub(crate) fn prepare() -> anyhow::Result<()> {
    let options = Options::default();
    kernel::kernel(&options.kernel)?;
    image::disk(&options.image).map(drop)
}

/// The programs under test, and the variables that name them to the tests.
fn flint(options: &mut Options) -> anyhow::Result<Vec<PathBuf>> {
    let mut programs = Vec::new();
    let dist = workspace::dist_folder();
    let shipped = Some(dist.join("flint")).filter(|path| path.is_file());
    for (name, other) in [("FLINT_BIN", shipped), ("FLINT_FAULTS_BIN", None), ("FLINT_SHIM", None)] {
        if options.environment.iter().any(|(set, _)| set == name) {
            continue;
        }
        if let Some(path) = std::env::var_os(name).map(PathBuf::from).or(other) {
            let path = path.canonicalize().with_context(|| format!("{name}={}", path.display()))?;
            options.environment.push((name.to_owned(), path.clone().into()));
            programs.push(path);
        }
    }
    options.environment.push(("FLINT_DIST".to_owned(), dist.into()));
    Ok(programs)
}

/// What sh runs in the machine.
fn script(options: &Options, tests: &[Chosen]) -> anyhow::Result<String> {
    let root = workspace::root();
    let root = root.canonicalize().with_context(|| format!("resolving {}", root.display()))?;
    let mut script = format!("cd {} || exit 125\n", carry::command_line(&[root.as_os_str()])?);
    if tests.is_empty() {
        writeln!(script, "exec {}", carry::command_line(&options.command)?)?;
        return Ok(script);
    }
    // As under cargo, a test runs in its package's folder.
    script += "cd integration-tests || exit 125\ncode=0\n";
    for test in tests {
        let arguments = carry::command_line(&test.arguments(&options.command))?;
        writeln!(script, "{} {arguments} || code=$?", carry::command_line(&[&test.program])?)?;
    }
    script += "exit $code\n";
    Ok(script)
}
