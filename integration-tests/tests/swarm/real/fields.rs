//! What a task says, as the kernel and the network see it.

use std::fs;

use integration_tests::swarm::{Flintd, Manager};
use integration_tests::{Command, System, cgroup_value, processes_with, wait_until};

use super::Host;

#[test]
fn limits_capabilities_and_sysctls_reach_the_kernel() {
    let Some(manager) = Manager::start(System::Host) else { return };
    let Some(host) = Host::join(&manager, manager.pid(), "one") else { return };
    let options = [
        "--ulimit",
        "nofile=64:128",
        "--ulimit",
        "core=0:-1",
        "--sysctl",
        "net.ipv4.ip_default_ttl=77",
        "--cap-add",
        "NET_ADMIN",
        "--cap-drop",
        "CHOWN",
        "--limit-memory",
        "64M",
        "--limit-cpu",
        "0.5",
        "--limit-pids",
        "77",
        "--user",
        "7:8",
        "--workdir",
        "/bin",
        "--hostname",
        "{{.Service.Name}}-{{.Task.Slot}}",
    ];
    fs::set_permissions(host.flintd.path().join("out"), std::os::unix::fs::PermissionsExt::from_mode(0o777))
        .expect("chmod");
    let script = "echo files $(ulimit -n) $(ulimit -Hn) core $(ulimit -c) $(ulimit -Hc); cat /proc/sys/net/ipv4/ip_default_ttl; \
                  cat /proc/self/status; pwd; cat /etc/hostname; trap 'exit 0' TERM; sleep 100000 & wait $!";
    host.create_of(&manager, "web", &options, Flintd::IMAGE, script);
    host.agree(&manager, "web", 1);
    let mut told = String::new();
    wait_until("the log comes", || {
        told = manager.get(&["service", "logs", "--raw", "web"]);
        told.contains("web-1")
    });
    let line = |start: &str| told.lines().find_map(|line| line.strip_prefix(start)).unwrap_or_default().trim();
    assert_eq!(line("files"), "64 128 core 0 unlimited", "{told}");
    assert!(told.contains("\n77\n") && told.contains("\n/bin\nweb-1"), "{told}");
    assert_eq!((line("Uid:"), line("Gid:")), ("7\t7\t7\t7", "8\t8\t8\t8"));
    // docker's default without CAP_CHOWN (0) and with CAP_NET_ADMIN (12); not effective, since it is not root.
    assert_eq!(line("CapBnd:"), "00000000a80435fa");
    let id = host.containers().keys().next().expect("a task").clone();
    let value = |controller: &str, v1: &str, v2: &str| cgroup_value(controller, &format!("swarm-{id}"), v1, v2);
    assert_eq!(value("memory", "memory.limit_in_bytes", "memory.max"), (64 << 20).to_string());
    assert_eq!(value("pids", "pids.max", "pids.max"), "77");
    assert!(value("cpu", "cpu.cfs_quota_us", "cpu.max").starts_with("50000"));
    host.end(&manager, "web");
}

/// With `--init` the program is not process 1: it dies of a signal that it does not know, orphans are reaped, and what it leaves
/// behind ends with it.
#[test]
fn an_init_reaps_and_leaves_signals_their_defaults() {
    let Some(manager) = Manager::start(System::Host) else { return };
    let Some(host) = Host::join(&manager, manager.pid(), "one") else { return };
    let once = ["--restart-condition", "none", "--init", "--stop-grace-period", "10m"];
    // Its pid is there until it is reaped.
    let script = "orphan=$(sleep 0.1 >/dev/null & echo $!); n=0; \
                  while [ -e /proc/$orphan ] && [ $n -lt 100 ]; do sleep 0.1; n=$((n+1)); done; \
                  grep -l zombie /proc/[0-9]*/status; echo pid $$; sleep 100001 & exec sleep 100000";
    host.create_of(&manager, "web", &once, Flintd::IMAGE, script);
    manager.wait_for("web", "Running", 1);
    let id = manager.tasks("web").remove(0).id;
    let processes = || processes_with(&format!("swarm-{id}"));
    wait_until("program and orphan are there", || processes().len() == 2);
    let mut told = String::new();
    wait_until("the log comes", || {
        told = manager.get(&["service", "logs", "--raw", "web"]);
        told.contains("pid ")
    });
    assert!(told.trim_end() != "pid 1" && told.lines().count() == 1, "{told}");
    // sleep knows no SIGTERM: as process 1 it would sleep on for ten minutes.
    super::scale(&manager, "web", 0);
    wait_until("nothing of it is left", || processes().is_empty());
    host.create_of(&manager, "ends", &once, Flintd::IMAGE, "sleep 100002 & exit 3");
    manager.wait_for("ends", "Failed", 1);
    let ended = manager.tasks("ends").remove(0);
    assert!(ended.error.contains("(3)"), "{ended:?}");
    assert!(processes_with(&format!("swarm-{}", ended.id)).is_empty(), "what it left behind lives on");
    let _ = manager.docker(&["service", "rm", "ends"]).ok();
    host.end(&manager, "web");
}

#[test]
fn a_health_check_decides_and_the_images_own_counts() {
    let Some(manager) = Manager::start(System::Host) else { return };
    let Some(host) = Host::join(&manager, manager.pid(), "one") else { return };
    let out = host.flintd.path().join("out");
    let image = with_health_check(&manager, &host);
    let own = ["--health-cmd", "test -e /out/healthy", "--health-interval", "200ms", "--health-retries", "2"];
    let script = "trap 'exit 0' TERM; sleep 100000 & wait $!";
    for (service, options, image) in [("told", &own[..], Flintd::IMAGE), ("brought", &[], image)] {
        let options = [&["--restart-delay", "100ms"], options].concat();
        host.create_of(&manager, service, &options, image, script);
        // It is asked twice, and fails; one that never was healthy never was running.
        wait_until("one has failed", || manager.tasks(service).iter().any(|task| task.state == "Failed"));
        let failed = manager.tasks(service).into_iter().find(|task| task.state == "Failed").expect("the task");
        assert!(failed.error.contains("probe failed"), "{failed:?}");
        assert!(manager.tasks(service).iter().all(|task| task.state != "Running"));
        fs::write(out.join("healthy"), "").expect("write");
        manager.wait_for(service, "Running", 1);
        host.assert_true(&manager, service);
        let well = manager.tasks(service).into_iter().find(|task| task.state == "Running").expect("the task").id;
        fs::remove_file(out.join("healthy")).expect("remove");
        wait_until("it fails when it is sick later", || {
            manager.tasks(service).iter().any(|task| task.id == well && task.state == "Failed")
        });
        wait_until("its container is gone", || !host.containers().contains_key(&well));
        let _ = manager.docker(&["service", "rm", service]).ok();
        wait_until("no container is left", || host.containers().is_empty());
    }
    host.flintd.assert_nothing_left();
}

/// An image of docker's own making with a HEALTHCHECK; its name.
fn with_health_check(manager: &Manager, host: &Host) -> &'static str {
    const NAME: &str = "tests/healthy:1";
    let folder = manager.place().path();
    let (tar, saved) = (folder.join("rootfs.tar"), folder.join("saved.tar"));
    let rootfs = host.flintd.path().join("rootfs");
    let _ = Command::new("tar")
        .args(["-C".as_ref(), rootfs.as_os_str()])
        .args(["-cf"])
        .args([&tar, &".".into()])
        .output()
        .ok();
    let change = "HEALTHCHECK --interval=200ms --retries=2 CMD test -e /out/healthy";
    let _ = manager.command().args(["import", "--change", change]).args([&tar]).args([NAME]).output().ok();
    let _ = manager.command().args(["save", "--output"]).args([&saved]).args([NAME]).output().ok();
    host.flintd.import(&saved, NAME);
    NAME
}

#[test]
fn ports_of_the_host_lead_to_the_task() {
    let Some(manager) = Manager::start(System::Host) else { return };
    let Some(host) = Host::join(&manager, manager.pid(), "one") else { return };
    let fixed = ["--publish", "mode=host,target=80,published=18080", "--publish", "mode=host,target=80"];
    host.create_of(&manager, "web", &fixed, Flintd::IMAGE, "echo served > /page; exec httpd -f -p 80 -h /");
    manager.wait_for("web", "Running", 1);
    let ports = manager.tasks("web").remove(0).ports;
    assert!(ports.contains("*:18080->80/tcp"), "{ports}");
    let chosen = ports.split(',').find(|port| !port.contains("18080")).expect("another port");
    let chosen = chosen.trim_start_matches("*:").split('-').next().expect("its number");
    let network = format!("--net=/proc/{}/ns/net", manager.pid());
    let get = |url: &str| {
        let args = [network.as_str(), "--", "busybox", "wget", "-q", "-O", "-", url];
        Command::new("nsenter").args(args).output().stdout
    };
    for host in ["10.213.0.1", "127.0.0.1"] {
        for port in ["18080", chosen] {
            let url = format!("http://{host}:{port}/page");
            wait_until(&url, || get(&url) == "served\n");
        }
    }
    // A second task has no such port left: it is not placed here.
    super::scale(&manager, "web", 2);
    manager.wait_for("web", "Pending", 1);
    let _ = manager.docker(&["service", "rm", "web"]).ok();
    wait_until("the port is free again", || get("http://10.213.0.1:18080/page").is_empty());
    host.flintd.assert_nothing_left();
}
