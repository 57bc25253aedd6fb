//! config.json: the image's config, docker's defaults, and the caller's wishes (image-spec, conversion.md).

mod annotations;
mod defaults;
mod seccomp;
mod user;
mod wishes;

use std::path::Path;

use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::image::Image;
pub use user::user;
pub use wishes::{BindMount, Resources, Wishes};

/// PATH of images that have none; docker's.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A bundle's config.
#[derive(Debug, Clone)]
pub struct Generated {
    /// What config.json says.
    pub config: Value,
    /// Whom the image or the caller names, and who has no id where only one is mapped: root runs the program there.
    pub user_left_out: Option<String>,
}

/// The config of a bundle of the image `name`, whose root filesystem is in the folder `rootfs`: there users' names are looked up.
/// `root.path` is `rootfs`.
///
/// # Errors
///
/// When there is no program to run, or the user is not in the root filesystem.
pub fn generate(image: &Image, name: &str, rootfs: &Path, wishes: &Wishes) -> Result<Generated> {
    let config = image.config.config().clone().unwrap_or_default();
    let named = wishes.user.clone().or_else(|| config.user().clone()).unwrap_or_default();
    let user = user(rootfs, &named)?;
    let capabilities = wishes.capabilities(&defaults::CAPABILITIES)?;
    let args = arguments(&config, wishes)?;
    let cwd = wishes.cwd.clone().or_else(|| config.working_dir().clone()).filter(|cwd| !cwd.is_empty());
    let cwd = cwd.unwrap_or_else(|| "/".to_owned());
    if !cwd.starts_with('/') {
        return Err(Error::refused(format!("the working directory {cwd:?} is not absolute")));
    }
    let is_root = user["uid"] == json!(0);
    let mut spec = json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": wishes.terminal,
            "user": user,
            "args": args,
            "env": environment(config.env().as_deref().unwrap_or_default(), wishes),
            "cwd": cwd,
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
            "noNewPrivileges": wishes.no_new_privileges,
            "oomScoreAdj": 0,
        },
        "root": {"path": "rootfs", "readonly": wishes.read_only},
        "mounts": defaults::mounts(),
        "annotations": annotations::of(image, &config, name),
        "linux": {
            "namespaces": defaults::namespaces(wishes.host_network),
            "resources": wishes.resources.to_json(),
            "maskedPaths": defaults::MASKED,
            "readonlyPaths": defaults::READ_ONLY,
        },
    });
    if let Some(hostname) = wishes.hostname.as_ref().filter(|_| !wishes.host_network) {
        set(&mut spec, "/hostname", json!(hostname));
    }
    for mount in &wishes.mounts {
        if let Some(mounts) = spec.pointer_mut("/mounts").and_then(Value::as_array_mut) {
            mounts.push(mount.to_json()?);
        }
    }
    let profile = wishes.seccomp.then(|| seccomp::profile(&capabilities, std::env::consts::ARCH));
    if let Some(profile) = profile.filter(|profile| !profile.is_null()) {
        set(&mut spec, "/linux/seccomp", profile);
    }
    let mut user_left_out = None;
    if !rustix::process::geteuid().is_root() {
        user_left_out = (!is_root).then_some(named);
        defaults::for_a_user(&mut spec);
    }
    Ok(Generated { config: spec, user_left_out })
}

/// Sets a member of an object that is there.
fn set(spec: &mut Value, pointer: &str, value: Value) {
    let Some((above, name)) = pointer.rsplit_once('/') else { return };
    if let Some(Value::Object(members)) = spec.pointer_mut(above) {
        members.insert(name.to_owned(), value);
    }
}

/// The program: docker's rule of ENTRYPOINT and CMD. A new entrypoint drops the image's command.
fn arguments(config: &oci_spec::image::Config, wishes: &Wishes) -> Result<Vec<String>> {
    let of_image = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    let mut args = wishes.entrypoint.clone().unwrap_or_else(|| of_image(config.entrypoint()));
    if !wishes.command.is_empty() {
        args.extend(wishes.command.iter().cloned());
    } else if wishes.entrypoint.is_none() {
        args.extend(of_image(config.cmd()));
    }
    if args.is_empty() {
        return Err(Error::refused("the image says no program to run; name one behind `--`"));
    }
    Ok(args)
}

/// The image's variables, then the caller's: the last one of a name counts, in the first one's place.
fn environment(of_image: &[String], wishes: &Wishes) -> Vec<String> {
    let name = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    let mut env: Vec<String> = Vec::new();
    let terminal = wishes.terminal.then(|| "TERM=xterm".to_owned());
    for variable in [PATH.to_owned()].iter().chain(&terminal).chain(of_image).chain(&wishes.env) {
        match env.iter_mut().find(|there| name(there) == name(variable)) {
            Some(there) => there.clone_from(variable),
            None => env.push(variable.clone()),
        }
    }
    env
}

#[cfg(test)]
mod tests;
