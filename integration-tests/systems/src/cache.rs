//! What is made once and then kept for all tests of the machine.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::{find_program, skip};

/// Why something could not be made, so that not every test of a process tries it again.
static FAILED: Mutex<BTreeMap<String, String>> = Mutex::new(BTreeMap::new());

/// The cache's folder: `$XDG_CACHE_HOME/flint-tests`, else `/var/cache/flint-tests` for root and `~/.cache/flint-tests` for
/// others.
pub(crate) fn cache() -> PathBuf {
    let of_user = || {
        let home = std::env::var_os("HOME").filter(|_| !rustix::process::geteuid().is_root())?;
        Some(Path::new(&home).join(".cache"))
    };
    let named = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    named.or_else(of_user).unwrap_or_else(|| "/var/cache".into()).join("flint-tests")
}

/// A folder of the cache, made if it is missing; None after a skip.
pub(crate) fn kept(name: &str, make: impl FnOnce(&Path) -> Result<(), String>) -> Option<PathBuf> {
    let told = |reason| skip(&format!("{name} cannot be made, no mirror can be reached? {reason}"));
    made(name, make).map_err(told).ok()
}

/// A folder of the cache, made if it is missing, or why it cannot be made. What it is made of may be another one: that one's
/// lock is then taken after this one's, and never the other way round.
pub(crate) fn made(name: &str, make: impl FnOnce(&Path) -> Result<(), String>) -> Result<PathBuf, String> {
    let cache = cache();
    let folder = cache.join(name);
    if folder.exists() {
        return Ok(folder);
    }
    fs::create_dir_all(&cache).expect("make the cache");
    // Two at once: the second waits, and finds it made.
    let lock = File::create(cache.join(format!("{name}.lock"))).expect("make the cache's lock");
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).expect("lock the cache");
    if folder.exists() {
        return Ok(folder);
    }
    let failed = || FAILED.lock().unwrap_or_else(PoisonError::into_inner);
    let before = failed().get(name).cloned();
    if let Err(reason) = before.map_or_else(|| make_in(&cache, &folder, make), Err) {
        failed().insert(name.to_owned(), reason.clone());
        return Err(reason);
    }
    Ok(folder)
}

/// Beside its place and then renamed: a half-made one is never used.
fn make_in(cache: &Path, folder: &Path, make: impl FnOnce(&Path) -> Result<(), String>) -> Result<(), String> {
    let work = tempfile::Builder::new().prefix("making-").tempdir_in(cache).map_err(|error| error.to_string())?;
    let target = work.path().join("made");
    make(&target)?;
    fs::rename(&target, folder).map_err(|error| format!("rename {}: {error}", target.display()))
}

/// What a folder of Debian's is made by.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Tool {
    /// The slower one, whose system is that of a real distribution's installer.
    Debootstrap,
    /// A third of the time, by apt.
    Mmdebstrap,
}

/// Makes a minimal Debian of `suite` with `packages` in the folder `target`; the first error that was printed when it fails.
pub(crate) fn debian(tool: Tool, suite: &str, packages: &[&str], target: &Path) -> Result<(), String> {
    let include = (!packages.is_empty()).then(|| format!("--include={}", packages.join(",")));
    match tool {
        Tool::Debootstrap => run_tool("debootstrap", &["--variant=minbase"], include, suite, target),
        Tool::Mmdebstrap => run_tool("mmdebstrap", &["--variant=minbase", "--mode=root"], include, suite, target),
    }
}

/// Copies `base`, a minimal Debian of `suite`, to the folder `target` and adds `packages`.
///
/// The variant apt brings the base up to date, mostly by doing nothing, and unpacks a package only once. What mmdebstrap has
/// set up in /etc by then stays as it is: its options, today's mirror and resolver.
pub(crate) fn added(base: &Path, suite: &str, packages: &[&str], target: &Path) -> Result<(), String> {
    let include = format!("--include={}", packages.join(","));
    let hook = format!(
        r#"--setup-hook=cp -a "$1/etc" "$1/tmp" && cp -a --reflink=auto '{}/.' "$1" && cp -a "$1/tmp/etc" "$1""#,
        base.display()
    );
    run_tool("mmdebstrap", &["--variant=apt", "--mode=root", &hook], Some(include), suite, target)
}

/// Only unpacks packages, and those that they need, into the folder `target`.
pub(crate) fn unpacked(suite: &str, packages: &[&str], target: &Path) -> Result<(), String> {
    let include = format!("--include={}", packages.join(","));
    run_tool("mmdebstrap", &["--variant=extract"], Some(include), suite, target)
}

fn run_tool(name: &str, options: &[&str], include: Option<String>, suite: &str, target: &Path) -> Result<(), String> {
    let program = find_program(name).ok_or_else(|| format!("{name} is not installed"))?;
    let mut command = std::process::Command::new("timeout");
    command.arg("900").arg(program).args(options).args(include);
    if name == "mmdebstrap" {
        // An image of today's packages, and no system that would have to be up to date.
        command.args(["--quiet", "--aptopt=Acquire::Check-Valid-Until \"false\""]);
        command.args(["--aptopt=Apt::Install-Recommends \"false\"", "--dpkgopt=force-unsafe-io"]);
    }
    command.arg(suite).arg(target).args(mirror());
    // The host's settings for languages are not the system's.
    let output = command.env("LC_ALL", "C.UTF-8").output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    let line = text.lines().find(|line| line.starts_with("E:")).or_else(|| text.lines().last());
    Err(format!("{name}: {}", line.unwrap_or("it printed nothing")))
}

/// The machine's own mirror, if its sources name one: a default mirror may be out of reach there.
fn mirror() -> Option<String> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let sources = read("/etc/apt/sources.list") + "\n" + &read("/etc/apt/sources.list.d/debian.sources");
    sources
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .flat_map(str::split_whitespace)
        .find(|word| word.starts_with("http") && !word.contains("security"))
        .map(str::to_owned)
}
