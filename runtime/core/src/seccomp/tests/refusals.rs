//! What is refused, what is warned of, flags, and profiles that filter nothing.

use super::*;
use crate::Kind;

fn refusal(json: &str) -> crate::Error {
    compile(&spec(json)).err().expect("refused")
}

#[test]
fn nothing_to_filter_is_no_filter() {
    for json in [
        r#"{"defaultAction": "SCMP_ACT_ALLOW"}"#,
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [], "architectures": ["SCMP_ARCH_X86"]}"#,
    ] {
        assert!(compile(&spec(json)).expect("compiles").is_none());
    }
    let denied = compile(&spec(r#"{"defaultAction": "SCMP_ACT_ERRNO"}"#)).expect("compiles");
    assert!(denied.is_some(), "a denying default is a filter without any rule");
}

#[test]
fn notify_is_refused_where_nobody_could_answer() {
    for (json, words) in [
        (r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#, "as default action"),
        (
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["a", "write"], "action": "SCMP_ACT_NOTIFY"}]}"#,
            "for the write syscall",
        ),
    ] {
        let error = refusal(json);
        assert_eq!(error.kind(), Kind::Invalid);
        assert!(error.to_string().contains(&format!("SCMP_ACT_NOTIFY cannot be used {words}")), "{error}");
    }
}

#[test]
fn notify_asks_for_a_listener() {
    let filter = |flags: &str| {
        let rules = r#"[{"names": ["mount"], "action": "SCMP_ACT_NOTIFY"}]"#;
        compiled(&spec(&format!(r#"{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": {rules} {flags}}}"#)))
    };
    assert_eq!(filter("").flags, 4 | 8);
    assert_eq!(filter(r#", "flags": []"#).flags, 8);
    let killable = filter(r#", "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]"#);
    assert_eq!((killable.flags, killable.warnings.len()), (8 | 32, 0));
    assert!(filter("").program.iter().any(|instruction| instruction.k == libc::SECCOMP_RET_USER_NOTIF));
}

#[test]
fn numbers_that_do_not_fit_are_refused() {
    let rule =
        |body: &str| format!(r#"{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{{"names": ["mount"], {body}}}]}}"#);
    for json in [
        r#"{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 4096}"#.to_owned(),
        rule(r#""action": "SCMP_ACT_ERRNO", "errnoRet": 4096"#),
        rule(r#""action": "SCMP_ACT_TRACE", "errnoRet": 65536"#),
        rule(r#""action": "SCMP_ACT_TRAP", "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]"#),
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": [""], "action": "SCMP_ACT_TRAP"}]}"#.to_owned(),
    ] {
        assert_eq!(refusal(&json).kind(), Kind::Invalid, "{json}");
    }
    compiled(&spec(&rule(r#""action": "SCMP_ACT_ERRNO", "errnoRet": 4095"#)));
    compiled(&spec(&rule(r#""action": "SCMP_ACT_TRACE", "errnoRet": 65535"#)));
}

/// `count` rules on `name` that share nothing: two conditions each, on changing values.
fn many_rules(count: u64, name: &str) -> String {
    let rules: Vec<_> = (0..count)
        .map(|at| {
            format!(
                r#"{{"names": ["{name}"], "action": "SCMP_ACT_ERRNO", "errnoRet": {}, "args": [
                    {{"index": 0, "value": {}, "op": "SCMP_CMP_MASKED_EQ", "valueTwo": 1}},
                    {{"index": 1, "value": {}, "op": "SCMP_CMP_EQ"}}]}}"#,
                at % 4000 + 1,
                (at << 33) + 3 + 4 * at,
                at << 32 | at
            )
        })
        .collect();
    format!(r#"{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{}]}}"#, rules.join(","))
}

#[test]
fn a_program_that_is_too_long_is_refused() {
    for (count, told) in
        [(1000, "instructions and the kernel takes 4096"), (10_000, "too many conditions on arguments")]
    {
        let error = refusal(&many_rules(count, "mount"));
        assert_eq!(error.kind(), Kind::Invalid);
        assert!(error.to_string().contains(told), "{error}");
    }
}

#[test]
fn a_long_program_with_far_jumps_is_right() {
    let spec = spec(&many_rules(330, "mount"));
    let program = compiled(&spec).program;
    assert!(program.len() > 2000, "{}", program.len());
    for at in [0_u64, 1, 77, 329] {
        let matching = [1 | 1 << 32, at << 32 | at, 0, 0, 0, 0];
        assert_eq!(interpreter::run(&program, &call(X86_64, 165, &matching)).0, ERRNO | (at % 4000 + 1) as u32);
    }
    assert_eq!(interpreter::run(&program, &call(X86_64, 165, &[1, 400 << 32 | 400])).0, ALLOW);
    assert_eq!(interpreter::run(&program, &call(X86_64, 165, &[0, 7 << 32 | 7])).0, ALLOW);
}

#[test]
fn flags_are_those_of_runc() {
    let flags = |flags: &str| {
        let filter = compiled(&spec(&format!(r#"{{"defaultAction": "SCMP_ACT_ERRNO" {flags}}}"#)));
        (filter.flags, filter.warnings.len())
    };
    assert_eq!(flags(""), (4, 0), "absent: SPEC_ALLOW");
    assert_eq!(flags(r#", "flags": []"#), (0, 0));
    assert_eq!(flags(r#", "flags": ["SECCOMP_FILTER_FLAG_TSYNC"]"#), (0, 0));
    assert_eq!(flags(r#", "flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"]"#), (6, 0));
    assert_eq!(flags(r#", "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]"#), (0, 1));
}

#[test]
fn architectures_without_a_table_are_warned_of_and_killed() {
    let filter = compiled(&spec(
        r#"{"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_S390X", "SCMP_ARCH_X86_64"]}"#,
    ));
    assert_eq!(filter.warnings.len(), 1, "{:?}", filter.warnings);
    assert_eq!(interpreter::run(&filter.program, &call(0x8000_0016, 1, &[])).0, KILL_THREAD);
    assert_eq!(interpreter::run(&filter.program, &call(X86_64, 1, &[])).0, ERRNO | 1);
}
