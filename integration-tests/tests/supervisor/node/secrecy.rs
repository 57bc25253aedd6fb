//! Secrets are seen by the containers that have them, and nowhere else; and flintd may do no more than it has to.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use integration_tests::wait_until;

use super::rig::{Node, Setup, free_port};

/// A value as it could be written: as it is, in base64 at each of the three places of its bytes, and as a list of numbers.
fn forms(value: &str) -> Vec<String> {
    let numbers: Vec<String> = value.bytes().map(|byte| byte.to_string()).collect();
    let mut forms = vec![value.to_owned(), numbers.join(","), numbers.join(", ")];
    for (before, from) in [0, 2, 3].into_iter().enumerate() {
        let encoded = base64(&[&vec![b'x'; before], value.as_bytes()].concat());
        // Without what depends on what stands before and behind.
        forms.push(encoded[from..encoded.len() - 4].to_owned());
    }
    forms
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let letter = |bits: u32| char::from(LETTERS[(bits & 63) as usize]);
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().chain([0, 0].iter()).take(3).fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        text.extend([letter(bits >> 18), letter(bits >> 12), letter(bits >> 6), letter(bits)]);
    }
    text
}

fn holds(content: &[u8], secrets: &[String]) -> bool {
    let text = String::from_utf8_lossy(content);
    secrets.iter().flat_map(|secret| forms(secret)).any(|form| text.contains(&form))
}

/// All regular files below a folder; `for_others`: those that somebody else than root can read.
fn files(folder: &Path, for_others: bool, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, Ok(status)) = (entry.path(), entry.metadata()) else { continue };
        let mode = status.permissions().mode();
        if status.is_dir() && (!for_others || mode & 0o1 != 0) {
            files(&path, for_others, found);
        } else if status.is_file() && (!for_others || mode & 0o4 != 0) {
            found.push(path);
        }
    }
}

/// Pods and documents with secrets, of which all but one go wrong in some way.
struct Secrets<'a> {
    node: &'a Node,
    values: Vec<String>,
}

impl Secrets<'_> {
    fn objects(&self) -> String {
        let docker = format!(r#"{{"auths":{{"127.0.0.1:1":{{"username":"user","password":"{}"}}}}}}"#, self.values[2]);
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: keys}}\n\
             stringData: {{variable: {}, file: {}, probe: {}}}\n---\n\
             apiVersion: v1\nkind: Secret\nmetadata: {{name: pull}}\ntype: kubernetes.io/dockerconfigjson\n\
             stringData: {{.dockerconfigjson: '{docker}'}}\n---\n",
            self.values[0], self.values[1], self.values[4]
        )
    }

    /// A pod that has some as variables and some as files.
    fn pod(&self, name: &str, script: &str) -> String {
        let from = |name: &str, key: &str| {
            format!("    - {{name: {name}, valueFrom: {{secretKeyRef: {{name: keys, key: {key}}}}}}}\n")
        };
        let more = format!(
            "    volumeMounts: [{{name: keys, mountPath: /keys}}]\n    env:\n{}{}    \
             livenessProbe: {{exec: {{command: [/bin/false, $(PROBE)]}}, failureThreshold: 100, periodSeconds: 1}}\n    command:",
            from("KEY", "variable"),
            from("PROBE", "probe")
        );
        let volumes = "  volumes: [{name: keys, secret: {secretName: keys}}]\n";
        self.node.manifest(name, volumes, script).replace("    command:", &more)
    }

    /// Applies what is wrong, and takes the test's own files away; what was said.
    fn apply_wrong(&self) -> String {
        let head = "apiVersion: v1\nkind: Secret\nmetadata: {name: wrong}\n";
        let (value, path) = (&self.values[3], self.node.path().join("wrong.yaml"));
        let mut told = String::new();
        for wrong in [
            format!("data: {{key: \"{value}!\"}}"),
            format!("stringData: {{key: [\"{value}\"]}}"),
            format!("stringData: {{key: \"{value}"),
        ] {
            fs::write(&path, format!("{head}{wrong}\n")).expect("write a manifest");
            let output = self.node.ctl(["apply", "-f", &path.display().to_string()]);
            assert!(output.code != 0, "{output:?}");
            told.extend([output.stdout, output.stderr]);
        }
        for file in ["wrong.yaml", "applied.yaml"] {
            fs::remove_file(self.node.path().join(file)).expect("remove the test's own file");
        }
        told
    }

    /// All that flintd tells to whoever asks.
    fn told(&self, port: u16) -> String {
        let mut told = String::new();
        for args in [
            &["ps", "--all", "--json"][..],
            &["inspect", "has"],
            &["inspect", "broken"],
            &["inspect", "pulls"],
            &["events", "--json"],
            &["node", "--json"],
            &["images", "--json"],
            &["logs", "has"],
        ] {
            told.push_str(&self.node.ctl(args.iter().copied()).ok().stdout);
        }
        for path in ["/", "/api/state", "/metrics", "/healthz"] {
            told.push_str(&Node::get(port, path));
        }
        told + &fs::read_to_string(self.node.log()).expect("flintd's log")
    }

    /// Command lines of the node's own processes that hold one.
    fn command_lines(&self) -> Vec<String> {
        let processes = fs::read_dir("/proc").expect("read /proc").flatten();
        let lines = processes.map(|process| fs::read(process.path().join("cmdline")).unwrap_or_default());
        let lines =
            lines.filter(|line| holds(line, &self.values)).map(|line| String::from_utf8_lossy(&line).into_owned());
        lines.filter(|line| line.contains(&self.node.prefix) && line.contains("flint")).collect()
    }
}

#[test]
fn no_secret_is_told_or_left_where_others_read() {
    let port = free_port();
    let setup = Setup { keys: &format!("page = \"127.0.0.1:{port}\"\n"), log: "debug", ..Setup::default() };
    let Some(node) = Node::start_with(&setup) else { return };
    let secret = |name: &str| format!("geheim-{name}-{}-0123456789", node.prefix);
    let values = ["variable", "file", "password", "wrong", "probe"].map(secret).to_vec();
    let secrets = Secrets { node: &node, values };
    // It has them, and tells how long they are.
    let script = "file=$(cat /keys/file); echo \"lengths ${#KEY} ${#file}\"; while true; do sleep 0.1; done";
    node.apply(&(secrets.objects() + &secrets.pod("has", script)));
    let lengths = format!("lengths {} {}\n", secrets.values[0].len(), secrets.values[1].len());
    wait_until("the container has its secrets", || node.ctl(["logs", "has"]).stdout == lengths);
    // What goes wrong tells of itself, and not of them: a program that is not there, a pull, documents, a probe.
    node.apply(&secrets.pod("broken", "true").replace("[/bin/sh, -c, \"true\"]", "[/bin/none, $(KEY)]"));
    let pull = node
        .manifest("pulls", "  imagePullSecrets: [{name: pull}]\n", "true")
        .replace("tests/busybox:1", "127.0.0.1:1/none:1")
        .replace("imagePullPolicy: Never", "imagePullPolicy: Always");
    node.apply(&pull);
    let refusals = secrets.apply_wrong();
    wait_until("all of it was told", || {
        let words: Vec<String> = node.events().into_iter().map(|(word, _)| word).collect();
        ["Unhealthy", "StartError", "ErrImagePull"].iter().all(|wanted| words.iter().any(|word| word == wanted))
    });
    let told = refusals + &secrets.told(port);
    assert!(!holds(told.as_bytes(), &secrets.values), "a secret is told:\n{told}");
    assert_eq!(secrets.command_lines(), Vec::<String>::new());
    let (mut all, mut readable) = (Vec::new(), Vec::new());
    files(node.path(), false, &mut all);
    files(node.path(), true, &mut readable);
    let with: Vec<&PathBuf> =
        all.iter().filter(|file| holds(&fs::read(file).unwrap_or_default(), &secrets.values)).collect();
    assert!(with.iter().any(|file| file.ends_with("flintd.redb")), "they are found where they are: {with:?}");
    assert!(readable.contains(&node.log()), "some files are for others");
    let shown: Vec<&&PathBuf> = with.iter().filter(|file| readable.contains(file)).collect();
    assert!(shown.is_empty(), "others read secrets in {shown:?}");
    // Secrets as files are in memory, and with their pod they go.
    for name in ["has", "broken", "pulls"] {
        let _ = node.ctl(["rm", name]).ok();
    }
    for name in ["has", "broken", "pulls"] {
        node.wait_gone(name);
    }
    assert_eq!(fs::read_dir(node.path().join("run/secrets")).expect("the folder of secrets").count(), 0);
    node.finish();
}

/// A line of a process's status, as a number.
fn capabilities(pid: &str, field: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("read a status");
    hexadecimal(&text, field)
}

fn hexadecimal(text: &str, field: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(field)).expect("capabilities");
    u64::from_str_radix(line.trim(), 16).expect("a number")
}

#[test]
fn flintd_keeps_the_capabilities_that_it_needs_and_its_shims_have_all() {
    let Some(node) = Node::start() else { return };
    // The table of docs/supervisor.md, by the numbers of linux/capability.h.
    let documented = [0, 1, 3, 4, 10, 12, 21, 27, 31].iter().fold(0_u64, |all, number| all | 1 << number);
    let own = capabilities("self", "CapPrm:");
    for field in ["CapPrm:", "CapEff:"] {
        assert_eq!(capabilities(&node.pid().to_string(), field), own & documented, "{field}");
    }
    for thread in fs::read_dir(format!("/proc/{}/task", node.pid())).expect("flintd's threads").flatten() {
        let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
        assert!(status.is_empty() || hexadecimal(&status, "CapPrm:") == own & documented, "{status}");
    }
    let privileged = node.manifest("all", "  restartPolicy: Never\n", "cat /proc/self/status");
    node.apply(&privileged.replace("    command:", "    securityContext: {privileged: true}\n    command:"));
    node.wait_for("all", "Succeeded");
    let log = node.ctl(["logs", "all"]).ok().stdout;
    assert_eq!(hexadecimal(&log, "CapEff:"), own, "a privileged container has all that there is");
    assert_eq!(capabilities(&node.pid().to_string(), "CapBnd:"), capabilities("self", "CapBnd:"));
    let _ = node.ctl(["rm", "all"]).ok();
    node.wait_gone("all");
    node.finish();
}

#[test]
fn the_unit_is_what_systemd_takes() {
    if integration_tests::missing(&["systemd-analyze"]) {
        return;
    }
    let folder = tempfile::tempdir().expect("make a folder");
    let unit = include_str!("../../../../supervisor/systemd/flintd.service");
    // It is looked for, too.
    let unit = unit.replace("/usr/bin/flintd", "/bin/true");
    let path = folder.path().join("flintd.service");
    let verify = |text: &str| {
        fs::write(&path, text).expect("write the unit");
        let path = path.display().to_string();
        integration_tests::Command::new("systemd-analyze").args(["verify", "--man=no", &path]).output()
    };
    let output = verify(&unit);
    assert_eq!((output.code, output.stderr.as_str()), (0, ""));
    assert!(verify(&unit.replace("KillMode=", "KillMod=")).stderr.contains("KillMod"), "mistakes are told");
}

#[test]
fn sockets_and_folders_are_roots() {
    let Some(node) = Node::start() else { return };
    node.apply(&node.manifest("one", "", "while true; do sleep 0.1; done"));
    node.wait_for("one", "Running");
    let mode = |path: &str| fs::metadata(node.path().join(path)).expect(path).mode() & 0o777;
    for (path, wanted) in [
        ("root", 0o700),
        ("run", 0o700),
        ("root/flintd.redb", 0o600),
        ("root/pods", 0o700),
        ("run/pods", 0o700),
        ("run/secrets", 0o700),
        ("run/flintd.sock", 0o660),
    ] {
        assert_eq!(mode(path), wanted, "{path}");
    }
    let socket = fs::metadata(node.path().join("run/flintd.sock")).expect("the socket");
    assert_eq!((socket.uid(), socket.gid()), (0, 0));
    let _ = node.ctl(["rm", "one"]).ok();
    node.wait_gone("one");
    node.finish();
}
