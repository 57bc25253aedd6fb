//! What a process of exec that says nothing of it has from config.json's.

use serde_json::{Value, json};

use super::*;
use crate::compile::Compiler;

/// A config whose process has all that is inherited.
fn full() -> Value {
    let mut config = config();
    let own = &mut config["process"];
    own["capabilities"] = json!({"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]});
    own["oomScoreAdj"] = json!(77);
    own["user"]["umask"] = json!(0o27);
    own["noNewPrivileges"] = json!(true);
    own["rlimits"] = json!([{"type": "RLIMIT_FSIZE", "soft": 1, "hard": 1}]);
    config
}

fn process() -> Value {
    json!({"user": {"uid": 0, "gid": 0}, "args": ["a"], "cwd": "/", "env": ["HOME=/"]})
}

const KILL: u64 = 1 << 5;

#[test]
fn what_is_left_out_is_the_containers() {
    let plan = exec_plan(&full(), &process()).unwrap();
    assert!(plan.init.contains(&Step::BoundingSet { keep: KILL }), "{:#?}", lines(&plan));
    assert!(plan.init.contains(&Step::Capabilities { effective: KILL, permitted: KILL, inheritable: 0 }));
    assert!(plan.init.contains(&Step::Umask { mask: 0o27 }));
    assert_eq!(plan.oom_score_adj, Some(77));
    // As under runc.
    assert!(!plan.init.contains(&Step::NoNewPrivileges));
    assert!(!plan.init.iter().any(|step| matches!(step, Step::ResourceLimit { .. })));
}

#[test]
fn what_is_given_is_its_own() {
    let mut process = process();
    process["capabilities"] = json!({});
    process["oomScoreAdj"] = json!(0);
    process["user"]["umask"] = json!(0);
    let plan = exec_plan(&full(), &process).unwrap();
    assert!(plan.init.contains(&Step::BoundingSet { keep: 0 }), "{:#?}", lines(&plan));
    assert!(plan.init.contains(&Step::Umask { mask: 0 }));
    assert_eq!(plan.oom_score_adj, Some(0));
}

#[test]
fn labels_are_the_containers_also_where_they_are_empty() {
    for field in ["apparmorProfile", "selinuxLabel"] {
        let mut config = full();
        config["process"][field] = json!("of-the-container");
        let (bundle, host) = (bundle(&config).unwrap(), hybrid());
        let compiler = Compiler::new(&bundle, &host, false, 0).unwrap();
        let label = |process: Value| {
            let process = compiler.with_defaults(&serde_json::from_value(process).unwrap());
            serde_json::to_value(process).unwrap()[field].clone()
        };
        let with_label = |label: &str| with(process(), &format!("/{field}"), json!(label));
        assert_eq!(label(process()), "of-the-container");
        assert_eq!(label(with_label("")), "of-the-container");
        assert_eq!(label(with_label("its-own")), "its-own");
    }
}
