//! Who pulls, and by which commands.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::tree;
use crate::measure::{Sample, Stopwatch};

/// A program with its arguments.
type Words = Vec<String>;

/// One of those who are compared.
#[derive(Debug)]
pub struct Contestant {
    /// How it is called in the table.
    pub name: &'static str,
    /// The daemon, and a command that succeeds once it answers.
    daemon: Option<(Words, Words)>,
    /// What pulls and unpacks.
    pull: Vec<Words>,
    /// What makes a container or a bundle of the image, and starts nothing; `{n}` is a number.
    create: Option<Words>,
}

/// What a run took.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// Wall and CPU time of the pull, the daemon's part among it.
    pub pull: Sample,
    /// The most memory at once, in bytes.
    pub memory: u64,
    /// The median and the shortest time of `create`, if there is such.
    pub create: Option<(Duration, Duration)>,
}

fn words(text: &str) -> Words {
    text.split_ascii_whitespace().map(str::to_owned).collect()
}

/// All, with stores in `folder`. The image is `HOST/bench:1`.
#[must_use]
pub fn all(folder: &Path, flint_bundle: &Path, host: &str) -> Vec<Contestant> {
    let dir = folder.display();
    let image = format!("{host}/bench:1");
    let bundle = format!("{} --quiet --root {dir}/store", flint_bundle.display());
    let ctr = format!("ctr --address {dir}/containerd.sock --namespace bench");
    let docker = format!("docker --host unix://{dir}/docker.sock");
    let podman = format!("podman --root {dir}/podman --runroot {dir}/run --storage-driver overlay");
    vec![
        Contestant {
            name: "flint-bundle pull",
            daemon: None,
            pull: vec![words(&format!("{bundle} pull {image}"))],
            create: Some(words(&format!("{bundle} create {image} {dir}/bundle-{{n}}"))),
        },
        Contestant {
            name: "ctr image pull",
            daemon: Some((
                words(&format!("containerd --config {dir}/containerd.toml")),
                words(&format!("{ctr} images list")),
            )),
            pull: vec![words(&format!("{ctr} images pull --plain-http {image}"))],
            create: Some(words(&format!("{ctr} containers create {image} bench-{{n}}"))),
        },
        Contestant {
            name: "docker pull",
            daemon: Some((
                words(&format!(
                    "dockerd --config-file {dir}/daemon.json --data-root {dir}/docker --exec-root {dir}/exec --pidfile {dir}/pid \
                     --host unix://{dir}/docker.sock --bridge none --iptables=false --ip-masq=false"
                )),
                words(&format!("{docker} version")),
            )),
            pull: vec![words(&format!("{docker} pull --quiet {image}"))],
            create: Some(words(&format!("{docker} create --network none {image}"))),
        },
        Contestant {
            name: "skopeo copy + umoci unpack",
            daemon: None,
            pull: vec![
                words(&format!("skopeo copy --quiet --src-tls-verify=false docker://{image} oci:{dir}/layout:1")),
                words(&format!("umoci unpack --image {dir}/layout:1 {dir}/bundle")),
            ],
            create: None,
        },
        Contestant {
            name: "podman pull",
            daemon: None,
            pull: vec![words(&format!("{podman} pull --quiet --tls-verify=false {image}"))],
            create: Some(words(&format!("{podman} create --network none {image}"))),
        },
    ]
}

fn command(words: &[String], log: &Path) -> Result<Command> {
    let (program, args) = words.split_first().context("a command without a program")?;
    let file = File::options().create(true).append(true).open(log).context("cannot open the log")?;
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    Ok(command)
}

/// A daemon that runs. Dropping it ends it.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.0.id() as i32);
        // It ends what it has started.
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

impl Contestant {
    /// Whether its programs are there.
    #[must_use]
    pub fn missing(&self) -> Option<&str> {
        let commands = self.pull.iter().chain(self.daemon.iter().flat_map(|(daemon, probe)| [daemon, probe]));
        let mut programs = commands.filter_map(|words| words.first());
        programs.find(|name| !name.starts_with('/') && crate::contestant::find(name).is_none()).map(String::as_str)
    }

    /// One pull into the empty folder, and `creates` containers. The registry's process does not count.
    ///
    /// # Errors
    ///
    /// When one of the commands fails; with the end of its log.
    pub fn run(&self, folder: &Path, registry: u32, creates: u32, stopwatch: &Stopwatch) -> Result<Taken> {
        let log = folder.join("log");
        let result = self.run_logged(folder, &log, registry, creates, stopwatch);
        result.with_context(|| {
            let text = fs::read_to_string(&log).unwrap_or_default();
            let end: Vec<&str> = text.lines().rev().take(5).collect();
            format!("{}: {}", self.name, end.into_iter().rev().collect::<Vec<_>>().join(" | "))
        })
    }

    fn run_logged(
        &self,
        folder: &Path,
        log: &Path,
        registry: u32,
        creates: u32,
        stopwatch: &Stopwatch,
    ) -> Result<Taken> {
        configure(folder)?;
        let daemon = self.start(log)?;
        let of_daemon = || daemon.as_ref().map_or(Duration::ZERO, |daemon| tree::cpu(daemon.0.id()));
        let before = of_daemon();
        let watch = tree::Watch::start(registry);
        let (mut wall, mut cpu) = (Duration::ZERO, Duration::ZERO);
        for words in &self.pull {
            let (status, sample) = stopwatch.run(&mut command(words, log)?)?;
            ensure!(status.success(), "{} failed ({status})", words.join(" "));
            (wall, cpu) = (wall + sample.wall, cpu + sample.cpu);
        }
        let memory = watch.finish();
        let pull = Sample { wall, cpu: cpu + of_daemon().saturating_sub(before) };
        let mut times = Vec::new();
        for number in 0..creates {
            let Some(create) = &self.create else { break };
            let words: Words = create.iter().map(|word| word.replace("{n}", &number.to_string())).collect();
            let (status, sample) = stopwatch.run(&mut command(&words, log)?)?;
            ensure!(status.success(), "{} failed ({status})", words.join(" "));
            times.push(sample.wall);
        }
        times.sort();
        let create = times.get(times.len() / 2).copied().zip(times.first().copied());
        Ok(Taken { pull, memory, create })
    }

    fn start(&self, log: &Path) -> Result<Option<Daemon>> {
        let Some((words, probe)) = &self.daemon else { return Ok(None) };
        let mut daemon = Daemon(command(words, log)?.spawn().with_context(|| format!("cannot start {words:?}"))?);
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            if command(probe, log)?.status().is_ok_and(|status| status.success()) {
                return Ok(Some(daemon));
            }
            if let Some(status) = daemon.0.try_wait()? {
                bail!("{} ended ({status})", words.join(" "));
            }
            ensure!(Instant::now() < end, "{} does not answer", words.join(" "));
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// Files that daemons want.
fn configure(folder: &Path) -> Result<()> {
    let path = |name: &str| folder.join(name).display().to_string();
    let config = format!(
        "version = 2\nroot = \"{}\"\nstate = \"{}\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.cri.v1.images\", \
         \"io.containerd.cri.v1.runtime\"]\n[grpc]\n  address = \"{address}\"\n[ttrpc]\n  address = \"{address}.ttrpc\"\n",
        path("containerd"),
        path("containerd-state"),
        address = path("containerd.sock"),
    );
    fs::write(folder.join("containerd.toml"), config).context("cannot write containerd's config")?;
    fs::write(folder.join("daemon.json"), "{}").context("cannot write dockerd's config")
}
