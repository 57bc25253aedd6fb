//! What docs/flintctl.md says of flintctl's verbs and of the node's page, with a real node.

use std::collections::BTreeSet;
use std::path::Path;

use integration_tests::{Command, find_program, skip, wait_until};

use crate::node::rig::{IMAGE, Node};

const DOCUMENT: &str = include_str!("../../../docs/flintctl.md");

/// The first words in the first column of the table of verbs.
fn documented() -> BTreeSet<&'static str> {
    let (_, rest) = DOCUMENT.split_once("## Verbs\n").expect("a chapter of verbs");
    let (table, _) = rest.split_once("\n## ").expect("a chapter behind it");
    let cells = table.lines().filter_map(|line| line.strip_prefix("| `")?.split_once(" |"));
    // Code is every other part between backticks; the first backtick is stripped.
    let codes = cells.flat_map(|(cell, _)| cell.split('`').step_by(2));
    codes.filter_map(|code| code.split(' ').next()).filter(|word| !word.is_empty()).collect()
}

#[test]
fn every_documented_verb_does_something_and_no_other_is_there() {
    let Some(node) = Node::start() else { return };
    let manifest = node.folder("manifests-of-test").join("one.yaml");
    std::fs::write(&manifest, node.manifest("one", "", "echo begun; exec sleep 1000")).expect("write a manifest");
    let manifest = manifest.display().to_string();
    let mut done = BTreeSet::new();
    let mut run = |args: &[&'static str], code: i32, words: &str| {
        let output = node.ctl(args.iter().map(|arg| if *arg == "FILE" { &manifest } else { *arg })).exits(code);
        let all = output.stdout + &output.stderr;
        assert!(all.contains(words), "{args:?} prints {all}");
        done.insert(args[0]);
    };
    run(&["apply", "-f", "FILE", "--dry-run"], 0, "created (dry run)");
    run(&["apply", "-f", "FILE", "--wait", "--json"], 0, "\"action\": \"created\"");
    run(&["ps"], 0, "Running");
    run(&["ps", "-q"], 0, "one");
    run(&["inspect", "one"], 0, "\"containers\"");
    // It runs before its shell has said anything.
    wait_until("it has begun", || node.ctl(["logs", "one"]).stdout.contains("begun"));
    run(&["logs", "-t", "--tail", "1", "--since", "5m", "one"], 0, "begun");
    run(&["exec", "-w", "/bin", "-e", "A=b", "one", "--", "/bin/sh", "-c", "echo $PWD $A"], 0, "/bin b");
    run(&["stats"], 0, "one");
    run(&["events"], 0, "Started");
    run(&["images"], 0, "tests/busybox");
    run(&["node"], 0, "Kernel");
    run(&["run", "--dry-run", "web"], 0, "\"kind\": \"Pod\"");
    run(&["run", "--rm", "--host-network", IMAGE, "/bin/sh", "-c", "echo out; exit 4"], 4, "out");
    run(&["run", "--rm", "--host-network", IMAGE, "/bin/nothing"], 125, "/bin/nothing");
    // Nobody listens there.
    run(&["pull", "127.0.0.1:1/nothing:1"], 1, "127.0.0.1:1");
    run(&["rmi", IMAGE], 1, "one");
    run(&["man", "run"], 0, ".SH SYNOPSIS");
    run(&["completion", "bash"], 0, "complete -F");
    let mut top = node.ctl_on_terminal(&["top"]);
    top.wait_for("one");
    top.send("q");
    assert_eq!(top.finish().code, 0);
    let attached = node.ctl_command(["attach", "one"]).spawn();
    wait_until("a client is attached", || {
        std::fs::read_to_string(node.log()).unwrap_or_default().contains("API: attach main of")
    });
    run(&["restart", "one"], 0, "");
    // A process 1 that does not catch its signal does not hear it, and is killed.
    let _ = attached.finish("attach").exits(137);
    node.wait_for("one", "Running");
    run(&["stop", "one"], 0, "");
    run(&["rm", "one"], 0, "");
    node.wait_gone("one");
    run(&["rmi", IMAGE], 0, "");
    done.extend(["attach", "top"]);
    assert_eq!(done, documented(), "what was run, and what docs/flintctl.md lists");
    let help = node.ctl(["--help"]).ok().stdout;
    let (_, commands) = help.split_once("Commands:\n").expect("a list of commands");
    let commands = commands.lines().take_while(|line| !line.is_empty());
    let there: BTreeSet<&str> = commands.filter_map(|line| line.strip_prefix("  ")?.split(' ').next()).collect();
    assert_eq!(there.into_iter().filter(|word| !word.is_empty()).collect::<BTreeSet<_>>(), documented(), "{help}");
    node.finish();
}

/// `FLINT_SCREENSHOT` keeps a picture.
#[test]
fn the_page_shows_the_pods_of_the_node() {
    let Some(chromium) = find_program("chromium") else { return skip("there is no chromium") };
    let Some(node) = Node::start() else { return };
    // Enough for a line to be drawn, and not a core that the browser and other tests want.
    let works = "while true; do n=0; while [ $n -lt 2000 ]; do n=$((n+1)); done; sleep 0.1; done";
    node.apply(&node.manifest("busy", "", works));
    node.apply(&node.manifest("ended", "  restartPolicy: Never\n", "exit 3"));
    node.wait_for("busy", "Running");
    node.wait_for("ended", "Failed");
    let log = std::fs::read_to_string(node.log()).expect("flintd's log");
    let (_, rest) = log.split_once("the page is at ").expect("the page's address in flintd's log");
    let address = rest.split(',').next().expect("an address");
    let port = address.trim_end_matches('/').rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    let cpu = || {
        let answer = Node::get(port, "/api/state");
        let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
        let state: serde_json::Value = serde_json::from_str(body).expect("JSON");
        let mut pods = state["pods"].as_array().expect("pods").iter();
        pods.find(|pod| pod["name"] == "busy").expect("the pod")["cpu"].as_f64().expect("its CPU time")
    };
    let before = cpu();
    wait_until("its CPU time has grown", || cpu() > before);
    let profile = tempfile::tempdir().expect("a folder for the browser");
    let browse = |argument: &str| {
        Command::new(&chromium)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .args(["--window-size=1280,900", "--virtual-time-budget=9000"])
            .args([format!("--user-data-dir={}", profile.path().display()), argument.to_owned(), address.to_owned()])
            .output()
            .ok()
    };
    let document = browse("--dump-dom").stdout;
    for words in [
        "<td class=\"name\">busy</td>",
        "<td class=\"name\">ended</td>",
        "<td class=\"good\">Running</td>",
        "class=\"line cpu\"",
        "started as process",
    ] {
        assert!(document.contains(words), "{words} is not in {document}");
    }
    if let Some(picture) = std::env::var_os("FLINT_SCREENSHOT") {
        let _ = browse(&format!("--screenshot={}", Path::new(&picture).display()));
    }
    for name in ["busy", "ended"] {
        let _ = node.ctl(["rm", name]).ok();
        node.wait_gone(name);
    }
    node.finish();
}
