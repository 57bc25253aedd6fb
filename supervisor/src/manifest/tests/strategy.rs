use std::time::Duration;

use super::{pod, problems, with};
use crate::desired::RollingUpdate;

/// A pod with these annotations.
fn annotated(annotations: &str, spec: &str, container: &str) -> String {
    with(spec, container).replace("  name: web\n", &format!("  name: web\n  annotations: {{{annotations}}}\n"))
}

#[test]
fn a_strategy_is_read_from_annotations() {
    let rolling = |seconds: (u64, u64)| RollingUpdate {
        min_ready: Duration::from_secs(seconds.0),
        progress_deadline: Duration::from_secs(seconds.1),
    };
    assert_eq!(pod(&with("", "")).rolling, None);
    assert_eq!(pod(&annotated("org.flint.strategy: RollingUpdate", "", "")).rolling, Some(rolling((0, 600))));
    let all = "org.flint.strategy: RollingUpdate, org.flint.min-ready-seconds: '3', org.flint.progress-deadline-seconds: '20'";
    assert_eq!(pod(&annotated(all, "", "")).rolling, Some(rolling((3, 20))));
    let mount = "    volumeMounts: [{name: x, mountPath: /x, readOnly: true}]";
    let claim = "  volumes: [{name: x, persistentVolumeClaim: {claimName: x}}]";
    assert!(pod(&annotated("org.flint.strategy: RollingUpdate", claim, mount)).rolling.is_some());
}

#[test]
fn what_two_pods_cannot_both_have_is_refused() {
    const ROLLING: &str = "org.flint.strategy: RollingUpdate";
    let claim = "  volumes: [{name: x, persistentVolumeClaim: {claimName: x}}]";
    let mount = "    volumeMounts: [{name: x, mountPath: /x}]";
    for (annotations, spec, container, expected) in [
        (ROLLING, "  hostNetwork: true", "", "spec.hostNetwork: by RollingUpdate two pods run at a time"),
        (
            ROLLING,
            "  restartPolicy: Never",
            "",
            "spec.restartPolicy: a pod that is replaced by RollingUpdate has Always",
        ),
        (ROLLING, claim, mount, "spec.volumes[0].persistentVolumeClaim: by RollingUpdate two pods run at a time"),
        ("org.flint.strategy: Recreate", "", "", "metadata.annotations: org.flint.strategy: \"Recreate\" is not"),
        (
            "org.flint.strategie: RollingUpdate",
            "",
            "",
            "metadata.annotations: org.flint.strategie: flintd knows no such",
        ),
        (
            "org.flint.min-ready-seconds: '1'",
            "",
            "",
            "metadata.annotations: org.flint.min-ready-seconds: is for pods with",
        ),
        (
            "org.flint.strategy: RollingUpdate, org.flint.min-ready-seconds: soon",
            "",
            "",
            "metadata.annotations: org.flint.min-ready-seconds: \"soon\" is no number of seconds",
        ),
        (
            "org.flint.strategy: RollingUpdate, org.flint.min-ready-seconds: '600'",
            "",
            "",
            "metadata.annotations: org.flint.progress-deadline-seconds: is not more than",
        ),
    ] {
        let found = problems(&annotated(annotations, spec, container));
        assert!(found.len() == 1 && found[0].starts_with(expected), "expected only {expected:?}, found {found:#?}");
    }
    let named = annotated(ROLLING, "", "").replace("  name: web\n", "  name: web\n  uid: mine\n");
    assert!(problems(&named)[0].starts_with("metadata.uid: leave it out"), "{:?}", problems(&named));
}
