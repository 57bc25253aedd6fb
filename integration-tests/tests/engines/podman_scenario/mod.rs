//! What podman does with a runtime, whichever podman it is: flint beside runc.

pub(crate) mod build;
pub(crate) mod life;
pub(crate) mod run;
pub(crate) mod state;

use integration_tests::Podman;

/// The runtimes that are compared, by podman's names.
pub(crate) const RUNTIMES: [&str; 2] = ["flint", "runc"];

/// Runs the program with `podman run --rm` under both runtimes; the outputs must be equal and pass `check`.
#[track_caller]
pub(crate) fn prints(podman: &Podman, options: &[&str], program: &[&str], check: impl Fn(&str) -> bool) {
    let mut all = vec!["--rm"];
    all.extend_from_slice(options);
    let outputs = RUNTIMES.map(|runtime| {
        let (_, output) = podman.run(runtime, &all, program);
        let output = output.ok();
        assert_eq!(output.stderr, "", "{runtime} {options:?}");
        output.stdout
    });
    assert!(check(&outputs[1]), "runc does not print what the test expects, {options:?}: {}", outputs[1]);
    assert_eq!(outputs[0], outputs[1], "flint (left) against runc, {options:?}");
}
