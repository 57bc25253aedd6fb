//! Where a process of exec goes: into the container's cgroups, or to where its init has moved to.

use super::layout::Layout;
use super::live::Cgroup;
use crate::{Error, Result};

impl Cgroup {
    /// Moves a process into every cgroup, as [`Cgroup::add`]. A v2 cgroup that takes no processes any more, as the container
    /// has enabled controllers for cgroups below it (docker in a container, systemd), is replaced by the one that the
    /// container's `init` is in by now.
    ///
    /// # Errors
    ///
    /// As [`Cgroup::add`], where that cgroup takes it neither.
    pub fn add_beside(&self, layout: &Layout, pid: i32, init: i32) -> Result<()> {
        let Err(refused) = self.add(pid) else { return Ok(()) };
        let text = pid.to_string();
        // The v2 tree comes last: it is the one that refused when all others accept the process.
        let on_v1 = self.v1.iter().filter(|branch| !branch.name.starts_with("name="));
        if self.unified.is_none() || on_v1.into_iter().any(|branch| branch.write("cgroup.procs", &text).is_err()) {
            return Err(refused);
        }
        let Some(folder) = folder_of(layout, init) else { return Err(refused) };
        let file = folder.join("cgroup.procs");
        std::fs::write(&file, text)
            .map_err(|error| Error::os(format!("{refused}; nor into init's own cgroup {}", file.display()), error))
    }
}

/// The v2 cgroup of a process, as it is mounted here; `None` when that is out of reach.
fn folder_of(layout: &Layout, pid: i32) -> Option<std::path::PathBuf> {
    let text = crate::procfs::read(&format!("/proc/{pid}/cgroup")).ok()?;
    let text = String::from_utf8_lossy(&text);
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    if path.split('/').any(|part| part == "..") || path.ends_with(" (deleted)") {
        return None;
    }
    Some(layout.unified()?.join(path))
}
