//! `images`, `pull` and `rmi`.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use clap::Args;
use flintd::api::client::PullEvent;
use flintd::api::{ImageView, PullStep};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::command::{FAILURE, Session, print, print_json, shown};
use crate::table::table;
use crate::values::{plain, size};

/// List images
#[derive(Args)]
pub(crate) struct Images {
    /// Names alone
    #[arg(long, short, conflicts_with = "json")]
    quiet: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Images {
    pub(crate) async fn run(self, session: &Session) -> Result<u8> {
        let images = session.client().await?.images().await?;
        if self.json {
            print_json(&images)?;
        } else if self.quiet {
            print(&images.iter().map(|image| plain(&image.name) + "\n").collect::<String>())?;
        } else {
            print(&text(&images))?;
        }
        Ok(0)
    }
}

fn text(images: &[ImageView]) -> String {
    let row = |image: &ImageView| {
        let pods = match image.pods.as_slice() {
            [] => "-".to_owned(),
            [pod] => shown(pod),
            [first, rest @ ..] => format!("{} +{}", shown(first), rest.len()),
        };
        vec![image.name.clone(), short(&image.digest).to_owned(), size(image.bytes), pods]
    };
    table(&["NAME", "DIGEST", "SIZE", "PODS"], images.iter().map(row))
}

/// The first digits of a digest, as many as people compare.
fn short(digest: &str) -> &str {
    let hex = digest.split_once(':').map_or(digest, |(_, hex)| hex);
    hex.get(..12).unwrap_or(hex)
}

/// Pull an image
#[derive(Args)]
pub(crate) struct PullVerb {
    /// The image's name
    image: String,
    /// Show no progress
    #[arg(long, short)]
    quiet: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl PullVerb {
    pub(crate) async fn run(self, session: &Session) -> Result<u8> {
        let client = session.client().await?;
        let mut pull = client.pull(&self.image).await?;
        let mut progress = Progress::new(self.quiet);
        while let Some(event) = pull.next().await? {
            match event {
                PullEvent::Step(step) => progress.tell(&step),
                PullEvent::Done(image) => {
                    progress.finish();
                    if self.json {
                        print_json(&image)?;
                    } else {
                        print(&plain(&format!("{}  {}", image.name, image.digest)))?;
                        print("\n")?;
                    }
                    return Ok(0);
                }
            }
        }
        bail!("flintd has ended the pull without a word")
    }
}

/// Bars at a terminal, else lines; on stderr.
enum Progress {
    Quiet,
    Lines,
    Bars(MultiProgress, BTreeMap<String, ProgressBar>),
}

impl Progress {
    fn new(quiet: bool) -> Self {
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        match (quiet, bars.is_hidden()) {
            (true, _) => Self::Quiet,
            (false, true) => Self::Lines,
            (false, false) => Self::Bars(bars, BTreeMap::new()),
        }
    }

    fn tell(&mut self, step: &PullStep) {
        match self {
            Self::Quiet => {}
            Self::Lines => {
                if let Some(line) = line(step) {
                    eprintln!("{}", plain(&line));
                }
            }
            Self::Bars(all, bars) => draw(all, bars, step),
        }
    }

    fn finish(&mut self) {
        if let Self::Bars(all, bars) = self {
            bars.values().for_each(ProgressBar::finish);
            let _ = all.clear();
        }
    }
}

fn line(step: &PullStep) -> Option<String> {
    Some(match step {
        PullStep::Image { layers: 0, .. } | PullStep::Image { bytes: 0, .. } | PullStep::Bytes { .. } => return None,
        PullStep::Image { layers, bytes } => format!("{layers} layers, {} to take", size(*bytes)),
        PullStep::Begins { layer, bytes } => format!("{}: {} ...", short(layer), size(*bytes)),
        PullStep::Ends { layer } => format!("{}: done", short(layer)),
        PullStep::Retry { reason } => format!("trying again: {reason}"),
    })
}

fn draw(all: &MultiProgress, bars: &mut BTreeMap<String, ProgressBar>, step: &PullStep) {
    let style = || {
        ProgressStyle::with_template(
            "{prefix} [{bar:30}] {binary_bytes:>10}/{binary_total_bytes:10} {binary_bytes_per_sec}",
        )
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
    };
    match step {
        PullStep::Begins { layer, bytes } => {
            let bar = all.add(ProgressBar::new(*bytes).with_style(style()).with_prefix(short(layer).to_owned()));
            bars.insert(layer.clone(), bar);
        }
        PullStep::Bytes { layer, done } => {
            if let Some(bar) = bars.get(layer) {
                bar.set_position(*done);
            }
        }
        PullStep::Ends { layer } => {
            if let Some(bar) = bars.get(layer) {
                bar.finish();
            }
        }
        other => {
            if let Some(line) = line(other) {
                let _ = all.println(plain(&line));
            }
        }
    }
}

/// Remove images
///
/// Their layers go with the node's next collection.
#[derive(Args)]
pub(crate) struct Rmi {
    /// Their names
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

impl Rmi {
    pub(crate) async fn run(self, session: &Session) -> Result<u8> {
        let client = session.client().await?;
        let mut result = 0;
        for image in &self.images {
            match client.remove_image(image).await {
                Ok(()) => print(&format!("{image}\n"))?,
                Err(error) => {
                    eprintln!("flintctl: {error}");
                    result = FAILURE;
                }
            }
        }
        Ok(result)
    }
}

#[cfg(test)]
mod tests {
    use flintd::desired::Key;

    use super::*;

    #[test]
    fn images_are_listed() {
        let image = |name: &str, pods: &[&str]| ImageView {
            name: name.to_owned(),
            digest: "sha256:0123456789abcdef".to_owned(),
            bytes: 5 << 20,
            pods: pods.iter().map(|pod| Key::new("default", *pod)).collect(),
        };
        assert_eq!(
            text(&[image("registry.example/web:1", &["a", "b"]), image("x", &[])]),
            "NAME                     DIGEST         SIZE      PODS\n\
             registry.example/web:1   0123456789ab   5.00MiB   a +1\n\
             x                        0123456789ab   5.00MiB   -\n"
        );
    }

    #[test]
    fn steps_are_lines_where_no_terminal_is() {
        let layer = || "sha256:0123456789abcdef".to_owned();
        assert_eq!(line(&PullStep::Begins { layer: layer(), bytes: 2048 }).unwrap(), "0123456789ab: 2.00KiB ...");
        assert_eq!(line(&PullStep::Bytes { layer: layer(), done: 1 }), None);
        assert_eq!(line(&PullStep::Ends { layer: layer() }).unwrap(), "0123456789ab: done");
    }
}
