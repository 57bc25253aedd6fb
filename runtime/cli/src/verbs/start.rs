//! `flint start`

use anyhow::Result;

use super::{CONTAINER, Verb};
use crate::Session;
use crate::arguments::Arguments;

pub(super) const VERB: Verb = Verb {
    name: "start",
    summary: "start the program of a created container",
    description: "Runs the program that config.json names, in a container that \"flint create\" made.",
    run,
    ..CONTAINER
};

fn run(session: &Session, arguments: &Arguments) -> Result<u8> {
    session.warn(&session.runtime()?.start(arguments.operand(0)?)?);
    Ok(0)
}
