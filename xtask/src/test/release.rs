//! The programs as they are shipped, built beside everything else.

use std::sync::{LazyLock, mpsc};

use crate::dist;

/// How the build of one half ended: whoever looks first waits for it, and so do others.
type Half = LazyLock<Result<(), String>, Box<dyn FnOnce() -> Result<(), String> + Send>>;

/// The release build. It links on one core for minutes: the tests' build has the other meanwhile. It is of another profile,
/// so the cargos do not wait for each other.
pub(super) struct Release {
    shipped_static: Half,
    for_host: Half,
}

impl Release {
    pub(super) fn begin() -> Self {
        let (tell, built_static) = mpsc::channel();
        let host = std::thread::spawn(move || {
            // A receiver that is gone is a run that was interrupted.
            let _ = tell.send(dist::build_shipped(true).map(drop));
            // The last lanes to begin wait for these alone: they are built before what the other lanes do, which are some twenty
            // programs at a time. Only root may; for others they come later.
            let _ = rustix::process::nice(-10);
            dist::build_shipped(false).map(drop)
        });
        let panicked = || anyhow::anyhow!("the release build panicked");
        let told = |ended: anyhow::Result<()>| ended.map_err(|error| format!("{error:#}"));
        Self {
            shipped_static: LazyLock::new(Box::new(move || {
                told(built_static.recv().unwrap_or_else(|_| Err(panicked())))
            })),
            for_host: LazyLock::new(Box::new(move || told(host.join().unwrap_or_else(|_| Err(panicked()))))),
        }
    }

    /// Waits for the runtime and the shim.
    ///
    /// # Errors
    ///
    /// Why they were not built.
    pub(super) fn static_programs(&self) -> anyhow::Result<()> {
        self.shipped_static.clone().map_err(anyhow::Error::msg)
    }

    /// Waits for all programs: those of the host's own target are built after the static ones.
    ///
    /// # Errors
    ///
    /// Why they were not built.
    pub(super) fn all_programs(&self) -> anyhow::Result<()> {
        self.static_programs()?;
        self.for_host.clone().map_err(anyhow::Error::msg)
    }
}
