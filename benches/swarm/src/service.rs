//! A service, scaled from nothing.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use integration_tests::swarm::Manager;
use serde_json::Value;

use crate::usage::{self, Usage};
use crate::worker::Worker;

/// How often the manager is asked.
const PAUSE: Duration = Duration::from_millis(100);
/// After the last task runs, before memory is looked at: allocators and idle threads come to rest.
const REST: Duration = Duration::from_secs(3);

/// One measure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) worker: &'static str,
    /// Tasks that were asked for.
    pub(crate) tasks: u64,
    /// Tasks that run at the end, by the manager's word.
    pub(crate) running: u64,
    /// Seconds from before `docker service scale` until the manager says that all run.
    pub(crate) seconds: f64,
    /// The same until half of them run.
    pub(crate) half: f64,
    /// CPU time of the worker in that time, in seconds.
    pub(crate) cpu: f64,
    /// CPU time of the manager in that time, its answers to this program among it.
    pub(crate) manager_cpu: f64,
    /// The worker's memory before, with no task, in bytes.
    pub(crate) idle: u64,
    /// With all tasks.
    pub(crate) memory: u64,
    /// Its processes with all tasks, none of a container among them.
    pub(crate) processes: usize,
}

/// Creates a service on a worker, scales it, and looks at what that took.
pub(crate) fn scale(manager: &Manager, worker: &Worker, tasks: u64, patience: u64) -> Result<Row> {
    let service = format!("bench-{}", worker.node);
    let constraint = format!("node.id=={}", worker.node);
    let options = ["--replicas", "0", "--constraint", &constraint, "--restart-condition", "none"];
    manager.create(&service, &options, &worker.image, &["/bin/sleep", "1000000"]);
    let look = || usage::of(&worker.prefixes, worker.pid);
    let look_at_manager = || usage::of(&[manager.place().prefix().to_owned()], manager.pid());
    std::thread::sleep(REST);
    let (before, manager_before) = (look()?, look_at_manager()?);
    ensure!(before.containers == 0, "{} has containers before any was asked for", worker.name);
    let (started, mut half) = (Instant::now(), None);
    let scaled = manager.docker(&["service", "scale", "--detach", &format!("{service}={tasks}")]);
    ensure!(scaled.code == 0, "docker service scale: {}", scaled.stderr);
    let end = started + Duration::from_secs(patience);
    let (mut running, mut seconds) = (0, 0.0);
    while running < tasks && Instant::now() < end {
        std::thread::sleep(PAUSE);
        running = running_tasks(&manager.socket(), &service)?;
        seconds = started.elapsed().as_secs_f64();
        if running * 2 >= tasks {
            half.get_or_insert(seconds);
        }
    }
    let (after, manager_after) = (look()?, look_at_manager()?);
    std::thread::sleep(REST);
    let Usage { memory, processes, containers, .. } = look()?;
    ensure!(
        containers >= running.min(tasks),
        "the manager says that {running} tasks run, and the host has {containers} containers"
    );
    let removed = manager.docker(&["service", "rm", &service]);
    ensure!(removed.code == 0, "docker service rm: {}", removed.stderr);
    Ok(Row {
        worker: worker.name,
        tasks,
        running,
        seconds,
        half: half.unwrap_or(seconds),
        cpu: after.cpu.saturating_sub(before.cpu).as_secs_f64(),
        manager_cpu: manager_after.cpu.saturating_sub(manager_before.cpu).as_secs_f64(),
        idle: before.memory,
        memory,
        processes,
    })
}

/// How many tasks of a service run, by the manager's own count: `docker service ls` shows it too, and a list of all tasks would be
/// more work for the manager than the tasks themselves.
fn running_tasks(socket: &Path, service: &str) -> Result<u64> {
    let what = || format!("ask {} for the service", socket.display());
    let mut stream = UnixStream::connect(socket).with_context(what)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    // HTTP/1.0: the answer is plain, and ends with the connection.
    let request = b"GET /v1.41/services?status=true HTTP/1.0\r\n\r\n";
    stream.write_all(request).with_context(what)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).with_context(what)?;
    let (_, body) = answer.split_once("\r\n\r\n").with_context(what)?;
    let services: Value = serde_json::from_str(body).with_context(what)?;
    let mut all = services.as_array().into_iter().flatten();
    let found = all.find(|one| one["Spec"]["Name"] == service);
    found
        .and_then(|one| one["ServiceStatus"]["RunningTasks"].as_u64())
        .with_context(|| format!("the manager tells no count of {service}'s tasks: {body}"))
}
