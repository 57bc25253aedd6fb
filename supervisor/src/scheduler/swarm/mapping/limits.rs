//! Limits of a task's processes, and who is killed first when memory is short.

use super::{Unmappable, none};
use crate::desired::Rlimit;
use crate::scheduler::swarm::wire::container::Ulimit;

/// docker's names, which are the kernel's without `RLIMIT_` and in small letters.
const NAMES: &[&str] = &[
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// The field `ulimits`; of a name that comes twice the last counts, as in docker.
pub(super) fn rlimits(ulimits: &[Ulimit]) -> Result<Vec<Rlimit>, Unmappable> {
    let mut rlimits: Vec<Rlimit> = Vec::new();
    for Ulimit { name, soft, hard } in ulimits {
        let known = NAMES.contains(&name.as_str());
        none(known, "ulimits", &format!("{name:?} is no limit of the kernel's: it has {}", NAMES.join(", ")))?;
        let kind = format!("RLIMIT_{}", name.to_ascii_uppercase());
        let (soft, hard) = (value(name, *soft)?, value(name, *hard)?);
        none(soft <= hard, "ulimits", &format!("of {name} the soft limit is above the hard one"))?;
        rlimits.retain(|one| one.kind != kind);
        rlimits.push(Rlimit { kind, soft, hard });
    }
    Ok(rlimits)
}

/// -1 is none.
fn value(name: &str, value: i64) -> Result<u64, Unmappable> {
    match value {
        -1 => Ok(u64::MAX),
        _ => u64::try_from(value).map_err(|_| Unmappable::new("ulimits", format!("{value} is no limit of {name}"))),
    }
}

/// The field `oom_score_adj`; 0 is what a task has that says nothing, and leaves it to flintd.
pub(super) fn oom_score_adj(given: i64) -> Result<Option<i32>, Unmappable> {
    match i32::try_from(given) {
        Ok(0) => Ok(None),
        Ok(given @ -1000..=1000) => Ok(Some(given)),
        _ => Err(Unmappable::new("oom_score_adj", format!("{given} is not from -1000 to 1000"))),
    }
}
