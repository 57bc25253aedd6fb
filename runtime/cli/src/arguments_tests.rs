//! Command lines as docker, containerd, podman, cri-o and buildkit write them.

use std::ffi::OsString;

use super::{Arguments, Order, parse, parse_id, parse_integer};
use crate::GLOBAL_FLAGS;
use crate::verbs;

/// Parses a whole command line as main does: the global flags, the verb's name, its arguments.
fn command(line: &str) -> Result<(Arguments, String, Arguments), String> {
    let words = line.split(' ').map(OsString::from);
    let globals = parse(GLOBAL_FLAGS, words, Order::Verb).map_err(|error| error.to_string())?;
    let name = globals.operand(0).map_err(|error| error.to_string())?.to_owned();
    let verb = verbs::find(&name).ok_or("no such verb")?;
    let rest = globals.operands.iter().skip(1).cloned();
    let arguments = parse(verb.flags, rest, verb.order).map_err(|error| error.to_string())?;
    if !arguments.help {
        verb.check_operands(arguments.operands.len()).map_err(|error| error.to_string())?;
    }
    Ok((globals, name, arguments))
}

fn operands(arguments: &Arguments) -> Vec<&str> {
    arguments.operands.iter().filter_map(|operand| operand.to_str()).collect()
}

#[test]
fn containerd_creates() {
    let (globals, name, arguments) = command(
        "--root /run/containerd/runc/default --log /b/log.json --log-format json --systemd-cgroup create \
         --bundle /b --pid-file /b/init.pid --console-socket /tmp/pty.sock c1",
    )
    .expect("understood");
    assert_eq!(name, "create");
    assert_eq!(globals.text("root"), Ok(Some("/run/containerd/runc/default")));
    assert_eq!(globals.text("log"), Ok(Some("/b/log.json")));
    assert!(globals.is_set("systemd-cgroup"));
    assert_eq!(arguments.text("bundle"), Ok(Some("/b")));
    assert_eq!(arguments.text("console-socket"), Ok(Some("/tmp/pty.sock")));
    assert_eq!(operands(&arguments), ["c1"]);
}

#[test]
fn callers_command_lines_are_understood() {
    for (line, verb, expected) in [
        ("--root /r --log /l --log-format json start c1", "start", &["c1"][..]),
        ("--root /r --log /l --log-format json kill --all c1 9", "kill", &["c1", "9"]),
        ("--root /r --log /l --log-format json delete --force c1", "delete", &["c1"]),
        ("--root /r exec --process /p.json --detach --pid-file /pid c1", "exec", &["c1"]),
        ("--root /r ps --format json c1", "ps", &["c1"]),
        ("--root /r ps c1 -o pid,args", "ps", &["c1", "-o", "pid,args"]),
        ("features", "features", &[]),
        ("--root=/run/cri run -d --bundle=/b c1", "run", &["c1"]),
        ("--root /r restore --detach -no-subreaper --image-path /i --bundle /b c1", "restore", &["c1"]),
        ("--cgroup-manager disabled create --bundle /b --no-new-keyring --preserve-fds 2 c1", "create", &["c1"]),
        ("--log-format=json --log=/l state c1", "state", &["c1"]),
        ("restore --tcp-close --network-lock skip -b /b c1", "restore", &["c1"]),
        ("checkpoint --network-lock=nftables --status-fd -1 c1", "checkpoint", &["c1"]),
        ("create c1 --bundle /b", "create", &["c1"]),
        ("create c1 -b /b --no-pivot", "create", &["c1"]),
        ("update --resources=- c1", "update", &["c1"]),
        ("events --stats c1", "events", &["c1"]),
        ("run --keep=true -b=/b c1", "run", &["c1"]),
        ("exec -t -u 1:2 c1 ls -l --help", "exec", &["c1", "ls", "-l", "--help"]),
        ("exec c1 -- sh", "exec", &["c1", "sh"]),
        ("exec -t c1 -- -- sh", "exec", &["c1", "--", "sh"]),
        ("exec c1 sh -- x", "exec", &["c1", "sh", "--", "x"]),
        ("exec -- c1 sh", "exec", &["c1", "sh"]),
        ("exec -- c1 -- sh", "exec", &["c1", "--", "sh"]),
        ("ps c1 -- aux", "ps", &["c1", "aux"]),
        ("kill c1 -- 9", "kill", &["c1", "9"]),
        ("kill c1 -9", "kill", &["c1", "-9"]),
        ("delete -- -odd", "delete", &["-odd"]),
    ] {
        let (_, name, arguments) = command(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert_eq!(name, verb, "{line}");
        assert_eq!(operands(&arguments), expected, "{line}");
    }
}

#[test]
fn values_are_taken_whatever_they_look_like() {
    let (_, _, arguments) = command("exec -e -x --env=A=b=c -e D= c1 env").expect("understood");
    assert_eq!(arguments.texts("env"), Ok(vec!["-x".into(), "A=b=c".into(), "D=".into()]));
    let (_, _, arguments) = command("exec -tu0 c1 id").expect("understood");
    assert!(arguments.is_set("tty"));
    assert_eq!(arguments.text("user"), Ok(Some("0")));
}

#[test]
fn switches_can_be_told() {
    for (line, expected) in [
        ("run -detach c1", true),
        ("run --detach=false c1", false),
        ("run -d=true c1", true),
        ("run --detach -detach=0 c1", false),
        ("run --detach=0 -detach c1", true),
    ] {
        let (_, _, arguments) = command(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert_eq!((arguments.is_set("detach"), arguments.told("detach")), (expected, Some(expected)), "{line}");
        assert_eq!((arguments.is_set("keep"), arguments.told("keep")), (false, None), "{line}");
    }
}

#[test]
fn help_is_seen_before_operands_only_where_they_end_the_options() {
    let help = |line: &str| command(line).unwrap_or_else(|error| panic!("{line}: {error}")).2.help;
    for line in
        ["checkpoint --help c1", "run c1 -h", "run -h c1 -b", "run -h c1 --bogus", "exec -h --preserve-fds x c1"]
    {
        assert!(help(line), "{line}");
    }
    assert!(!help("exec c1 ls --help"));
    for line in ["run -b", "run --bogus -h c1", "exec --preserve-fds x -h c1"] {
        assert!(command(line).is_err(), "{line}");
    }
}

#[test]
fn mistakes_are_told_in_runcs_words() {
    for (line, expected) in [
        ("restore --lsm-mount-context", "flag needs an argument: -lsm-mount-context"),
        ("run --bundle", "flag needs an argument: -bundle"),
        ("run -b", "flag needs an argument: -bundle"),
        ("run -bundle", "flag needs an argument: -bundle"),
        ("list --bogus", "flag provided but not defined: -bogus"),
        ("exec -itu0 c1 id", "flag provided but not defined: -i"),
        ("list -x", "flag provided but not defined: -x"),
        ("--bogus list", "flag provided but not defined: -bogus"),
        ("state --log x", "flag provided but not defined: -log"),
        (
            "exec -g x c1 id",
            "invalid value \"x\" for flag -additional-gids: it must be a number; names of the image's groups are not looked up",
        ),
        ("exec --preserve-fds x c1 id", "invalid value \"x\" for flag -preserve-fds: it must be a whole number"),
        ("run --preserve-fds= c1", "invalid value \"\" for flag -preserve-fds: it must be a whole number"),
        ("update --pids-limit=1.5 c1", "invalid value \"1.5\" for flag -pids-limit: it must be a whole number"),
        (
            "events --interval= c1",
            "invalid value \"\" for flag -interval: it must be a duration such as 5s, 100ms or 1m30s",
        ),
        ("run --keep=perhaps c1", "invalid boolean value \"perhaps\" for -keep: parse error"),
        ("create", "flint: \"create\" requires exactly 1 argument(s)"),
        ("create a b c", "flint: \"create\" requires exactly 1 argument(s)"),
        ("kill", "flint: \"kill\" requires a minimum of 1 argument(s)"),
        ("exec", "flint: \"exec\" requires a minimum of 1 argument(s)"),
        ("plan a b", "flint: \"plan\" requires a maximum of 1 argument(s)"),
        ("list x", "flint: \"list\" requires exactly 0 argument(s)"),
    ] {
        match command(line) {
            Ok(_) => panic!("{line}: understood"),
            Err(error) => assert_eq!(error, expected, "{line}"),
        }
    }
}

#[test]
fn numbers_are_digits() {
    for (text, number) in
        [("0", Some(0)), ("4294967295", Some(u32::MAX)), ("4294967296", None), ("", None), ("+1", None), ("-1", None)]
    {
        assert_eq!(parse_id(text), number, "{text:?}");
    }
}

#[test]
fn numbers_of_flags_are_gos() {
    for (text, number) in [
        ("0", Some(0)),
        ("+0", Some(0)),
        ("-1", Some(-1)),
        ("-0x10", Some(-16)),
        ("0xfF", Some(255)),
        ("0X_1", Some(1)),
        ("0b11", Some(3)),
        ("0o17", Some(15)),
        ("017", Some(15)),
        ("0_7", Some(7)),
        ("1_000", Some(1000)),
        ("9223372036854775807", Some(i64::MAX)),
        ("-9223372036854775808", Some(i64::MIN)),
        ("9223372036854775808", None),
        ("", None),
        ("+", None),
        ("+-1", None),
        ("0x", None),
        ("0x+1", None),
        ("08", None),
        ("0b2", None),
        ("_1", None),
        ("1_", None),
        ("1__0", None),
        ("0x1__0", None),
        (" 1", None),
        ("1.0", None),
        ("é1", None),
    ] {
        assert_eq!(parse_integer(text), number, "{text:?}");
    }
    let (_, _, arguments) = command("run --preserve-fds=1 --preserve-fds 0x2 c1").expect("understood");
    assert_eq!((arguments.integer("preserve-fds"), arguments.integer("status-fd")), (Some(2), None));
}

/// A word of a command line, from flags, operands and rubbish.
fn word(next: &mut impl FnMut(usize) -> usize, flags: &[crate::arguments::Flag]) -> OsString {
    use std::os::unix::ffi::OsStringExt as _;
    const ODD: [&str; 14] = ["-", "--", "---", "=", "-=", "--=x", "", "-é", "--é=", "-1", "c1", "/b", "TERM", "-tu0"];
    if flags.is_empty() || next(3) == 0 {
        return ODD[next(ODD.len())].into();
    }
    let flag = &flags[next(flags.len())];
    let dashes = ["-", "--", "---"][next(8).saturating_sub(5)];
    let value =
        ["", "=", "=true", "=false", "=maybe", "=1:2", "=\n", "=18446744073709551616"][next(16).saturating_sub(8)];
    let mut bytes = format!("{dashes}{}{value}", flag.long).into_bytes();
    if next(6) == 0 {
        let at = next(bytes.len());
        bytes[at] ^= 1 << next(8);
    }
    OsString::from_vec(bytes)
}

/// `FLINT_FUZZ_RUNS` sets how many are read, `FLINT_FUZZ_SEED` where the generator starts.
#[test]
fn any_words_are_a_verb_or_a_sentence() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let (runs, mut state) = (number("FLINT_FUZZ_RUNS").unwrap_or(20_000), number("FLINT_FUZZ_SEED").unwrap_or(1));
    // Knuth's MMIX constants: the same words on every run.
    let mut next = move |limit: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % limit
    };
    let (mut understood, mut refused) = (0_u64, 0_u64);
    for _ in 0..runs {
        let verb = &verbs::VERBS[next(verbs::VERBS.len())];
        let mut words: Vec<OsString> = (0..next(3)).map(|_| word(&mut next, GLOBAL_FLAGS)).collect();
        words.push(verb.name.into());
        words.extend((0..next(6)).map(|_| word(&mut next, verb.flags)));
        *(if crate::fuzzing::command_line(&words) { &mut understood } else { &mut refused }) += 1;
    }
    println!("{runs} command lines: {understood} understood, {refused} refused");
    assert!(understood > runs / 20 && refused > runs / 20, "the inputs show nothing: {understood}, {refused}");
}
