//! What is wrong with a document.

use std::cell::RefCell;
use std::fmt;

/// A field, and why it is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where: `spec.containers[0].image`. Empty: the document as a whole.
    pub path: String,
    /// Why, and what to do. Never a value of a secret.
    pub reason: String,
}

impl Problem {
    pub(super) fn of_all(reason: impl Into<String>) -> Self {
        Self { path: String::new(), reason: reason.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            return formatter.write_str(&self.reason);
        }
        write!(formatter, "{}: {}", self.path, self.reason)
    }
}

/// All that is found in one pass: who mends a manifest wants to hear of everything at once. Reading goes on behind a problem with
/// what the field's absence would mean.
#[derive(Debug, Default)]
pub(super) struct Problems(RefCell<Vec<Problem>>);

/// A document that has nothing but problems tells so many of them.
const MOST: usize = 100;

impl Problems {
    pub(super) fn add(&self, path: impl Into<String>, reason: impl Into<String>) {
        let mut found = self.0.borrow_mut();
        let problem = Problem { path: path.into(), reason: reason.into() };
        if found.len() < MOST && !found.contains(&problem) {
            found.push(problem);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// What was made, unless there were problems.
    pub(super) fn or<T>(self, made: Option<T>) -> Result<T, Vec<Problem>> {
        let found = self.0.into_inner();
        match made {
            Some(made) if found.is_empty() => Ok(made),
            _ if found.is_empty() => Err(vec![Problem::of_all("it cannot be read")]),
            _ => Err(found),
        }
    }
}
