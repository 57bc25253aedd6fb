//! Who a task runs as and what it may do, and the credentials of its image.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde::Deserialize;

use super::{Unmappable, none};
use crate::desired::{SeccompProfile, SecurityContext, User};
use crate::scheduler::swarm::wire::container::{ContainerSpec, Privileges};

pub(super) fn context(spec: &ContainerSpec) -> Result<SecurityContext, Unmappable> {
    let Privileges { credential_spec, selinux_context, seccomp, apparmor, no_new_privileges } =
        spec.privileges.clone().unwrap_or_default();
    none(credential_spec.is_none(), "privileges.credential_spec", "it is of Windows")?;
    // It is as if they were disabled: there are none.
    let disabled = selinux_context.is_none_or(|context| context.disable);
    none(disabled, "privileges.selinux_context", "flintd sets no labels of SELinux")?;
    none(
        apparmor.is_none_or(|apparmor| matches!(apparmor.mode, 0 | 1)),
        "privileges.apparmor",
        "flintd does not choose profiles",
    )?;
    let seccomp = match seccomp.map_or(0, |seccomp| seccomp.mode) {
        0 => SeccompProfile::RuntimeDefault,
        1 => SeccompProfile::Unconfined,
        _ => return Err(Unmappable::new("privileges.seccomp", "flintd takes no profiles from a swarm")),
    };
    let (cap_add, cap_drop) = (capabilities(&spec.capability_add), capabilities(&spec.capability_drop));
    let twice = cap_add.iter().find(|name| cap_drop.contains(name));
    none(twice.is_none(), "capability_drop", "a capability is both added and dropped")?;
    Ok(SecurityContext {
        user: user(spec)?,
        privileged: false,
        no_new_privileges,
        read_only_rootfs: spec.read_only,
        cap_add,
        cap_drop,
        seccomp,
    })
}

fn user(spec: &ContainerSpec) -> Result<User, Unmappable> {
    let group = |name: &String| {
        name.parse()
            .map_err(|_| Unmappable::new("groups", format!("{name:?} is no number, and flintd looks up no names")))
    };
    Ok(User {
        user: (!spec.user.is_empty()).then(|| spec.user.clone()),
        groups: spec.groups.iter().map(group).collect::<Result<_, _>>()?,
        must_not_be_root: false,
    })
}

fn capabilities(names: &[String]) -> Vec<String> {
    let plain = |name: &String| {
        let name = name.to_ascii_uppercase();
        name.strip_prefix("CAP_").map_or_else(|| name.clone(), str::to_owned)
    };
    names.iter().map(plain).collect()
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Auth {
    username: String,
    password: String,
    #[serde(rename = "auth")]
    both: String,
    identitytoken: String,
    registrytoken: String,
}

/// `user:password` of the registry, which come as JSON in base64. Errors never show them.
pub(super) fn credentials(spec: &ContainerSpec) -> Result<Option<String>, Unmappable> {
    const FIELD: &str = "pull_options.registry_auth";
    let text = spec.pull_options.as_ref().map_or("", |options| options.registry_auth.as_str());
    if text.is_empty() {
        return Ok(None);
    }
    let broken = || Unmappable::new(FIELD, "it is not JSON in base64url");
    let json = URL_SAFE.decode(text).map_err(|_| broken())?;
    let auth: Auth = serde_json::from_slice(&json).map_err(|_| broken())?;
    let has_token = !auth.identitytoken.is_empty() || !auth.registrytoken.is_empty();
    none(!has_token, FIELD, "flintd takes a user and a password, no tokens")?;
    if !auth.username.is_empty() {
        return Ok(Some(format!("{}:{}", auth.username, auth.password)));
    }
    if auth.both.is_empty() {
        return Ok(None);
    }
    let plain = STANDARD.decode(&auth.both).ok().and_then(|plain| String::from_utf8(plain).ok());
    plain.map(Some).ok_or_else(broken)
}
