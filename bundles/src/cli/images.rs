//! `list` and `inspect`: what is in the store.

use anyhow::Result;
use clap::Args;
use flint_bundle::Reference;
use serde_json::{Value, json};

use super::progress::{short, size};
use super::{Session, found};

/// List the images, or the bundles
#[derive(Args)]
pub(super) struct List {
    /// The bundles that were made, not the images
    #[arg(long)]
    bundles: bool,
}

impl List {
    pub(super) fn run(self, session: &Session) -> Result<()> {
        let store = session.store()?;
        let _lease = store.lease()?;
        if self.bundles {
            let records = store.bundles()?;
            let rows: Vec<[String; 2]> =
                records.iter().map(|record| [record.folder.display().to_string(), record.image.clone()]).collect();
            return session.print(&json!(records), &table(["FOLDER", "IMAGE"], &rows));
        }
        let mut values = Vec::new();
        let mut rows = Vec::new();
        for record in store.images()? {
            let image = store.image(&record)?;
            let platform = image.platform().to_string();
            rows.push([
                record.name.clone(),
                short(&record.manifest).to_owned(),
                platform.clone(),
                image.layers.len().to_string(),
                size(image.size()),
            ]);
            values.push(json!({
                "name": record.name,
                "digest": record.digest,
                "manifest": record.manifest,
                "platform": platform,
                "layers": image.layers.len(),
                "bytes": image.size(),
            }));
        }
        session.print(&Value::Array(values), &table(["NAME", "MANIFEST", "PLATFORM", "LAYERS", "SIZE"], &rows))
    }
}

/// Columns as wide as their widest cell.
fn table<const N: usize>(heads: [&str; N], rows: &[[String; N]]) -> Vec<String> {
    let heads = heads.map(str::to_owned);
    let all: Vec<&[String; N]> = std::iter::once(&heads).chain(rows).collect();
    let widths: Vec<usize> =
        (0..N).map(|column| all.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or(0)).collect();
    let line = |row: &&[String; N]| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    all.iter().map(line).collect()
}

/// Print what an image says of itself, as JSON
#[derive(Args)]
pub(super) struct Inspect {
    /// The image's name
    image: Reference,
}

impl Inspect {
    pub(super) fn run(self, session: &Session) -> Result<()> {
        let store = session.store()?;
        let _lease = store.lease()?;
        let record = found(&store, &self.image)?;
        let image = store.image(&record)?;
        let layers: Vec<Value> = image
            .layers
            .iter()
            .map(|layer| {
                json!({
                    "digest": layer.blob.digest,
                    "mediaType": layer.blob.media_type,
                    "bytes": layer.blob.size,
                    "diffId": layer.diff_id,
                })
            })
            .collect();
        let value = json!({
            "name": record.name,
            "digest": record.digest,
            "manifest": record.manifest,
            "platform": image.platform().to_string(),
            "layers": layers,
            "config": image.config,
        });
        session.print(&value, &[format!("{value:#}")])
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_line_up() {
        let rows = [["long name".to_owned(), "1".to_owned()], ["b".to_owned(), "22".to_owned()]];
        assert_eq!(super::table(["A", "B"], &rows), ["A          B", "long name  1", "b          22"]);
    }
}
