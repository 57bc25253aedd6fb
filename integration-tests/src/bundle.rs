//! Bundles: a rootfs of busybox and a config.json from the default spec with edits.

use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::{copy_program, default_spec, merge, write_program};

/// The programs of the rootfs, all of them busybox.
const APPLETS: &[&str] = &[
    "[", "awk", "cat", "chmod", "chown", "cp", "cut", "date", "dd", "df", "dmesg", "echo", "env", "expr", "false",
    "find", "grep", "head", "hostname", "id", "ifconfig", "ip", "kill", "ln", "ls", "mkdir", "mknod", "mount", "mv",
    "nproc", "ping", "printf", "ps", "pwd", "readlink", "rm", "rmdir", "sed", "seq", "sh", "sleep", "sort", "stat",
    "stty", "su", "sync", "tail", "test", "touch", "tr", "true", "tty", "umount", "uname", "wc", "whoami", "yes",
];

/// Fills `rootfs` with busybox, /etc/passwd and the usual folders.
pub fn fill_rootfs(rootfs: &Path) {
    for dir in ["bin", "dev", "etc", "proc", "root", "sys", "tmp", "var", "home/user"] {
        fs::create_dir_all(rootfs.join(dir)).expect("make a folder of the rootfs");
    }
    let busybox = rootfs.join("bin/busybox");
    copy_program(Path::new("/bin/busybox"), &busybox);
    fs::set_permissions(&busybox, fs::Permissions::from_mode(0o755)).expect("chmod busybox");
    for applet in APPLETS {
        // No symbolic link: ext4 looks for a free inode past each that was deleted in the last minutes, and these were half of
        // what many short tests cost.
        fs::hard_link(&busybox, rootfs.join("bin").join(applet)).expect("link an applet");
    }
    let passwd = "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home/user:/bin/sh\n";
    fs::write(rootfs.join("etc/passwd"), passwd).expect("write /etc/passwd");
    fs::write(rootfs.join("etc/group"), "root:x:0:\ntty:x:5:\nuser:x:1000:\nwheel:x:2000:user\n")
        .expect("write /etc/group");
    fs::set_permissions(rootfs.join("tmp"), fs::Permissions::from_mode(0o1777)).expect("chmod /tmp");
}

/// A bundle that is being written.
#[derive(Debug)]
pub struct Bundle {
    dir: PathBuf,
    spec: RefCell<Value>,
}

impl Bundle {
    /// A bundle in `dir`, with a busybox rootfs and the default spec.
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        fill_rootfs(&dir.join("rootfs"));
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).expect("chmod the bundle");
        Self { dir, spec: RefCell::new(default_spec()) }
    }

    /// Replaces the whole config.
    #[must_use]
    pub fn spec(self, spec: Value) -> Self {
        *self.spec.borrow_mut() = spec;
        self
    }

    /// Sets the program and its arguments.
    #[must_use]
    pub fn args(self, args: &[&str]) -> Self {
        self.edit(json!({"process": {"args": args}}))
    }

    /// Runs `script` by /bin/sh.
    #[must_use]
    pub fn shell(self, script: &str) -> Self {
        self.args(&["/bin/sh", "-c", script])
    }

    /// A program that lives until it is killed, and dies of SIGTERM (as pid 1 it needs a handler for that).
    #[must_use]
    pub fn forever(self) -> Self {
        self.shell("trap 'exit 0' TERM; while :; do sleep 1000 & wait $!; done")
    }

    /// Merges `edit` into the config (RFC 7386).
    #[must_use]
    pub fn edit(self, edit: Value) -> Self {
        merge(&mut self.spec.borrow_mut(), edit);
        self
    }

    /// Appends `value` to the array at JSON pointer `at`, which is made if it is missing.
    #[must_use]
    pub fn push(self, at: &str, value: Value) -> Self {
        {
            let mut spec = self.spec.borrow_mut();
            if spec.pointer(at).is_none() {
                let mut edit = json!([]);
                for name in at.rsplit('/').filter(|name| !name.is_empty()) {
                    edit = json!({name: edit});
                }
                merge(&mut spec, edit);
            }
            let array = spec.pointer_mut(at).and_then(Value::as_array_mut).expect("an array in the config");
            array.push(value);
        }
        self
    }

    /// Adds capabilities to the bounding, effective and permitted sets.
    #[must_use]
    pub fn capabilities(mut self, names: &[&str]) -> Self {
        for set in ["bounding", "effective", "permitted"] {
            for name in names {
                self = self.push(&format!("/process/capabilities/{set}"), json!(name));
            }
        }
        self
    }

    /// Makes the rootfs writable.
    #[must_use]
    pub fn writable(self) -> Self {
        self.edit(json!({"root": {"readonly": false}}))
    }

    /// The bundle's folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// The rootfs.
    #[must_use]
    pub fn rootfs(&self) -> PathBuf {
        self.dir.join("rootfs")
    }

    /// Writes a file into the rootfs with these permission bits.
    #[must_use]
    pub fn file(self, path: &str, text: &str, mode: u32) -> Self {
        let file = self.rootfs().join(path.trim_start_matches('/'));
        fs::create_dir_all(file.parent().expect("a parent")).expect("make the folder");
        if mode & 0o111 == 0 {
            fs::write(&file, text).expect("write a file of the rootfs");
        } else {
            write_program(&file, text);
        }
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("chmod a file of the rootfs");
        self
    }

    /// Writes config.json; the bundle's folder.
    #[must_use]
    pub fn write(&self) -> PathBuf {
        let text = serde_json::to_vec_pretty(&*self.spec.borrow()).expect("serialize the config");
        fs::write(self.dir.join("config.json"), text).expect("write config.json");
        self.dir.clone()
    }
}
