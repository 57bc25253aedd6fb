//! The demo's last part: flintd keeps a node of many pods.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use nix::mount::{MntFlags, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;
use serde_json::json;

use super::{output_of, run};
use crate::interrupt::Interrupt;
use crate::workspace;

/// The image of the demo's pods.
const IMAGE: &str = "localhost/demo:1";
/// How long flintd may take until it answers, and to end.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the node is left alone before its idleness is measured, and how long that takes.
const SETTLING: Duration = Duration::from_secs(2);
const IDLE: Duration = Duration::from_secs(10);
/// How long all pods together may take.
const PODS_PATIENCE: Duration = Duration::from_secs(300);

/// Applies `count` pods to a flintd of its own, tells how that went, removes them, and looks whether anything is left.
///
/// The calling process moves to a network namespace of its own, so that the machine's network stays as it is.
///
/// # Errors
///
/// When flintd does not start, a pod does not run, or something is left.
pub(super) fn show(folder: &Path, rootfs: &Path, count: u32, interrupt: &Interrupt) -> anyhow::Result<()> {
    if workspace::find_program("nft").is_none() {
        println!("\nno pods: flintd's networks need the program nft (package nftables)");
        return Ok(());
    }
    unshare(CloneFlags::CLONE_NEWNET).context("making a network namespace")?;
    let node = Node::start(folder, rootfs)?;
    let shown = node.show(count, interrupt);
    if shown.is_err() {
        // Its containers would outlive flintd.
        let manifests = node.manifests().display().to_string();
        let _ = node.flintctl(&["rm", "--filename", &manifests, "--grace", "0"]).stdout(Stdio::null()).status();
    }
    let ended = node.end();
    shown.and(ended)
}

struct Node {
    dist: PathBuf,
    folder: PathBuf,
    /// In the command lines of its shims, and the name of no other node's containers.
    namespace: String,
    flintd: Child,
}

/// What `flintctl ps --watch --json` tells of a pod, as far as it is looked at.
#[derive(Deserialize)]
struct PodView {
    status: Status,
}

#[derive(Deserialize)]
struct Status {
    key: Key,
    phase: String,
    reason: Option<Reason>,
}

#[derive(Deserialize)]
struct Key {
    name: String,
}

#[derive(Deserialize)]
struct Reason {
    sentence: String,
}

impl Node {
    fn start(folder: &Path, rootfs: &Path) -> anyhow::Result<Self> {
        let dist = workspace::dist_folder();
        let folder = folder.join("node");
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let images = folder.join("images");
        let mut import = Command::new(dist.join("flint-bundle"));
        run(import
            .arg("import")
            .arg("--quiet")
            .arg("--root")
            .arg(&images)
            .arg(rootfs)
            .arg(IMAGE)
            .stdout(Stdio::null()))?;
        let namespace = folder.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
        let config = folder.join("flintd.toml");
        fs::write(&config, configuration(&folder, &images, &dist, &namespace))
            .with_context(|| format!("writing {}", config.display()))?;
        let log = folder.join("flintd.log");
        let out = File::create(&log).with_context(|| format!("making {}", log.display()))?;
        let flintd = Command::new(dist.join("flintd"))
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(out.try_clone().context("its log")?)
            .stderr(out)
            .spawn()
            .context("starting flintd")?;
        let mut node = Self { dist, folder, namespace, flintd };
        node.wait_until_it_answers()?;
        Ok(node)
    }

    fn wait_until_it_answers(&mut self) -> anyhow::Result<()> {
        let started = Instant::now();
        loop {
            if self.flintctl(&["node"]).stdout(Stdio::null()).stderr(Stdio::null()).status()?.success() {
                return Ok(());
            }
            if let Some(status) = self.flintd.try_wait().context("waiting for flintd")? {
                bail!("flintd has ended ({status}): {}", self.last_words());
            }
            if started.elapsed() > PATIENCE {
                let _ = self.flintd.kill();
                bail!("flintd does not answer: {}", self.last_words());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(self.folder.join("flintd.log")).unwrap_or_default();
        log.lines().next_back().unwrap_or("it wrote nothing").to_owned()
    }

    fn flintctl(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.dist.join("flintctl"));
        command.arg("--socket").arg(self.folder.join("run/flintd.sock")).args(arguments).stdin(Stdio::null());
        command
    }

    fn manifests(&self) -> PathBuf {
        self.folder.join("pods.yaml")
    }

    fn show(&self, count: u32, interrupt: &Interrupt) -> anyhow::Result<()> {
        let manifests = self.manifests();
        fs::write(&manifests, pods(count)?).with_context(|| format!("writing {}", manifests.display()))?;
        let path = manifests.display().to_string();
        println!(
            "\n$ flintctl apply --filename pods.yaml     # {count} pods, each with a network namespace of its own"
        );
        let started = Instant::now();
        let mut watch = self.flintctl(&["ps", "--all", "--watch", "--json"]).stdout(Stdio::piped()).spawn()?;
        let applied = run(self.flintctl(&["apply", "--filename", &path]).stdout(Stdio::null()));
        let accepted = started.elapsed();
        let times = applied.and_then(|()| until_running(&mut watch, started, count, interrupt));
        let _ = watch.kill();
        let _ = watch.wait();
        let times = times?;
        self.tell(count, accepted, &times)?;
        interrupt.check()?;
        println!("\n$ flintctl rm --filename pods.yaml --grace 0");
        let removing = Instant::now();
        run(self.flintctl(&["rm", "--filename", &path, "--grace", "0"]).stdout(Stdio::null()))?;
        println!("all {count} were removed in {:.1} s", removing.elapsed().as_secs_f64());
        self.nothing_is_left()
    }

    fn tell(&self, count: u32, accepted: Duration, times: &[Duration]) -> anyhow::Result<()> {
        let last = times.last().copied().unwrap_or_default();
        let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64();
        let listing = Instant::now();
        output_of(&mut self.flintctl(&["ps"]))?;
        let listing = listing.elapsed();
        let memory = self.memory()?;
        let total: u64 = memory.iter().map(|(_, kib)| kib).sum();
        println!("all were accepted after {:.2} s, and ran after {:.1} s", accepted.as_secs_f64(), last.as_secs_f64());
        println!("  starts a second        {:>8.0}", f64::from(count) / last.as_secs_f64());
        println!("  a pod's start, p50     {:>8.2} s after the pods were sent", at(50));
        println!("                 p99     {:>8.2} s", at(99));
        println!("  flintctl ps            {:>8.1} ms", listing.as_secs_f64() * 1000.0);
        for (name, kib) in &memory {
            println!("  {name:<22} {kib:>8} KiB (PSS)");
        }
        println!("  together for each pod  {:>8} KiB", total / u64::from(count));
        println!("  CPU while nothing happens {:>5.2} % of a core, over {} s", self.idle()? * 100.0, IDLE.as_secs());
        Ok(())
    }

    /// The part of a core that flintd and its shims use together while nothing is asked of them.
    fn idle(&self) -> anyhow::Result<f64> {
        let mut pids = self.shims()?;
        pids.push(self.flintd.id());
        let used = || pids.iter().map(|pid| processor_time(*pid)).sum::<anyhow::Result<Duration>>();
        std::thread::sleep(SETTLING);
        let (started, before) = (Instant::now(), used()?);
        std::thread::sleep(IDLE);
        Ok((used()?.saturating_sub(before)).as_secs_f64() / started.elapsed().as_secs_f64())
    }

    /// What flintd and its shims hold in memory, in KiB.
    fn memory(&self) -> anyhow::Result<Vec<(String, u64)>> {
        let shims = self.shims()?;
        let pss = |pid: u32| -> u64 {
            let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
            let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
            line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
        };
        let together = shims.iter().map(|pid| pss(*pid)).sum();
        Ok(vec![("flintd".to_owned(), pss(self.flintd.id())), (format!("{} shims", shims.len()), together)])
    }

    /// The processes of its shims: they have its namespace in their command lines.
    fn shims(&self) -> anyhow::Result<Vec<u32>> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").context("reading /proc")? {
            let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let mut words = line.split(|byte| *byte == 0);
            let is_shim = words
                .next()
                .is_some_and(|program| program.ends_with(b"containerd-shim-flint-v1") || program == b"/proc/self/exe");
            if is_shim && words.any(|word| word == self.namespace.as_bytes()) {
                found.push(pid);
            }
        }
        Ok(found)
    }

    /// # Errors
    ///
    /// When there is a mount, a cgroup or a device of a pod.
    fn nothing_is_left(&self) -> anyhow::Result<()> {
        let mut left = Vec::new();
        let mounts = fs::read_to_string("/proc/self/mountinfo").context("reading mountinfo")?;
        let pods = format!("{}/", self.folder.join("lib/pods").display());
        let namespaces = format!("{}/", self.folder.join("run/pods").display());
        left.extend(
            mounts
                .lines()
                .filter(|line| line.contains(&pods) || line.contains(&namespaces))
                .map(|line| format!("the mount {line}")),
        );
        let devices = fs::read_to_string("/proc/self/net/dev").context("reading the devices")?;
        let names = devices.lines().skip(2).filter_map(|line| line.split(':').next()).map(str::trim);
        // The loopback device, and the node's own, which stays as long as flintd does.
        let of_pods = names.filter(|name| !["lo", "flint-0"].contains(name));
        left.extend(of_pods.map(|name| format!("the network device {name}")));
        let cgroups = Path::new("/sys/fs/cgroup");
        for hierarchy in fs::read_dir(cgroups).context("reading /sys/fs/cgroup")?.flatten() {
            let own = hierarchy.path().join(&self.namespace);
            let children =
                fs::read_dir(&own).map(|entries| entries.flatten().filter(|entry| entry.path().is_dir()).count());
            if children.is_ok_and(|count| count > 0) {
                left.push(format!("cgroups in {}", own.display()));
            }
        }
        ensure!(left.is_empty(), "left behind: {}", left.join(", "));
        println!("nothing is left: no mount, no cgroup, no network device");
        Ok(())
    }

    fn end(mut self) -> anyhow::Result<()> {
        kill(Pid::from_raw(self.flintd.id() as i32), Signal::SIGTERM).context("ending flintd")?;
        let status = self.flintd.wait().context("waiting for flintd")?;
        // They have no container any more, or what is left of them is to go.
        for shim in self.shims()? {
            let _ = kill(Pid::from_raw(shim as i32), Signal::SIGTERM);
        }
        ensure!(status.success(), "flintd has ended with {status}: {}", self.last_words());
        // What flintd keeps for the next one.
        let mounts = fs::read_to_string("/proc/self/mountinfo").context("reading mountinfo")?;
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
        for point in points.filter(|point| Path::new(point).starts_with(&self.folder)) {
            umount2(point, MntFlags::MNT_DETACH).with_context(|| format!("unmounting {point}"))?;
        }
        Ok(())
    }
}

/// What the threads of a process have used of processors (/proc/PID/task/TID/schedstat, proc(5): nanoseconds).
fn processor_time(pid: u32) -> anyhow::Result<Duration> {
    let mut nanoseconds = 0;
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("reading the threads of {pid}"))?;
    for task in tasks {
        // A thread may end meanwhile.
        let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
        nanoseconds += text.split_whitespace().next().and_then(|used| used.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// flintd's configuration, with all it touches in the demo's folder.
fn configuration(folder: &Path, images: &Path, dist: &Path, namespace: &str) -> String {
    let place = |name: &str| folder.join(name).display().to_string();
    let (root, run, manifests) = (place("lib"), place("run"), place("manifests"));
    let (shim, images) = (dist.join("containerd-shim-flint-v1").display().to_string(), images.display());
    // How full the disk is that the demo runs on is not what it shows: what it writes is small.
    let disks = "{'nodefs.available' = '0%', 'nodefs.inodesFree' = '0%', 'imagefs.available' = '0%', 'imagefs.inodesFree' = '0%'}";
    format!(
        "root = '{root}'\nrun = '{run}'\nsocket = '{run}/flintd.sock'\nmanifests = '{manifests}'\npage = ''\nshim = '{shim}'\nnamespace = '{namespace}'\n\
         eviction.hard = {disks}\n[images]\nstore = '{images}'\n"
    )
}

/// Manifests of pods that do nothing.
fn pods(count: u32) -> anyhow::Result<String> {
    let mut text = String::new();
    for number in 0..count {
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": format!("demo-{number}")},
            "spec": {
                "containers": [{"name": "main", "image": IMAGE, "imagePullPolicy": "Never", "command": ["/bin/pause"]}],
            },
        });
        let _ = writeln!(text, "---\n{}", serde_json::to_string(&pod)?);
    }
    Ok(text)
}

/// When each pod ran, the first one first.
fn until_running(
    watch: &mut Child,
    started: Instant,
    count: u32,
    interrupt: &Interrupt,
) -> anyhow::Result<Vec<Duration>> {
    let lines = BufReader::new(watch.stdout.take().context("the output of flintctl")?).lines();
    let mut running: BTreeMap<String, Duration> = BTreeMap::new();
    let is_terminal = std::io::stdout().is_terminal();
    let mut told = 0;
    for line in lines {
        interrupt.check()?;
        let view: PodView = serde_json::from_str(&line?).context("what flintctl ps --json has written")?;
        let status = view.status;
        if status.phase == "Failed" {
            let why = status.reason.map_or_else(|| "without a reason".to_owned(), |reason| reason.sentence);
            bail!("the pod {} has failed: {why}", status.key.name);
        }
        if status.phase == "Running" {
            running.entry(status.key.name).or_insert_with(|| started.elapsed());
        }
        let step = if is_terminal { 10 } else { 100 };
        let is_all = running.len() == count as usize;
        if running.len() / step > told / step || is_all {
            told = running.len();
            let (before, after) = if is_terminal { ("\r", "") } else { ("", "\n") };
            print!("{before}  {told} of {count} run after {:.1} s{after}", started.elapsed().as_secs_f64());
            std::io::stdout().flush().context("writing to stdout")?;
        }
        if is_all {
            if is_terminal {
                println!();
            }
            let mut times: Vec<Duration> = running.into_values().collect();
            times.sort_unstable();
            return Ok(times);
        }
        ensure!(started.elapsed() < PODS_PATIENCE, "{} of {count} pods run after {PODS_PATIENCE:?}", running.len());
    }
    bail!("flintctl ps --watch has ended")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_are_documents_of_their_own() {
        let text = pods(3).unwrap();
        assert_eq!(text.matches("---\n").count(), 3);
        let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!(last["metadata"]["name"], "demo-2");
    }

    #[test]
    fn all_that_the_configuration_names_is_in_its_folder() {
        let text = configuration(Path::new("/t/node"), Path::new("/t/node/images"), Path::new("/d"), "demo");
        let config: toml_edit::DocumentMut = text.parse().unwrap();
        assert_eq!(config["root"].as_str(), Some("/t/node/lib"));
        assert_eq!(config["images"]["store"].as_str(), Some("/t/node/images"));
        assert_eq!(config["shim"].as_str(), Some("/d/containerd-shim-flint-v1"));
    }
}
