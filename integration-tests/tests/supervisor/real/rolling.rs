//! nginx is replaced, again and again, while clients ask it without a pause over its host port: no request fails.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use integration_tests::{Server, missing, wait_until};
use rustix::process::Signal;

use super::clients::{Answer, Http, http};
use super::{host, image_name, node_with, remove, space, wait_ready};
use crate::node::rig::{IMAGE, Node, free_port};

/// Bytes of a download, and how many of them come in a second: it takes longer than a replacement.
const DOWNLOAD: (usize, &str) = (400_000, "100k");

/// A version of the pod: a configuration of its own, which answers with its number.
struct Version {
    port: u16,
    number: u32,
    image: &'static str,
    /// What its readiness probe asks for.
    probe: &'static str,
}

impl Version {
    fn manifest(&self) -> String {
        let Self { port, number, image, probe } = self;
        let (bytes, rate) = DOWNLOAD;
        format!(
            r#"apiVersion: v1
kind: ConfigMap
metadata: {{name: web-{number}}}
data:
  site.conf: |
    server {{
        listen 80 default_server;
        root /srv;
        location = / {{ return 200 "{number}\n"; }}
        location = /ready {{ return 204; }}
        location = /download {{ limit_rate {rate}; }}
    }}
---
apiVersion: v1
kind: Pod
metadata:
  name: web
  annotations:
    checksum/config: "{number}"
    org.flint.strategy: RollingUpdate
    org.flint.min-ready-seconds: "1"
    org.flint.progress-deadline-seconds: "6"
spec:
  containers:
  - name: main
    image: {image}
    imagePullPolicy: Never
    ports: [{{name: http, containerPort: 80, hostPort: {port}}}]
    readinessProbe: {{httpGet: {{path: {probe}, port: http}}, periodSeconds: 1, timeoutSeconds: 20}}
    livenessProbe: {{tcpSocket: {{port: http}}, periodSeconds: 5, timeoutSeconds: 20}}
    lifecycle: {{postStart: {{exec: {{command: [truncate, -s, "{bytes}", /srv/download]}}}}}}
    volumeMounts: [{{name: sites, mountPath: /etc/nginx/conf.d, readOnly: true}}]
  volumes: [{{name: sites, configMap: {{name: web-{number}}}}}]
"#
        )
    }
}

/// What clients have seen.
#[derive(Default)]
struct Seen {
    failures: Mutex<Vec<String>>,
    versions: Mutex<BTreeSet<u32>>,
    fresh: AtomicU64,
    kept: AtomicU64,
    /// Connections that the server closed while they were idle; the request was sent again.
    reopened: AtomicU64,
    downloads: AtomicU64,
    is_over: AtomicBool,
}

impl Seen {
    fn go_on(&self) -> bool {
        !self.is_over.load(Ordering::Relaxed)
    }

    fn failed(&self, what: String) {
        self.failures.lock().expect("no panic").push(what);
    }

    fn answered(&self, body: &str) -> Option<u32> {
        let version = body.trim_end().parse().ok()?;
        self.versions.lock().expect("no panic").insert(version);
        Some(version)
    }

    /// A connection for each request. A version that was seen by one is never followed by an older one.
    fn ask_anew(&self, port: u16) {
        let mut last = 0;
        while self.go_on() {
            match http(port, "/") {
                Ok((200, body)) => match self.answered(&body) {
                    Some(version) if version >= last => last = version,
                    _ => self.failed(format!("{body:?} after version {last}")),
                },
                other => self.failed(format!("a new connection: {other:?}")),
            }
            self.fresh.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// One connection for as many requests as the server takes.
    fn ask_again(&self, port: u16) {
        let mut open: Option<Http> = None;
        while self.go_on() {
            let connected = open.take().map_or_else(|| Http::connect(port), Ok);
            let mut connection = match connected {
                Ok(connection) => connection,
                Err(error) => {
                    self.failed(format!("connect: {error}"));
                    continue;
                }
            };
            let was_used = connection.is_used;
            match connection.get("/", true) {
                Ok(Answer::Full(200, body, stays)) if self.answered(&body).is_some() => {
                    self.kept.fetch_add(1, Ordering::Relaxed);
                    open = stays.then_some(connection);
                }
                Ok(Answer::Closed) if was_used => drop(self.reopened.fetch_add(1, Ordering::Relaxed)),
                other => self.failed(format!("a kept connection: {other:?}")),
            }
        }
    }

    /// An answer that is under way while the pod is replaced comes whole.
    fn download(&self, port: u16) {
        while self.go_on() {
            match http(port, "/download") {
                Ok((200, body)) if body.len() == DOWNLOAD.0 => drop(self.downloads.fetch_add(1, Ordering::Relaxed)),
                other => self.failed(format!("a download: {:?}", other.map(|(status, body)| (status, body.len())))),
            }
        }
    }
}

/// The uids of all pods of the name, the oldest first, and of the first its process.
fn pods(node: &Node) -> (Vec<String>, u64) {
    let all: Vec<_> = node.pods().into_iter().filter(|pod| pod["status"]["key"]["name"] == "web").collect();
    let uid = |pod: &serde_json::Value| pod["status"]["uid"].as_str().expect("a uid").to_owned();
    let pid = all.first().and_then(|pod| pod["status"]["containers"]["main"]["pid"].as_u64()).unwrap_or_default();
    (all.iter().map(uid).collect(), pid)
}

/// Waits until the host port leads to this version, and nothing is left of any other one.
#[track_caller]
fn wait_replaced(node: &Node, port: u16, number: u32) {
    let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        wait_until("the new one answers", || http(port, "/").is_ok_and(|(_, body)| body == format!("{number}\n")));
        wait_until("the old one is gone", || pods(node).0.len() == 1);
    }));
    assert!(told.is_ok(), "version {number}: {:#?}\n{:?}", node.pods(), node.events());
}

fn replace(node: &mut Node, port: u16) {
    let version = |number, image, probe| Version { port, number, image, probe };
    let good = |number| version(number, image_name(Server::Nginx), "/ready").manifest();
    let late = |node: &Node| node.events().iter().filter(|(word, _)| word == "ProgressDeadlineExceeded").count();

    // Another configuration, told by an annotation.
    node.apply(&good(2));
    wait_replaced(node, port, 2);
    let second = pods(node);

    // One that never gets ready: the old one stays, also over flintd's death.
    let before = late(node);
    node.apply(&version(3, image_name(Server::Nginx), "/none").manifest());
    wait_until("it is told", || late(node) > before);
    assert_eq!((pods(node).0[0].clone(), pods(node).1), (second.0[0].clone(), second.1), "the old one runs as before");
    assert_eq!(pods(node).0.len(), 2, "the new one is there to be looked at");
    node.end(Signal::KILL);
    node.launch();
    assert_eq!(http(port, "/").expect("an answer").1, "2\n");
    assert_eq!(pods(node).0[0], second.0[0]);

    // Back to what serves: nothing of it is touched, and the other one goes.
    node.apply(&good(2));
    wait_until("the new one is gone", || pods(node) == second);

    // A program that cannot even start, and a good one in its place.
    node.apply(&version(4, "tests/none:1", "/ready").manifest());
    wait_until("it is beside the old one", || pods(node).0.len() == 2);
    node.apply(&good(5));
    wait_replaced(node, port, 5);

    // Another image, and flintd dies while one replaces the other: while it is made, waits, takes over, and drains.
    for (number, moment) in [(6, 0), (7, 500), (8, 2000), (9, 3000)] {
        let image = if number % 2 == 0 { "tests/nginx:2" } else { image_name(Server::Nginx) };
        node.apply(&version(number, image, "/ready").manifest());
        std::thread::sleep(Duration::from_millis(moment));
        node.end(Signal::KILL);
        node.launch();
        wait_replaced(node, port, number);
    }
}

#[test]
fn a_pod_is_replaced_without_a_failed_request() {
    let Some((host, image)) = host(Server::Nginx) else { return };
    host.within(|| {
        let Some(mut node) = node_with(Server::Nginx, &image) else { return };
        node.import_layout(&image.layout, "tests/nginx:2");
        let port = free_port();
        node.apply(&Version { port, number: 1, image: image_name(Server::Nginx), probe: "/ready" }.manifest());
        wait_ready(&node, "web");
        let seen = Seen::default();
        let replaced = std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| seen.ask_anew(port));
                scope.spawn(|| seen.ask_again(port));
            }
            scope.spawn(|| seen.download(port));
            let replaced = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| replace(&mut node, port)));
            seen.is_over.store(true, Ordering::Relaxed);
            replaced
        });
        let failures = seen.failures.into_inner().expect("no panic");
        let [fresh, kept, reopened, downloads] =
            [seen.fresh, seen.kept, seen.reopened, seen.downloads].map(AtomicU64::into_inner);
        println!(
            "{fresh} requests on connections of their own, {kept} on kept ones ({reopened} closed while idle), \
             {downloads} downloads, {} failures",
            failures.len()
        );
        if let Err(panic) = replaced {
            std::panic::resume_unwind(panic);
        }
        assert!(failures.is_empty(), "{} failures: {:#?}", failures.len(), &failures[..failures.len().min(20)]);
        assert_eq!(seen.versions.into_inner().expect("no panic"), BTreeSet::from([1, 2, 5, 6, 7, 8, 9]));
        remove(&node, &["web"]);
        node.finish();
    });
}

/// A pod of busybox that says by a program whether it is ready.
fn plain(number: u32, ready: &str) -> String {
    format!(
        r#"apiVersion: v1
kind: Pod
metadata: {{name: web, annotations: {{org.flint.strategy: RollingUpdate}}}}
spec:
  containers:
  - name: main
    image: {IMAGE}
    imagePullPolicy: Never
    env: [{{name: NUMBER, value: "{number}"}}]
    command: [/bin/sh, -c, "trap 'exit 0' TERM; while true; do sleep 0.1; done"]
    readinessProbe: {{exec: {{command: [/bin/{ready}]}}, periodSeconds: 1, timeoutSeconds: 20}}
"#
    )
}

#[test]
fn stop_restart_and_rm_mean_both_pods_of_a_rolling_update() {
    if missing(&["nft", "ip"]) {
        return;
    }
    space().within(|| {
        let Some(node) = Node::start() else { return };
        node.apply(&plain(1, "true"));
        wait_ready(&node, "web");
        node.apply(&plain(2, "false"));
        let states = |word: &str| {
            let all = node.pods();
            all.len() == 2 && all.iter().all(|pod| pod["status"]["containers"]["main"]["state"][word].is_object())
        };
        wait_until("both run", || states("running"));
        let all = node.pods();
        assert_eq!(all[1]["status"]["replaces"], all[0]["status"]["uid"]);
        let _ = node.ctl(["stop", "web"]).ok();
        wait_until("both have ended", || states("exited"));
        let _ = node.ctl(["restart", "web"]).ok();
        wait_until("both run again", || states("running"));
        // It returns when nothing is left of either.
        let _ = node.ctl(["rm", "web"]).ok();
        assert_eq!(node.pods().len(), 0);
        node.finish();
    });
}

#[test]
fn programs_of_probes_and_hooks_run_in_their_own_pod() {
    if missing(&["nft", "ip"]) {
        return;
    }
    space().within(|| {
        let Some(node) = Node::start() else { return };
        let told = node.folder("told");
        let pod = |number: u32| {
            let tells = |file: &str| format!("{{exec: {{command: [/bin/sh, -c, 'echo $NUMBER >> /told/{file}{number}']}}}}");
            let more = format!(
                "    livenessProbe: {}\n    lifecycle: {{preStop: {}}}\n    volumeMounts: [{{name: told, mountPath: /told}}]\n  \
                 volumes: [{{name: told, hostPath: {{path: {}}}}}]\n",
                tells("asked").replace("{exec", "{periodSeconds: 1, timeoutSeconds: 20, exec"),
                tells("stopped"),
                told.display()
            );
            plain(number, if number == 1 { "true" } else { "false" }) + &more
        };
        let said = |file: &str| std::fs::read_to_string(told.join(file)).unwrap_or_default();
        node.apply(&pod(1));
        wait_ready(&node, "web");
        node.apply(&pod(2));
        wait_until("the new pod is asked", || !said("asked2").is_empty());
        let before = said("asked1").len();
        wait_until("the old pod is asked beside it", || said("asked1").len() > before);
        node.apply(&plain(2, "true"));
        wait_until("the new pod serves alone", || node.pods().len() == 1);
        assert_eq!(said("stopped1"), "1\n");
        assert!(said("asked1").lines().all(|line| line == "1"), "{}", said("asked1"));
        remove(&node, &["web"]);
        node.finish();
    });
}
