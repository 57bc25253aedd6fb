//! Every field of the documents that are read, and what a node alone does with it.
//!
//! A field that is in no list is unknown, and refused as kubectl's strict validation refuses it. The lists are the truth:
//! `docs/manifests.md` shows them, and a test compares.

mod container;
mod objects;
mod pod;
mod scheduling;
mod volume;

pub(super) use container::*;
pub(super) use objects::*;
pub(super) use pod::*;
pub(super) use scheduling::*;
pub(super) use volume::*;

/// What is done with a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It does what Kubernetes says; what is told more is the bounds of it.
    Honoured(&'static str),
    /// It may be there and changes nothing, for this reason.
    NoEffect(&'static str),
    /// It is refused, for this reason.
    Refused(&'static str),
}

/// A field.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) verdict: Verdict,
}

/// The fields of one type.
#[derive(Debug)]
pub(super) struct Shape {
    /// As Kubernetes' reference calls it.
    pub(super) name: &'static str,
    pub(super) fields: &'static [Field],
}

const fn yes(name: &'static str) -> Field {
    Field { name, verdict: Verdict::Honoured("") }
}

const fn within(name: &'static str, bounds: &'static str) -> Field {
    Field { name, verdict: Verdict::Honoured(bounds) }
}

const fn idle(name: &'static str, why: &'static str) -> Field {
    Field { name, verdict: Verdict::NoEffect(why) }
}

const fn no(name: &'static str, why: &'static str) -> Field {
    Field { name, verdict: Verdict::Refused(why) }
}

impl Shape {
    pub(super) fn find(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// The field that was meant, perhaps.
    pub(super) fn like(&self, name: &str) -> Option<&'static str> {
        nearest(name, self.fields.iter().map(|field| field.name))
    }
}

/// The word that is the same but for case, or two letters at most.
pub(super) fn nearest<'a>(name: &str, words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // What is written into a manifest may be long, and the comparison is quadratic.
    if name.len() > 64 {
        return None;
    }
    let wanted = name.to_lowercase();
    let bound = if wanted.len() > 3 { 2 } else { 1 };
    let near = words.map(|word| (distance(&wanted, &word.to_lowercase()), word));
    near.filter(|(distance, _)| *distance <= bound).min_by_key(|(distance, _)| *distance).map(|(_, word)| word)
}

/// Letters to be changed, added or left out (Levenshtein's distance).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (line, letter) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for (column, wanted) in other.iter().enumerate() {
            let changed = diagonal + usize::from(letter != *wanted);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}

/// All lists, in the order of the documentation.
#[cfg(test)]
pub(super) static ALL: &[&Shape] = &[
    &POD,
    &OBJECT_META,
    &POD_SPEC,
    &POD_SECURITY_CONTEXT,
    &SYSCTL,
    &SECCOMP_PROFILE,
    &APP_ARMOR_PROFILE,
    &POD_DNS_CONFIG,
    &POD_DNS_CONFIG_OPTION,
    &HOST_ALIAS,
    &LOCAL_OBJECT_REFERENCE,
    &POD_OS,
    &CONTAINER,
    &CONTAINER_PORT,
    &ENV_VAR,
    &ENV_VAR_SOURCE,
    &KEY_SELECTOR,
    &OBJECT_FIELD_SELECTOR,
    &RESOURCE_FIELD_SELECTOR,
    &ENV_FROM_SOURCE,
    &OPTIONAL_REFERENCE,
    &RESOURCE_REQUIREMENTS,
    &RESIZE_POLICY,
    &SECURITY_CONTEXT,
    &CAPABILITIES,
    &PROBE,
    &EXEC_ACTION,
    &HTTP_GET_ACTION,
    &HTTP_HEADER,
    &TCP_SOCKET_ACTION,
    &GRPC_ACTION,
    &LIFECYCLE,
    &LIFECYCLE_HANDLER,
    &SLEEP_ACTION,
    &VOLUME_MOUNT,
    &VOLUME,
    &EMPTY_DIR,
    &HOST_PATH,
    &CONFIG_MAP_VOLUME,
    &SECRET_VOLUME,
    &KEY_TO_PATH,
    &CLAIM_VOLUME,
    &DOWNWARD_VOLUME,
    &DOWNWARD_FILE,
    &PROJECTED_VOLUME,
    &PROJECTION,
    &CONFIG_MAP_PROJECTION,
    &SECRET_PROJECTION,
    &DOWNWARD_PROJECTION,
    &AFFINITY,
    &NODE_AFFINITY,
    &NODE_SELECTOR,
    &NODE_SELECTOR_TERM,
    &NODE_SELECTOR_REQUIREMENT,
    &POD_AFFINITY,
    &CONFIG_MAP,
    &SECRET,
    &CLAIM,
    &CLAIM_SPEC,
    &LIST,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_pen_is_understood_and_another_word_is_not() {
        assert_eq!(CONTAINER.like("imag"), Some("image"));
        assert_eq!(CONTAINER.like("imagepullpolicy"), Some("imagePullPolicy"));
        assert_eq!(CONTAINER.like("livenesProbe"), Some("livenessProbe"));
        assert_eq!(CONTAINER.like("replicas"), None);
        assert_eq!(CONTAINER.like(&"x".repeat(1 << 20)), None);
    }

    #[test]
    fn no_list_has_a_field_twice_and_every_refusal_has_a_reason() {
        for shape in ALL {
            for (index, field) in shape.fields.iter().enumerate() {
                let again = shape.fields[index + 1..].iter().any(|other| other.name == field.name);
                assert!(!again, "{}.{}", shape.name, field.name);
                match field.verdict {
                    Verdict::NoEffect(why) | Verdict::Refused(why) => {
                        assert!(!why.is_empty(), "{}.{}", shape.name, field.name);
                    }
                    Verdict::Honoured(_) => {}
                }
            }
        }
    }
}
