//! `pull`: images from registries.

use anyhow::Result;
use clap::{Args, ValueEnum};
use flint_bundle::Reference;
use flint_bundle::registry::{self, Settings};
use flint_bundle::store::{ImageRecord, Store};
use serde_json::json;

use super::progress::size;
use super::{Session, Taking};

/// Pull an image from a registry
///
/// Names are docker's: alpine, user/image:tag, registry:5000/path@sha256:... What of an image is here already is not
/// transferred again. Credentials are those of `docker login` (config.json in $DOCKER_CONFIG or ~/.docker, and its helpers);
/// authorities of single registries are looked for in /etc/docker/certs.d/REGISTRY/*.crt, too.
#[derive(Args)]
pub(super) struct Pull {
    /// The image's name
    image: Reference,
    #[command(flatten)]
    taking: Taking,
    #[command(flatten)]
    asking: Asking,
}

impl Pull {
    pub(super) fn run(self, session: &Session) -> Result<()> {
        let store = session.store()?;
        let (record, bytes) = self.asking.pull(session, &store, &self.image, &self.taking)?;
        session.print(
            &json!({"name": record.name, "digest": record.digest, "manifest": record.manifest, "bytes": bytes}),
            &[format!("{}  {}  {}", record.name, record.digest, size(bytes))],
        )
    }
}

/// How registries are asked.
#[derive(Args)]
pub(super) struct Asking {
    /// A registry that is asked by plain http; one of this machine needs no such word
    #[arg(long, value_name = "REGISTRY")]
    plain_http: Vec<String>,
    /// Where to ask before a registry: REGISTRY=https://HOST, for example docker.io=https://mirror.example
    #[arg(long, value_name = "MIRROR", value_parser = mirror)]
    mirror: Vec<(String, String)>,
    /// How often something is tried that may succeed later
    #[arg(long, value_name = "NUMBER", default_value_t = Settings::default().tries,
        value_parser = clap::value_parser!(u32).range(1..=100))]
    tries: u32,
}

/// When a name is asked for at its registry.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum When {
    /// When it is not here
    Missing,
    /// Each time
    Always,
    /// Not at all
    Never,
}

impl Asking {
    /// Pulls an image; its record, and its bytes as they are stored.
    pub(super) fn pull(
        &self,
        session: &Session,
        store: &Store,
        name: &Reference,
        taking: &Taking,
    ) -> Result<(ImageRecord, u64)> {
        let settings = Settings {
            plain_http: self.plain_http.clone(),
            mirrors: self.mirror.clone(),
            tries: self.tries,
            ..Settings::default()
        };
        let progress = session.progress();
        let (record, image) = registry::pull(store, name, &taking.platform(), &taking.fetch(), &settings, &progress)?;
        Ok((record, image.size()))
    }
}

fn mirror(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('=').filter(|(registry, address)| !registry.is_empty() && !address.is_empty());
    let (registry, address) = parts.ok_or_else(|| format!("{text:?} is not REGISTRY=ADDRESS"))?;
    Ok((registry.to_owned(), address.to_owned()))
}
