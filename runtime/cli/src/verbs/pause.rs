//! `flint pause`

use anyhow::Result;

use super::{CONTAINER, Verb};
use crate::Session;
use crate::arguments::Arguments;

pub(super) const VERB: Verb = Verb {
    name: "pause",
    summary: "suspend all processes of a container",
    description: "Freezes the container's cgroup. All its processes stand when this returns; \"flint resume\" lets
them go on.",
    run,
    ..CONTAINER
};

fn run(session: &Session, arguments: &Arguments) -> Result<u8> {
    session.runtime()?.pause(arguments.operand(0)?)?;
    Ok(0)
}
