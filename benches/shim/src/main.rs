//! `shim-bench`: a container's life through the task API, and what a shim's memory is, beside containerd's own shim.
#![forbid(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use integration_tests::{Bundle, Case, EventServer, Shim, Streams, TASK_V2, find_program, flint, shim_program};
use serde_json::json;

const HELP: &str = "\
shim-bench [--runs 30] [--containers 100]
  --runs N        lives of each contestant, in turns
  --containers N  memory is told of a shim with 1, 10, ... up to N containers
";
/// The annotation that puts containers into one shim, here and in containerd's.
const GROUP: &str = "io.containerd.runc.v2.group";

struct Contestant {
    name: &'static str,
    program: PathBuf,
    /// What containerd's shim executes.
    runtime: String,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("shim-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let Some((runs, containers)) = parse()? else {
        print!("{HELP}");
        return Ok(());
    };
    benches::cgroup::enter_private_mounts("shim-bench")?;
    let contestants = contestants()?;
    let mut times: Vec<[Vec<Duration>; 2]> = contestants.iter().map(|_| Default::default()).collect();
    let mut shared = Vec::new();
    for contestant in &contestants {
        shared.push(Running::start(contestant, true)?);
    }
    // The first of each warms up.
    for round in 0..=runs {
        for (index, contestant) in contestants.iter().enumerate() {
            let without = shared.get(index).context("a running shim")?.live(&format!("r{round}"))?;
            let started = Instant::now();
            let own = Running::start(contestant, false)?;
            own.live("own")?;
            let with = started.elapsed();
            own.end();
            if round > 0
                && let Some([all_without, all_with]) = times.get_mut(index)
            {
                all_without.push(without);
                all_with.push(with);
            }
        }
    }
    shared.into_iter().for_each(Running::end);
    println!("a life: Create, Start, Wait, Delete of `true` by ttrpc; medians of {runs}, ms\n");
    println!("{:<28}{:>16}{:>10}{:>20}{:>10}", "", "shim running", "ratio", "with its start", "ratio");
    let flints = times.first().map(|[without, with]| (median(without), median(with))).unwrap_or_default();
    for (contestant, [without, with]) in contestants.iter().zip(&times) {
        let (without, with) = (median(without), median(with));
        println!(
            "{:<28}{without:>16.2}{:>10.2}{with:>20.2}{:>10.2}",
            contestant.name,
            without / flints.0,
            with / flints.1
        );
    }
    println!("\nmemory of one shim, KiB (smaps_rollup): Private_Dirty, PSS\n");
    for contestant in contestants.iter().take(2) {
        memory(contestant, containers)?;
    }
    Ok(())
}

fn parse() -> Result<Option<(usize, usize)>> {
    use lexopt::prelude::*;
    let (mut runs, mut containers) = (30, 100);
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("runs") => runs = parser.value()?.parse()?,
            Long("containers") => containers = parser.value()?.parse()?,
            Short('h') | Long("help") => return Ok(None),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Some((runs, containers)))
}

fn contestants() -> Result<Vec<Contestant>> {
    let own = shim_program().context("no shim of flint: build it with `cargo xtask dist`")?;
    let mut contestants = vec![Contestant { name: "flint", program: own, runtime: String::new() }];
    let Some(containerds) = find_program("containerd-shim-runc-v2") else {
        bail!("containerd-shim-runc-v2 is not installed: it is what is measured beside");
    };
    for (name, runtime) in [("containerd's shim, runc", "runc"), ("containerd's shim, crun", "crun")] {
        if let Some(path) = find_program(runtime) {
            let runtime = path.display().to_string();
            contestants.push(Contestant { name, program: containerds.clone(), runtime });
        }
    }
    Ok(contestants)
}

/// A shim with what it needs around it.
struct Running {
    case: Case,
    bundle: Bundle,
    shim: Shim,
    _events: integration_tests::EventListener,
    _log: File,
}

impl Running {
    fn start(contestant: &Contestant, grouped: bool) -> Result<Self> {
        let case = Case::new(&flint());
        let bundle = case.bundle().args(&["true"]);
        let bundle = if grouped { bundle.edit(json!({"annotations": {GROUP: case.id("group")}})) } else { bundle };
        let events = EventServer::new(case.path());
        let listener = events.listen();
        let id = case.id("own");
        let log = log(&bundle.write())?;
        // What the shim of containerd 1.6 serves.
        let shim = Shim::start(&case, &contestant.program, &bundle, &id, &events).speaking(TASK_V2);
        let shim = shim.calling(&contestant.runtime);
        Ok(Self { case, bundle, shim, _events: listener, _log: log })
    }

    fn live(&self, name: &str) -> Result<Duration> {
        let id = self.case.id(name);
        let started = Instant::now();
        self.shim.create(&id, self.bundle.path(), &Streams::default())?;
        self.shim.run(&id, "")?;
        self.shim.wait(&id, "")?;
        self.shim.delete(&id, "")?;
        Ok(started.elapsed())
    }

    fn end(self) {
        self.shim.shutdown();
    }
}

/// containerd's shim opens the fifo `log`, and waits for its reader.
fn log(bundle: &Path) -> Result<File> {
    let path = bundle.join("log");
    integration_tests::make_fifo(&path);
    OpenOptions::new().read(true).write(true).open(&path).with_context(|| format!("open {}", path.display()))
}

fn median(times: &[Duration]) -> f64 {
    let mut times = times.to_vec();
    times.sort_unstable();
    times.get(times.len() / 2).map_or(f64::NAN, |time| time.as_secs_f64() * 1000.0)
}

fn memory(contestant: &Contestant, most: usize) -> Result<()> {
    let running = Running::start(contestant, true)?;
    let forever = running.case.bundle().args(&["sleep", "1000"]);
    let folder = forever.write();
    let pid = running.shim.pid();
    let (mut ids, mut first, mut next) = (Vec::new(), 0, 1);
    while next <= most {
        while ids.len() < next {
            let id = running.case.id(&format!("m{}", ids.len()));
            running.shim.create(&id, &folder, &Streams::default())?;
            running.shim.run(&id, "")?;
            ids.push(id);
        }
        // Idle threads end within a second.
        std::thread::sleep(Duration::from_secs(2));
        let (dirty, proportional) = (rollup(pid, "Private_Dirty:")?, rollup(pid, "Pss:")?);
        if next == 1 {
            first = dirty;
        }
        let each = dirty.saturating_sub(first) * 1024 / (next as u64 - 1).max(1);
        println!(
            "{:<28}{next:>6} containers{dirty:>10}{proportional:>10}   {each:>8} bytes dirty for each further one",
            contestant.name
        );
        next *= 10;
    }
    for id in &ids {
        running.shim.kill(id, "", 9)?;
        running.shim.wait(id, "")?;
        running.shim.delete(id, "")?;
    }
    running.end();
    Ok(())
}

fn rollup(pid: i32, field: &str) -> Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let line = text.lines().find(|line| line.starts_with(field)).with_context(|| format!("{field} in {path}"))?;
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).with_context(|| format!("a number in {line}"))
}
