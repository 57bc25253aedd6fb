//! Folders of a unit's cgroup that are made before the unit: a mount that shows the container its cgroups is prepared
//! before the clone, and systemd makes a scope only with a process in it. It takes folders that are there.

use std::fs;
use std::path::PathBuf;

use super::super::tree::refuse_used_places;
use super::super::{Paths, removal};
use crate::{Error, Result};

/// Folders that were made, leaves only: what is above them systemd keeps and removes as it likes.
#[derive(Debug, Default)]
pub struct Folders {
    made: Vec<PathBuf>,
}

impl Folders {
    /// Makes the folders of a container in all hierarchies.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` when others use one: see `refuse_used_places`. A folder that cannot be made.
    pub fn make(paths: &Paths) -> Result<Self> {
        let mut folders = Self::default();
        match folders.make_all(paths) {
            Ok(()) => Ok(folders),
            Err(error) => Err(error.with_cleanup(folders.remove())),
        }
    }

    fn make_all(&mut self, paths: &Paths) -> Result<()> {
        refuse_used_places(paths)?;
        let v1 = paths.v1.iter().map(|(name, path)| (name.as_str(), path));
        for (hierarchy, path) in v1.chain(paths.unified.iter().map(|path| ("", path))) {
            let failure = |error| Error::os(format!("cannot make the cgroup {}", path.display()), error);
            if path.exists() {
                continue;
            }
            match fs::create_dir_all(path) {
                Ok(()) => self.made.push(path.clone()),
                // It limits nothing, as in `tree`.
                Err(_) if hierarchy.starts_with("name=") => {}
                Err(error) => return Err(failure(error)),
            }
        }
        Ok(())
    }

    /// Removes what was made again.
    ///
    /// # Errors
    ///
    /// A folder cannot be removed.
    pub fn remove(&self) -> Result<()> {
        self.made.iter().try_for_each(|path| removal::remove_folder(path))
    }
}
