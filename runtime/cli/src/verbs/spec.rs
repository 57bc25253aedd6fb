//! `flint spec`

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::fs::FsWord;

use super::{BUNDLE, CONTAINER, Verb};
use crate::Session;
use crate::arguments::{Arguments, switch};

pub(super) const VERB: Verb = Verb {
    name: "spec",
    summary: "write a config.json to begin with",
    operands: "",
    count: (0, 0),
    description: "Writes config.json into the bundle's folder, for a container that runs sh on a terminal in the
root filesystem \"rootfs\". Edit it to say what shall run:

    mkdir -p hello/rootfs && cd hello      # put a root filesystem into rootfs/
    flint spec
    sed -i 's;\"sh\";\"/hello\";' config.json
    flint run hello

A config.json that is already there is not touched.",
    flags: &[BUNDLE, switch("rootless", None, "for a user without privileges: with a user namespace")],
    run,
    ..CONTAINER
};

/// Both with runc's content and layout, so that scripts which edit it find what they look for.
const DEFAULT: &str = include_str!("spec/default.json");
const ROOTLESS: &str = include_str!("spec/rootless.json");

fn run(_: &Session, arguments: &Arguments) -> Result<u8> {
    let folder = Path::new(arguments.value("bundle").unwrap_or(".".as_ref()));
    let text = if arguments.is_set("rootless") {
        rootless(nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw())
    } else {
        DEFAULT.to_owned()
    };
    write(&folder.join("config.json"), &if unified() { with_cgroup_namespace(&text) } else { text })?;
    Ok(0)
}

fn write(path: &Path, text: &str) -> Result<()> {
    let mut file = match OpenOptions::new().write(true).create_new(true).open(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            bail!("File {} exists. Remove it first", path.display());
        }
        result => result.with_context(|| format!("creating {}", path.display()))?,
    };
    file.write_all(text.as_bytes()).with_context(|| format!("writing {}", path.display()))
}

/// The only id that such a user may map is his own (`user_namespaces(7)`).
fn rootless(uid: u32, gid: u32) -> String {
    const ID: &str = "\"hostID\": 0";
    match ROOTLESS.split_once(ID) {
        Some((before, after)) => {
            format!("{before}\"hostID\": {uid}{}", after.replacen(ID, &format!("\"hostID\": {gid}"), 1))
        }
        None => ROOTLESS.to_owned(),
    }
}

/// Whether all of /sys/fs/cgroup is cgroup v2.
fn unified() -> bool {
    const CGROUP2: FsWord = 0x6367_7270;
    rustix::fs::statfs("/sys/fs/cgroup").is_ok_and(|filesystem| filesystem.f_type == CGROUP2)
}

/// On v2, where the cgroup namespace costs nothing and v1's read-only mount is no longer the better choice.
fn with_cgroup_namespace(text: &str) -> String {
    const END: &str = "\n\t\t],\n\t\t\"maskedPaths\"";
    text.replacen(END, &format!(",\n\t\t\t{{\n\t\t\t\t\"type\": \"cgroup\"\n\t\t\t}}{END}"), 1)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use serde_json::Value;

    use super::*;

    fn parse(text: &str) -> Value {
        serde_json::from_str(text).expect("JSON")
    }

    /// What `runc spec` writes, without what has to differ; `None` where runc is not installed.
    fn runcs(arguments: &[&str]) -> Option<Value> {
        let folder = tempfile::tempdir().expect("a folder");
        let status = Command::new("runc").arg("spec").args(arguments).current_dir(&folder).status().ok()?;
        assert!(status.success());
        let text = std::fs::read_to_string(folder.path().join("config.json")).expect("a config.json");
        let mut json = parse(&text);
        json["ociVersion"] = parse(DEFAULT)["ociVersion"].clone();
        // runc up to 1.1 had ambient capabilities, which without inheritable ones have no effect.
        json["process"]["capabilities"].as_object_mut().expect("capabilities").remove("ambient");
        Some(json)
    }

    fn ours(text: String) -> String {
        if unified() { with_cgroup_namespace(&text) } else { text }
    }

    #[test]
    fn the_default_is_runcs() {
        let Some(json) = runcs(&[]) else {
            eprintln!("skipped: runc is not installed");
            return;
        };
        let ours = ours(DEFAULT.to_owned());
        assert_eq!(parse(&ours), json);
    }

    #[test]
    fn the_rootless_one_is_runcs() {
        let Some(json) = runcs(&["--rootless"]) else {
            eprintln!("skipped: runc is not installed");
            return;
        };
        let ids = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        assert_eq!(parse(&ours(rootless(ids.0, ids.1))), json);
    }

    #[test]
    fn both_ids_are_mapped() {
        for ids in [(1000, 100), (0, 0), (0, 7), (7, 0)] {
            let json = parse(&rootless(ids.0, ids.1));
            assert_eq!(json["linux"]["uidMappings"][0]["hostID"], ids.0);
            assert_eq!(json["linux"]["gidMappings"][0]["hostID"], ids.1);
        }
    }

    #[test]
    fn the_cgroup_namespace_is_added_on_v2() {
        for text in [DEFAULT, ROOTLESS] {
            let json = parse(&with_cgroup_namespace(text));
            let namespaces = json["linux"]["namespaces"].as_array().expect("namespaces");
            assert_eq!(namespaces.last().expect("one")["type"], "cgroup");
        }
    }

    #[test]
    fn both_can_be_read_as_a_spec() {
        for text in [DEFAULT, ROOTLESS] {
            serde_json::from_str::<oci_spec::runtime::Spec>(text).expect("a spec");
        }
    }

    #[test]
    fn an_existing_file_is_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("config.json");
        write(&path, "first").expect("written");
        let error = write(&path, "second").expect_err("refused");
        assert!(error.to_string().contains("exists. Remove it first"));
        assert_eq!(std::fs::read_to_string(&path).expect("kept"), "first");
    }
}
