//! What must hold of any config.json: refused with a sentence, or compiled to the same plan each time, which can be told.

use std::cell::OnceCell;

use serde_json::Value;

use super::samples::{config, hybrid, options, unified_with, wide, with_user};
use super::{Host, compile};
use crate::bundle::Bundle;
use crate::describe::describe_plan;
use crate::fuzzing::Verdict;

/// Configs that a host takes, to be damaged.
pub(crate) fn seeds() -> [Value; 4] {
    [config(), with_user(config()), wide(), with_user(wide())]
}

/// A hybrid host, and one with cgroup v2 and most controllers.
fn hosts() -> [Host; 2] {
    [hybrid(), unified_with(&["cpu", "cpuset", "hugetlb", "memory", "pids"])]
}

/// Compiles `json` for two hosts, each twice. Taken, if one of them takes it.
///
/// # Panics
///
/// When a config does not compile to the same plan again, when a step of the plan cannot be told, or when a refusal
/// has no words.
#[allow(clippy::must_use_candidate, reason = "what counts is that it returns")]
pub fn check(json: &[u8]) -> Verdict {
    thread_local! {
        static HOSTS: OnceCell<[Host; 2]> = const { OnceCell::new() };
    }
    HOSTS.with(|hosts_| {
        let taken = hosts_.get_or_init(hosts).each_ref().map(|host| on(host, json));
        if taken.contains(&true) { Verdict::Taken } else { Verdict::Refused }
    })
}

fn on(host: &Host, json: &[u8]) -> bool {
    let text = || String::from_utf8_lossy(json);
    let plan = || compile(&Bundle::from_parts("/bundle".into(), json.to_vec())?, host, &options());
    match plan() {
        Ok(first) => {
            let again = plan().unwrap_or_else(|error| panic!("compiled once and not again ({error}): {}", text()));
            assert_eq!(format!("{first:?}"), format!("{again:?}"), "two plans for {}", text());
            assert_eq!(describe_plan(&first).len(), first.host.len() + first.init.len(), "{}", text());
            true
        }
        Err(error) => {
            assert!(!error.to_string().trim().is_empty(), "refused without a word: {}", text());
            false
        }
    }
}
