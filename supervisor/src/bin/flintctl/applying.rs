//! `apply`: manifests to pods.

use std::fmt::Write as _;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use flintd::api::client::Client;
use flintd::api::{Action, Change, Manifest};

use crate::command::{FAILURE, Session, print, print_json, shown};
use crate::values::{duration, plain};
use crate::waiting;

/// Apply manifests: make pods, or change them by the least disruption
///
/// Each document is applied by itself; one that the node refuses is told with each field and the reason, and holds up no other.
#[derive(Args)]
pub(crate) struct Apply {
    /// A file, a folder of .yaml, .yml and .json files, or `-` for standard input
    #[arg(long, short, value_name = "FILE", required = true)]
    filename: Vec<PathBuf>,
    /// Tell what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Wait until the pods are ready
    #[arg(long, conflicts_with = "dry_run")]
    wait: bool,
    /// How long to wait
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration)]
    timeout: Duration,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Apply {
    pub(crate) async fn run(self, session: &Session) -> Result<u8> {
        let manifests = read(&self.filename)?;
        let client = session.client().await?;
        let changes = client.apply(manifests, self.dry_run).await?;
        if self.json {
            print_json(&changes)?;
        } else {
            tell(&changes, self.dry_run)?;
        }
        let mut result = if changes.iter().any(is_refused) { FAILURE } else { 0 };
        let pods: Vec<_> = changes
            .iter()
            .filter(|change| change.kind == "Pod" && !is_refused(change) && change.action != Action::Removed)
            .map(|change| change.key.clone())
            .collect();
        if self.wait && !waiting::ready(&client, &pods, self.timeout).await? {
            result = FAILURE;
        }
        Ok(result)
    }
}

fn is_refused(change: &Change) -> bool {
    matches!(change.action, Action::Refused { .. })
}

/// Applies one manifest that flintctl has made.
pub(crate) async fn one(client: &Client, text: String, dry_run: bool) -> Result<Change> {
    let manifest = Manifest { name: "-".to_owned(), text };
    let changes = client.apply(vec![manifest], dry_run).await?;
    let change = changes.into_iter().next().context("flintd has said nothing to the pod")?;
    if let Action::Refused { fields } = &change.action {
        let why: Vec<String> = fields.iter().map(|field| format!("{}: {}", field.path, field.reason)).collect();
        bail!("the pod {} is refused: {}", change.key, plain(&why.join("; ")));
    }
    Ok(change)
}

/// Prints what was done to stdout, and what was refused to stderr.
fn tell(changes: &[Change], dry_run: bool) -> Result<()> {
    let mut done = String::new();
    for change in changes {
        match line(change, dry_run) {
            Ok(line) => done.push_str(&line),
            Err(refusal) => eprint!("{refusal}"),
        }
    }
    print(&done)
}

/// A line of what was done, or lines of what is refused.
fn line(change: &Change, dry_run: bool) -> Result<String, String> {
    let what = format!("{}/{}", change.kind.to_ascii_lowercase(), shown(&change.key));
    let action = match &change.action {
        Action::Created => "created".to_owned(),
        Action::Unchanged => "unchanged".to_owned(),
        Action::Removed => "removed".to_owned(),
        Action::Changed { sandbox: true, .. } => "changed: the pod is made anew".to_owned(),
        Action::Changed { containers, .. } if containers.is_empty() => "changed in place".to_owned(),
        Action::Changed { containers, .. } => format!("changed: made anew: {}", containers.join(", ")),
        Action::Refused { fields } => {
            let mut text = format!("{what} of {} is refused:\n", change.file);
            for field in fields {
                let path = if field.path.is_empty() { String::new() } else { format!("{}: ", field.path) };
                let _ = writeln!(text, "  {path}{}", plain(&field.reason));
            }
            return Err(text);
        }
    };
    let dry_run = if dry_run { " (dry run)" } else { "" };
    Ok(plain(&format!("{what} {action}{dry_run}")) + "\n")
}

/// Reads files, the files of folders, and standard input.
pub(crate) fn read(paths: &[PathBuf]) -> Result<Vec<Manifest>> {
    let mut manifests = Vec::new();
    for path in paths {
        if path == Path::new("-") {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("read standard input")?;
            manifests.push(Manifest { name: "-".to_owned(), text });
        } else if path.is_dir() {
            let files = of_folder(path)?;
            if files.is_empty() {
                bail!("there is no .yaml, .yml or .json file in {}", path.display());
            }
            for file in files {
                manifests.push(of_file(&file)?);
            }
        } else {
            manifests.push(of_file(path)?);
        }
    }
    Ok(manifests)
}

fn of_file(path: &Path) -> Result<Manifest> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    Ok(Manifest { name: path.display().to_string(), text })
}

/// By name, as kubectl takes them.
fn of_folder(folder: &Path) -> Result<Vec<PathBuf>> {
    let told = || format!("read {}", folder.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(told)? {
        let path = entry.with_context(told)?.path();
        let is_manifest =
            path.extension().is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|known| extension == *known));
        if is_manifest && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use flintd::api::Refusal;
    use flintd::desired::Key;

    use super::*;

    #[test]
    fn changes_are_told() {
        let change = |action| Change {
            file: "web.yaml".to_owned(),
            kind: "Pod".to_owned(),
            key: Key::new("default", "web"),
            action,
        };
        assert_eq!(line(&change(Action::Created), true).unwrap(), "pod/web created (dry run)\n");
        let anew = Action::Changed { containers: vec!["a".to_owned(), "b".to_owned()], sandbox: false };
        assert_eq!(line(&change(anew), false).unwrap(), "pod/web changed: made anew: a, b\n");
        let fields = vec![
            Refusal { path: "spec.containers[0].tty".to_owned(), reason: "no".to_owned() },
            Refusal { path: String::new(), reason: "it does not fit".to_owned() },
        ];
        assert_eq!(
            line(&change(Action::Refused { fields }), false).unwrap_err(),
            "pod/web of web.yaml is refused:\n  spec.containers[0].tty: no\n  it does not fit\n"
        );
    }

    #[test]
    fn folders_are_read_by_name() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.yml", "a.yaml", "c.json", "d.txt"] {
            fs::write(folder.path().join(name), name).unwrap();
        }
        let texts: Vec<String> =
            read(&[folder.path().to_owned()]).unwrap().into_iter().map(|manifest| manifest.text).collect();
        assert_eq!(texts, ["a.yaml", "b.yml", "c.json"]);
        let error = read(&[folder.path().join("no.yaml")]).unwrap_err();
        assert!(error.to_string().contains("no.yaml"), "{error}");
    }
}
