//! Redis and `PostgreSQL`: their data is there after the deaths of flintd, of the shim, and of the pod itself.

use integration_tests::{Server, ServerImage, wait_until};
use rustix::process::{Pid, Signal, kill_process};

use super::clients::{psql, redis};
use super::{host, image_name, node_with, remove, wait_ready};
use crate::node::rig::{Node, free_port};

const PASSWORD: &str = "a password of the test's own";

/// A database that a host port leads to.
trait Database {
    const POD: &'static str;
    fn manifest(&self) -> String;
    /// Writes a value by the host port.
    fn write(&self, key: &str, value: &str);
    /// Reads it by the host port.
    fn read(&self, key: &str) -> String;
    /// Reads it by a program that is run in the container.
    fn read_inside(&self, node: &Node, key: &str) -> String;
    /// Who has not the password is refused, where there is one.
    fn refuses_strangers(&self) -> bool {
        true
    }
}

struct Redis {
    port: u16,
    group: u32,
}

impl Database for Redis {
    const POD: &'static str = "redis";

    fn manifest(&self) -> String {
        format!(
            r#"apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: redis-data}}
spec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Gi}}}}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: redis, labels: {{app: redis}}}}
spec:
  securityContext: {{fsGroup: {group}}}
  containers:
  - name: main
    image: {image}
    imagePullPolicy: Never
    args: [--appendonly, "yes", --appendfsync, always]
    ports: [{{name: redis, containerPort: 6379, hostPort: {port}}}]
    startupProbe: {{tcpSocket: {{port: redis}}, periodSeconds: 1, failureThreshold: 60}}
    readinessProbe: {{exec: {{command: [redis-cli, ping]}}, periodSeconds: 1, timeoutSeconds: 20}}
    livenessProbe: {{tcpSocket: {{port: redis}}, periodSeconds: 5, timeoutSeconds: 20}}
    resources: {{requests: {{memory: 32Mi}}, limits: {{memory: 256Mi}}}}
    volumeMounts: [{{name: data, mountPath: /data}}]
  volumes: [{{name: data, persistentVolumeClaim: {{claimName: redis-data}}}}]
"#,
            group = self.group,
            image = image_name(Server::Redis),
            port = self.port,
        )
    }

    fn write(&self, key: &str, value: &str) {
        assert_eq!(redis(self.port, &["SET", key, value]).expect("ask redis"), "+OK");
    }

    fn read(&self, key: &str) -> String {
        redis(self.port, &["GET", key]).expect("ask redis")
    }

    fn read_inside(&self, node: &Node, key: &str) -> String {
        node.ctl(["exec", "redis", "--", "redis-cli", "get", key]).ok().stdout.trim_end().to_owned()
    }
}

struct Postgresql {
    port: u16,
    image: ServerImage,
}

impl Postgresql {
    fn ask(&self, statement: &str) -> String {
        psql(&self.image.rootfs, self.port, PASSWORD, statement).ok().stdout.trim_end().to_owned()
    }
}

impl Database for Postgresql {
    const POD: &'static str = "postgresql";

    /// The data's own folder belongs to the server alone, so it is below the volume's, which is the group's; and files that
    /// the server has made keep their modes (`OnRootMismatch`).
    fn manifest(&self) -> String {
        let (user, group) = self.image.user("postgres");
        format!(
            r"apiVersion: v1
kind: Secret
metadata: {{name: postgresql}}
stringData: {{password: {PASSWORD}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: postgresql}}
spec:
  securityContext:
    {{runAsNonRoot: true, runAsUser: {user}, runAsGroup: {group}, fsGroup: {group}, fsGroupChangePolicy: OnRootMismatch}}
  containers:
  - name: main
    image: {image}
    imagePullPolicy: Never
    env:
    - {{name: PGDATA, value: /var/lib/postgresql/data/db}}
    - {{name: POSTGRES_PASSWORD_FILE, value: /run/secrets/password}}
    ports: [{{name: sql, containerPort: 5432, hostPort: {port}}}]
    securityContext: {{allowPrivilegeEscalation: false, capabilities: {{drop: [ALL]}}}}
    startupProbe:
      {{exec: {{command: [pg_isready, -U, postgres, -h, 127.0.0.1]}}, periodSeconds: 1, timeoutSeconds: 20, failureThreshold: 120}}
    readinessProbe: {{exec: {{command: [pg_isready, -U, postgres]}}, periodSeconds: 1, timeoutSeconds: 20}}
    livenessProbe: {{exec: {{command: [pg_isready, -U, postgres]}}, periodSeconds: 5, timeoutSeconds: 20}}
    volumeMounts:
    - {{name: data, mountPath: /var/lib/postgresql/data}}
    - {{name: password, mountPath: /run/secrets, readOnly: true}}
  volumes:
  - {{name: data, persistentVolumeClaim: {{claimName: postgresql-data}}}}
  - {{name: password, secret: {{secretName: postgresql, defaultMode: 0440}}}}
",
            image = image_name(Server::Postgresql),
            port = self.port,
        )
    }

    fn refuses_strangers(&self) -> bool {
        let asked = psql(&self.image.rootfs, self.port, "another password", "SELECT 1");
        asked.code != 0 && asked.stderr.contains("password authentication failed")
    }

    fn write(&self, key: &str, value: &str) {
        self.ask(&format!(
            "CREATE TABLE IF NOT EXISTS kept (key text PRIMARY KEY, value text); INSERT INTO kept VALUES ('{key}', '{value}')"
        ));
    }

    fn read(&self, key: &str) -> String {
        self.ask(&format!("SELECT value FROM kept WHERE key = '{key}'"))
    }

    fn read_inside(&self, node: &Node, key: &str) -> String {
        let statement = format!("SELECT value FROM kept WHERE key = '{key}'");
        let asked = node.ctl(["exec", "postgresql", "--", "psql", "-U", "postgres", "-Atc", &statement]);
        asked.ok().stdout.trim_end().to_owned()
    }
}

/// The process of a pod's container, and how often it was started anew.
fn process(node: &Node, name: &str) -> (u64, u64) {
    let container = &node.status(name)["containers"]["main"];
    (container["pid"].as_u64().expect("a pid"), container["restarts"].as_u64().expect("a number"))
}

/// Writes before each death, and finds all of it after each.
fn keeps_its_data<D: Database>(mut node: Node, database: &D) {
    let name = D::POD;
    node.apply(&database.manifest());
    wait_ready(&node, name);
    assert!(database.refuses_strangers());
    let mut written = Vec::new();
    let mut write = |node: &Node, key: &'static str| {
        let value = format!("written before {key}, {}", node.prefix);
        database.write(key, &value);
        written.push((key, value));
        written.clone()
    };
    let holds = |written: &[(&str, String)], when: &str| {
        for (key, value) in written {
            assert_eq!(database.read(key), *value, "{key}, {when}");
        }
    };
    let ran = process(&node, name);

    let all = write(&node, "flintd");
    node.end(Signal::KILL);
    holds(&all, "without flintd: its host port leads to it");
    node.launch();
    holds(&all, "after flintd's death");

    let all = write(&node, "shim");
    let shims = node.shims();
    assert!(!shims.is_empty(), "there is a shim");
    for shim in &shims {
        kill_process(Pid::from_raw(*shim).expect("a pid"), Signal::KILL).expect("kill the shim");
    }
    wait_until("another shim has it", || node.shims().iter().any(|pid| !shims.contains(pid)));
    holds(&all, "after the shim's death");
    wait_until("programs run in it again", || node.ctl(["exec", name, "--", "true"]).code == 0);
    assert_eq!(database.read_inside(&node, "shim"), all[1].1);
    wait_ready(&node, name);
    assert_eq!(process(&node, name), ran, "it is the same process still");

    let all = write(&node, "pod");
    remove(&node, &[name]);
    assert!(std::net::TcpStream::connect(("127.0.0.1", port_of(&database.manifest()))).is_err(), "its port is free");
    node.apply(&database.manifest());
    wait_ready(&node, name);
    assert_ne!(process(&node, name).0, ran.0);
    holds(&all, "in another pod with the volume");

    let all = write(&node, "container");
    let (pid, restarts) = process(&node, name);
    kill_process(Pid::from_raw(pid as i32).expect("a pid"), Signal::KILL).expect("kill the server");
    wait_until("it was started again", || process(&node, name).1 > restarts);
    wait_ready(&node, name);
    holds(&all, "after the server's own death");
    assert!(node.path().join("root/volumes").join(format!("{name}-data")).is_dir());
    remove(&node, &[name]);
    node.finish();
}

/// The host port that a manifest asks for.
fn port_of(manifest: &str) -> u16 {
    let (_, rest) = manifest.split_once("hostPort: ").expect("a host port");
    rest.split('}').next().and_then(|port| port.parse().ok()).expect("a number")
}

#[test]
fn redis_keeps_its_data() {
    let Some((host, image)) = host(Server::Redis) else { return };
    host.within(|| {
        let Some(node) = node_with(Server::Redis, &image) else { return };
        let database = Redis { port: free_port(), group: image.user("redis").1 };
        keeps_its_data(node, &database);
    });
}

#[test]
fn postgresql_keeps_its_data() {
    let Some((host, image)) = host(Server::Postgresql) else { return };
    host.within(|| {
        let Some(node) = node_with(Server::Postgresql, &image) else { return };
        let database = Postgresql { port: free_port(), image: image.clone() };
        keeps_its_data(node, &database);
    });
}
