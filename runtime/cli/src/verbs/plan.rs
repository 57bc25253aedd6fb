//! `flint plan`

use anyhow::Result;

use super::{BUNDLE, CONFIG, CONTAINER, NO_NEW_KEYRING, NO_PIVOT, Verb};
use crate::arguments::{Arguments, switch};
use crate::{Session, print};

pub(super) const VERB: Verb = Verb {
    name: "plan",
    summary: "print what running a bundle would do, step by step",
    operands: "[container-id]",
    count: (0, 1),
    description: "Compiles the bundle as \"flint run\" does and prints the steps in their order. Nothing is made
and nothing is run. The id only matters for what is named after it.",
    flags: &[BUNDLE, CONFIG, switch("json", None, "print the plan as JSON"), NO_PIVOT, NO_NEW_KEYRING],
    run,
    ..CONTAINER
};

fn run(session: &Session, arguments: &Arguments) -> Result<u8> {
    let bundle = super::load_bundle(arguments)?;
    let id = if arguments.operands.is_empty() { "plan" } else { arguments.operand(0)? };
    let plan = session.runtime()?.plan(id, &bundle, &super::create_options(arguments)?)?;
    if arguments.is_set("json") {
        print(&(serde_json::to_string_pretty(&flint_runtime::describe::plan_json(&plan))? + "\n"))?;
    } else {
        session.warn(&plan.warnings);
        print(&(flint_runtime::describe::describe_plan(&plan).join("\n") + "\n"))?;
    }
    Ok(0)
}
