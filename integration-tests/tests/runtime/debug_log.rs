//! What flint prints that people and scripts know from runc: lines of its debug log, and its name.

use std::os::unix::process::CommandExt;
use std::process::Command;

use integration_tests::{Case, under_test_only};
use serde_json::json;

#[test]
fn the_filters_flags_and_the_seal_are_told() {
    let Some([flint]) = under_test_only("its debug log") else { return };
    for (flags, number) in [(json!([]), 0), (json!(["SECCOMP_FILTER_FLAG_LOG"]), 2), (json!(null), 4)] {
        let case = Case::new(&flint);
        let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": flags,
            "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]});
        let bundle = case.bundle().edit(json!({"linux": {"seccomp": profile}})).write();
        let id = case.id("run");
        let output = case.call(["--debug", "run", "--bundle", &bundle.display().to_string(), &id]).ok();
        for line in [&format!("\"seccomp filter flags: {number}\""), "runc exeseal: using /proc/self/exe clone"] {
            assert!(output.stderr.contains(line), "{line} is not in {}", output.stderr);
        }
        case.finish();
    }
}

#[test]
fn the_cpus_of_exec_are_told() {
    let Some([flint]) = under_test_only("its debug log") else { return };
    let case = Case::new(&flint);
    let affinity = json!({"process": {"execCPUAffinity": {"initial": "0"}}});
    let id = case.detached(&case.bundle().forever().edit(affinity), "a");
    let output = case.call(["--debug", "exec", &id, "true"]).ok();
    assert!(output.stderr.contains("nsexec: affinity: 0x1\""), "{}", output.stderr);
    case.delete(&id);
    case.finish();
}

/// Builders that know runc alone find flint under that name.
#[test]
fn help_names_the_program_as_it_was_called() {
    let Some([flint]) = under_test_only("its name in help texts") else { return };
    for (args, line) in
        [(&["--help"][..], "   runc - Open Container Initiative runtime\n"), (&["run", "--help"], "   runc run - ")]
    {
        let output = Command::new(&flint.path).arg0("/usr/bin/runc").args(args).output().expect("start flint");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.starts_with("NAME:\n") && text.contains(line), "{text}");
    }
}
