//! Whole profiles.

use super::*;
use oci_spec::runtime::Arch;

fn assert_same_everywhere(spec: &LinuxSeccomp, arguments: &[[u64; 6]]) {
    let (filter, oracle) = (compiled(spec), Oracle::new(spec).expect("libseccomp takes it"));
    for architecture in [X86_64, X86, 0xc000_00b7, 0x4000_0028, 0xc000_00f3, 0xdead_beef] {
        for number in numbers() {
            for arguments in arguments {
                assert_same(&filter, &oracle, &call(architecture, number, arguments), spec);
            }
        }
    }
}

/// Arguments that tell docker's conditions apart: personality, socket's family, clone's namespace flags.
fn telling_arguments() -> Vec<[u64; 6]> {
    let values = [0, 1, 8, 40, 0x20000, 0x20008, 0xffff_ffff, 0x1_0000_0000, 0x7e02_0000, 0x1000_0000, 0x0001_1200];
    let mut sets: Vec<_> = values.iter().map(|value| [*value; 6]).collect();
    sets.extend((1..21).map(|sub_number| [sub_number, 0, 0, 0, 0, 0]));
    sets.extend([[u64::MAX; 6], [3, 1, 8, 40, 0, 0], [40 << 32, 0, 0, 0, 0, 0]]);
    sets
}

#[test]
fn docker_s_default_agrees_with_runc() {
    let mut spec = spec(DOCKER);
    oracle::keep_known_names(&mut spec);
    assert_same_everywhere(&spec, &telling_arguments());
}

#[test]
fn docker_s_default_agrees_with_runc_for_each_set_of_architectures() {
    for architectures in [
        None,
        Some(vec![]),
        Some(vec![Arch::ScmpArchX86_64]),
        Some(vec![Arch::ScmpArchX32]),
        Some(vec![Arch::ScmpArchX86]),
        Some(vec![Arch::ScmpArchX86, Arch::ScmpArchX32, Arch::ScmpArchX86_64]),
        Some(vec![Arch::ScmpArchAarch64, Arch::ScmpArchArm]),
        Some(vec![Arch::ScmpArchAarch64, Arch::ScmpArchRiscv64, Arch::ScmpArchX86]),
    ] {
        let mut spec = spec(DOCKER);
        oracle::keep_known_names(&mut spec);
        spec.set_architectures(architectures);
        assert_same_everywhere(&spec, &[[0; 6], [8; 6], [40; 6], [u64::MAX; 6], [1, 40, 0, 0, 0, 0]]);
    }
}

#[test]
fn every_default_action_agrees_with_runc() {
    for default in ["KILL", "KILL_PROCESS", "KILL_THREAD", "TRAP", "ERRNO", "TRACE", "LOG", "ALLOW"] {
        for number in ["", r#""defaultErrnoRet": 38,"#, r#""defaultErrnoRet": 99,"#] {
            let spec = spec(&format!(
                r#"{{"defaultAction": "SCMP_ACT_{default}", {number}
                    "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X86_64"],
                    "syscalls": [
                        {{"names": ["read", "stat64", "no_such_call"], "action": "SCMP_ACT_ALLOW"}},
                        {{"names": ["write"], "action": "SCMP_ACT_ERRNO"}},
                        {{"names": ["open"], "action": "SCMP_ACT_ERRNO", "errnoRet": 4094}},
                        {{"names": ["close"], "action": "SCMP_ACT_TRACE", "errnoRet": 77}},
                        {{"names": ["lseek"], "action": "SCMP_ACT_TRAP"}},
                        {{"names": ["mmap"], "action": "SCMP_ACT_KILL"}},
                        {{"names": ["munmap"], "action": "SCMP_ACT_KILL_PROCESS"}},
                        {{"names": ["brk"], "action": "SCMP_ACT_LOG"}},
                        {{"names": ["socket", "shmat"], "action": "SCMP_ACT_LOG"}},
                        {{"names": ["statx", "fchmodat"], "action": "SCMP_ACT_{default}"}}
                    ]}}"#
            ));
            assert_same_everywhere(&spec, &[[0; 6], [1; 6], [21; 6]]);
        }
    }
}

#[test]
fn x32_numbers_do_not_pass_as_x86_64_numbers() {
    let spec = spec(
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [{"names": ["ptrace"], "action": "SCMP_ACT_ERRNO"}]}"#,
    );
    let program = compiled(&spec).program;
    let run = |architecture, number| interpreter::run(&program, &call(architecture, number, &[])).0;
    assert_eq!(run(X86_64, 101), ERRNO | 1);
    assert_eq!(run(X86_64, 0), ALLOW);
    assert_eq!(run(X86_64, X32_BIT | 101), KILL_THREAD);
    assert_eq!(run(X86_64, X32_BIT | 521), KILL_THREAD);
    assert_eq!(run(X86_64, 0xffff_fffe), KILL_THREAD);
    assert_eq!(run(X86_64, u32::MAX), ALLOW, "a tracer skips a call with -1");
    assert_eq!(run(X86, 26), KILL_THREAD, "x86 is not listed");
}

#[test]
fn calls_newer_than_the_profile_do_not_exist() {
    let spec = spec(
        r#"{"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X32"],
            "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW"},
                         {"names": ["openat2"], "action": "SCMP_ACT_ERRNO"}]}"#,
    );
    let program = compiled(&spec).program;
    let run = |number| interpreter::run(&program, &call(X86_64, number, &[])).0;
    assert_eq!(run(437), ERRNO | 1, "openat2 is named, though its rule says no more than the default");
    assert_eq!(run(438), ERRNO | 38);
    assert_eq!(run(X32_BIT | 437), ERRNO | 1);
    assert_eq!(run(X32_BIT | 438), ERRNO | 38);
    assert_eq!(run(X32_BIT), ALLOW);
}

#[test]
fn a_rule_without_arguments_decides_alone() {
    let always = r#"{"names": ["ioctl"], "action": "SCMP_ACT_ALLOW"}"#;
    let other = r#"{"names": ["ioctl"], "action": "SCMP_ACT_TRAP"}"#;
    let sometimes = r#"{"names": ["ioctl"], "action": "SCMP_ACT_KILL_PROCESS",
                        "args": [{"index": 1, "value": 21522, "op": "SCMP_CMP_EQ"}]}"#;
    for rules in [[always, sometimes, other], [sometimes, always, other], [always, other, sometimes]] {
        let spec = spec(&format!(r#"{{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{}]}}"#, rules.join(",")));
        let (filter, oracle) = (compiled(&spec), Oracle::new(&spec).expect("libseccomp takes it"));
        for arguments in [[0; 6], [21522; 6]] {
            let call = call(X86_64, 16, &arguments);
            assert_eq!(interpreter::run(&filter.program, &call).0, ALLOW);
            assert_same(&filter, &oracle, &call, &spec);
        }
        assert!(filter.warnings.is_empty(), "podman's own profile is such a one: {:?}", filter.warnings);
    }
}

/// runc fails here: libseccomp refuses the second rule.
#[test]
fn of_contradicting_rules_the_first_counts() {
    let rule = |action| {
        format!(
            r#"{{"names": ["ioctl"], "action": "SCMP_ACT_{action}",
                "args": [{{"index": 1, "value": 21522, "op": "SCMP_CMP_EQ"}}]}}"#
        )
    };
    let rules = [rule("TRAP"), rule("LOG")].join(",");
    let spec = spec(&format!(r#"{{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{rules}]}}"#));
    assert!(Oracle::new(&spec).is_none());
    let result = interpreter::run(&compiled(&spec).program, &call(X86_64, 16, &[0, 21522])).0;
    assert_eq!(result, libc::SECCOMP_RET_TRAP);
}

/// Prints what the layout is good for: `cargo test -p flint-runtime seccomp -- --nocapture measured`.
#[test]
fn docker_s_default_is_shorter_than_libseccomp_s_as_measured() {
    let mut spec = spec(DOCKER);
    let whole = compiled(&spec).program.len();
    oracle::keep_known_names(&mut spec);
    let started = std::time::Instant::now();
    let ours = compiled(&spec).program;
    let elapsed = started.elapsed();
    let theirs = Oracle::new(&spec).expect("libseccomp takes it").program;
    let paths = |program: &[libc::sock_filter], architecture, base: u32| {
        let steps = (0..470).map(|number| interpreter::run(program, &call(architecture, base + number, &[])).1);
        let (sum, max) = steps.fold((0, 0), |(sum, max), steps| (sum + steps, max.max(steps)));
        (f64::from(sum as u32) / 470.0, max)
    };
    println!("{whole} instructions for the whole profile; compiled in {elapsed:?} (this build)");
    println!("known names only: ours {} instructions, libseccomp's {}", ours.len(), theirs.len());
    for (name, architecture, base) in [("x86_64", X86_64, 0), ("x86", X86, 0), ("x32", X86_64, X32_BIT)] {
        let (our_mean, our_max) = paths(&ours, architecture, base);
        let (their_mean, their_max) = paths(&theirs, architecture, base);
        println!("{name}: ours mean {our_mean:.1} max {our_max}, libseccomp's mean {their_mean:.1} max {their_max}");
        assert!(our_mean < their_mean && our_max <= their_max, "{name}");
    }
    assert!(ours.len() * 2 < theirs.len());
}
