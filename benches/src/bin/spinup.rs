//! `spinup`: measures how fast containers start, beside the kernel's floor and the installed peers.
#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use benches::contestant::{PEERS, Runtime, beside, find};
use benches::measure::{Stopwatch, adopt_orphans, reap_orphans};
use benches::spin_up::{self, Row, Setting};
use benches::{bundle, cgroup, plot, query, report};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{SigSet, Signal};

const HELP: &str = "\
spinup [--runs 100] [--warm-up 5] [--flint PATH] [--peer NAME=PATH]... [--json FILE] [--svg FILE] [--check]
       [--state] [--containers 100] [--timeout 10] [--seed N]
  --flint PATH      default: beside this program, else target/dist/flint
  --peer NAME=PATH  one more runtime, beside runc, crun and youki of PATH
  --state           measure `state` on created containers (--containers of each runtime), not spin-up
  --timeout N       seconds after which a run is killed and its runtime left out
  --check           end with 1 when a goal was missed or not measured
";

struct Options {
    runs: usize,
    warm_up: usize,
    flint: Option<PathBuf>,
    peers: Vec<(String, PathBuf)>,
    json: Option<PathBuf>,
    svg: Option<PathBuf>,
    check: bool,
    state: bool,
    containers: usize,
    timeout: u64,
    seed: u64,
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("spinup: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// False when `--check` found a goal that was not met.
fn run() -> Result<bool> {
    let Some(options) = parse()? else {
        print!("{HELP}");
        return Ok(true);
    };
    ensure!(nix::unistd::geteuid().is_root(), "containers with the default spec need root");
    cgroup::enter_private_mounts("spinup")?;
    let stop = stop_on_signals()?;
    adopt_orphans()?;
    let folder = tempfile::Builder::new().prefix("flint-bench-").tempdir().context("cannot make a folder")?;
    let prefix = format!("flint-bench-{}", std::process::id());
    let states = mount_states(folder.path())?;
    let result = measure(&options, folder.path(), &states, &prefix, stop);
    let unmounted = umount2(&states, MntFlags::MNT_DETACH).context("cannot unmount the state roots");
    reap_orphans();
    let swept = cgroup::sweep(&prefix);
    let (text, json, svg, met) = result?;
    unmounted?;
    match swept? {
        0 => {}
        left => eprintln!("spinup: {left} cgroups were left behind by a runtime and removed"),
    }
    print!("{text}");
    write(options.json.as_deref(), &format!("{json:#}\n"))?;
    write(options.svg.as_deref(), &svg)?;
    Ok(met || !options.check)
}

/// The table, the JSON, the plot, whether all goals were met.
type Outcome = (String, serde_json::Value, String, bool);

/// A tmpfs for the state roots, as /run is on a host: in a temporary folder on a disk they would measure the disk.
fn mount_states(folder: &Path) -> Result<PathBuf> {
    let states = folder.join("states");
    fs::create_dir(&states).with_context(|| format!("cannot make {}", states.display()))?;
    mount(Some("tmpfs"), &states, Some("tmpfs"), MsFlags::empty(), Some("mode=700"))
        .with_context(|| format!("cannot mount a tmpfs on {}", states.display()))?;
    Ok(states)
}

fn measure(options: &Options, folder: &Path, states: &Path, prefix: &str, stop: Arc<AtomicBool>) -> Result<Outcome> {
    let hierarchies = cgroup::hierarchies()?;
    let pure_unified = !hierarchies.is_empty() && hierarchies.iter().all(|hierarchy| hierarchy.unified);
    let bundle = folder.join("bundle");
    let program = if options.state { "pause" } else { "true" };
    let rootfs = bundle::make(&bundle, &beside("payload")?, program, pure_unified)?;
    let (runtimes, missing) = contestants(options, states);
    let stopwatch = Stopwatch::new(Duration::from_secs(options.timeout), stop);
    let mut rows = if options.state {
        query::measure(&bundle, &runtimes, options.containers, prefix, &stopwatch)?
    } else {
        let floor = beside("flint-floor")?;
        let setting = Setting {
            bundle: &bundle,
            rootfs: &rootfs,
            floor: &floor,
            folder,
            prefix,
            runs: options.runs,
            warm_up: options.warm_up,
            seed: options.seed,
        };
        spin_up::measure(&setting, &runtimes, &stopwatch)?
    };
    rows.extend(missing);
    Ok(outcome(options, &rows, hierarchies.len()))
}

fn outcome(options: &Options, rows: &[Row], hierarchies: usize) -> Outcome {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("?").to_owned();
    let cpus = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let place = format!(
        "Linux {}, {cpus} CPUs, load {load}, {hierarchies} cgroup hierarchies, seed {}",
        kernel.trim(),
        options.seed
    );
    let (title, table, goals) = if options.state {
        ("state of a created container", report::query_table(rows), vec![report::query_goal(rows)])
    } else {
        ("run of a static true with the default spec", report::spin_up_table(rows), report::spin_up_goals(rows))
    };
    let met = goals.iter().all(|goal| goal.met == Some(true));
    let json = serde_json::json!({
        "measure": title,
        "place": place,
        "rows": report::rows_json(rows),
        "goals": goals.iter().map(|goal| serde_json::json!({"met": goal.met, "text": goal.text})).collect::<Vec<_>>(),
    });
    let text = format!("{title}\n{place}\n\n{table}{}", report::verdicts(&goals));
    (text, json, plot::svg(title, &place, rows), met)
}

/// The runtimes that can be started, and rows for flint or a named peer that cannot.
fn contestants(options: &Options, folder: &Path) -> (Vec<Runtime>, Vec<Row>) {
    let flint = options.flint.clone().or_else(|| beside("flint").ok()).unwrap_or_else(|| "target/dist/flint".into());
    let mut named = vec![("flint".to_owned(), flint)];
    named.extend(PEERS.iter().filter_map(|name| Some(((*name).to_owned(), find(name)?))));
    named.extend(options.peers.iter().cloned());
    let (mut runtimes, mut missing) = (Vec::new(), Vec::new());
    for (name, path) in named {
        match Runtime::new(&name, &path, folder) {
            Ok(runtime) => runtimes.push(runtime),
            Err(error) => missing.push(Row::failed(&name, format!("{error:#}"))),
        }
    }
    (runtimes, missing)
}

/// SIGINT and SIGTERM end the measure between two runs, so that everything is cleaned up. They are blocked in what is
/// started, too (std passes the mask on): a run in flight is finished, or killed at its time limit.
fn stop_on_signals() -> Result<Arc<AtomicBool>> {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM].into_iter().collect();
    signals.thread_block().context("cannot block signals")?;
    let stop = Arc::new(AtomicBool::new(false));
    let set = Arc::clone(&stop);
    std::thread::spawn(move || {
        if signals.wait().is_ok() {
            set.store(true, Ordering::Relaxed);
        }
    });
    Ok(stop)
}

fn write(path: Option<&Path>, text: &str) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn parse() -> Result<Option<Options>> {
    use lexopt::prelude::{Long, Short, ValueExt};
    let mut options = Options {
        runs: 100,
        warm_up: 5,
        flint: None,
        peers: Vec::new(),
        json: None,
        svg: None,
        check: false,
        state: false,
        containers: 100,
        timeout: 10,
        seed: 1,
    };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("runs") => options.runs = parser.value()?.parse()?,
            Long("warm-up") => options.warm_up = parser.value()?.parse()?,
            Long("flint") => options.flint = Some(parser.value()?.into()),
            Long("peer") => {
                let value = parser.value()?.string()?;
                let (name, path) = value.split_once('=').context("--peer wants NAME=PATH")?;
                options.peers.push((name.to_owned(), path.into()));
            }
            Long("json") => options.json = Some(parser.value()?.into()),
            Long("svg") => options.svg = Some(parser.value()?.into()),
            Long("check") => options.check = true,
            Long("state") => options.state = true,
            Long("containers") => options.containers = parser.value()?.parse()?,
            Long("timeout") => options.timeout = parser.value()?.parse()?,
            Long("seed") => options.seed = parser.value()?.parse()?,
            Long("help") | Short('h') => return Ok(None),
            _ => return Err(argument.unexpected().into()),
        }
    }
    ensure!(options.runs > 0 && options.containers > 0, "nothing to measure: --runs and --containers must be above 0");
    Ok(Some(options))
}
