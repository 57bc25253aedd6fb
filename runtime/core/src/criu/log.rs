//! CRIU's log: where the reason of a failure stands.

use std::io::{BufRead as _, BufReader};
use std::path::Path;

/// No line that is worth quoting is longer.
const QUOTED: usize = 400;

/// Told without the right to raise limits (CAP_SYS_RESOURCE), and gone on after.
const HARMLESS: &str = "rlimit: Can't setup RLIMIT_NOFILE for self";

/// The first line of the log that tells an error: those behind it tell what came of it.
pub(crate) fn first_error(log: &Path) -> Option<String> {
    let file = std::fs::File::open(log).ok()?;
    BufReader::new(file).split(b'\n').map_while(Result::ok).find_map(|line| error_in(&String::from_utf8_lossy(&line)))
}

/// `(00.012345)    123: Error (criu/file.c:1): text` without time and process.
fn error_in(line: &str) -> Option<String> {
    let at = line.find("Error (")?;
    // A path or an argument that is logged may hold the word, too.
    let before = line[..at].trim_end();
    let is_prefix = before.chars().all(|character| character.is_ascii_digit() || "(). :".contains(character));
    (is_prefix && !line.contains(HARMLESS)).then(|| line[at..].trim_end().chars().take(QUOTED).collect())
}

#[cfg(test)]
mod tests {
    use super::{error_in, first_error};

    const HARMLESS_LINE: &str =
        "(00.1) Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted";

    #[test]
    fn errors_are_told_from_other_lines() {
        let line = "(00.004212) 000077: Error (criu/sk-unix.c:850): unix: Can't dump half of stream unix connection.\n";
        let text = "Error (criu/sk-unix.c:850): unix: Can't dump half of stream unix connection.";
        assert_eq!(error_in(line).as_deref(), Some(text));
        assert_eq!(error_in(text).as_deref(), Some(text));
        for other in ["(00.1) Warn  (criu/a.c:1): x", "(00.1) opened /Error (1)", "", HARMLESS_LINE] {
            assert_eq!(error_in(other), None, "{other}");
        }
    }

    #[test]
    fn the_first_one_counts() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("dump.log");
        assert_eq!(first_error(&log), None);
        std::fs::write(&log, b"(00.1) fine \xff\n(00.2) Error (a.c:1): cause\n(00.3) Error (b.c:2): Dumping FAILED.\n")
            .unwrap();
        assert_eq!(first_error(&log).as_deref(), Some("Error (a.c:1): cause"));
    }
}
