//! `pull`: measures how fast an image comes from a registry and is unpacked, beside other tools.
#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use benches::measure::{Stopwatch, adopt_orphans, reap_orphans};
use benches::pull::contestant::{self, Contestant, Taken};
use benches::pull::image::{self, Registry};
use benches::statistics::Summary;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

const HELP: &str = "\
pull [--runs 3] [--megabytes 1000] [--creates 10] [--flint-bundle PATH] [--folder FOLDER] [--only WORD] [--json FILE]
  --megabytes N        the image's unpacked size; it is made of folders of this machine's /usr
  --creates N          containers that are made of the image then; the median counts
  --flint-bundle PATH  default: beside this program
  --folder FOLDER      where stores are made and removed (/var/tmp): not on a tmpfs
  --only WORD          contestants with this word in their name
";

struct Options {
    runs: u32,
    megabytes: u64,
    creates: u32,
    flint_bundle: Option<PathBuf>,
    folder: PathBuf,
    only: String,
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pull: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let Some(options) = parse()? else {
        print!("{HELP}");
        return Ok(());
    };
    ensure!(nix::unistd::geteuid().is_root(), "stores with overlays need root");
    enter_private_namespaces()?;
    adopt_orphans()?;
    let flint_bundle = match &options.flint_bundle {
        Some(path) => path.clone(),
        None => benches::contestant::beside("flint-bundle")?,
    };
    let flint_bundle = flint_bundle.canonicalize().context("flint-bundle")?;
    let folder = tempfile::Builder::new().prefix("flint-bench-").tempdir_in(&options.folder);
    let folder = folder.with_context(|| format!("cannot make a folder in {}", options.folder.display()))?;
    let image = image::build(folder.path(), options.megabytes * 1_000_000)?;
    eprintln!("pull: the image has {}", image.text);
    let registry = Registry::start(folder.path(), &image)?;
    let stores = folder.path().join("stores");
    let contestants = contestant::all(&stores, &flint_bundle, &registry.host);
    let (mut rows, mut taking): (Vec<Vec<Taken>>, Vec<&Contestant>) = (Vec::new(), Vec::new());
    for one in contestants.iter().filter(|one| one.name.contains(&options.only)) {
        match one.missing() {
            Some(program) => eprintln!("pull: {} is left out: there is no {program}", one.name),
            None => taking.push(one),
        }
    }
    rows.resize_with(taking.len(), Vec::new);
    let stopwatch = Stopwatch::new(Duration::from_secs(600), Arc::new(AtomicBool::new(false)));
    for round in 0..options.runs {
        // Each round begins with another one: nobody always follows the same.
        for turn in 0..taking.len() {
            let index = (turn + round as usize) % taking.len();
            let (Some(one), Some(row)) = (taking.get(index), rows.get_mut(index)) else { continue };
            let taken = once(one, &stores, &registry, &options, &stopwatch)?;
            eprintln!("pull: {} {:.1} s", one.name, taken.pull.wall.as_secs_f64());
            row.push(taken);
        }
    }
    report(&options, &image.text, &taking, &rows)
}

/// One run in a folder of its own, which goes. What one leaves for the disk to write does not slow the next.
fn once(
    one: &Contestant,
    stores: &Path,
    registry: &Registry,
    options: &Options,
    stopwatch: &Stopwatch,
) -> Result<Taken> {
    fs::create_dir(stores).with_context(|| format!("cannot make {}", stores.display()))?;
    nix::unistd::sync();
    let taken = one.run(stores, registry.pid(), options.creates, stopwatch);
    reap_orphans();
    unmount_below(stores)?;
    fs::remove_dir_all(stores).with_context(|| format!("cannot remove {}", stores.display()))?;
    nix::unistd::sync();
    taken
}

fn unmount_below(folder: &Path) -> Result<()> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("cannot read the mounts")?;
    let mounts = table.lines().filter_map(|line| line.split(' ').nth(4)).map(Path::new);
    let ours: Vec<&Path> = mounts.filter(|mount| mount.starts_with(folder)).collect();
    for path in ours.into_iter().rev() {
        umount2(path, MntFlags::MNT_DETACH).with_context(|| format!("cannot unmount {}", path.display()))?;
    }
    Ok(())
}

/// Nothing that a daemon mounts, listens on or writes beside its folder is the machine's.
fn enter_private_namespaces() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).context("cannot make namespaces")?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context("cannot make the mounts private")?;
    for folder in
        ["/run", "/etc/docker", "/etc/containers/registries.conf.d"].iter().filter(|path| Path::new(path).is_dir())
    {
        mount(Some("tmpfs"), *folder, Some("tmpfs"), MsFlags::empty(), none)
            .with_context(|| format!("cannot cover {folder}"))?;
    }
    image::run("ip", &["link", "set", "lo", "up"])
}

fn report(options: &Options, image: &str, names: &[&Contestant], rows: &[Vec<Taken>]) -> Result<()> {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let load = load.split(' ').next().unwrap_or("?");
    let mut text = format!("pull of {image}\n{} runs, medians; {cpus} CPUs, load {load} at the end\n\n", options.runs);
    writeln!(
        text,
        "{:<28} {:>9} {:>9} {:>9} {:>10} {:>11} {:>9}",
        "", "wall s", "min s", "CPU s", "memory MB", "create ms", "min ms"
    )?;
    let mut json = Vec::new();
    for (one, row) in names.iter().zip(rows) {
        let of = |value: &dyn Fn(&Taken) -> f64| Summary::of(&row.iter().map(value).collect::<Vec<_>>());
        let wall = of(&|taken| taken.pull.wall.as_secs_f64()).context("no run")?;
        let cpu = of(&|taken| taken.pull.cpu.as_secs_f64()).context("no run")?.median;
        #[expect(clippy::cast_precision_loss, reason = "one digit is shown")]
        let memory = of(&|taken| taken.memory as f64 / 1e6).context("no run")?.max;
        let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
        let medians: Vec<f64> = row.iter().filter_map(|taken| Some(milliseconds(taken.create?.0))).collect();
        let shortest: Vec<f64> = row.iter().filter_map(|taken| Some(milliseconds(taken.create?.1))).collect();
        let create = Summary::of(&medians).map(|all| all.median);
        let create_min = Summary::of(&shortest).map(|all| all.min);
        let shown = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}"));
        let (median, shortest) = (shown(create), shown(create_min));
        writeln!(
            text,
            "{:<28} {:>9.2} {:>9.2} {cpu:>9.2} {memory:>10.1} {median:>11} {shortest:>9}",
            one.name, wall.median, wall.min
        )?;
        json.push(serde_json::json!({"name": one.name, "wall_s": wall.median, "wall_min_s": wall.min, "cpu_s": cpu,
            "memory_mb": memory, "create_ms": create, "create_min_ms": create_min}));
    }
    print!("{text}");
    let Some(path) = &options.json else { return Ok(()) };
    let json = serde_json::json!({"image": image, "runs": options.runs, "load": load, "rows": json});
    fs::write(path, format!("{json:#}\n")).with_context(|| format!("cannot write {}", path.display()))
}

fn parse() -> Result<Option<Options>> {
    use lexopt::prelude::{Long, Short, ValueExt};
    let mut options = Options {
        runs: 3,
        megabytes: 1000,
        creates: 10,
        flint_bundle: None,
        folder: "/var/tmp".into(),
        only: String::new(),
        json: None,
    };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("runs") => options.runs = parser.value()?.parse()?,
            Long("megabytes") => options.megabytes = parser.value()?.parse()?,
            Long("creates") => options.creates = parser.value()?.parse()?,
            Long("flint-bundle") => options.flint_bundle = Some(parser.value()?.into()),
            Long("folder") => options.folder = parser.value()?.into(),
            Long("only") => options.only = parser.value()?.string()?,
            Long("json") => options.json = Some(parser.value()?.into()),
            Short('h') | Long("help") => return Ok(None),
            other => return Err(other.unexpected().into()),
        }
    }
    ensure!(options.runs > 0, "no runs are none");
    Ok(Some(options))
}
