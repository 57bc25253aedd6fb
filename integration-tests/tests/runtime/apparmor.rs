//! AppArmor profiles, on a host that has it (`cargo xtask vm --test apparmor`).

use std::fs;

use integration_tests::{Case, Command, find_program, peers, skip};
use serde_json::json;

/// A profile loaded for one test.
struct Profile<'a> {
    name: String,
    file: std::path::PathBuf,
    case: std::marker::PhantomData<&'a Case>,
}

impl<'a> Profile<'a> {
    fn load(case: &'a Case) -> Self {
        let name = format!("{}apparmor", case.prefix());
        let file = case.path().join("profile");
        let text =
            format!("profile {name} flags=(attach_disconnected) {{\n  file,\n  signal,\n  deny /etc/secret r,\n}}\n");
        fs::write(&file, text).expect("write the profile");
        let _ = Command::new("apparmor_parser").args(["--replace".as_ref(), file.as_os_str()]).output().ok();
        Self { name, file, case: std::marker::PhantomData }
    }
}

impl Drop for Profile<'_> {
    fn drop(&mut self) {
        let _ = Command::new("apparmor_parser").args(["--remove".as_ref(), self.file.as_os_str()]).output();
    }
}

fn enabled() -> bool {
    let there = fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with(b"Y"));
    if !there {
        skip("AppArmor is not enabled on this host");
        return false;
    }
    if find_program("apparmor_parser").is_none() {
        skip("apparmor_parser is not installed");
        return false;
    }
    true
}

#[test]
fn the_profile_confines_run_and_exec() {
    if !enabled() {
        return;
    }
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let profile = Profile::load(&case);
        let bundle = case
            .bundle()
            .file("/etc/secret", "secret\n", 0o644)
            .edit(json!({"process": {"apparmorProfile": profile.name}}));
        let look = "cat /proc/self/attr/current; cat /etc/secret; echo end";
        let expected = format!("{} (enforce)\nend\n", profile.name);
        let output = case.run(&bundle.shell(look)).ok();
        assert_eq!(output.stdout, expected, "{}: run", runtime.name);
        let bundle = case
            .bundle()
            .file("/etc/secret", "secret\n", 0o644)
            .edit(json!({"process": {"apparmorProfile": profile.name}}));
        let id = case.detached(&bundle.forever(), "a");
        assert_eq!(case.exec(&id, &["sh", "-c", look]).ok().stdout, expected, "{}: exec", runtime.name);
        case.delete(&id);
        let id = case.detached(&case.bundle().forever(), "b");
        let output = case.call(["exec", "--apparmor", &profile.name, &id, "cat", "/proc/self/attr/current"]).ok();
        assert_eq!(output.stdout, format!("{} (enforce)\n", profile.name), "{}: exec --apparmor", runtime.name);
        case.delete(&id);
        drop(profile);
        case.finish();
    }
}

#[test]
fn a_profile_that_is_not_loaded_is_an_error_that_says_so() {
    if !enabled() {
        return;
    }
    let case = Case::new(&integration_tests::flint());
    let output = case.run(&case.bundle().shell("true").edit(json!({"process": {"apparmorProfile": "flint-no-such"}})));
    assert!(output.code != 0 && output.stderr.contains("flint-no-such"), "{output:?}");
    assert!(output.stderr.contains("no such profile is loaded"), "{output:?}");
    case.finish();
}
