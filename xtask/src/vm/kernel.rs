//! Debian's cloud kernels, unpacked and never installed on the host.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use super::{cache, program};

/// What the kernel needs before it sees the root filesystem: the disks, their file systems, the ports.
const EARLY: &[&str] = &["virtio_pci", "virtio_blk", "virtio_console", "erofs", "overlay"];

/// Where libcrc32c finds its algorithm, which is no dependency by name.
const EARLY_IF_THERE: &[&str] = &["crc32c_generic"];

/// A change of what is done with the package is a change of what is cached.
const FORMAT: &str = "1";

/// A mirror may serve a copy that is past the date until which it was promised to be the newest; its signature is checked.
pub(super) const LATE: &str = "Acquire::Check-Valid-Until=false";

/// A kernel, ready to boot.
pub(super) struct Kernel {
    pub(super) image: PathBuf,
    /// The disk with /usr/lib/modules.
    pub(super) modules: PathBuf,
    /// The modules of the initramfs in the order in which they are loaded.
    pub(super) early: Vec<PathBuf>,
}

/// The kernel of a suite, fetched where it is missing.
///
/// # Errors
///
/// When it has to be fetched and there is no apt, or the mirror cannot be reached or has no such suite.
pub(super) fn kernel(suite: &str) -> anyhow::Result<Kernel> {
    let early = [EARLY, EARLY_IF_THERE].concat().join(" ");
    let folder = cache::entry(&format!("kernel-{suite}"), &[FORMAT, &early], |folder| build(suite, folder))?;
    let list = folder.join("early");
    let list = fs::read_to_string(&list).with_context(|| format!("reading {}", list.display()))?;
    Ok(Kernel {
        image: folder.join("vmlinuz"),
        modules: folder.join("modules.erofs"),
        early: list.lines().map(|name| folder.join("early-modules").join(name)).collect(),
    })
}

/// The mirror that the host's own apt uses, since another one may be out of reach.
pub(super) fn mirror() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let sources = read("/etc/apt/sources.list") + "\n" + &read("/etc/apt/sources.list.d/debian.sources");
    let words = sources.lines().filter(|line| !line.trim_start().starts_with('#')).flat_map(str::split_whitespace);
    let mut mirrors = words.filter(|word| word.starts_with("http") && !word.contains("security"));
    mirrors.next().unwrap_or("http://deb.debian.org/debian").to_owned()
}

fn build(suite: &str, folder: &Path) -> anyhow::Result<()> {
    let unpacked = folder.join("unpacked");
    for package in fetch(suite, folder)? {
        program::run(Command::new("dpkg-deb").arg("-x").args([&package, &unpacked]), "dpkg")?;
    }
    // Newer packages have /usr/lib/modules, older ones /lib/modules; the image's /lib is a link to /usr/lib.
    let old_place = unpacked.join("lib");
    let disk = folder.join("disk");
    fs::create_dir_all(disk.join("usr/lib")).context("making the modules' folder")?;
    let modules = if old_place.join("modules").is_dir() { old_place } else { unpacked.join("usr/lib") };
    fs::rename(modules.join("modules"), disk.join("usr/lib/modules")).context("taking the modules")?;
    let modules = entries(&disk.join("usr/lib/modules"))?.pop().context("the package has no modules")?;
    // In /boot, or from Linux 7 on beside its modules.
    let boot = unpacked.join("boot");
    let boot = if boot.is_dir() { entries(&boot)? } else { Vec::new() };
    let image = boot.into_iter().find(|path| name_of(path).starts_with("vmlinuz-"));
    let image = image.unwrap_or_else(|| modules.join("vmlinuz"));
    fs::rename(&image, folder.join("vmlinuz")).with_context(|| format!("taking the kernel {}", image.display()))?;
    decompress(&modules)?;
    // depmod wants /lib; the image has it as a link.
    std::os::unix::fs::symlink("usr/lib", disk.join("lib")).context("linking /lib")?;
    program::run(Command::new("depmod").arg("-b").arg(&disk).arg(name_of(&modules)), "kmod")?;
    fs::remove_file(disk.join("lib")).context("removing the link /lib")?;
    take_early(&modules, folder)?;
    program::make_disk(&folder.join("modules.erofs"), &disk)?;
    for scrap in [disk, unpacked, folder.join("apt")] {
        fs::remove_dir_all(&scrap).with_context(|| format!("removing {}", scrap.display()))?;
    }
    Ok(())
}

/// Downloads the packages by an apt that knows nothing but the wanted suite. Returns their paths.
fn fetch(suite: &str, folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let apt = folder.join("apt");
    for part in ["lists/partial", "cache/archives/partial", "empty"] {
        fs::create_dir_all(apt.join(part)).with_context(|| format!("making a folder in {}", apt.display()))?;
    }
    fs::write(apt.join("status"), "").context("writing apt's status")?;
    let keys = "/usr/share/keyrings/debian-archive-keyring.gpg";
    let source = format!("deb [signed-by={keys}] {} {suite} main\n", mirror());
    fs::write(apt.join("sources.list"), source).context("writing apt's sources")?;
    let place = |name: &str| apt.join(name).display().to_string();
    let options = [
        format!("Dir::State::Lists={}", place("lists")),
        format!("Dir::State::status={}", place("status")),
        format!("Dir::Cache={}", place("cache")),
        format!("Dir::Etc::sourcelist={}", place("sources.list")),
        format!("Dir::Etc::sourceparts={}", place("empty")),
        "APT::Sandbox::User=root".to_owned(),
        "Acquire::Languages=none".to_owned(),
        LATE.to_owned(),
    ];
    let apt_program = |name: &str| {
        let mut command = Command::new(name);
        command.arg("-qq").current_dir(&apt);
        for option in &options {
            command.args(["-o", option]);
        }
        command
    };
    program::run(apt_program("apt-get").arg("update"), "apt")
        .with_context(|| format!("is there a Debian suite {suite} at {}?", mirror()))?;
    let meta = "linux-image-cloud-amd64";
    let depends = |package: &str| {
        let printed = program::run(apt_program("apt-cache").args(["depends", "--important", package]), "apt")?;
        anyhow::Ok(printed.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    };
    let versioned = depends(meta)?.into_iter().find(|word| word.starts_with("linux-image-") && word != meta);
    let versioned = versioned.with_context(|| format!("{meta} of {suite} depends on no kernel"))?;
    // From Linux 7 on the kernel and its modules are in packages of their own.
    let parts = depends(&versioned)?;
    let parts = parts.iter().filter(|word| word.starts_with("linux-binary-") || word.starts_with("linux-modules-"));
    program::run(apt_program("apt-get").arg("download").arg(&versioned).args(parts), "apt")?;
    let mut packages = entries(&apt)?;
    packages.retain(|path| path.extension().is_some_and(|extension| extension == "deb"));
    ensure!(!packages.is_empty(), "apt-get download {versioned} left no package");
    Ok(packages)
}

/// Newer kernels' modules are compressed; unpacking them in an emulated machine would be paid at every boot.
fn decompress(folder: &Path) -> anyhow::Result<()> {
    let mut compressed = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for path in entries(&folder)? {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "xz") {
                compressed.push(path);
            }
        }
    }
    for some in compressed.chunks(200) {
        program::run(Command::new("xz").args(["--decompress", "--threads=0", "--"]).args(some), "xz-utils")?;
    }
    Ok(())
}

/// Copies what the initramfs needs and writes the order in which it is loaded.
fn take_early(modules: &Path, folder: &Path) -> anyhow::Result<()> {
    let list = modules.join("modules.dep");
    let list = fs::read_to_string(&list).with_context(|| format!("reading {}", list.display()))?;
    let depends: BTreeMap<&str, Vec<&str>> = list
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(path, needs)| (path, needs.split_whitespace().collect()))
        .collect();
    let find = |name: &str| {
        let file = format!("{name}.ko");
        depends.keys().copied().find(|path| path.rsplit('/').next() == Some(&file))
    };
    let mut order: Vec<&str> = Vec::new();
    for name in EARLY_IF_THERE.iter().chain(EARLY) {
        let Some(path) = find(name) else {
            // Built into the kernel, then.
            continue;
        };
        // modules.dep names what depends on the others first.
        let needs = depends.get(path).into_iter().flatten().rev().copied();
        for path in needs.chain([path]) {
            if !order.contains(&path) {
                order.push(path);
            }
        }
    }
    ensure!(!order.is_empty(), "modules.dep names none of {}", EARLY.join(", "));
    let early = folder.join("early-modules");
    fs::create_dir(&early).with_context(|| format!("making {}", early.display()))?;
    let mut names = String::new();
    for path in order {
        let name = path.rsplit('/').next().unwrap_or(path);
        fs::copy(modules.join(path), early.join(name)).with_context(|| format!("copying the module {name}"))?;
        names.push_str(name);
        names.push('\n');
    }
    fs::write(folder.join("early"), names).context("writing the list of early modules")
}

fn entries(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let context = || format!("reading {}", folder.display());
    let entries = fs::read_dir(folder).with_context(context)?;
    entries.map(|entry| Ok(entry.with_context(context)?.path())).collect()
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
