//! Readers of logs that a writer goes on with: rotated, restarted, removed.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::*;
use crate::scheduler::Stream;

/// Writes and rotates as the shim does.
struct Writer {
    folder: PathBuf,
    attempt: u32,
    file: File,
    rotated: u32,
    written: usize,
}

impl Writer {
    fn new(folder: &Path, attempt: u32) -> Self {
        let path = folder.join(format!("{attempt}.log"));
        let file = OpenOptions::new().create(true).append(true).open(path).unwrap();
        Self { folder: folder.to_owned(), attempt, file, rotated: 0, written: 0 }
    }

    fn write(&mut self, stream: &str, tag: &str, text: &str) {
        let entry = format!("{} {stream} {tag} {text}\n", rfc3339(SystemTime::now()));
        self.file.write_all(entry.as_bytes()).unwrap();
        self.written += entry.len();
    }

    fn line(&mut self, text: &str) {
        self.write("stdout", "F", text);
    }

    fn rotate(&mut self) {
        let current = self.folder.join(format!("{}.log", self.attempt));
        self.rotated += 1;
        fs::rename(&current, self.folder.join(format!("{}.log.20261128-{:06}", self.attempt, self.rotated))).unwrap();
        *self = Self { rotated: self.rotated, ..Self::new(&self.folder, self.attempt) };
    }
}

async fn next(lines: &mut mpsc::Receiver<LogLine>) -> Option<String> {
    let line = timeout(Duration::from_secs(20), lines.recv()).await.expect("a line, or the end");
    line.map(|line| String::from_utf8(line.bytes).unwrap())
}

async fn all(mut lines: mpsc::Receiver<LogLine>) -> Vec<String> {
    let mut texts = Vec::new();
    while let Some(text) = next(&mut lines).await {
        texts.push(text);
    }
    texts
}

fn request(follow: bool, tail: Option<u64>) -> LogRequest {
    LogRequest { follow, tail, since: None }
}

fn numbers(lines: &[String]) -> Vec<u32> {
    lines.iter().map(|line| line.trim_end().parse().unwrap()).collect()
}

#[tokio::test]
async fn reads_what_is_there_with_parts_joined_and_streams_apart() {
    let folder = tempfile::tempdir().unwrap();
    let logs = Logs::new().unwrap();
    let read = |request: &LogRequest| logs.read(folder.path(), request, std::future::pending()).unwrap();
    assert!(all(read(&request(false, None))).await.is_empty(), "nothing was written yet");
    let mut writer = Writer::new(folder.path(), 0);
    writer.write("stdout", "P", "one ");
    writer.write("stderr", "F", "error");
    writer.write("stdout", "F", "line");
    writer.write("stdout", "P", "another ");
    writer.rotate();
    writer.write("stdout", "F", "line");
    writer.line("two");
    writer.write("stdout", "P", "$ ");
    writer.file.write_all(b"2026-11-28T16:0").unwrap();
    let lines = all(read(&request(false, None))).await;
    // What is half written is no entry; it is shown behind what its stream had.
    assert_eq!(lines, ["error\n", "one line\n", "another line\n", "two\n", "$ 2026-11-28T16:0\n"]);
    assert_eq!(all(read(&request(false, Some(2)))).await[0], "another line\n", "over a rotation");
    let since = LogRequest { since: Some(SystemTime::now() + Duration::from_secs(60)), ..request(false, None) };
    assert!(all(read(&since)).await.is_empty());
    let mut first = read(&request(false, None));
    assert_eq!(first.recv().await.unwrap().stream, Stream::Stderr);
}

#[tokio::test]
async fn one_attempt_is_followed_to_its_end_and_no_further() {
    let folder = tempfile::tempdir().unwrap();
    let logs = Logs::new().unwrap();
    let follow = |whole, over: oneshot::Receiver<()>| {
        logs.follow_attempt(folder.path(), 2, whole, async move { drop(over.await) }).unwrap()
    };
    Writer::new(folder.path(), 1).line("of the attempt before");
    let (end, over) = oneshot::channel();
    let mut early = follow(false, over);
    let mut writer = Writer::new(folder.path(), 2);
    writer.line("one");
    writer.write("stdout", "P", "$ ");
    assert_eq!(next(&mut early).await.unwrap(), "one\n");
    assert_eq!(next(&mut early).await.unwrap(), "$ ", "a prompt waits for nothing");
    let (late_end, over) = oneshot::channel();
    let mut late = follow(false, over);
    assert_eq!(next(&mut late).await.unwrap(), "$ ", "who comes late sees it, too");
    writer.rotate();
    writer.write("stdout", "F", "ls");
    Writer::new(folder.path(), 3).line("of the attempt behind");
    end.send(()).unwrap();
    late_end.send(()).unwrap();
    assert_eq!(all(early).await, ["ls\n"]);
    assert_eq!(all(late).await, ["ls\n"]);
    let (_end, over) = oneshot::channel();
    let mut whole = follow(true, over);
    assert_eq!(next(&mut whole).await.unwrap(), "one\n");
    assert_eq!(next(&mut whole).await.unwrap(), "$ ls\n");
}

#[tokio::test]
async fn only_the_last_attempt_is_read_or_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let logs = Logs::new().unwrap();
    assert!(logs.read_previous(folder.path(), &request(false, None)).is_err());
    for attempt in [0, 1, 2, 10] {
        let mut writer = Writer::new(folder.path(), attempt);
        writer.line(&format!("{attempt}0"));
        writer.rotate();
        writer.line(&format!("{attempt}1"));
    }
    let lines = logs.read(folder.path(), &request(false, None), std::future::pending()).unwrap();
    assert_eq!(numbers(&all(lines).await), [100, 101]);
    let lines = logs.read_previous(folder.path(), &request(false, None)).unwrap();
    assert_eq!(numbers(&all(lines).await), [20, 21]);
    assert!(logs.read(&folder.path().join("gone"), &request(true, None), std::future::pending()).is_err());
}

#[tokio::test]
async fn follows_rotations_and_restarts_until_it_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let logs = Logs::new().unwrap();
    let (over, is_over) = oneshot::channel::<()>();
    let mut lines = logs
        .read(folder.path(), &request(true, None), async {
            let _ = is_over.await;
        })
        .unwrap();
    let mut writer = Writer::new(folder.path(), 0);
    writer.line("first");
    assert_eq!(next(&mut lines).await.unwrap(), "first\n");
    // A prompt comes at once, its rest with the newline.
    writer.write("stdout", "P", "$ ");
    assert_eq!(next(&mut lines).await.unwrap(), "$ ");
    writer.line("ls");
    assert_eq!(next(&mut lines).await.unwrap(), "ls\n");
    writer.rotate();
    writer.line("behind a rotation");
    assert_eq!(next(&mut lines).await.unwrap(), "behind a rotation\n");
    let mut writer = Writer::new(folder.path(), 1);
    writer.line("another attempt");
    assert_eq!(next(&mut lines).await.unwrap(), "another attempt\n");
    writer.line("last words");
    over.send(()).unwrap();
    assert_eq!(all(lines).await, ["last words\n"]);
}

#[tokio::test]
async fn a_removed_folder_ends_it_and_watches_are_given_back() {
    let folder = tempfile::tempdir().unwrap();
    let logs = Logs::new().unwrap();
    let path = folder.path().join("main");
    fs::create_dir(&path).unwrap();
    let mut writer = Writer::new(&path, 0);
    let mut readers: Vec<_> =
        (0..300).map(|_| logs.read(&path, &request(true, Some(0)), std::future::pending()).unwrap()).collect();
    readers.truncate(200);
    writer.line("x");
    for lines in &mut readers {
        assert_eq!(next(lines).await.unwrap(), "x\n");
    }
    drop(writer);
    fs::remove_dir_all(&path).unwrap();
    for lines in readers {
        assert!(all(lines).await.is_empty());
    }
    // The dropped readers notice at their next turn.
    timeout(Duration::from_secs(20), async {
        while Arc::strong_count(&logs.watches) > 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("all watches are given back");
    fs::create_dir(&path).unwrap();
    assert!(all(logs.read(&path, &request(false, None), std::future::pending()).unwrap()).await.is_empty());
}

/// 20,000 lines over some 200 rotations: readers of all paces get each line once and in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_line_is_lost_or_doubled_under_a_writer_that_rotates() {
    const LINES: u32 = 20_000;
    let folder = tempfile::tempdir().unwrap();
    let logs = Logs::new().unwrap();
    let mut overs = Vec::new();
    let mut readers = Vec::new();
    for pace in [0, 0, 50, 500] {
        let (over, is_over) = oneshot::channel::<()>();
        overs.push(over);
        let is_over = async {
            let _ = is_over.await;
        };
        let mut lines = logs.read(folder.path(), &request(true, None), is_over).unwrap();
        readers.push(tokio::spawn(async move {
            let mut seen = Vec::new();
            while let Some(line) = lines.recv().await {
                seen.push(String::from_utf8(line.bytes).unwrap().trim_end().parse::<u32>().unwrap());
                if pace > 0 && seen.len() % pace == 0 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
            seen
        }));
    }
    // One that never reads holds up nobody.
    let stalled = logs.read(folder.path(), &request(true, None), std::future::pending()).unwrap();
    let path = folder.path().to_owned();
    tokio::task::spawn_blocking(move || {
        let mut writer = Writer::new(&path, 0);
        for number in 0..LINES {
            writer.line(&number.to_string());
            if writer.written > 5000 {
                writer.rotate();
            }
            if number % 7000 == 6999 {
                writer = Writer::new(&path, number / 7000 + 1);
            }
        }
    })
    .await
    .unwrap();
    for over in overs {
        let _ = over.send(());
    }
    for reader in readers {
        let seen = timeout(Duration::from_secs(60), reader).await.expect("the reader's end").unwrap();
        assert_eq!(seen, (0..LINES).collect::<Vec<_>>());
    }
    assert_eq!(stalled.len(), AHEAD);
}

/// A reader that is behind loses what the rotation removes, and nothing else; and it does not begin anew.
#[tokio::test]
async fn long_lines_wait_on_the_disk_and_not_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::new(folder.path(), 0);
    let text = "x".repeat(100 << 10);
    (0..40).for_each(|_| writer.line(&text));
    let logs = Logs::new().unwrap();
    let mut lines = logs.read(folder.path(), &LogRequest::default(), std::future::pending()).unwrap();
    for _ in 0..40 {
        // Longer than a reader that does not wait takes to read all of it.
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(lines.len() < 4, "{} lines of 100 KiB wait", lines.len());
        assert_eq!(next(&mut lines).await.unwrap().len(), text.len() + 1);
    }
    assert_eq!(next(&mut lines).await, None);
}

#[tokio::test]
async fn files_that_are_gone_are_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let logs = Logs::new().unwrap();
    let mut writer = Writer::new(folder.path(), 0);
    for number in 0..300 {
        writer.line(&number.to_string());
    }
    let mut lines = logs.read(folder.path(), &request(true, None), std::future::pending()).unwrap();
    assert_eq!(next(&mut lines).await.unwrap(), "0\n");
    writer.rotate();
    writer.line("300");
    writer.rotate();
    fs::remove_file(folder.path().join("0.log.20261128-000001")).unwrap();
    fs::remove_file(folder.path().join("0.log.20261128-000002")).unwrap();
    writer.line("301");
    let mut seen = Vec::new();
    while seen.last() != Some(&301) {
        seen.push(next(&mut lines).await.unwrap().trim_end().parse::<u32>().unwrap());
    }
    let expected: Vec<u32> = (1..300).chain([301]).collect();
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn the_tail_of_a_long_log_is_read_from_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let logs = Logs::new().unwrap();
    let mut writer = Writer::new(folder.path(), 0);
    // A hole of 10 GB, in no time: who reads all of it does not end in time.
    writer.file.set_len(10 << 30).unwrap();
    writer.file.write_all(b"\n").unwrap();
    for number in 0..10 {
        writer.line(&number.to_string());
    }
    let lines = logs.read(folder.path(), &request(false, Some(3)), std::future::pending()).unwrap();
    assert_eq!(numbers(&all(lines).await), [7, 8, 9]);
}
