//! `flint list`

use anyhow::{Result, bail};
use flint_runtime::State;

use super::{CONTAINER, Verb};
use crate::arguments::{Arguments, option, switch};
use crate::{Session, print};

pub(super) const VERB: Verb = Verb {
    name: "list",
    summary: "list the containers",
    operands: "",
    count: (0, 0),
    description: "Lists the containers whose state is below --root.",
    flags: &[
        option("format", Some('f'), "FORMAT", "table or json (default: table)"),
        switch("quiet", Some('q'), "print the ids only"),
    ],
    run,
    ..CONTAINER
};

fn run(session: &Session, arguments: &Arguments) -> Result<u8> {
    let format = arguments.text("format")?.unwrap_or("table");
    if !["table", "json"].contains(&format) {
        bail!("invalid format option {format:?}: it must be table or json");
    }
    let mut states = Vec::new();
    // One that only looks makes no state root.
    for (id, state) in if session.has_root()? { session.runtime()?.list()? } else { Vec::new() } {
        match state {
            Ok(state) => states.push(state),
            Err(error) => session.log.warning(&format!("container {id} is not listed: {error}")),
        }
    }
    print(&if arguments.is_set("quiet") {
        states.iter().fold(String::new(), |text, state| text + &state.id + "\n")
    } else if format == "table" {
        table(&rows(&states))
    } else if states.is_empty() {
        // As Go encodes an empty list; callers are used to it.
        "null\n".to_owned()
    } else {
        serde_json::to_string(&states)? + "\n"
    })?;
    Ok(0)
}

fn rows(states: &[State]) -> Vec<[String; 6]> {
    let heading = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned);
    let row = |state: &State| {
        [
            state.id.clone(),
            state.pid.to_string(),
            state.status.as_str().to_owned(),
            state.bundle.display().to_string(),
            state.created.clone(),
            state.owner.clone(),
        ]
    };
    std::iter::once(heading).chain(states.iter().map(row)).collect()
}

/// Columns as Go's tabwriter sets them for runc: at least 12 wide, 3 spaces apart, the last one ragged.
fn table<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> String {
    const NARROWEST: usize = 12;
    const GAP: usize = 3;
    let width = |column: usize| {
        let widest = rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        NARROWEST.max(widest + GAP)
    };
    let mut widths: [usize; COLUMNS] = std::array::from_fn(width);
    if let Some(last) = widths.last_mut() {
        *last = 0;
    }
    let mut text = String::new();
    for row in rows {
        for (cell, width) in row.iter().zip(widths) {
            text.push_str(cell);
            text.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count())));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use flint_runtime::Status;

    use super::*;

    #[test]
    fn an_empty_table_is_runcs_to_the_space() {
        assert_eq!(table(&rows(&[])), "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n");
    }

    #[test]
    fn columns_grow_with_their_widest_cell() {
        let state = State {
            oci_version: "1.0.2-dev".into(),
            id: "s1".into(),
            pid: 7403,
            status: Status::Running,
            bundle: "/tmp/cliprobe/s".into(),
            rootfs: "/tmp/cliprobe/s/rootfs".into(),
            created: "2026-11-23T02:42:58.325700825Z".into(),
            annotations: BTreeMap::new(),
            owner: "root".into(),
        };
        assert_eq!(
            table(&rows(&[state])),
            "ID          PID         STATUS      BUNDLE            CREATED                          OWNER\n\
             s1          7403        running     /tmp/cliprobe/s   2026-11-23T02:42:58.325700825Z   root\n"
        );
    }
}
