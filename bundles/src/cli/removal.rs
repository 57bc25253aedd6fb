//! `rm` and `gc`: what goes.

use std::path::Path;

use anyhow::{Result, bail};
use clap::Args;
use flint_bundle::{Reference, bundle, store};
use serde_json::json;

use super::Session;
use super::progress::size;

/// Remove images' names, or bundles
///
/// What begins with `/`, `./` or `../` is the folder of a bundle, which is unmounted and removed with all that its
/// container wrote. All else is an image's name; its content stays until gc, and as long as another name or a bundle needs it.
#[derive(Args)]
pub(super) struct Rm {
    /// Names or folders
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

impl Rm {
    pub(super) fn run(self, session: &Session) -> Result<()> {
        let store = session.store()?;
        for name in &self.names {
            if ["/", "./", "../"].iter().any(|start| name.starts_with(start)) {
                bundle::remove(&store, Path::new(name))?;
            } else {
                let _lease = store.lease()?;
                if let Err(error) = name.parse().and_then(|name: Reference| store.forget_image(&name)) {
                    // The folder has no `./` before it in `create`.
                    if Path::new(name).join("config.json").exists() {
                        bail!("{error}; for the bundle in the folder {name} say ./{name}");
                    }
                    return Err(error.into());
                }
            }
        }
        session.print(&json!({"removed": self.names}), &self.names)
    }
}

/// Remove what no name and no bundle needs
#[derive(Args)]
pub(super) struct Gc {}

impl Gc {
    #[allow(clippy::unused_self, reason = "every verb runs so")]
    pub(super) fn run(self, session: &Session) -> Result<()> {
        let opened = session.store()?;
        let waiting = || eprintln!("others work in the store; waiting for them");
        let collected = store::collect(&opened, waiting)?;
        let line = format!(
            "removed {} blobs ({}), {} unpacked layers, {} leftovers, {} records of bundles that are gone",
            collected.blobs,
            size(collected.blob_bytes),
            collected.layers,
            collected.leftovers,
            collected.bundles
        );
        session.print(&json!(collected), &[line])
    }
}
