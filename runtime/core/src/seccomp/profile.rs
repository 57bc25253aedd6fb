//! The bundle's rules, checked and in the form the compiler needs.

use super::action;
use super::argument::Condition;
use crate::{Error, Result};
use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompArg, LinuxSyscall};
use std::collections::HashMap;

/// One rule: its action when all conditions hold.
#[derive(Clone)]
pub(super) struct Rule {
    /// `ANDed`, at most one for each argument, ordered by argument. Empty: always.
    pub(super) conditions: Vec<Condition>,
    /// The filter's return value.
    pub(super) action: u32,
}

/// The profile of a bundle.
pub(super) struct Profile<'a> {
    /// The return value for calls without a matching rule.
    pub(super) default: u32,
    /// All rules, in the profile's order.
    pub(super) rules: Vec<Rule>,
    /// Every name that occurs, with the places of its rules in `rules`. A name whose rules were all dropped is kept:
    /// it counts as known to the profile's author, which is what the `ENOSYS` stub asks for.
    pub(super) names: HashMap<&'a str, Vec<usize>>,
}

impl<'a> Profile<'a> {
    /// Reads and checks `spec`.
    ///
    /// # Errors
    /// See [`super::compile`].
    pub(super) fn read(spec: &'a LinuxSeccomp, warnings: &mut Vec<String>) -> Result<Self> {
        let default =
            action::return_value(spec.default_action(), spec.default_errno_ret(), "the default action", warnings)?;
        if default == libc::SECCOMP_RET_USER_NOTIF {
            return Err(Error::invalid("seccomp: SCMP_ACT_NOTIFY cannot be used as default action"));
        }
        let mut profile = Self { default, rules: Vec::new(), names: HashMap::new() };
        for block in spec.syscalls().iter().flatten() {
            profile.add(block, warnings)?;
        }
        Ok(profile)
    }

    /// Whether a rule asks an agent.
    pub(super) fn notifies(&self) -> bool {
        self.rules.iter().any(|rule| rule.action == libc::SECCOMP_RET_USER_NOTIF)
    }

    /// Whether the profile names no call at all.
    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    fn add(&mut self, block: &'a LinuxSyscall, warnings: &mut Vec<String>) -> Result<()> {
        let place = match block.names().first() {
            Some(name) => format!("the rule for {name}"),
            None => "a rule without names".to_owned(),
        };
        let action = action::return_value(block.action(), block.errno_ret(), &place, warnings)?;
        let from = self.rules.len();
        if action != self.default {
            for conditions in alternatives(block.args().as_deref().unwrap_or_default(), &place)? {
                self.rules.push(Rule { conditions, action });
            }
        }
        for name in block.names() {
            if name.is_empty() {
                return Err(Error::invalid(format!("seccomp: {place}: a syscall's name is empty")));
            }
            // init says by write(2) which descriptor the agent needs to answer at all.
            if action == libc::SECCOMP_RET_USER_NOTIF && name == "write" {
                return Err(Error::invalid("seccomp: SCMP_ACT_NOTIFY cannot be used for the write syscall"));
            }
            self.names.entry(name).or_default().extend(from..self.rules.len());
        }
        Ok(())
    }
}

/// The conditions of the rules that one block of the profile stands for: one set of all, or, when an argument is
/// repeated, one set for each condition (libseccomp refuses a repeated argument, and runc then does this).
fn alternatives(arguments: &[LinuxSeccompArg], place: &str) -> Result<Vec<Vec<Condition>>> {
    let mut conditions =
        arguments.iter().map(|argument| Condition::new(*argument, place)).collect::<Result<Vec<_>>>()?;
    conditions.sort_by_key(|condition| condition.index);
    if conditions.windows(2).any(|pair| pair[0].index == pair[1].index) {
        return Ok(conditions.into_iter().map(|condition| vec![condition]).collect());
    }
    Ok(vec![conditions])
}
