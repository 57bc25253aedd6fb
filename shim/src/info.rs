//! `-info`: what this shim is, as `containerd.types.RuntimeInfo`.

use std::io::{Read as _, Write as _};

use anyhow::{Context as _, Result};
use containerd_shim_protos::types::introspection::{RuntimeInfo, RuntimeVersion};
use protobuf::well_known_types::any::Any;
use protobuf::{Message as _, MessageField};

/// What containerd calls the features document of the runtime-spec; the value is its JSON.
const FEATURES: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";

/// Reads the options from standard input (they change nothing here) and answers on stdout.
///
/// # Errors
///
/// A closed standard stream.
pub(crate) fn run() -> Result<()> {
    // Taken from the pipe, so that its writer does not fail.
    std::io::stdin().lock().read_to_end(&mut Vec::new()).context("read standard input")?;
    let features = serde_json::to_vec(&flint_runtime::features::features()).context("encode the features")?;
    let info = RuntimeInfo {
        name: "io.containerd.flint.v1".to_owned(),
        version: MessageField::some(RuntimeVersion {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..RuntimeVersion::default()
        }),
        features: MessageField::some(Any { type_url: FEATURES.to_owned(), value: features, ..Any::default() }),
        ..RuntimeInfo::default()
    };
    std::io::stdout().write_all(&info.write_to_bytes()?).context("answer containerd")
}
