//! `flint umount`

use std::path::Path;

use anyhow::Result;

use super::{CONTAINER, Verb};
use crate::Session;
use crate::arguments::Arguments;

pub(super) const VERB: Verb = Verb {
    name: "umount",
    summary: "take a mount from a running container",
    operands: "<container-id> <destination>",
    count: (2, 2),
    description: "Detaches the mount at the destination inside the container, with all mounts below it.",
    failure: "flint umount: ",
    clones: true,
    run,
    ..CONTAINER
};

fn run(session: &Session, arguments: &Arguments) -> Result<u8> {
    session.runtime()?.umount(arguments.operand(0)?, Path::new(arguments.operand(1)?))?;
    Ok(0)
}
