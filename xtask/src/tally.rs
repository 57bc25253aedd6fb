//! Counts what the steps of a test run said, and writes the closing line.

use std::fmt;

/// Counts over all steps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
    /// What libtest said of those that failed, each under its name.
    pub(crate) failures: Vec<String>,
}

impl Counts {
    /// One check that has no counts of its own.
    pub(crate) fn one(passed: bool) -> Self {
        Self { passed: u64::from(passed), failed: u64::from(!passed), ..Self::default() }
    }

    /// Reads a closing line of libtest; None for any other line.
    ///
    /// `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s`
    pub(crate) fn of_line(line: &str) -> Option<Self> {
        let (_, counts) = line.trim().strip_prefix("test result: ")?.split_once(". ")?;
        let count =
            |name: &str| counts.split(';').find_map(|part| part.trim().strip_suffix(name)?.trim().parse::<u64>().ok());
        let (passed, failed, skipped) = (count("passed")?, count("failed")?, count("ignored")?);
        Some(Self { passed, failed, skipped, failures: Vec::new() })
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.failures.extend(other.failures);
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// The most of what a test that failed said that the closing lines repeat.
const LINES: usize = 24;

/// What libtest tells of tests that failed: in each program's part between a first line `failures:` and a second.
pub(crate) fn failures(said: &str) -> Vec<String> {
    let mut found: Vec<Vec<&str>> = Vec::new();
    let mut is_told = false;
    for line in said.lines() {
        if line == "failures:" {
            is_told = !is_told;
        } else if is_told && line.starts_with("---- ") && line.ends_with(" ----") {
            found.push(vec![line]);
        } else if is_told
            && !line.is_empty()
            && let Some(last) = found.last_mut()
        {
            last.push(line);
        }
    }
    let short = |lines: Vec<&str>| match lines.len().checked_sub(LINES) {
        Some(left @ 1..) => format!("{}\n({left} more lines stand above)", lines[..LINES].join("\n")),
        _ => lines.join("\n"),
    };
    found.into_iter().map(short).collect()
}

/// A test that said that it could not run here.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Skip {
    pub(crate) test: String,
    pub(crate) reason: String,
}

/// Reads a skip log: lines of `SKIP <test>: <reason>`. A test counts once.
pub(crate) fn skips(log: &str) -> Vec<Skip> {
    let mut skips: Vec<Skip> = log.lines().filter_map(skip).collect();
    skips.sort();
    skips.dedup_by(|a, b| a.test == b.test);
    skips
}

fn skip(line: &str) -> Option<Skip> {
    // A test's name may hold "::" and never ": ".
    let (test, reason) = line.trim().strip_prefix("SKIP ")?.split_once(": ")?;
    Some(Skip { test: test.to_owned(), reason: reason.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_of_libtest_are_read() {
        let line = "test result: FAILED. 12 passed; 1 failed; 2 ignored; 0 measured; 3 filtered out; finished in 0.1s";
        assert_eq!(Counts::of_line(line), Some(Counts { passed: 12, failed: 1, skipped: 2, failures: Vec::new() }));
        assert_eq!(Counts::of_line("test result: nonsense"), None);
        assert_eq!(Counts::of_line("test a ... ok"), None);
    }

    #[test]
    fn the_closing_line_is_what_callers_look_for() {
        let mut sum = Counts::one(true);
        sum.add(Counts::one(false));
        sum.add(Counts { passed: 3, skipped: 4, ..Counts::default() });
        assert_eq!(sum.to_string(), "4 passed, 1 failed, 4 skipped");
    }

    #[test]
    fn a_skip_keeps_its_reason_and_counts_once() {
        let log = "SKIP cgroup::v2: no memory controller: hybrid\nnoise\nSKIP a: b\nSKIP a: b\n";
        let found = skips(log);
        assert_eq!(found.len(), 2);
        assert_eq!(found[1], Skip { test: "cgroup::v2".into(), reason: "no memory controller: hybrid".into() });
    }

    #[test]
    fn what_failed_is_told_again() {
        let long = (0..40).map(|number| format!("line {number}")).collect::<Vec<_>>().join("\n");
        // Nothing stands before it where no test said anything, and there may be several programs.
        let said = format!(
            "failures:\n\n---- a::b stdout ----\nSKIP nothing\n\nthread 'a::b' panicked at x.rs:1:2:\nno\n\n\
             failures:\n    a::b\n\ntest result: FAILED. 1 passed; 1 failed\nnoise\n\n\
             failures:\n\n---- c stdout ----\n{long}\n\nfailures:\n    c\n\ntest result: FAILED. 1 passed; 1 failed\n"
        );
        let told = failures(&said);
        assert_eq!(told[0], "---- a::b stdout ----\nSKIP nothing\nthread 'a::b' panicked at x.rs:1:2:\nno");
        assert!(told[1].ends_with("line 22\n(17 more lines stand above)"), "{}", told[1]);
        assert_eq!(told.len(), 2);
        assert!(failures("test a ... ok\ntest result: ok.").is_empty());
    }
}
