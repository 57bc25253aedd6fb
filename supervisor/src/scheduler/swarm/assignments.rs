//! What a manager assigns to this node, put together of its messages.
//!
//! ```text
//!  COMPLETE "" -> "1",  INCREMENTAL "1" -> "2",  "2" -> "3", ...      anything else: the stream is opened again
//! ```
//!
//! Secrets and configs are here alone, in memory.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{bail, ensure};

use super::wire::dispatcher::{Action, Assignment, AssignmentsMessage, Extent};
use super::wire::task::{PayloadSpec, Task};

/// Secrets and configs, by their ids.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Payloads {
    /// Secrets.
    pub secrets: BTreeMap<String, PayloadSpec>,
    /// Configs.
    pub configs: BTreeMap<String, PayloadSpec>,
}

/// What a message changed.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Changes {
    /// Tasks that are new, or are wanted otherwise.
    pub tasks: Vec<Task>,
    /// Tasks that are assigned to this node no longer.
    pub removed: BTreeSet<String>,
    /// Whether this is all there is: what is not in it is not assigned.
    pub is_complete: bool,
}

/// Takes messages of a stream in their order.
#[derive(Debug, Default)]
pub(super) struct Sequence {
    position: Option<String>,
}

impl Sequence {
    /// Whether this message follows on the ones before.
    ///
    /// # Errors
    ///
    /// When it does not: what it says is of no use, and the stream has to be opened again.
    pub(super) fn accept(&mut self, message: &AssignmentsMessage) -> anyhow::Result<Extent> {
        let Ok(extent) = Extent::try_from(message.extent) else {
            bail!("an assignment of an unknown kind ({})", message.extent)
        };
        match (extent, &self.position) {
            (Extent::Complete, _) => {}
            (Extent::Incremental, None) => bail!("the first assignments are not complete"),
            (Extent::Incremental, Some(position)) => ensure!(
                message.applies_to == *position,
                "assignments apply to {:?}, and this node has {position:?}",
                message.applies_to
            ),
        }
        self.position = Some(message.results_in.clone());
        Ok(extent)
    }
}

impl Payloads {
    /// Takes the secrets and configs of a message, and tells what it says of tasks.
    pub(super) fn apply(&mut self, extent: Extent, message: AssignmentsMessage) -> Changes {
        let mut changes = Changes { is_complete: extent == Extent::Complete, ..Changes::default() };
        if changes.is_complete {
            *self = Self::default();
        }
        for change in message.changes {
            let Assignment { task, secret, config } = change.assignment.unwrap_or_default();
            let is_removal = change.action == i32::from(Action::Remove);
            if let Some(secret) = secret {
                put(&mut self.secrets, secret.id, secret.spec, is_removal);
            }
            if let Some(config) = config {
                put(&mut self.configs, config.id, config.spec, is_removal);
            }
            match task {
                Some(task) if is_removal => {
                    changes.tasks.retain(|other| other.id != task.id);
                    changes.removed.insert(task.id);
                }
                Some(task) => {
                    changes.removed.remove(&task.id);
                    changes.tasks.push(task);
                }
                None => {}
            }
        }
        changes
    }
}

fn put(of: &mut BTreeMap<String, PayloadSpec>, id: String, spec: Option<PayloadSpec>, is_removal: bool) {
    if is_removal {
        of.remove(&id);
    } else {
        of.insert(id, spec.unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::swarm::wire::dispatcher::AssignmentChange;
    use crate::scheduler::swarm::wire::task::Secret;

    fn message(extent: Extent, applies_to: &str, results_in: &str) -> AssignmentsMessage {
        AssignmentsMessage {
            extent: extent.into(),
            applies_to: applies_to.into(),
            results_in: results_in.into(),
            changes: Vec::new(),
        }
    }

    fn change(action: Action, assignment: Assignment) -> AssignmentChange {
        AssignmentChange { assignment: Some(assignment), action: action.into() }
    }

    fn task(id: &str) -> Assignment {
        Assignment { task: Some(Task { id: id.into(), ..Task::default() }), ..Assignment::default() }
    }

    fn secret(id: &str) -> Assignment {
        let spec = Some(PayloadSpec { data: id.as_bytes().to_vec(), ..PayloadSpec::default() });
        Assignment { secret: Some(Secret { id: id.into(), spec }), ..Assignment::default() }
    }

    #[test]
    fn messages_are_taken_in_their_order_only() {
        let mut sequence = Sequence::default();
        assert!(sequence.accept(&message(Extent::Incremental, "", "1")).is_err(), "the first is complete");
        sequence.accept(&message(Extent::Complete, "", "1")).unwrap();
        sequence.accept(&message(Extent::Incremental, "1", "2")).unwrap();
        assert!(sequence.accept(&message(Extent::Incremental, "3", "4")).is_err(), "one is missing");
        assert!(sequence.accept(&message(Extent::Incremental, "1", "2")).is_err(), "one came twice");
        sequence.accept(&message(Extent::Incremental, "2", "3")).unwrap();
        sequence.accept(&message(Extent::Complete, "", "1")).unwrap();
        sequence.accept(&message(Extent::Incremental, "1", "2")).unwrap();
        let unknown = AssignmentsMessage { extent: 7, ..message(Extent::Complete, "", "3") };
        assert!(sequence.accept(&unknown).is_err());
    }

    #[test]
    fn a_complete_message_wipes_what_is_not_in_it() {
        let mut payloads = Payloads::default();
        let mut first = message(Extent::Complete, "", "1");
        first.changes = vec![change(Action::Update, secret("s1")), change(Action::Update, task("t1"))];
        let changes = payloads.apply(Extent::Complete, first);
        assert!(changes.is_complete && changes.tasks.len() == 1 && payloads.secrets.contains_key("s1"));
        let mut second = message(Extent::Incremental, "1", "2");
        second.changes = vec![change(Action::Remove, task("t1")), change(Action::Update, secret("s2"))];
        let changes = payloads.apply(Extent::Incremental, second);
        assert!(!changes.is_complete && changes.removed.contains("t1") && payloads.secrets.len() == 2);
        payloads.apply(Extent::Complete, message(Extent::Complete, "", "1"));
        assert_eq!(payloads, Payloads::default());
    }

    #[test]
    fn what_is_removed_and_assigned_in_one_message_ends_as_its_last_word() {
        let mut both = message(Extent::Incremental, "1", "2");
        both.changes = vec![change(Action::Update, task("a")), change(Action::Remove, task("a"))];
        let changes = Payloads::default().apply(Extent::Incremental, both.clone());
        assert!(changes.tasks.is_empty() && changes.removed.contains("a"));
        both.changes.reverse();
        let changes = Payloads::default().apply(Extent::Incremental, both);
        assert!(changes.tasks.len() == 1 && changes.removed.is_empty());
    }
}
