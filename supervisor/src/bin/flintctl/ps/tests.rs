//! The table of pods, letter by letter.

use std::time::{Duration, SystemTime};

use flintd::api::PodView;
use serde_json::json;

use super::rows;

const NOW: u64 = 1_795_881_600;

fn view(name: &str, phase: &str, change: &serde_json::Value) -> PodView {
    let started = json!({"secs_since_epoch": NOW - 90, "nanos_since_epoch": 0});
    let running = json!({"running": {"started": started}});
    let container = |state: serde_json::Value, ready: bool| {
        json!({"state": state, "runtime_id": null, "pid": 1, "restarts": 2, "last_exit": null, "started": true,
               "ready": ready, "image": null, "spec": null})
    };
    let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
    let mut value = json!({
        "status": {
            "key": {"namespace": namespace, "name": name}, "uid": "u", "phase": phase, "reason": null, "is_prepared": true,
            "terminating": false, "addresses": ["10.88.0.2"],
            "ports": [{"address": null, "host": 8080, "pod": 80, "protocol": "tcp"},
                      {"address": "::1", "host": 53, "pod": 53, "protocol": "udp"}],
            "started": started, "containers": {"main": container(running, true)}, "revision": 1,
        },
        "source": "api", "goal": "running", "labels": {}, "images": {"main": "web:1"}, "init_containers": [],
        "quality": "BestEffort", "restart": "always",
    });
    let state = change["state"].clone();
    if !state.is_null() {
        value["status"]["containers"]["main"] = container(state, false);
    }
    for (field, new) in change["view"].as_object().into_iter().flatten() {
        value[field] = new.clone();
    }
    for (field, new) in change["status"].as_object().into_iter().flatten() {
        value["status"][field] = new.clone();
    }
    serde_json::from_value(value).unwrap()
}

fn exited(status: u32, word: &str, oom: bool) -> serde_json::Value {
    let finished = json!({"secs_since_epoch": NOW, "nanos_since_epoch": 0});
    json!({"exited": {"status": status, "oom": oom, "started": null, "finished": finished,
                      "reason": {"word": word, "sentence": ""}}})
}

#[test]
fn pods_are_listed_as_kubectl_lists_them() {
    let none = json!({"addresses": [], "ports": [], "started": null});
    let waiting = |word: &str| json!({"waiting": {"word": word, "sentence": "a sentence"}});
    let pods = [
        view("web", "Running", &json!({})),
        view("apps/two", "Running", &json!({"view": {"images": {"main": "web:1", "side": "log:2"}}, "status": none})),
        view("crash", "Running", &json!({"state": waiting("CrashLoopBackOff"), "status": none})),
        view("pull", "Pending", &json!({"state": waiting("ErrImagePull"), "status": none})),
        view("oom", "Failed", &json!({"state": exited(137, "Error", true), "status": none})),
        view("done", "Succeeded", &json!({"state": exited(0, "Completed", false), "status": none})),
        view("leaving", "Running", &json!({"status": {"terminating": true, "ports": []}})),
        view(
            "stopped",
            "Running",
            &json!({"view": {"goal": "stopped"}, "state": exited(0, "", false), "status": none}),
        ),
        view(
            "init",
            "Pending",
            &json!({"view": {"init_containers": ["first", "second"]}, "state": waiting(""), "status": none}),
        ),
        view(
            "evicted",
            "Failed",
            &json!({"status": {"addresses": [], "ports": [], "reason": {"word": "Evicted", "sentence": "memory"}}}),
        ),
    ];
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW);
    let expected = "\
NAME       READY   STATUS             RESTARTS   AGE   ADDRESS     PORTS                           IMAGE
web        1/1     Running            2          90s   10.88.0.2   8080->80/tcp,[::1]:53->53/udp   web:1
apps/two   1/2     Running            2          -     -           -                               web:1 +1
crash      0/1     CrashLoopBackOff   2          -     -           -                               web:1
pull       0/1     ErrImagePull       2          -     -           -                               web:1
oom        0/1     OOMKilled          2          -     -           -                               web:1
done       0/1     Completed          2          -     -           -                               web:1
leaving    1/1     Terminating        2          90s   10.88.0.2   -                               web:1
stopped    0/1     Stopped            2          -     -           -                               web:1
init       0/1     Init:0/2           2          -     -           -                               web:1
evicted    1/1     Evicted            2          90s   -           -                               web:1
";
    assert_eq!(rows(&pods, now), expected);
}
