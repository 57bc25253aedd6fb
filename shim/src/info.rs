//! `-info`: what this shim is, as `containerd.types.RuntimeInfo`.

use std::io::{Read as _, Write as _};

use anyhow::{Context as _, Result};
use containerd_shim_protos::types::introspection::{RuntimeInfo, RuntimeVersion};
use protobuf::{Message as _, MessageField};

/// Reads the options from standard input (they change nothing here) and answers on stdout.
///
/// # Errors
///
/// A closed standard stream.
pub(crate) fn run() -> Result<()> {
    // Taken from the pipe, so that its writer does not fail.
    std::io::stdin().lock().read_to_end(&mut Vec::new()).context("read standard input")?;
    let info = RuntimeInfo {
        name: "io.containerd.flint.v1".to_owned(),
        version: MessageField::some(RuntimeVersion {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..RuntimeVersion::default()
        }),
        ..RuntimeInfo::default()
    };
    std::io::stdout().write_all(&info.write_to_bytes()?).context("answer containerd")
}
