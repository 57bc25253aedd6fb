//! Annotations of the container: what the image says of itself (image-spec, conversion.md).

use std::collections::BTreeMap;

use oci_spec::image::Config;

use crate::image::Image;

/// The annotations, by key; labels of the image, which win over what is derived.
pub(super) fn of(image: &Image, config: &Config, name: &str) -> BTreeMap<String, String> {
    let mut ports = config.exposed_ports().clone().unwrap_or_default();
    ports.sort();
    let derived = [
        ("os", Some(image.config.os().to_string())),
        ("architecture", Some(image.config.architecture().to_string())),
        ("variant", image.config.variant().clone()),
        ("author", image.config.author().clone()),
        ("created", image.config.created().clone()),
        ("stopSignal", config.stop_signal().clone()),
        ("exposedPorts", Some(ports.join(","))),
        ("ref.name", Some(name.to_owned())),
    ];
    let mut annotations: BTreeMap<String, String> = derived
        .into_iter()
        .filter_map(|(key, value)| Some((format!("org.opencontainers.image.{key}"), value?)))
        .filter(|(_, value)| !value.is_empty())
        .collect();
    let labels = config.labels().iter().flatten().filter(|(key, _)| !key.is_empty() && !steers(key));
    annotations.extend(labels.map(|(key, value)| (key.clone(), value.clone())));
    annotations
}

/// Annotations by which runtimes and service managers are steered are their caller's to give, not an image's.
fn steers(key: &str) -> bool {
    // crun, all that speak to systemd, flint, crun's WebAssembly, CRIU (a config file, which may name programs), gVisor, Kata.
    let prefixes =
        ["run.oci.", "org.systemd.", "org.flint.", "module.wasm.", "org.criu.", "dev.gvisor.", "io.katacontainers."];
    prefixes.iter().any(|prefix| key.starts_with(prefix))
}
