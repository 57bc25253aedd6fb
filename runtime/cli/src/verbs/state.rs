//! `flint state`

use anyhow::Result;

use super::{CONTAINER, Verb};
use crate::arguments::Arguments;
use crate::{Session, print};

pub(super) const VERB: Verb = Verb {
    name: "state",
    summary: "print the state of a container",
    description: "Prints the state of the runtime-spec (\"State\" in runtime.md) as JSON.",
    run,
    ..CONTAINER
};

fn run(session: &Session, arguments: &Arguments) -> Result<u8> {
    let state = session.runtime()?.state(arguments.operand(0)?)?;
    print(&(serde_json::to_string_pretty(&state)? + "\n"))?;
    Ok(0)
}
