//! Starts a shim as containerd 2.3 does.

use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use containerd_shim_protos::bootstrap_api::{BootstrapParams, BootstrapResult};
use protobuf::Message as _;
use tokio::io::AsyncWriteExt as _;

use super::Place;

/// The address of the group's shim, which is started if there is none.
///
/// # Errors
///
/// The program is not there, refuses, or answers something else.
pub(super) async fn start(place: &Place, id: &str) -> Result<String> {
    let bundle = place.run.join("shims").join(id);
    crate::node::make_private(&bundle)?;
    let grpc = place.run.join("flintd.sock").display().to_string();
    let params = BootstrapParams {
        instance_id: id.to_owned(),
        namespace: place.namespace.clone(),
        containerd_grpc_address: grpc.clone(),
        containerd_ttrpc_address: place.events().display().to_string(),
        socket_dir: Some(place.run.join("s").display().to_string()),
        ..BootstrapParams::default()
    };
    let told = || format!("start the shim {id} ({})", place.program.display());
    let mut child = tokio::process::Command::new(&place.program)
        .args(["-namespace", &place.namespace, "-id", id, "-address", &grpc, "-publish-binary", "/bin/false", "start"])
        .current_dir(&bundle)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(told)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(&params.write_to_bytes()?).await.with_context(told)?;
    }
    let output = child.wait_with_output().await.with_context(told)?;
    if !output.status.success() {
        bail!("{}: {}", told(), String::from_utf8_lossy(&output.stderr).trim());
    }
    let answer = BootstrapResult::parse_from_bytes(&output.stdout).with_context(told)?;
    if answer.address.is_empty() {
        bail!("{}: it answers no address", told());
    }
    Ok(answer.address)
}
