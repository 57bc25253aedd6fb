//! Ctrl-C and SIGTERM, as a flag: what was made outside the checkout is taken away before xtask ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// Whether somebody asked xtask to end. The programs that it started hear of Ctrl-C themselves.
#[derive(Clone)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// From here on the signals no longer end xtask at once.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the handlers.
    pub(crate) fn watch() -> anyhow::Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [SIGHUP, SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&flag)).context("watching for signals")?;
        }
        Ok(Self(flag))
    }

    /// # Errors
    ///
    /// When there was a signal.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        if self.0.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        Ok(())
    }
}
