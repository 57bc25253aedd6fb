//! What is built once: folders in a cache outside the checkout, named by a key of all that went into them.
//!
//! A folder is built beside its place under a lock and renamed: it is whole or not there, and two callers do not build
//! it twice.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// `$XDG_CACHE_HOME/flint-vm`, else `~/.cache/flint-vm`.
pub(super) fn folder() -> anyhow::Result<PathBuf> {
    let cache = match std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from) {
        Some(cache) if cache.is_absolute() => cache,
        _ => std::env::home_dir().context("neither XDG_CACHE_HOME nor HOME says where the cache is")?.join(".cache"),
    };
    Ok(cache.join("flint-vm"))
}

/// The folder `NAME-KEY` of the cache, built by `build` (which gets an empty folder) where it is missing.
///
/// # Errors
///
/// When the cache cannot be written, or `build` fails; then nothing is kept.
pub(super) fn entry(
    name: &str,
    ingredients: &[&str],
    build: impl FnOnce(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<PathBuf> {
    entry_in(&folder()?, name, ingredients, build)
}

fn entry_in(
    cache: &Path,
    name: &str,
    ingredients: &[&str],
    build: impl FnOnce(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<PathBuf> {
    let name = format!("{name}-{:016x}", key(ingredients));
    let place = cache.join(&name);
    if place.is_dir() {
        return Ok(place);
    }
    fs::create_dir_all(cache).with_context(|| format!("making {}", cache.display()))?;
    let lock = cache.join(format!("{name}.lock"));
    let lock = File::create(&lock).with_context(|| format!("making {}", lock.display()))?;
    if lock.try_lock().is_err() {
        eprintln!("waiting for another caller that builds {}", place.display());
        lock.lock().with_context(|| format!("waiting for {name}"))?;
    }
    if place.is_dir() {
        return Ok(place);
    }
    eprintln!("building {} (once)", place.display());
    let making = cache.join(format!("{name}.making"));
    // Left by one that was interrupted: whoever holds the lock is the only one who builds.
    remove(&making)?;
    fs::create_dir(&making).with_context(|| format!("making {}", making.display()))?;
    if let Err(error) = build(&making) {
        // The first error is what counts; the next build removes what is left.
        let _ = remove(&making);
        return Err(error.context(format!("building {name}")));
    }
    fs::rename(&making, &place).with_context(|| format!("renaming {}", making.display()))?;
    Ok(place)
}

/// Removes the whole cache.
///
/// # Errors
///
/// When somebody is building in it, or it cannot be removed.
pub(super) fn clean() -> anyhow::Result<()> {
    let cache = folder()?;
    let entries = match fs::read_dir(&cache) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("reading {}", cache.display())),
    };
    for entry in entries {
        let path = entry.with_context(|| format!("reading {}", cache.display()))?.path();
        if path.extension().is_some_and(|extension| extension == "lock") {
            let lock = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
            if lock.try_lock().is_err() {
                bail!("somebody is building {}; nothing more is removed", path.with_extension("").display());
            }
            // The file stays: removing it would give its next two callers two locks.
        } else {
            remove(&path)?;
        }
    }
    println!("emptied {}", cache.display());
    Ok(())
}

fn remove(path: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// FNV-1a: the same from one version of Rust to the next, unlike std's.
fn key(ingredients: &[&str]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in ingredients.iter().flat_map(|text| text.bytes().chain([0xff])) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_or_interrupted_build_is_not_believed() {
        let cache = tempfile::tempdir().unwrap();
        let build = |fails: bool| {
            entry_in(cache.path(), "thing", &["one"], |folder| {
                assert!(fs::read_dir(folder).unwrap().next().is_none(), "what was left is gone");
                fs::write(folder.join("file"), "x").unwrap();
                anyhow::ensure!(!fails, "it was interrupted");
                Ok(())
            })
        };
        assert!(build(true).is_err());
        // As SIGKILL leaves it.
        let making = format!("thing-{:016x}.making", key(&["one"]));
        fs::create_dir(cache.path().join(&making)).unwrap();
        fs::write(cache.path().join(&making).join("half"), "x").unwrap();
        let place = build(false).unwrap();
        assert!(place.join("file").is_file() && !place.join("half").exists());
        assert_eq!(build(true).unwrap(), place, "a built one is not built again");
    }

    #[test]
    fn other_ingredients_are_another_entry() {
        let cache = tempfile::tempdir().unwrap();
        let build = |ingredients: &[&str]| entry_in(cache.path(), "thing", ingredients, |_| Ok(())).unwrap();
        assert_ne!(build(&["ab", "c"]), build(&["a", "bc"]));
    }

    #[test]
    fn two_at_once_build_once() {
        let cache = tempfile::tempdir().unwrap();
        let built = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    entry_in(cache.path(), "thing", &[], |_| {
                        built.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                        std::thread::sleep(std::time::Duration::from_millis(50));
                        Ok(())
                    })
                    .unwrap();
                });
            }
        });
        assert_eq!(built.into_inner(), 1);
    }
}
