//! Damaged profiles: refused, or compiled to a program that the kernel would take and that does what libseccomp's does.

use crate::fuzzing::{Verdict, corpus};
use crate::mutation::{Random, runs, seed};
use crate::seccomp::judge::{self, check};

#[test]
fn damaged_profiles_are_refused_or_compiled() {
    let seeds = judge::seeds();
    let mut random = Random(seed());
    let (mut compiled, mut refused) = (0, 0);
    // Docker's takes a thousand times as long as a config without a profile.
    let runs = runs().div_ceil(4);
    for _ in 0..runs {
        match check(&random.document(&seeds)) {
            Verdict::Taken => compiled += 1,
            Verdict::Refused => refused += 1,
        }
    }
    println!("{runs} profiles: {compiled} compiled, {refused} refused");
    assert!(compiled > runs / 20 && refused > 0, "the inputs show nothing: {compiled} compiled, {refused} refused");
}

/// Else the comparison would show nothing.
#[test]
fn undamaged_profiles_are_compared_with_libseccomp() {
    for seed in judge::seeds() {
        let compared = judge::compare(super::spec(&seed.to_string()));
        assert!(compared.results > 500 && compared.wrong == 0, "{compared:?} under {seed}");
    }
}

/// Found by fuzzing: on aarch64 beside x86, libseccomp does not see that 2^32 is greater than 9.
#[test]
fn where_libseccomp_errs_the_profile_decides() {
    let compared = judge::compare(super::spec(
        r#"{"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_AARCH64"],
            "syscalls": [{"names": ["pipe"], "action": "SCMP_ACT_ALLOW"}, {"names": ["clone"], "action": "SCMP_ACT_TRACE",
            "errnoRet": 7, "args": [{"index": 0, "op": "SCMP_CMP_MASKED_EQ", "value": 2114060288, "valueTwo": 0},
            {"index": 1, "op": "SCMP_CMP_GE", "value": 9}]}]}"#,
    ));
    assert!(compared.results > 500 && compared.wrong > 0, "{compared:?}");
}

#[test]
fn profiles_of_the_corpus_are_refused_or_compiled() {
    for json in corpus("seccomp") {
        check(&json);
    }
}
