//! flintd by its own unit under systemd, and what a host's end costs: a power cut, then a reboot.
//!
//! `cargo xtask vm --init systemd --then cut --then reboot --test vm_reboot` runs the test in three boots of one machine.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use integration_tests::{find_program, skip, wait_until};
use serde_json::Value;

const IMAGE: &str = "tests/busybox:1";
/// What the counter had written when the machine went down.
const PROMISED: &str = "/var/lib/promised";
const DATA: &str = "/var/lib/flintd/volumes/data";
const POLL: Duration = Duration::from_millis(50);
/// What systemd takes as one too many of starts in ten seconds, unless a unit says otherwise (`DefaultStartLimitBurst`).
const STARTS: usize = 6;
/// Pods that run after each boot.
const RUN: [&str; 4] = ["counter", "followed", "service", "unfinished"];

/// The content of a file that pods see; what it is at first, and what it is changed to just before the power is cut.
const WORDS: [&str; 2] = ["configured", "changed"];

/// All pods but `followed`, which is a manifest of the folder. `stopped` and `removed` are told to be so.
const PODS: &str = r#"apiVersion: v1
kind: ConfigMap
metadata: {name: words}
data: {word: configured}
---
apiVersion: v1
kind: Secret
metadata: {name: secrets}
stringData: {word: hidden}
---
apiVersion: v1
kind: Pod
metadata: {name: service}
spec:
  terminationGracePeriodSeconds: 5
  containers:
  - name: main
    image: tests/busybox:1
    imagePullPolicy: Never
    command: [/bin/sh, -c, "echo $(cat /words/word) $(cat /secrets/word); exec httpd -f -p 80 -h /words"]
    ports: [{containerPort: 80, hostPort: 8080}]
    resources: {limits: {memory: 64Mi, cpu: 500m}}
    readinessProbe: {httpGet: {path: /word, port: 80}, periodSeconds: 1, timeoutSeconds: 20}
    volumeMounts: [{name: words, mountPath: /words}, {name: secrets, mountPath: /secrets}]
  volumes: [{name: words, configMap: {name: words}}, {name: secrets, secret: {secretName: secrets}}]
---
apiVersion: v1
kind: Pod
metadata: {name: counter}
spec:
  terminationGracePeriodSeconds: 5
  containers:
  - name: main
    image: tests/busybox:1
    imagePullPolicy: Never
    command:
    - /bin/sh
    - -c
    - |
      number=$(wc -l </data/numbers || echo 0)
      while true; do
        number=$((number + 1))
        echo $number | dd of=/data/numbers oflag=append conv=notrunc,fsync 2>/dev/null
        # What is here was synced before.
        echo $number >/synced/number.new && mv /synced/number.new /synced/number
        sleep 0.1
      done
    volumeMounts: [{name: data, mountPath: /data}, {name: synced, mountPath: /synced}]
  volumes:
  - {name: data, persistentVolumeClaim: {claimName: data}}
  - {name: synced, emptyDir: {medium: Memory}}
---
"#;

/// A pod with this restart policy that writes to the named volume `ran` that it ran, and then does `script`.
fn pod(name: &str, policy: &str, script: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  restartPolicy: {policy}\n  hostNetwork: true\n  \
         terminationGracePeriodSeconds: 5\n  containers:\n  - name: main\n    image: {IMAGE}\n    imagePullPolicy: Never\n    \
         command: [/bin/sh, -c, {}]\n    volumeMounts: [{{name: ran, mountPath: /ran}}]\n  \
         volumes: [{{name: ran, persistentVolumeClaim: {{claimName: ran}}}}]\n---\n",
        Value::from(format!("echo ran | dd of=/ran/{name} oflag=append conv=notrunc,fsync; {script}"))
    )
}

const FOR_EVER: &str = "while true; do sleep 0.1; done";

/// A program's stdout; it must end well.
#[track_caller]
fn call(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap_or_else(|error| panic!("start {program}: {error}"));
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn ctl(args: &[&str]) -> String {
    call("flintctl", args)
}

/// A property of the unit.
fn unit(property: &str) -> String {
    call("systemctl", &["show", "--value", "--property", property, "flintd"]).trim().to_owned()
}

/// Of each pod, by its name, what `ps` tells of it.
fn pods() -> BTreeMap<String, Value> {
    let pods: Vec<Value> = serde_json::from_str(&ctl(&["ps", "--all", "--json"])).expect("ps prints JSON");
    let status = |mut pod: Value| pod["status"].take();
    pods.into_iter().map(status).map(|pod| (pod["key"]["name"].as_str().expect("a name").to_owned(), pod)).collect()
}

fn main_of<'a>(pods: &'a BTreeMap<String, Value>, name: &str) -> &'a Value {
    &pods.get(name).unwrap_or_else(|| panic!("there is no pod {name}"))["containers"]["main"]
}

/// The first processes of those that run.
fn pids() -> BTreeMap<String, u64> {
    let pods = pods();
    let pid = |name: &str| main_of(&pods, name)["pid"].as_u64().expect("a pid");
    RUN.map(|name| (name.to_owned(), pid(name))).into()
}

fn begun(name: &str) -> usize {
    fs::read_to_string(Path::new("/var/lib/flintd/volumes/ran").join(name)).unwrap_or_default().lines().count()
}

/// Waits until `done`; what is not so is told with flintd's log.
#[track_caller]
fn reach(what: &str, mut done: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + Duration::from_secs(300);
    while !done() {
        if std::time::Instant::now() > end {
            let log = call("journalctl", &["--no-pager", "-u", "flintd", "-n", "60"]);
            panic!("it does not come to this: {what}\n{}\n{log}", ctl(&["ps", "--all"]));
        }
        std::thread::sleep(POLL);
    }
}

/// All pods are as they were promised.
#[track_caller]
fn are_as_promised(word: &str) {
    reach("the pods that should run do", || {
        let pods = pods();
        RUN.iter().all(|name| pods.get(*name).is_some_and(|pod| pod["phase"] == "Running"))
            && RUN.iter().all(|name| main_of(&pods, name)["state"]["running"].is_object())
            && main_of(&pods, "service")["ready"] == true
    });
    let pods = pods();
    let names: Vec<&str> = pods.keys().map(String::as_str).collect();
    assert_eq!(names, ["counter", "ended", "failed", "followed", "service", "stopped", "unfinished"]);
    for (name, status) in [("ended", 0), ("failed", 7)] {
        assert_eq!(main_of(&pods, name)["state"]["exited"]["status"], status, "{name}");
        assert_eq!(begun(name), 1, "{name} is not run again");
    }
    assert!(main_of(&pods, "stopped")["state"]["running"].is_null());
    assert_eq!(begun("stopped"), 1);
    assert_eq!(served(&pods), word);
    let said = ctl(&["logs", "service"]);
    assert!(said.ends_with(" hidden\n"), "{said}");
}

/// The file, as the pod serves it on its own address.
fn served(pods: &BTreeMap<String, Value>) -> String {
    let address = pods["service"]["addresses"][0].as_str().expect("an address");
    call("busybox", &["wget", "-q", "-O", "-", &format!("http://{address}/word")])
}

/// What is there of containers, and nothing else: cgroups, states, devices, bundles, shims.
#[track_caller]
fn nothing_stale() {
    let pods = pods();
    let mut wanted: Vec<String> =
        RUN.iter().map(|name| main_of(&pods, name)["runtime_id"].as_str().expect("an id").to_owned()).collect();
    wanted.sort();
    let entries = |folder: &str| {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap_or_else(|error| panic!("read {folder}: {error}"))
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| path.is_dir())
            .map(|path| path.file_name().expect("a name").to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    };
    reach("of each container that runs there is a cgroup, and no other", || entries("/sys/fs/cgroup/flint") == wanted);
    let bundles: Vec<String> = entries("/var/lib/flintd/pods")
        .iter()
        .flat_map(|uid| fs::read_dir(format!("/var/lib/flintd/pods/{uid}/bundles")).into_iter().flatten().flatten())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(bundles.len(), wanted.len(), "bundles {bundles:?} for {wanted:?}");
    let programs = fs::read_dir("/proc").expect("read /proc").flatten().map(|entry| entry.path().join("exe"));
    let is_shim = |program: &PathBuf| program.ends_with("containerd-shim-flint-v1");
    assert_eq!(programs.flat_map(fs::read_link).filter(is_shim).count(), 1, "one shim has all pods");
    let links = call("ip", &["-o", "link", "show", "type", "veth"]);
    assert_eq!(links.lines().count(), 2, "a device for each pod with a network of its own: {links}");
}

/// Each number that was promised is there, once, in order.
#[track_caller]
fn data_is_whole() {
    let promised: usize = fs::read_to_string(PROMISED).expect("what was promised").trim().parse().expect("a number");
    let numbers = fs::read_to_string(Path::new(DATA).join("numbers")).expect("the numbers");
    let wrong = numbers.lines().zip(1_usize..).find(|(line, number)| *line != number.to_string());
    assert_eq!(wrong, None, "the data is damaged");
    assert!(numbers.lines().count() >= promised, "{promised} were promised, {} are there", numbers.lines().count());
    println!("{promised} numbers were promised, {} are there", numbers.lines().count());
}

/// Writes down how many numbers are synced now.
fn promise() {
    let pid = pids()["counter"];
    let number = || fs::read_to_string(format!("/proc/{pid}/root/synced/number")).unwrap_or_default();
    let first = number();
    reach("the counter counts", || number() != first);
    let mut file = fs::File::create(PROMISED).expect("make a file");
    file.write_all(number().as_bytes()).expect("write it");
    file.sync_all().expect("sync it");
    fs::File::open("/var/lib").and_then(|folder| folder.sync_all()).expect("sync its folder");
}

/// As a package would.
fn install() -> bool {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let dist = std::env::var_os("FLINT_DIST").map_or_else(|| root.join("target/dist"), PathBuf::from);
    for name in ["flintd", "flintctl", "flint-bundle", "containerd-shim-flint-v1"] {
        if !dist.join(name).exists() {
            skip(&format!("no {name}: build it with `cargo xtask dist`"));
            return false;
        }
        fs::copy(dist.join(name), Path::new("/usr/bin").join(name)).expect("install a program");
    }
    let unit = root.join("supervisor/systemd/flintd.service");
    fs::copy(unit, "/etc/systemd/system/flintd.service").expect("install the unit");
    let rootfs = Path::new("/tmp/rootfs");
    fs::create_dir_all(rootfs.join("bin")).expect("make the rootfs");
    fs::copy(find_program("busybox").expect("busybox"), rootfs.join("bin/busybox")).expect("copy busybox");
    for applet in ["sh", "sleep", "cat", "dd", "echo", "httpd", "mv", "wc"] {
        std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(applet)).expect("link an applet");
    }
    let _ = call("flint-bundle", &["import", "/tmp/rootfs", IMAGE]);
    // The kernel's own programs are not what is cut.
    let _ = call("sync", &[]);
    true
}

/// The unit's promises: ready when pods are taken, started again whatever happens, and no pod is touched.
fn under_systemd() {
    let before = pids();
    let limit = || {
        let pid = before["service"];
        let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("its cgroup");
        let cgroup = cgroup.trim().trim_start_matches("0::").to_owned();
        let read = |file: &str| fs::read_to_string(format!("/sys/fs/cgroup{cgroup}/{file}")).unwrap_or_default();
        (read("memory.max"), read("cpu.max"))
    };
    let limits = ("67108864\n".to_owned(), "50000 100000\n".to_owned());
    assert_eq!(limit(), limits);
    let mut killed = "0".to_owned();
    for _ in 0..STARTS {
        // As soon as it is there, so that ten seconds see many of them.
        reach("systemd starts it again", || unit("MainPID") != killed && unit("MainPID") != "0");
        killed = unit("MainPID");
        let _ = call("systemctl", &["kill", "--signal", "KILL", "--kill-whom", "main", "flintd"]);
    }
    reach("it is ready again", || unit("MainPID") != killed && unit("ActiveState") == "active");
    assert_eq!(pids(), before, "they are the same processes");
    // All of the unit's processes: the shims as well, whose containers are elsewhere and are adopted by the next ones.
    killed = unit("MainPID");
    let _ = call("systemctl", &["kill", "--signal", "KILL", "flintd"]);
    reach("it is ready again", || unit("MainPID") != killed && unit("ActiveState") == "active");
    assert_eq!(pids(), before, "they are the same processes");
    killed = unit("MainPID");
    let _ = call("systemctl", &["restart", "flintd"]);
    assert_ne!(unit("MainPID"), killed);
    assert_eq!(pids(), before, "they are the same processes");
    let _ = call("systemctl", &["daemon-reload"]);
    assert_eq!(limit(), limits, "systemd leaves the limits alone");
    let _ = call("systemctl", &["stop", "flintd"]);
    assert_eq!(unit("ActiveState"), "inactive");
    for (name, pid) in &before {
        assert!(Path::new(&format!("/proc/{pid}")).exists(), "{name} runs on without flintd");
    }
    assert_eq!(limit(), limits, "also while the unit is stopped");
    let _ = call("systemctl", &["start", "flintd"]);
    // start waits for the word of sd_notify, so it takes requests now.
    assert_eq!(pids(), before, "they are the same processes");
    for (name, pod) in pods() {
        assert_eq!(pod["containers"]["main"]["restarts"], 0, "{name}");
    }
}

fn first_boot() {
    if !install() {
        return;
    }
    fs::create_dir_all("/etc/flintd/manifests").expect("make the folder of manifests");
    fs::write("/etc/flintd/manifests/followed.yaml", pod("followed", "Always", FOR_EVER)).expect("write a manifest");
    let _ = call("systemctl", &["daemon-reload"]);
    let _ = call("systemctl", &["enable", "--now", "flintd"]);
    let mut manifests = PODS.to_owned();
    for (name, policy, script) in [
        ("ended", "Never", "exit 0"),
        ("failed", "Never", "exit 7"),
        ("unfinished", "Never", FOR_EVER),
        ("stopped", "Always", FOR_EVER),
        ("removed", "Always", FOR_EVER),
    ] {
        manifests += &pod(name, policy, script);
    }
    fs::write("/tmp/pods.yaml", manifests).expect("write manifests");
    let _ = ctl(&["apply", "-f", "/tmp/pods.yaml"]);
    reach("two have ended and two run", || {
        let pods = pods();
        let ended = |name| main_of(&pods, name)["state"]["exited"].is_object();
        ended("ended") && ended("failed") && begun("stopped") == 1 && begun("removed") == 1
    });
    let _ = ctl(&["stop", "stopped"]);
    let _ = ctl(&["rm", "removed"]);
    are_as_promised(WORDS[0]);
    under_systemd();
    are_as_promised(WORDS[0]);
    nothing_stale();
    promise();
    // Of what is acknowledged and just written, nothing may be half there after the cut.
    fs::write("/tmp/pods.yaml", PODS.replace(WORDS[0], WORDS[1])).expect("write manifests");
    let _ = ctl(&["apply", "-f", "/tmp/pods.yaml"]);
    reach("the changed file is there", || served(&pods()) == WORDS[1]);
}

/// systemd has started flintd by itself.
fn next_boot(number: usize) {
    reach("flintd is ready", || unit("ActiveState") == "active");
    assert_eq!(unit("NRestarts"), "0");
    data_is_whole();
    are_as_promised(WORDS[1]);
    for name in ["followed", "unfinished"] {
        assert_eq!(begun(name), number, "{name} was run once in each boot");
    }
    nothing_stale();
    assert!(ctl(&["events", "--json"]).contains("Rebooted"));
    promise();
}

fn remove_all() {
    fs::remove_file("/etc/flintd/manifests/followed.yaml").expect("remove a manifest");
    for name in ["counter", "ended", "failed", "service", "stopped", "unfinished"] {
        let _ = ctl(&["rm", name]);
    }
    wait_until("no pod is left", || pods().is_empty());
    assert_eq!(fs::read_dir("/var/lib/flintd/pods").expect("the pods' folder").count(), 0);
    data_is_whole();
}

#[test]
fn what_should_run_runs_after_a_power_cut_and_a_reboot() {
    if std::env::var_os("FLINT_VM").is_none() || !Path::new("/run/systemd/system").is_dir() {
        skip("needs cargo xtask vm --init systemd --then cut --then reboot --test vm_reboot");
        return;
    }
    match std::env::var("FLINT_BOOT").as_deref() {
        Ok("2") => next_boot(2),
        Ok("3") => {
            next_boot(3);
            remove_all();
        }
        _ => first_boot(),
    }
}
