//! `adopt`: a container whose maker has died, taken over by another program.

use crate::container::process::{ExitStatus, Process, exit_of_zombie};
use crate::runtime::status_under_lock;
use crate::state::{Phase, Status};
use crate::{Result, Runtime};

/// A container as it was found.
#[derive(Debug)]
pub enum Adopted {
    /// Its maker was killed before it was there: it can only be deleted.
    HalfMade,
    /// It waits for its start.
    Created(Process),
    /// Its program runs.
    Running(Process),
    /// It has ended; how, if that can be known still.
    Stopped(Option<ExitStatus>),
}

impl Runtime {
    /// Takes over a container that another program made: its init can be waited for from now on, though this program is not
    /// its parent.
    ///
    /// # Errors
    ///
    /// `NotFound`; `Busy` while somebody else is at work on it; a state that cannot be read.
    pub fn adopt(&self, id: &str) -> Result<Adopted> {
        let folder = self.folder(id)?;
        let _lock = folder.lock()?;
        let Some(record) = folder.load()? else { return Ok(Adopted::HalfMade) };
        let status = status_under_lock(&record);
        if status != Status::Stopped
            && let Some(process) = Process::of_stranger(record.pid, record.start_time)?
        {
            return Ok(if record.phase == Phase::Created {
                Adopted::Created(process)
            } else {
                Adopted::Running(process)
            });
        }
        if record.phase == Phase::Creating {
            return Ok(Adopted::HalfMade);
        }
        Ok(Adopted::Stopped(exit_of_zombie(record.pid, record.start_time)))
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::Process;
    use crate::container::process::{ExitStatus, start_time};
    use crate::{Kind, Result};

    /// Major and minor.
    fn kernel() -> (u32, u32) {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        let mut numbers = release.split(['.', '-']).map(|number| number.parse().unwrap_or(0));
        (numbers.next().unwrap(), numbers.next().unwrap())
    }

    /// How a grandchild ends, which is never our child.
    fn waited(script: &str) -> Result<ExitStatus> {
        let command = format!("({script}) >/dev/null 2>&1 & echo $!");
        let output = Command::new("sh").args(["-c", &command]).output().unwrap();
        let pid = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
        let started = start_time(pid).unwrap();
        assert!(Process::of_stranger(pid, started + 1).unwrap().is_none(), "another process had this pid");
        Process::of_stranger(pid, started).unwrap().unwrap().wait()
    }

    #[test]
    fn the_end_of_a_stranger_is_known_where_the_kernel_tells_it() {
        for (script, status) in
            [("sleep 0.2; exit 7", ExitStatus::Exited(7)), ("sleep 0.2; kill -9 $$", ExitStatus::Signaled(9))]
        {
            // $$ is the outer shell's pid: that of a subshell is in BASHPID or stat.
            let script = script.replace("$$", "$(cut -d' ' -f4 /proc/self/stat)");
            match waited(&script) {
                Err(error) if kernel() < (6, 15) && error.kind() == Kind::NotFound => {}
                ended => assert_eq!(ended.unwrap(), status),
            }
        }
    }
}
