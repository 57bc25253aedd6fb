//! Filters of system calls from the node's folder of profiles (Kubernetes' `seccompProfile: {type: Localhost}`).

use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, open, openat2};
use serde_json::Value;

/// Bytes of a profile; docker's default one has 12 KB.
const MOST: u64 = 1 << 20;

/// What a profile may have: that of the runtime specification's `linux.seccomp`, and a `comment`.
const FIELDS: [&str; 7] =
    ["defaultAction", "defaultErrnoRet", "architectures", "flags", "listenerPath", "listenerMetadata", "syscalls"];
/// The same of an entry of its `syscalls`.
const RULE_FIELDS: [&str; 5] = ["names", "action", "errnoRet", "args", "comment"];

/// The profile of a path below the folder, as config.json has it. A link in it leads to a place in the folder or nowhere.
///
/// # Errors
///
/// There is none, it leads out of the folder, or it has what would not be honoured: a filter that is less than what its author
/// wrote is none.
pub(super) fn profile(folder: &Path, path: &str) -> Result<Value> {
    let told = || format!("the seccomp profile {path} of {}", folder.display());
    let above = open(folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).with_context(told)?;
    // A fifo must hold nobody up.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let file = openat2(&above, path, flags, Mode::empty(), resolve).with_context(told)?;
    let found = fstat(&file).with_context(told)?;
    if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
        bail!("{}: it is no file", told());
    }
    let mut text = Vec::new();
    std::fs::File::from(file).take(MOST + 1).read_to_end(&mut text).with_context(told)?;
    if text.len() as u64 > MOST {
        bail!("{}: it has more than {MOST} bytes", told());
    }
    let profile: Value = serde_json::from_slice(&text).with_context(told)?;
    check(&profile).with_context(told)?;
    Ok(profile)
}

fn check(profile: &Value) -> Result<()> {
    let Some(fields) = profile.as_object() else { bail!("it is no JSON object") };
    if !fields.get("defaultAction").is_some_and(Value::is_string) {
        bail!("it has no defaultAction");
    }
    if let Some(field) = fields.keys().find(|field| !FIELDS.contains(&field.as_str()) && *field != "comment") {
        bail!("its field {field} is not one of the runtime specification's linux.seccomp: write it without");
    }
    let rules = match fields.get("syscalls") {
        None | Some(Value::Null) => return Ok(()),
        Some(rules) => rules.as_array().context("its syscalls are no list")?,
    };
    for (index, rule) in rules.iter().enumerate() {
        let fields = rule.as_object().with_context(|| format!("its syscalls[{index}] is no object"))?;
        if let Some(field) = fields.keys().find(|field| !RULE_FIELDS.contains(&field.as_str())) {
            bail!(
                "its syscalls[{index}].{field} is docker's and not the runtime specification's, which has no conditions: write rules for this node"
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::profile;

    #[test]
    fn a_profile_is_a_file_in_the_folder() {
        let outside = tempfile::tempdir().unwrap();
        let folder = outside.path().join("seccomp");
        let (write, text) = (
            |path: &str, text: &str| std::fs::write(outside.path().join(path), text).unwrap(),
            "{\"defaultAction\": \"SCMP_ACT_LOG\"}",
        );
        std::fs::create_dir_all(folder.join("profiles")).unwrap();
        write("secret.json", text);
        write("seccomp/profiles/audit.json", text);
        symlink("profiles/audit.json", folder.join("link.json")).unwrap();
        symlink("../secret.json", folder.join("out.json")).unwrap();
        symlink("/etc", folder.join("etc")).unwrap();
        symlink(outside.path().join("secret.json"), folder.join("absolute.json")).unwrap();
        for path in ["profiles/audit.json", "link.json"] {
            assert_eq!(profile(&folder, path).unwrap()["defaultAction"], "SCMP_ACT_LOG", "{path}");
        }
        for path in
            ["../secret.json", "out.json", "absolute.json", "etc/passwd", "profiles", "missing.json", "", "/dev/null"]
        {
            let error = format!("{:#}", profile(&folder, path).unwrap_err());
            assert!(error.contains("the seccomp profile") && error.contains("seccomp"), "{path:?}: {error}");
        }
    }

    #[test]
    fn what_would_not_be_honoured_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for (text, wanted) in [
            ("[]", "no JSON object"),
            ("{}", "no defaultAction"),
            ("not JSON", "the seccomp profile"),
            (r#"{"defaultAction": "SCMP_ACT_LOG", "archMap": []}"#, "its field archMap"),
            (
                r#"{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["clone"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}}]}"#,
                "syscalls[0].includes is docker's",
            ),
            (r#"{"defaultAction": "SCMP_ACT_LOG", "syscalls": {}}"#, "no list"),
        ] {
            std::fs::write(folder.path().join("profile.json"), text).unwrap();
            let error = format!("{:#}", profile(folder.path(), "profile.json").unwrap_err());
            assert!(error.contains(wanted), "{text}: {error}");
        }
        let whole = r#"{"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64"],
                        "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW", "comment": "why"}]}"#;
        std::fs::write(folder.path().join("profile.json"), whole).unwrap();
        assert_eq!(profile(folder.path(), "profile.json").unwrap()["syscalls"][0]["names"][0], "read");
    }
}
