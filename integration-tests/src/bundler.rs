//! flint-bundle under test, a real registry, and trees that tools unpack.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::process::Running;
use crate::{Command, Output, missing, skip, wait_until};

const PROGRAM: &str = "flint-bundle";

/// The program under test with a store of its own.
#[derive(Debug)]
pub struct Bundler {
    program: PathBuf,
    folder: TempDir,
}

impl Bundler {
    /// `FLINT_BUNDLE`, else that of `FLINT_DIST`, else target/dist's; None after a skip.
    #[must_use]
    pub fn new() -> Option<Self> {
        let dist = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/dist");
        let candidates = [
            std::env::var_os("FLINT_BUNDLE").map(PathBuf::from),
            std::env::var_os("FLINT_DIST").map(|dist| Path::new(&dist).join(PROGRAM)),
            Some(dist.join(PROGRAM)),
        ];
        let found =
            candidates.into_iter().flatten().find(|path| path.exists()).and_then(|path| path.canonicalize().ok());
        let Some(program) = found else {
            skip("no flint-bundle: build it with `cargo xtask dist` or name it in FLINT_BUNDLE");
            return None;
        };
        if !rustix::process::geteuid().is_root() {
            skip("needs root");
            return None;
        }
        // Not in a tmpfs, whose files have no security.capability before Linux 6.6; bundles of others lie beside.
        let folder =
            tempfile::Builder::new().prefix(&crate::new_prefix()).tempdir_in("/var/tmp").expect("make a folder");
        fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("chmod");
        Some(Self { program, folder })
    }

    /// A folder for whatever the test makes; it goes with this, as what is mounted in it.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The program itself.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The folder of its store.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.path().join("store")
    }

    /// The program with `--root` and these arguments, and nobody's credentials.
    #[must_use]
    pub fn command<A: Into<OsString>>(&self, args: impl IntoIterator<Item = A>) -> Command {
        let command = Command::new(&self.program).env("DOCKER_CONFIG", self.path().join("docker"));
        command.args(["--root".into(), self.store().into_os_string()]).args(args)
    }

    /// The same, run to its end.
    #[track_caller]
    #[must_use]
    pub fn call<A: Into<OsString>>(&self, args: impl IntoIterator<Item = A>) -> Output {
        self.command(args).output()
    }
}

impl Drop for Bundler {
    fn drop(&mut self) {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mounts = table.lines().filter_map(|line| line.split(' ').nth(4)).map(Path::new);
        let ours: Vec<&Path> = mounts.filter(|mount| mount.starts_with(self.path())).collect();
        for mount in ours.into_iter().rev() {
            let _ = rustix::mount::unmount(mount, rustix::mount::UnmountFlags::DETACH);
        }
    }
}

/// Debian's docker-registry on a port of this machine, alone. Dropping it ends it.
#[derive(Debug)]
pub struct Registry {
    running: Option<Running>,
    /// `127.0.0.1:PORT`
    pub host: String,
    folder: TempDir,
}

/// What a registry wants of its clients.
#[derive(Clone, Copy, Debug, Default)]
pub struct Guarded {
    /// The user `tester` with the password `secret`.
    pub password: bool,
    /// TLS by an authority of the test's own.
    pub tls: bool,
}

/// bcrypt of `secret`: the registry takes no other hash.
const PASSWORDS: &str = "tester:$2y$05$C4A9VONhOzVrHBhmV7Yr2uMVuJ.U15xgPy1vvyh2yk3pz/r.ZrGFq\n";

impl Registry {
    /// Starts one; None after a skip.
    #[must_use]
    pub fn start(guarded: Guarded) -> Option<Self> {
        if missing(&["docker-registry", "openssl"]) {
            return None;
        }
        let folder = tempfile::Builder::new().prefix(&crate::new_prefix()).tempdir().expect("make a folder");
        // Free until now; the registry tells when somebody else was faster.
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
        let mut registry = Self { running: None, host: format!("127.0.0.1:{port}"), folder };
        let path = |name: &str| registry.folder.path().join(name).display().to_string();
        let mut config = format!(
            "version: 0.1\nlog: {{level: warn}}\nstorage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\n",
            path("data")
        );
        if guarded.password {
            fs::write(path("passwords"), PASSWORDS).expect("write the passwords");
            writeln!(config, "auth: {{htpasswd: {{realm: tests, path: {}}}}}", path("passwords")).expect("a string");
        }
        write!(config, "http:\n  addr: {}\n", registry.host).expect("a string");
        if guarded.tls {
            let (key, certificate) = (path("key.pem"), path("certificate.pem"));
            certify(registry.folder.path());
            writeln!(config, "  tls: {{certificate: {certificate}, key: {key}}}").expect("a string");
        }
        fs::write(path("config.yml"), config).expect("write the registry's config");
        registry.running = Some(Command::new("docker-registry").args(["serve".to_owned(), path("config.yml")]).spawn());
        wait_until("the registry listens", || TcpStream::connect(&registry.host).is_ok());
        Some(registry)
    }

    /// The certificate of its authority, when it speaks TLS.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.folder.path().join("authority.pem")
    }

    /// Pushes an image: `source` in skopeo's words.
    #[track_caller]
    pub fn push(&self, source: &str, name: &str) {
        let target = format!("docker://{}/{name}", self.host);
        let output = Command::new("skopeo")
            .args(["copy", "--quiet", "--dest-tls-verify=false", "--dest-creds=tester:secret", source, &target])
            .output();
        let _ = output.ok();
    }
}

/// Makes an authority, and a certificate of it for this machine's address.
fn certify(folder: &Path) {
    let openssl = |args: &str| {
        let output = Command::new("openssl").args(args.split(' ').map(str::to_owned)).dir(folder).output();
        let _ = output.ok();
    };
    let new = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(&format!("req -x509 {new} -days 2 -subj /CN=authority -keyout authority.key -out authority.pem"));
    openssl(&format!("req {new} -subj /CN=registry -keyout key.pem -out request.pem"));
    fs::write(folder.join("names"), "subjectAltName=IP:127.0.0.1\n").expect("write the names");
    let by = "-CA authority.pem -CAkey authority.key -CAcreateserial";
    openssl(&format!("x509 -req -in request.pem {by} -days 2 -extfile names -out certificate.pem"));
}

/// What stands in a folder: of each name all that a layer says of it. Hard links are told by the first of their names.
#[must_use]
pub fn tree(root: &Path) -> BTreeMap<String, String> {
    let (mut entries, mut links) = (BTreeMap::new(), BTreeMap::new());
    let mut queue = vec![root.to_owned()];
    let mut all = Vec::new();
    while let Some(folder) = queue.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.expect("an entry").path();
            if fs::symlink_metadata(&path).expect("its status").is_dir() {
                queue.push(path.clone());
            }
            all.push(path);
        }
    }
    all.push(root.to_owned());
    all.sort();
    for path in all {
        let name = path.strip_prefix(root).expect("below the root").display().to_string();
        let status = fs::symlink_metadata(&path).expect("its status");
        let kind = status.file_type();
        let mut text = format!("{:o} {}:{}", status.mode(), status.uid(), status.gid());
        // A link's own mode means nothing; a folder's size is the file system's matter.
        if kind.is_file() {
            let first = links.entry(status.ino()).or_insert_with(|| name.clone());
            write!(text, " {} bytes {:x} of {first}", status.len(), checksum(&path)).expect("a string");
        } else if kind.is_symlink() {
            write!(text, " -> {}", fs::read_link(&path).expect("its target").display()).expect("a string");
        } else if kind.is_char_device() || kind.is_block_device() {
            write!(text, " {:x}", status.rdev()).expect("a string");
        }
        write!(text, " {}.{:09}", status.mtime(), status.mtime_nsec()).expect("a string");
        for (key, value) in xattrs(&path) {
            write!(text, " {key}={value:02x?}").expect("a string");
        }
        entries.insert(name, text);
    }
    entries
}

/// Of its content. By a crate that is optimised in tests, too: std's hash took more than a quarter of the test of trees.
fn checksum(path: &Path) -> impl std::fmt::LowerHex {
    Sha256::digest(fs::read(path).expect("read a file"))
}

fn xattrs(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut names = Vec::with_capacity(64 << 10);
    if rustix::fs::llistxattr(path, rustix::buffer::spare_capacity(&mut names)).is_err() {
        return Vec::new();
    }
    let names =
        names.split(|byte| *byte == 0).filter(|name| !name.is_empty() && !name.starts_with(b"trusted.overlay."));
    let value = |name: &[u8]| {
        let mut value = Vec::with_capacity(64 << 10);
        let name = std::ffi::OsStr::from_bytes(name);
        rustix::fs::lgetxattr(path, name, rustix::buffer::spare_capacity(&mut value)).expect("an xattr's value");
        (name.to_string_lossy().into_owned(), value)
    };
    let mut all: Vec<_> = names.map(value).collect();
    all.sort();
    all
}

/// Lines in which two trees differ; none when they do not.
#[must_use]
pub fn tree_differences(
    (one_name, one): (&str, &BTreeMap<String, String>),
    (other_name, other): (&str, &BTreeMap<String, String>),
) -> Vec<String> {
    let names: std::collections::BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    let nothing = "nothing".to_owned();
    let text = |tree: &BTreeMap<String, String>, name: &String| tree.get(name).unwrap_or(&nothing).clone();
    names
        .into_iter()
        .filter(|name| one.get(*name) != other.get(*name))
        .map(|name| format!("/{name}: {one_name} has {}, {other_name} {}", text(one, name), text(other, name)))
        .collect()
}
