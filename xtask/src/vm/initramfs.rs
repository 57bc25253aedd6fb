//! The initramfs: busybox, a few modules and one script, as a cpio archive in the form that the kernel reads ("newc").

use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};

use super::kernel::Kernel;

const INIT: &str = include_str!("guest/initramfs-init");
const APPLETS: &[&str] = &[
    "cat",
    "chmod",
    "chown",
    "cp",
    "insmod",
    "ln",
    "mkdir",
    "mkswap",
    "modprobe",
    "mount",
    "reboot",
    "sh",
    "sleep",
    "swapon",
    "switch_root",
    "umount",
    "usleep",
];
const BUSYBOX: &str = "/bin/busybox";

/// Writes the archive.
///
/// # Errors
///
/// When a file cannot be read or written.
pub(super) fn write(kernel: &Kernel, to: &Path) -> anyhow::Result<()> {
    ensure!(Path::new(BUSYBOX).is_file(), "{BUSYBOX} is missing (install busybox-static)");
    let mut archive = Archive::default();
    for folder in ["bin", "dev", "proc", "sys", "modules"] {
        archive.add(folder, 0o040_755, &[]);
    }
    archive.add("bin/busybox", 0o100_755, &fs::read(BUSYBOX).context("reading busybox")?);
    // By its own name each, since not every busybox's shell finds them without a file.
    for applet in APPLETS {
        archive.add(&format!("bin/{applet}"), 0o120_777, b"busybox");
    }
    let mut list = String::new();
    for module in &kernel.early {
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        let content = fs::read(module).with_context(|| format!("reading {}", module.display()))?;
        archive.add(&format!("modules/{name}"), 0o100_644, &content);
        list.push_str(&name);
        list.push('\n');
    }
    archive.add("modules/list", 0o100_644, list.as_bytes());
    archive.add("init", 0o100_755, INIT.as_bytes());
    fs::write(to, archive.finish()).with_context(|| format!("writing {}", to.display()))
}

#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    count: u32,
}

impl Archive {
    /// Adds an entry; a link's content is where it leads.
    fn add(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.count += 1;
        let size = u32::try_from(content.len()).unwrap_or(u32::MAX);
        let name_size = u32::try_from(name.len() + 1).unwrap_or(u32::MAX);
        let header = [self.count, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in header {
            self.bytes.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        while !self.bytes.len().is_multiple_of(4) {
            self.bytes.push(0);
        }
    }

    fn finish(mut self) -> Vec<u8> {
        self.add("TRAILER!!!", 0, &[]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpio_reads_what_was_written() {
        let mut archive = Archive::default();
        archive.add("folder", 0o040_755, &[]);
        archive.add("folder/file", 0o100_640, b"hello");
        archive.add("link", 0o120_777, b"folder/file");
        let bytes = archive.finish();
        assert!(bytes.starts_with(b"07070100000001000041ED"));
        let folder = tempfile::tempdir().unwrap();
        let cpio = std::process::Command::new("busybox")
            .args(["cpio", "-i", "-d"])
            .current_dir(folder.path())
            .stdin(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn();
        // Its own form is checked above; busybox is one more witness where it is installed.
        let Ok(mut cpio) = cpio else { return };
        std::io::Write::write_all(&mut cpio.stdin.take().unwrap(), &bytes).unwrap();
        assert!(cpio.wait().unwrap().success());
        assert_eq!(fs::read_to_string(folder.path().join("link")).unwrap(), "hello");
    }
}
