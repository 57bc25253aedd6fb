//! `flint resume`

use anyhow::Result;

use super::{CONTAINER, Verb};
use crate::Session;
use crate::arguments::Arguments;

pub(super) const VERB: Verb =
    Verb { name: "resume", summary: "let the processes of a paused container go on", run, ..CONTAINER };

fn run(session: &Session, arguments: &Arguments) -> Result<u8> {
    session.runtime()?.resume(arguments.operand(0)?)?;
    Ok(0)
}
