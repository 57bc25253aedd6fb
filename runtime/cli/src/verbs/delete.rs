//! `flint delete`

use anyhow::Result;
use flint_runtime::Kind;

use super::{CONTAINER, Verb};
use crate::Session;
use crate::arguments::{Arguments, switch};

pub(super) const VERB: Verb = Verb {
    name: "delete",
    summary: "delete a container",
    description: "Removes all that is left of a stopped container. With --force a running one is killed first,
and one that does not exist is no failure.",
    flags: &[switch("force", Some('f'), "kill the container first if it runs")],
    run,
    ..CONTAINER
};

fn run(session: &Session, arguments: &Arguments) -> Result<u8> {
    let force = arguments.is_set("force");
    match session.runtime()?.delete(arguments.operand(0)?, force) {
        Err(error) if force && error.kind() == Kind::NotFound => Ok(0),
        result => {
            session.warn(&result?);
            Ok(0)
        }
    }
}
