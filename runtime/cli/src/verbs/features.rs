//! `flint features`

use anyhow::Result;
use serde::Serialize;
use serde_json::ser::PrettyFormatter;

use super::{CONTAINER, Verb};
use crate::arguments::Arguments;
use crate::{Session, print};

pub(super) const VERB: Verb = Verb {
    name: "features",
    summary: "print what this runtime can do",
    operands: "",
    count: (0, 0),
    description: "Prints the features document of the runtime-spec (features.md) as JSON.",
    run,
    ..CONTAINER
};

fn run(_: &Session, _: &Arguments) -> Result<u8> {
    let mut text = Vec::with_capacity(8192);
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, PrettyFormatter::with_indent(b"    "));
    flint_runtime::features::features().serialize(&mut serializer)?;
    text.push(b'\n');
    print(&String::from_utf8(text)?)?;
    Ok(0)
}
