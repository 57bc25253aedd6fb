//! Damaged profiles: refused, or compiled to a program that the kernel would take.

use super::*;
use crate::mutation::{Random, runs, seed};

#[test]
fn damaged_profiles_are_refused_or_compiled() {
    let small = r#"{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_AARCH64"], "syscalls": [
        {"names": ["read", "socket"], "action": "SCMP_ACT_ALLOW"},
        {"names": ["clone"], "action": "SCMP_ACT_TRACE", "errnoRet": 7, "args": [
            {"index": 0, "value": 2114060288, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"},
            {"index": 1, "value": 9, "op": "SCMP_CMP_GE"}]}]}"#;
    let seeds = [small, DOCKER].map(|json| serde_json::from_str::<serde_json::Value>(json).expect("JSON"));
    let mut random = Random(seed());
    let (mut compiled, mut refused) = (0, 0);
    // Docker's takes a thousand times as long as a config without a profile.
    let runs = runs().div_ceil(4);
    for _ in 0..runs {
        let json = random.document(&seeds);
        let Ok(spec) = serde_json::from_slice::<LinuxSeccomp>(&json) else {
            refused += 1;
            continue;
        };
        match compile(&spec) {
            Ok(Some(filter)) => {
                interpreter::check(&filter.program);
                let again = compile(&spec).expect("compiles again").expect("filters something");
                let code = |filter: &Filter| format!("{:?}", filter.program);
                assert_eq!(code(&filter), code(&again), "{}", String::from_utf8_lossy(&json));
                compiled += 1;
            }
            Ok(None) => {}
            Err(error) => {
                assert!(!error.to_string().is_empty());
                refused += 1;
            }
        }
    }
    println!("{runs} profiles: {compiled} compiled, {refused} refused");
    assert!(compiled > runs / 20 && refused > 0, "the inputs show nothing: {compiled} compiled, {refused} refused");
}
