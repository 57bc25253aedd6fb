//! `cri-log://`: output as lines of Kubernetes' log format, written and rotated by the shim.

use std::fs;
use std::path::{Path, PathBuf};

use flint_shim_protocol::Container;
use integration_tests::{Node, wait_until};

/// Stream, tag and text of each line; a time that is none fails.
#[track_caller]
fn lines(path: &Path) -> Vec<(String, String, String)> {
    let text = fs::read_to_string(path).expect("read a log");
    assert!(text.is_empty() || text.ends_with('\n'), "the last line is not whole");
    let line = |line: &str| {
        let mut parts = line.splitn(4, ' ').map(str::to_owned);
        let mut next = || parts.next().unwrap_or_default();
        let time = next();
        assert!(time.len() == "2026-11-28T16:00:00.123456789Z".len() && time.ends_with('Z'), "{line}");
        (next(), next(), next())
    };
    text.lines().map(line).collect()
}

/// So many lines are there. For waits: the next one may be written just now.
fn has_lines(path: &Path, count: usize) -> bool {
    fs::read_to_string(path).is_ok_and(|text| text.matches('\n').count() == count)
}

fn run(node: &Node, name: &str, script: &str, query: &str) -> (Container, PathBuf) {
    let log = node.case.path().join(format!("logs/{name}/0.log"));
    let uri = format!("cri-log://{}{query}", log.display());
    let container = Container { stdout: uri.clone(), stderr: uri, ..node.container(name, Some(script)) };
    node.run(std::slice::from_ref(&container));
    (container, log)
}

fn rotated(log: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(log.parent().expect("a folder")).expect("read the folder");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).filter(|path| path != log).collect();
    files.sort();
    files
}

#[test]
fn both_streams_are_whole_when_the_exit_is_told() {
    let Some(node) = Node::start("true") else { return };
    let script = "echo one; echo two >&2; printf 'no end'; exit 3";
    let (container, log) = run(&node, "a", script, "");
    assert_eq!(node.shim.wait(&container.id, "").expect("wait"), 3);
    let mut seen = lines(&log);
    seen.sort();
    let line = |stream: &str, tag: &str, text: &str| (stream.to_owned(), tag.to_owned(), text.to_owned());
    let expected = [line("stderr", "F", "two"), line("stdout", "F", "one"), line("stdout", "P", "no end")];
    // The last part is written with the end of the stream.
    node.remove(&[container]);
    let mut all = lines(&log);
    all.sort();
    assert_eq!(all, expected);
    assert!(seen.len() >= 2, "{seen:?}");
    node.end();
}

#[test]
fn files_are_rotated_and_no_line_is_lost_or_cut() {
    let Some(node) = Node::start("true") else { return };
    let (container, log) = run(&node, "a", "seq 1 20000", "?max-size=40000&max-files=100");
    assert_eq!(node.shim.wait(&container.id, "").expect("wait"), 0);
    let mut files = rotated(&log);
    assert!(files.len() > 10, "{files:?}");
    files.push(log.clone());
    assert!(files.iter().all(|file| fs::metadata(file).expect("a file").len() <= 40_000));
    let texts: Vec<String> = files.iter().flat_map(|file| lines(file)).map(|(_, _, text)| text).collect();
    assert_eq!(texts, (1..=20000).map(|number| number.to_string()).collect::<Vec<_>>());
    let (few, log) = run(&node, "b", "seq 1 20000", "?max-size=40000&max-files=3");
    assert_eq!(node.shim.wait(&few.id, "").expect("wait"), 0);
    assert_eq!(rotated(&log).len(), 2);
    assert_eq!(lines(&log).last().expect("a line").2, "20000");
    node.remove(&[container, few]);
    node.end();
}

#[test]
fn long_lines_are_parts_and_a_prompt_is_seen() {
    let Some(node) = Node::start("true") else { return };
    let script = "head -c 40000 /dev/zero | tr '\\0' x; echo; printf 'login: '; exec sleep 1000";
    let (container, log) = run(&node, "a", script, "");
    wait_until("the prompt is written", || has_lines(&log, 4));
    let seen = lines(&log);
    let shape: Vec<_> = seen.iter().map(|(_, tag, text)| (tag.as_str(), text.len())).collect();
    assert_eq!(shape, [("P", 16384), ("P", 16384), ("F", 40_000 - 2 * 16384), ("P", 7)]);
    node.remove(&[container]);
    node.end();
}

#[test]
fn a_terminals_output_is_logged() {
    let Some(node) = Node::start("true") else { return };
    let log = node.case.path().join("logs/0.log");
    let mut container = node.container("a", Some("tty; echo done; exec sleep 1000"));
    let config = Path::new(&container.bundle).join("config.json");
    let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&config).expect("read")).expect("JSON");
    json["process"]["terminal"] = true.into();
    fs::write(&config, json.to_string()).expect("write");
    (container.terminal, container.stdout) = (true, format!("cri-log://{}", log.display()));
    node.run(std::slice::from_ref(&container));
    wait_until("it is written", || has_lines(&log, 2));
    let seen: Vec<_> = lines(&log).into_iter().map(|(stream, tag, text)| (stream + &tag, text)).collect();
    assert_eq!(seen[0], ("stdoutF".to_owned(), "/dev/pts/0".to_owned()));
    node.remove(&[container]);
    node.end();
}

/// A disk that is full: lines are lost and counted, programs go on, and so do the logs of others.
#[test]
fn a_full_disk_loses_lines_and_blocks_nobody() {
    let Some(node) = Node::start("true") else { return };
    let small = node.case.path().join("small");
    fs::create_dir(&small).expect("make a folder");
    let no_flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("small", &small, "tmpfs", no_flags, Some(c"size=64k")).expect("mount a small file system");
    let script = "seq 1 50000; echo end >&2; exec sleep 1000";
    let uri = format!("cri-log://{}/0.log", small.display());
    let full = Container { stdout: uri.clone(), stderr: uri, ..node.container("full", Some(script)) };
    node.run(std::slice::from_ref(&full));
    wait_until("lines are lost", || node.status().lines_dropped > 40_000);
    let (other, log) = run(&node, "other", "seq 1 1000", "");
    assert_eq!(node.shim.wait(&other.id, "").expect("wait"), 0);
    assert_eq!(lines(&log).len(), 1000);
    // What is there is whole lines.
    assert!(!lines(&small.join("0.log")).is_empty());
    node.remove(&[full, other]);
    rustix::mount::unmount(&small, rustix::mount::UnmountFlags::DETACH).expect("unmount");
    node.end();
}
