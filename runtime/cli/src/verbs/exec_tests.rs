//! The process that exec's options make, and its parsers.

use std::ffi::OsString;

use oci_spec::runtime::{Capabilities, Capability, Process};

use super::{VERB, adapt, parse_user};
use crate::arguments::{Arguments, parse};

fn arguments(line: &str) -> Arguments {
    parse(VERB.flags, line.split(' ').map(OsString::from), VERB.order).expect("understood")
}

/// A container's process as `runc spec` has it: no inheritable capabilities.
fn containers(inheritable: &str) -> Process {
    let json = format!(
        r#"{{"terminal":true,"user":{{"uid":5,"gid":6,"additionalGids":[7]}},"args":["sh"],
        "env":["PATH=/bin","A=1","AB=2"],"cwd":"/srv",
        "capabilities":{{"bounding":["CAP_KILL"],"effective":["CAP_KILL"],"permitted":["CAP_KILL"],
        "inheritable":[{inheritable}],"ambient":[]}}}}"#
    );
    serde_json::from_str(&json).expect("a process")
}

#[allow(clippy::unnecessary_wraps)] // The getters' type.
fn set(capabilities: &[Capability]) -> Option<Capabilities> {
    Some(capabilities.iter().copied().collect())
}

#[test]
fn users_are_numbers() {
    for (text, expected) in [
        ("1", Some((1, None))),
        ("0", Some((0, None))),
        ("1000:1000", Some((1000, Some(1000)))),
        ("4294967294:0", Some((4_294_967_294, Some(0)))),
        ("4294967295", None),
        ("4294967296", None),
        ("root", None),
        ("1:x", None),
        ("1:", None),
        (":1", None),
        ("1:2:3", None),
        ("-1", None),
        ("+1", None),
        (" 1", None),
        ("1 ", None),
        ("0x10", None),
        ("", None),
    ] {
        assert_eq!(parse_user(text).ok(), expected, "{text:?}");
    }
    assert!(parse_user("root").expect_err("a name").to_string().contains("names of the image's users"));
}

#[test]
fn the_containers_process_is_the_default() {
    let mut process = containers("");
    let warnings = adapt(&mut process, &arguments("c1 ls -l")).expect("adapted");
    assert!(warnings.is_empty());
    assert_eq!(process.args().as_deref(), Some(&["ls".to_owned(), "-l".to_owned()][..]));
    assert_eq!(process.terminal(), Some(false), "only -t gives a terminal");
    assert_eq!(process.cwd().to_str(), Some("/srv"));
    assert_eq!((process.user().uid(), process.user().gid()), (5, 6));
    assert_eq!(process.capabilities(), containers("").capabilities());
}

#[test]
fn options_change_it() {
    let mut process = containers("");
    let line = "-t -u 9 -g 8 -e A=x -e NEW= --cwd /tmp --no-new-privs c1 id";
    adapt(&mut process, &arguments(line)).expect("adapted");
    assert_eq!(process.terminal(), Some(true));
    assert_eq!((process.user().uid(), process.user().gid()), (9, 6), "the group stays without :gid");
    assert_eq!(process.user().additional_gids().as_deref(), Some(&[7, 8][..]));
    let environment: Vec<&str> = process.env().iter().flatten().map(String::as_str).collect();
    assert_eq!(environment, ["PATH=/bin", "A=x", "AB=2", "NEW="]);
    assert_eq!(process.cwd().to_str(), Some("/tmp"));
    assert_eq!(process.no_new_privileges(), Some(true));
}

#[test]
fn what_the_container_has_can_be_told_off() {
    let mut process = containers("");
    process.set_no_new_privileges(Some(true));
    adapt(&mut process, &arguments("c1 id")).expect("adapted");
    assert_eq!(process.no_new_privileges(), Some(true));
    adapt(&mut process, &arguments("--no-new-privs=false c1 id")).expect("adapted");
    assert_eq!(process.no_new_privileges(), Some(false));
}

#[test]
fn arguments_need_not_be_utf8() {
    use std::os::unix::ffi::OsStringExt as _;
    let words = [&b"-e"[..], b"A=\xff", b"c1", b"echo", b"x\xffy"].map(|word| OsString::from_vec(word.to_vec()));
    let mut process = containers("");
    adapt(&mut process, &parse(VERB.flags, words, VERB.order).expect("understood")).expect("adapted");
    assert_eq!(process.args().as_deref(), Some(&["echo".to_owned(), "x\u{fffd}y".to_owned()][..]));
    assert!(process.env().iter().flatten().any(|variable| variable == "A=\u{fffd}"));
}

#[test]
fn added_capabilities_are_not_inheritable() {
    let mut process = containers("");
    adapt(&mut process, &arguments("-c CAP_NET_RAW c1 id")).expect("adapted");
    let sets = process.capabilities().as_ref().expect("capabilities");
    let both = set(&[Capability::Kill, Capability::NetRaw]);
    assert_eq!((sets.bounding(), sets.effective(), sets.permitted()), (&both, &both, &both));
    assert_eq!((sets.inheritable(), sets.ambient()), (&set(&[]), &set(&[])), "CVE-2022-29162");
}

#[test]
fn ambient_needs_inheritable() {
    let mut process = containers(r#""CAP_NET_RAW""#);
    adapt(&mut process, &arguments("-c CAP_NET_RAW -c CAP_CHOWN c1 id")).expect("adapted");
    let sets = process.capabilities().as_ref().expect("capabilities");
    assert_eq!(sets.inheritable(), &set(&[Capability::NetRaw]));
    assert_eq!(sets.ambient(), &set(&[Capability::NetRaw]));
}

#[test]
fn a_process_without_capabilities_gets_only_the_added_one() {
    let mut process = containers("");
    process.set_capabilities(None);
    adapt(&mut process, &arguments("-c CAP_CHOWN c1 id")).expect("adapted");
    let sets = process.capabilities().as_ref().expect("capabilities");
    assert_eq!((sets.bounding(), sets.inheritable()), (&set(&[Capability::Chown]), &None));
}

#[test]
fn unknown_capabilities_are_warned_about() {
    let mut process = containers("");
    let warnings = adapt(&mut process, &arguments("-c CAP_X c1 id")).expect("adapted");
    assert_eq!(warnings, ["ignoring unknown or unavailable capabilities: [CAP_X]"]);
    let (process, warnings) = flint_runtime::bundle::read_process(
        br#"{"user":{"uid":0,"gid":0},"cwd":"/","args":["id"],
        "capabilities":{"bounding":["CAP_KILL","CAP_NEW"],"permitted":["CAP_NEW"]}}"#,
    )
    .expect("parsed");
    assert_eq!(warnings, ["capabilities: ignoring unknown or unavailable capabilities: [CAP_NEW]"]);
    let sets = process.capabilities().as_ref().expect("capabilities");
    assert_eq!((sets.bounding(), sets.permitted()), (&set(&[Capability::Kill]), &set(&[])));
}

#[test]
fn mistakes_are_refused() {
    for (line, said) in [
        ("c1", "process args cannot be empty"),
        ("-e NAME c1 id", "NAME=VALUE"),
        ("-e =x c1 id", "NAME=VALUE"),
        ("-g -1 c1 id", "from 0 to 4294967295"),
        ("-g 4294967296 c1 id", "from 0 to 4294967295"),
        ("-u root c1 id", "names of the image's users"),
    ] {
        let error = adapt(&mut containers(""), &arguments(line)).expect_err(line).to_string();
        assert!(error.contains(said), "{line}: {error}");
    }
    assert!(flint_runtime::bundle::read_process(b"{").is_err());
    assert!(flint_runtime::bundle::read_process(br#"{"cwd":7}"#).is_err());
}
