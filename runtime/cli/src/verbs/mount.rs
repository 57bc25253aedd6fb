//! `flint mount`

use anyhow::{Context as _, Result};
use oci_spec::runtime::{Mount, MountBuilder};

use super::{CONTAINER, Verb};
use crate::Session;
use crate::arguments::{Arguments, option};

pub(super) const VERB: Verb = Verb {
    name: "mount",
    summary: "add a mount to a running container",
    operands: "<container-id> <source> <destination>",
    count: (3, 3),
    description: "Binds the host's file or folder at the destination inside the container, which is made where it is
missing; or, with --type, mounts a new file system there. The options are those of config.json's mounts:
ro, rbind, nosuid, noexec, idmap and the like. The mount is recorded nowhere and gone with the container.",
    flags: &[
        option("options", Some('o'), "OPTIONS", "options of the mount, with commas between them; may be repeated"),
        option("type", Some('t'), "TYPE", "a new file system of this type (default: a bind mount)"),
    ],
    failure: "flint mount: ",
    clones: true,
    run,
    ..CONTAINER
};

fn run(session: &Session, arguments: &Arguments) -> Result<u8> {
    let mount = mount(arguments)?;
    session.warn(&session.runtime()?.mount(arguments.operand(0)?, &mount)?);
    Ok(0)
}

fn mount(arguments: &Arguments) -> Result<Mount> {
    let (source, destination) = (arguments.operand(1)?, arguments.operand(2)?);
    let mut options: Vec<String> = Vec::new();
    for list in arguments.texts("options")? {
        options.extend(list.split(',').filter(|option| !option.is_empty()).map(str::to_owned));
    }
    let kind = arguments.value("type").map(|kind| kind.to_string_lossy().into_owned());
    let bind = kind.as_deref().is_none_or(|kind| matches!(kind, "bind" | "none"));
    // A path is the caller's; the source of a new file system is its own matter.
    let source =
        if bind { std::path::absolute(source).with_context(|| format!("the source {source}"))? } else { source.into() };
    if bind && !options.iter().any(|option| option == "bind" || option == "rbind") {
        options.push("bind".to_owned());
    }
    let mount = MountBuilder::default().source(source).destination(destination).options(options);
    Ok(mount.typ(kind.unwrap_or_else(|| "bind".to_owned())).build()?)
}
