//! `create` and `unpack`: images to folders.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use flint_bundle::bundle::{self, Making, RootfsForm};
use flint_bundle::unpack::Ownership;
use flint_bundle::{BindMount, Reference, Resources, Wishes};
use serde_json::json;

use super::pull::{Asking, When};
use super::{Session, Taking, found};

/// Make a bundle of an image
///
/// The bundle's root filesystem is an overlay on the store's layers, mounted in FOLDER/rootfs; where that is not possible,
/// and for users without privileges, a copy. After a restart of the host, create with the same image and folder mounts it again.
#[derive(Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is an option of its own")]
pub(super) struct Create {
    /// The image's name
    image: Reference,
    /// The bundle's folder: missing or empty
    folder: PathBuf,
    /// The command in place of the image's
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
    /// A program in place of the image's entrypoint
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,
    /// A variable, NAME=VALUE, or NAME for the caller's own
    #[arg(long, short, value_name = "VARIABLE")]
    env: Vec<String>,
    /// USER[:GROUP], names of the image's or numbers
    #[arg(long, short, value_name = "USER")]
    user: Option<String>,
    /// The working directory
    #[arg(long, short, value_name = "PATH")]
    workdir: Option<String>,
    /// The container's name of itself [default: the folder's]
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// SOURCE:DESTINATION[:ro], a folder or file of the host
    #[arg(long, short = 'v', value_name = "MOUNT", value_parser = BindMount::parse)]
    mount: Vec<BindMount>,
    /// The program has a terminal
    #[arg(long, short)]
    terminal: bool,
    /// The root filesystem is read-only
    #[arg(long)]
    read_only: bool,
    /// The host's network
    #[arg(long)]
    host_network: bool,
    /// Set-id programs and file capabilities give nothing
    #[arg(long)]
    no_new_privileges: bool,
    /// No seccomp filter
    #[arg(long)]
    no_seccomp: bool,
    /// A capability more, or ALL
    #[arg(long, value_name = "CAPABILITY")]
    cap_add: Vec<String>,
    /// A capability less, or ALL
    #[arg(long, value_name = "CAPABILITY")]
    cap_drop: Vec<String>,
    /// The limit of memory: bytes, or with k, m, g
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    memory: Option<u64>,
    /// The limit of CPU time, in CPUs
    #[arg(long, value_name = "NUMBER", value_parser = milli_cpus)]
    cpus: Option<u64>,
    /// The limit of processes and threads
    #[arg(long, value_name = "NUMBER")]
    pids: Option<u64>,
    /// How the root filesystem is made
    #[arg(long, value_enum, default_value_t = Form::Any, value_name = "FORM")]
    rootfs: Form,
    /// When the image is pulled
    #[arg(long, value_enum, default_value_t = When::Missing, value_name = "WHEN")]
    pull: When,
    #[command(flatten)]
    taking: Taking,
    #[command(flatten)]
    asking: Asking,
}

#[derive(Clone, Copy, ValueEnum)]
enum Form {
    /// An overlay where it is possible, else a copy
    Any,
    /// An overlay
    Overlay,
    /// A copy
    Copy,
}

impl Create {
    pub(super) fn run(self, session: &Session) -> Result<()> {
        let store = session.store()?;
        let here = if self.pull == When::Always { None } else { store.named(&self.image)? };
        let record = match here {
            Some(record) => record,
            None if self.pull == When::Never => found(&store, &self.image)?,
            None => self.asking.pull(session, &store, &self.image, &self.taking)?.0,
        };
        let form = match self.rootfs {
            Form::Any => RootfsForm::Any,
            Form::Overlay => RootfsForm::Overlay,
            Form::Copy => RootfsForm::Copy,
        };
        let (fetch, progress) = (self.taking.fetch(), session.progress());
        let folder = self.folder.clone();
        let wishes = self.wishes()?;
        let making = Making { form, fetch, progress: &progress, ..Making::new(&wishes) };
        let created = bundle::create(&store, &record, &folder, &making)?;
        let kind = if created.overlay { "overlay" } else { "copy" };
        let mut lines = vec![format!(
            "{}: {} of {}, root filesystem: {kind}",
            created.folder.display(),
            if created.mounted_again { "mounted again" } else { "bundle" },
            record.name
        )];
        if created.devices_left_out > 0 {
            lines.push(format!("{} devices were left out: only root makes them", created.devices_left_out));
        }
        if let Some(user) = &created.user_left_out {
            lines.push(format!("the program runs as root, not as {user}: one id is mapped, the caller's"));
        }
        let value = json!({
            "folder": created.folder,
            "userLeftOut": created.user_left_out,
            "image": record.name,
            "manifest": record.manifest,
            "rootfs": kind,
            "mountedAgain": created.mounted_again,
            "devicesLeftOut": created.devices_left_out,
        });
        session.print(&value, &lines)
    }

    fn wishes(self) -> Result<Wishes> {
        let env = self.env.into_iter().filter_map(|variable| {
            if variable.contains('=') {
                return Some(variable);
            }
            let value = std::env::var(&variable).ok()?;
            Some(format!("{variable}={value}"))
        });
        // The folder's name, as far as it can be the name of a host.
        let own = std::path::absolute(&self.folder).context("the bundle's folder")?;
        let own = own.file_name().map(|name| name.to_string_lossy().into_owned());
        let own = own
            .filter(|name| name.len() <= 63 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'));
        Ok(Wishes {
            entrypoint: self.entrypoint.map(|program| vec![program]),
            command: self.command,
            env: env.collect(),
            user: self.user,
            cwd: self.workdir,
            hostname: self.hostname.or(own),
            terminal: self.terminal,
            read_only: self.read_only,
            host_network: self.host_network,
            no_new_privileges: self.no_new_privileges,
            seccomp: !self.no_seccomp,
            cap_add: self.cap_add,
            cap_drop: self.cap_drop,
            mounts: self.mount,
            resources: Resources { memory: self.memory, milli_cpus: self.cpus, pids: self.pids },
        })
    }
}

/// Write an image's root filesystem into a folder
#[derive(Args)]
pub(super) struct Unpack {
    /// The image's name
    image: Reference,
    /// The folder: missing or empty
    folder: PathBuf,
}

impl Unpack {
    pub(super) fn run(self, session: &Session) -> Result<()> {
        let store = session.store()?;
        let _lease = store.lease()?;
        let image = store.image(&found(&store, &self.image)?)?;
        if self.folder.exists() && std::fs::read_dir(&self.folder).context("the folder")?.next().is_some() {
            bail!("the folder {} is not empty", self.folder.display());
        }
        std::fs::create_dir_all(&self.folder).with_context(|| format!("making {}", self.folder.display()))?;
        let is_root = rustix::process::geteuid().is_root();
        let ownership = if is_root { Ownership::Kept } else { Ownership::Mine };
        let left_out = bundle::copy(&store, &image, &self.folder, ownership, &flint_bundle::Fetch::default())?;
        let mut lines = vec![format!("{}: {} layers", self.folder.display(), image.layers.len())];
        if left_out > 0 {
            lines.push(format!("{left_out} devices were left out: only root makes them"));
        }
        session.print(&json!({"folder": self.folder, "devicesLeftOut": left_out}), &lines)
    }
}

/// Bytes, with the units that docker takes.
fn bytes(text: &str) -> Result<u64, String> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches('b');
    let (digits, shift) = match digits.char_indices().next_back() {
        Some((at, 'k')) => (digits.get(..at), 10),
        Some((at, 'm')) => (digits.get(..at), 20),
        Some((at, 'g')) => (digits.get(..at), 30),
        _ => (Some(digits), 0),
    };
    let number = digits.and_then(|digits| digits.parse::<u64>().ok()).and_then(|number| number.checked_mul(1 << shift));
    number.filter(|number| *number > 0).ok_or_else(|| format!("{text:?} is no size such as 512m"))
}

/// CPUs with three decimals at most, in thousandths.
fn milli_cpus(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no number of CPUs such as 1.5");
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    if part.len() > 3 || !(whole.to_owned() + part).bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let number = format!("{whole}{part:0<3}").parse::<u64>().map_err(|_| wrong())?;
    if number == 0 { Err(wrong()) } else { Ok(number) }
}

#[cfg(test)]
mod tests {
    use super::{bytes, milli_cpus};

    #[test]
    fn sizes_and_cpus_are_read() {
        assert_eq!(bytes("512m"), Ok(512 << 20));
        assert_eq!(bytes("1GB"), Ok(1 << 30));
        assert_eq!(bytes("7"), Ok(7));
        for wrong in ["", "m", "-1", "0", "1.5g", "99999999999g"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
        assert_eq!(milli_cpus("1.5"), Ok(1500));
        assert_eq!(milli_cpus(".25"), Ok(250));
        assert_eq!(milli_cpus("2"), Ok(2000));
        for wrong in ["", "0", ".", "-1", "1.0001", "+1"] {
            assert!(milli_cpus(wrong).is_err(), "{wrong}");
        }
    }
}
