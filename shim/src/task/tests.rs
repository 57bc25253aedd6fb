//! Tasks whose containers are none: made from a checkpoint, they wait for a Start that does not come.

use std::path::Path;
use std::sync::Arc;

use containerd_shim_protos::types::mount::Mount;
use serde_json::json;

use super::{Request, Shared, Task};
use crate::config::Place;
use crate::events::Events;
use crate::exits;
use crate::options::Options;
use crate::stdio::Streams;

const NAMESPACE: &str = "test";

/// Nobody takes the events of its task.
fn shared() -> Arc<Shared> {
    Arc::new(Shared::new(NAMESPACE, Events::deliver_to("/nowhere", NAMESPACE)))
}

/// State is below the bundle.
fn request(bundle: &Path) -> Request {
    let config = json!({"ociVersion": "1.0.2", "linux": {"namespaces": [{"type": "pid"}]}});
    std::fs::write(bundle.join("config.json"), config.to_string()).unwrap();
    Request {
        id: "c1".to_owned(),
        bundle: bundle.to_owned(),
        rootfs: Vec::new(),
        streams: Streams::default(),
        options: Options { root: Some(bundle.join("state")), ..Options::default() },
        checkpoint: Some("/nowhere".into()),
        sandbox: String::new(),
        pod: None,
        start: false,
    }
}

fn in_executor(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

#[test]
fn a_root_filesystem_is_written_down_before_it_is_mounted() {
    in_executor(async {
        let bundle = tempfile::tempdir().unwrap();
        let mount = Mount { type_: "no-such-type".to_owned(), ..Mount::default() };
        let error = Task::make(shared(), Request { rootfs: vec![mount], ..request(bundle.path()) }).unwrap_err();
        assert!(error.to_string().contains("mount #0"), "{error}");
        assert!(Place::find(bundle.path()).is_some_and(|place| place.rootfs));
    });
}

#[test]
fn want_of_memory_is_told_at_the_end_where_nothing_watched_it() {
    in_executor(async {
        let bundle = tempfile::tempdir().unwrap();
        let task = Arc::new(Task::make(shared(), request(bundle.path())).unwrap().0);
        let (folder, cgroup) = (bundle.path().join("state").join(NAMESPACE).join("c1"), bundle.path().join("cgroup"));
        let record = json!({"version": 1, "id": "c1", "phase": "running", "pid": 0, "startTime": 0, "ociVersion": "1.0.2",
            "bundle": bundle.path(), "rootfs": "/", "created": "", "owner": 0, "annotations": {},
            "cgroup": {"unified": cgroup}, "lateHooks": false, "options": {"id": "c1", "consoleSocket": false,
            "noPivot": false, "newKeyring": false, "preserveFds": 0, "listenFds": 0, "waitOnSocket": true}});
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::create_dir(&cgroup).unwrap();
        std::fs::write(folder.join("state.json"), record.to_string()).unwrap();
        for (kills, told) in [(0, 0), (1, 1), (1, 1), (3, 2)] {
            std::fs::write(cgroup.join("memory.events"), format!("oom 5\noom_kill {kills}\n")).unwrap();
            exits::init_ended(&task).await;
            assert_eq!(task.shared.events.waiting(), told, "{kills} kills");
        }
        std::fs::remove_dir_all(&cgroup).unwrap();
        exits::init_ended(&task).await;
        assert_eq!(task.shared.events.waiting(), 2, "its cgroup is gone");
    });
}
