//! `import` and `export`: images from and to files.

use std::fs::File;
use std::io::{BufWriter, IsTerminal};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use flint_bundle::{Import, Reference};
use serde_json::json;

use super::{Session, Taking, found};

/// Import an image from a file or a folder
///
/// PATH is an OCI image layout (a folder or a tar), what `docker save` wrote, an App Container image (.aci), or a root filesystem (a folder or a tar), which
/// becomes an image of one layer. Tars may be compressed by gzip or zstd.
#[derive(Args)]
pub(super) struct ImportVerb {
    /// The file or folder
    path: PathBuf,
    /// The image's name [default: the one in the archive]
    name: Option<Reference>,
    /// Which image of an archive with several: its name there
    #[arg(long, value_name = "NAME")]
    image: Option<String>,
    #[command(flatten)]
    taking: Taking,
}

impl ImportVerb {
    pub(super) fn run(self, session: &Session) -> Result<()> {
        let store = session.store()?;
        let import = Import {
            name: self.name,
            wanted: self.image,
            platform: self.taking.platform(),
            fetch: self.taking.fetch(),
        };
        let (record, _) = flint_bundle::import(&store, &self.path, &import, &session.progress())?;
        session.print(&json!(record), &[format!("{}  {}", record.name, record.manifest)])
    }
}

/// Write an image into a tar that docker, podman, skopeo and containerd load
#[derive(Args)]
pub(super) struct Export {
    /// The image's name
    image: Reference,
    /// The tar; `-` for stdout
    file: PathBuf,
}

impl Export {
    pub(super) fn run(self, session: &Session) -> Result<()> {
        let store = session.store()?;
        let record = found(&store, &self.image)?;
        if self.file == Path::new("-") {
            let stdout = std::io::stdout();
            if stdout.is_terminal() {
                bail!("a tar is nothing for a terminal; name a file, or pipe it");
            }
            return Ok(flint_bundle::export(&store, &record, BufWriter::new(stdout.lock()))?);
        }
        let file = File::create(&self.file).with_context(|| format!("making {}", self.file.display()))?;
        if let Err(error) = flint_bundle::export(&store, &record, BufWriter::new(file)) {
            // Half of a tar is of no use.
            let _ = std::fs::remove_file(&self.file);
            return Err(error.into());
        }
        session.print(&json!({"file": self.file, "image": record.name}), &[self.file.display().to_string()])
    }
}
