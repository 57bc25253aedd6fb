//! Labels, as they would be written on a host whose kernel has the security modules.

use flint_init::plan::Step;
use serde_json::json;

use super::steps::runc_spec;
use super::{bundle, hybrid, with};
use crate::compile::Compiler;
use crate::compile::labels::Modules;

const BOTH: Modules = Modules { apparmor: true, selinux: true };
const NEITHER: Modules = Modules { apparmor: false, selinux: false };

fn written(apparmor: &str, selinux: &str, modules: Modules) -> crate::Result<Vec<(String, String, String)>> {
    let mut config = runc_spec();
    config["process"]["apparmorProfile"] = json!(apparmor);
    config["process"]["selinuxLabel"] = json!(selinux);
    let (bundle, host) = (bundle(&config)?, hybrid());
    let process = bundle.spec().process().clone().expect("a process");
    let mut compiler = Compiler::new(&bundle, &host, false, 0)?;
    compiler.labels(&process, || modules)?;
    let text = |text: flint_init::plan::Text| {
        if text.is_none() {
            return String::new();
        }
        let start = text.offset as usize;
        String::from_utf8_lossy(&compiler.tables.text[start..start + text.length as usize]).into_owned()
    };
    let steps = compiler.tables.steps.iter().filter_map(|step| match *step {
        Step::Label { file, older, value, .. } => Some((text(file), text(older), text(value))),
        _ => None,
    });
    Ok(steps.collect())
}

#[test]
fn an_apparmor_profile_is_written_to_its_own_file_or_the_older_one() {
    let steps = written("docker-default", "", BOTH).expect("compiled");
    let expected = ("self/attr/apparmor/exec", "self/attr/exec", "exec docker-default");
    assert_eq!(steps, [(expected.0.into(), expected.1.into(), expected.2.into())]);
}

#[test]
fn an_selinux_label_is_written_as_it_is() {
    let label = "system_u:system_r:container_t:s0:c1,c2";
    let steps = written("", label, BOTH).expect("compiled");
    assert_eq!(steps, [("self/attr/exec".to_owned(), String::new(), label.to_owned())]);
}

#[test]
fn labels_of_a_module_that_the_host_lacks_are_refused() {
    let error = written("docker-default", "", NEITHER).expect_err("refused").to_string();
    assert!(error.contains("process.apparmorProfile") && error.contains("AppArmor is not enabled"), "{error}");
    let error = written("", "a:b:c", NEITHER).expect_err("refused").to_string();
    assert!(error.contains("process.selinuxLabel") && error.contains("SELinux is not enabled"), "{error}");
    assert!(written("", "", NEITHER).expect("nothing to write").is_empty());
}

#[test]
fn new_file_systems_get_the_mount_label_and_those_without_files_do_not() {
    let mut config = runc_spec();
    config["linux"]["mountLabel"] = json!("system_u:object_r:container_file_t:s0");
    let (bundle, host) = (bundle(&config).expect("a bundle"), hybrid());
    let compiler = Compiler::new(&bundle, &host, false, 0).expect("a compiler");
    let label = compiler.mount_label("tmpfs", || BOTH).expect("labelled");
    assert_eq!(label, Some(("context", "system_u:object_r:container_file_t:s0".to_owned())));
    assert_eq!(compiler.mount_label("proc", || BOTH).expect("none"), None);
    let error = compiler.mount_label("tmpfs", || NEITHER).expect_err("refused").to_string();
    assert!(error.contains("linux.mountLabel"), "{error}");
    let config = with(config, "/annotations", json!({"run.oci.mount_context_type": "rootcontext"}));
    let bundle = self::bundle(&config).expect("a bundle");
    let compiler = Compiler::new(&bundle, &host, false, 0).expect("a compiler");
    assert_eq!(compiler.mount_label("tmpfs", || BOTH).expect("labelled").map(|(key, _)| key), Some("rootcontext"));
}
