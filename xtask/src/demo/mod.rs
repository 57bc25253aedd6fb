//! `cargo xtask demo`: what flint does, on a bundle made here and now.

mod node;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, bail, ensure};
use lexopt::prelude::*;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value as Json, json};
use tempfile::TempDir;

use crate::interrupt::Interrupt;
use crate::race::{self, Runner};
use crate::{dist, workspace};

const HELP: &str = "\
usage: cargo xtask demo [--runtime PROGRAM] [--count N] [--pods N]

As root. Builds the programs of `cargo xtask dist`, makes a bundle without any download (its root filesystem
is one small static program), prints its plan in short, runs it, then starts containers one after another and
prints a table: the kernel's floor, flint, and the peers that are installed (runc, crun). In the end a flintd of
its own runs pods, each with its own network, and removes them. Takes away all that it made.

  --runtime PROGRAM   another runtime in flint's place; only flint has plans to print
  --count N           containers that each program starts for the table (200)
  --pods N            pods that flintd runs (500); 0 leaves them out";

/// Where a hybrid cgroup layout has its v2 hierarchy.
const UNIFIED: &str = "/sys/fs/cgroup/unified";

const PEERS: &[&str] = &["runc", "crun"];

struct Options {
    runtime: Option<PathBuf>,
    count: usize,
    pods: u32,
}

/// Runs the command.
pub(crate) fn command(mut parser: lexopt::Parser) -> anyhow::Result<ExitCode> {
    let mut options = Options { runtime: None, count: 200, pods: 500 };
    while let Some(argument) = parser.next()? {
        match argument {
            Long("runtime") => options.runtime = Some(parser.value()?.into()),
            Long("count") => {
                let count = parser.value()?;
                let number = count.to_str().and_then(|count| count.parse().ok()).filter(|count| *count > 0);
                options.count =
                    number.with_context(|| format!("--count must be a number above 0, not {}", count.display()))?;
            }
            Long("pods") => options.pods = parser.value()?.parse().context("--pods")?,
            Short('h') | Long("help") => {
                println!("{HELP}");
                return Ok(ExitCode::SUCCESS);
            }
            other => return Err(other.unexpected().into()),
        }
    }
    ensure!(nix::unistd::geteuid().is_root(), "the demo makes containers with their own cgroups and needs root");
    let interrupt = Interrupt::watch()?;
    dist::build()?;
    let demo = Demo::new(&options)?;
    interrupt.check()?;
    demo.plan()?;
    demo.hello()?;
    interrupt.check()?;
    demo.table(&options, &interrupt)?;
    if options.pods > 0 {
        node::show(demo.folder.path(), &demo.bundle.join("rootfs"), options.pods, &interrupt)?;
    }
    let folder = demo.folder.path().display().to_string();
    demo.folder.close().with_context(|| format!("removing {folder}"))?;
    Ok(ExitCode::SUCCESS)
}

struct Demo {
    runtime: PathBuf,
    is_flint: bool,
    bundle: PathBuf,
    /// Holds the bundle and every runtime's state, and is removed with all in it.
    folder: TempDir,
}

impl Demo {
    fn new(options: &Options) -> anyhow::Result<Self> {
        let dist = workspace::dist_folder();
        let folder = tempfile::Builder::new().prefix("flint-demo-").tempdir().context("making a folder")?;
        let bundle = folder.path().join("bundle");
        let runtime = match &options.runtime {
            Some(program) => program.clone(),
            None => dist.join("flint"),
        };
        let demo = Self { runtime, is_flint: options.runtime.is_none(), bundle, folder };
        demo.make_bundle(&dist.join("payload"))?;
        Ok(demo)
    }

    /// A root filesystem of one static program under several names, and the runtime's own default config.json.
    fn make_bundle(&self, payload: &Path) -> anyhow::Result<()> {
        let bin = self.bundle.join("rootfs/bin");
        fs::create_dir_all(&bin).with_context(|| format!("making {}", bin.display()))?;
        fs::copy(payload, bin.join("payload")).with_context(|| format!("copying {}", payload.display()))?;
        for name in ["true", "hello", "pause"] {
            std::os::unix::fs::symlink("payload", bin.join(name)).with_context(|| format!("linking {name}"))?;
        }
        // Mount points, since the default root is read-only.
        for name in ["dev", "etc", "proc", "sys"] {
            fs::create_dir(self.bundle.join("rootfs").join(name)).with_context(|| format!("making {name}"))?;
        }
        let mut spec = Command::new(&self.runtime);
        run(spec.arg("spec").arg("--bundle").arg(&self.bundle))?;
        self.set_program(&["/bin/hello"])?;
        println!("\na bundle: rootfs/ with one static program, config.json by `{} spec`", self.name());
        Ok(())
    }

    fn set_program(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let path = self.bundle.join("config.json");
        let text = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        let mut config: Json = serde_json::from_slice(&text).with_context(|| format!("in {}", path.display()))?;
        config["process"]["args"] = json!(arguments);
        config["process"]["terminal"] = json!(false);
        // What is in it is older than this, and so are some of the peers.
        config["ociVersion"] = json!("1.0.2");
        config["hostname"] = json!("flint-demo");
        fs::write(&path, serde_json::to_vec_pretty(&config)?).with_context(|| format!("writing {}", path.display()))
    }

    fn name(&self) -> String {
        self.runtime.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    fn plan(&self) -> anyhow::Result<()> {
        if !self.is_flint {
            println!("\nno plan to print: only flint has one");
            return Ok(());
        }
        println!("\n$ flint plan --bundle bundle");
        let mut plan = Command::new(&self.runtime);
        let text = output_of(plan.arg("plan").arg("--bundle").arg(&self.bundle).stdin(Stdio::null()))?;
        for line in shortened(&text) {
            println!("{line}");
        }
        Ok(())
    }

    fn hello(&self) -> anyhow::Result<()> {
        println!("\n$ {} run --bundle bundle hello", self.name());
        let id = self.id(&self.name(), 0);
        let result = run(self.start(&self.runtime, &id).stdin(Stdio::null()));
        if result.is_err() {
            self.delete(&self.runtime, &id);
        }
        result
    }

    fn table(&self, options: &Options, interrupt: &Interrupt) -> anyhow::Result<()> {
        self.set_program(&["/bin/true"])?;
        let mut notes = Vec::new();
        leave_hybrid_cgroups(&mut notes)?;
        let mut runners = vec![self.runner(self.name(), self.runtime.clone())];
        runners[0].try_once().with_context(|| self.name())?;
        let floor = workspace::dist_folder().join("flint-floor");
        if floor.is_file() {
            let rootfs = self.bundle.join("rootfs");
            let start = move |_| {
                let mut command = Command::new(&floor);
                command.arg("--rootfs").arg(&rootfs).args(["--program", "/bin/true"]).stdout(Stdio::null());
                command
            };
            keep_if_it_runs(Runner::new("floor", start, |_| {}), &mut runners, &mut notes);
            // First, since all others are compared with it.
            runners.reverse();
        } else {
            notes.push("the kernel's floor is not measured: the workspace has no program flint-floor".to_owned());
        }
        for name in PEERS {
            match workspace::find_program(name) {
                Some(program) if program == self.runtime || *name == self.name() => {}
                Some(program) => {
                    keep_if_it_runs(self.runner((*name).to_owned(), program), &mut runners, &mut notes);
                }
                None => notes.push(format!("{name} is not installed")),
            }
        }
        println!("\n{} containers by each, one after another, the programs in turn; each runs `true`", options.count);
        race::run(&mut runners, options.count, interrupt)?;
        race::print(&runners, "floor");
        for note in notes {
            println!("note: {note}");
        }
        Ok(())
    }

    fn runner(&self, name: String, program: PathBuf) -> Runner {
        let (bundle, state) = (self.bundle.clone(), self.state(&program));
        let ids = self.id(&name, 0);
        let clean = {
            let (program, state, ids) = (program.clone(), state.clone(), ids.clone());
            move |number| delete(&program, &state, &format!("{ids}-{number}"))
        };
        let start = move |number| start(&program, &state, &bundle, &format!("{ids}-{number}"));
        Runner::new(name, start, clean)
    }

    /// Where a runtime keeps its state: not where it keeps that of other people's containers.
    fn state(&self, program: &Path) -> PathBuf {
        self.folder.path().join("state").join(program.file_name().unwrap_or_default())
    }

    /// An id that no other container of the machine has: cgroups are named by it.
    fn id(&self, name: &str, number: usize) -> String {
        let folder = self.folder.path().file_name().unwrap_or_default().to_string_lossy();
        format!("{folder}-{name}-{number}")
    }

    fn start(&self, program: &Path, id: &str) -> Command {
        start(program, &self.state(program), &self.bundle, id)
    }

    fn delete(&self, program: &Path, id: &str) {
        delete(program, &self.state(program), id);
    }
}

fn start(program: &Path, state: &Path, bundle: &Path, id: &str) -> Command {
    let mut command = Command::new(program);
    command.arg("--root").arg(state).arg("run").arg("--bundle").arg(bundle).arg(id);
    command
}

/// Takes away a container that a failed `run` may have left; the first error is the one to tell.
fn delete(program: &Path, state: &Path, id: &str) {
    let mut command = Command::new(program);
    command.arg("--root").arg(state).args(["delete", "--force", id]);
    let _ = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
}

fn keep_if_it_runs(runner: Runner, runners: &mut Vec<Runner>, notes: &mut Vec<String>) {
    match runner.try_once() {
        Ok(()) => runners.push(runner),
        Err(error) => notes.push(format!("{} is not measured, since it cannot run the bundle: {error:#}", runner.name)),
    }
}

/// crun refuses hybrid cgroup layouts. So that all programs meet the same layout, the table is measured in a mount
/// namespace of its own, without the v2 hierarchy.
fn leave_hybrid_cgroups(notes: &mut Vec<String>) -> anyhow::Result<()> {
    if !Path::new(UNIFIED).join("cgroup.controllers").exists() {
        return Ok(());
    }
    unshare(CloneFlags::CLONE_NEWNS).context("unsharing the mount namespace")?;
    let nothing: Option<&str> = None;
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing).context("making / private")?;
    umount2(UNIFIED, MntFlags::MNT_DETACH).with_context(|| format!("unmounting {UNIFIED} in our own namespace"))?;
    notes.push(format!("measured without {UNIFIED}, for all alike, since crun refuses hybrid cgroups"));
    Ok(())
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let program = command.get_program().display().to_string();
    let status = command.status().with_context(|| format!("starting {program}"))?;
    if !status.success() {
        bail!("{program} failed ({status}); its message stands above");
    }
    Ok(())
}

fn output_of(command: &mut Command) -> anyhow::Result<String> {
    let program = command.get_program().display().to_string();
    let output = command.stderr(Stdio::inherit()).output().with_context(|| format!("starting {program}"))?;
    if !output.status.success() {
        bail!("{program} failed ({}); its message stands above", output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The beginning and the end of a long text.
fn shortened(text: &str) -> Vec<String> {
    const HEAD: usize = 24;
    const TAIL: usize = 12;
    let lines: Vec<&str> = text.lines().collect();
    let left_out = lines.len().saturating_sub(HEAD + TAIL);
    if left_out < 2 {
        return lines.into_iter().map(str::to_owned).collect();
    }
    let mut short: Vec<String> = lines[..HEAD].iter().map(ToString::to_string).collect();
    short.push(format!("... {left_out} more lines ..."));
    short.extend(lines[lines.len() - TAIL..].iter().map(ToString::to_string));
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_plan_keeps_its_ends_and_tells_what_it_left_out() {
        let lines: Vec<String> = (0..100).map(|number| format!("step {number}")).collect();
        let short = shortened(&lines.join("\n"));
        assert_eq!(short.len(), 37);
        assert_eq!(short[24], "... 64 more lines ...");
        assert_eq!(short[36], "step 99");
        assert_eq!(shortened("a\nb\n"), ["a", "b"]);
    }
}
