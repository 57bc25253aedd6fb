//! Seccomp: every action and argument operator that a program can feel, flint beside runc.

use integration_tests::{Bundle, Case, peers};
use serde_json::{Value, json};

/// A filter that allows everything but `rules`.
fn filtered(bundle: Bundle, rules: &Value) -> Bundle {
    bundle.edit(json!({"linux": {"seccomp": {
        "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": rules
    }}}))
}

/// The script's stdout under each peer; both must be equal.
#[track_caller]
fn same(rules: &Value, script: &str) -> String {
    let Some(peers) = peers() else {
        return String::new();
    };
    let outputs = peers.map(|runtime| {
        let case = Case::new(&runtime);
        let output = case.run(&filtered(case.bundle().shell(script), rules)).ok();
        case.finish();
        output.stdout
    });
    assert_eq!(outputs[0], outputs[1], "flint (left) against runc");
    outputs[1].clone()
}

#[test]
fn errno_with_and_without_a_number() {
    let rules = json!([
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"},
        {"names": ["rmdir", "unlinkat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28},
        {"names": ["no_such_call"], "action": "SCMP_ACT_ERRNO"}
    ]);
    let text = same(&rules, "mkdir /dev/shm/x 2>&1; rmdir /dev/shm 2>&1; grep Seccomp: /proc/self/status");
    assert!(text.contains("Operation not permitted") && text.contains("No space left"), "{text}");
    assert!(text.contains("Seccomp:\t2"), "{text}");
}

#[test]
fn kill_trap_and_log() {
    let rules = json!([
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL"},
        {"names": ["rmdir"], "action": "SCMP_ACT_TRAP"},
        {"names": ["symlink", "symlinkat"], "action": "SCMP_ACT_KILL_PROCESS"},
        {"names": ["link", "linkat"], "action": "SCMP_ACT_LOG"}
    ]);
    // 159 = 128 + SIGSYS.
    let script = "cd /dev/shm; (mkdir x); echo mkdir $?; (rmdir y); echo rmdir $?; (ln -s a b); echo symlink $?; \
                  echo > f; ln f g; echo link $?";
    let text = same(&rules, script);
    assert_eq!(text, "mkdir 159\nrmdir 159\nsymlink 159\nlink 0\n");
}

/// `kill -0 PID` calls kill(pid, sig): both arguments are ours to choose.
#[test]
fn every_argument_operator() {
    for (operator, value, value_two) in [
        ("SCMP_CMP_EQ", 10, 0),
        ("SCMP_CMP_NE", 10, 0),
        ("SCMP_CMP_LT", 10, 0),
        ("SCMP_CMP_LE", 10, 0),
        ("SCMP_CMP_GT", 10, 0),
        ("SCMP_CMP_GE", 10, 0),
        ("SCMP_CMP_MASKED_EQ", 12, 8),
    ] {
        let rules = json!([{
            "names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5,
            "args": [{"index": 1, "value": value, "valueTwo": value_two, "op": operator}]
        }]);
        // ESRCH (no such process) when it is allowed, EIO when it is not.
        let script = "for s in 1 8 9 10 11 12 15 24; do kill -$s 30000 2>&1 | sed \"s/^.*: /$s /\"; done";
        let text = same(&rules, script);
        let refused = text.lines().filter(|line| !line.contains("No such process")).count();
        assert!((1..8).contains(&refused), "{operator}: {text}");
    }
}

#[test]
fn all_arguments_must_hold() {
    let rules = json!([{
        "names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5,
        "args": [
            {"index": 0, "value": 30_000, "op": "SCMP_CMP_EQ"}, {"index": 1, "value": 10, "op": "SCMP_CMP_GE"}
        ]
    }]);
    let text = same(&rules, "kill -9 30000 2>&1; kill -10 30000 2>&1; kill -10 30001 2>&1; true");
    assert_eq!(text.matches("No such process").count(), 2, "{text}");
}

#[test]
fn an_allow_list_without_privileges_and_with() {
    let Some(peers) = peers() else { return };
    for privileged in [false, true] {
        let outputs = peers.clone().map(|runtime| {
            let case = Case::new(&runtime);
            let mut bundle = case
                .bundle()
                .shell("grep -E 'Seccomp:|NoNew' /proc/self/status; id -u; mkdir /dev/shm/x 2>&1")
                .edit(json!({
                    "process": {"noNewPrivileges": !privileged, "user": {"uid": 1000, "gid": 1000}},
                    "linux": {"seccomp": {
                        "defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1,
                        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 30}]
                    }}
                }));
            if privileged {
                bundle = bundle.capabilities(&["CAP_SYS_ADMIN"]);
            }
            // busybox returns mkdir's failure.
            let output = case.run(&bundle).exits(1);
            case.finish();
            output.stdout
        });
        assert!(outputs[1].contains("Read-only file system"), "{}", outputs[1]);
        assert_eq!(outputs[0], outputs[1]);
    }
}

#[test]
#[allow(clippy::too_many_lines, reason = "one long table")]
fn the_default_action_is_for_all_others() {
    // Docker's way: nothing but a list is allowed. This list suffices for a static busybox.
    let allowed = json!([
        "read",
        "write",
        "open",
        "openat",
        "close",
        "stat",
        "fstat",
        "lstat",
        "newfstatat",
        "poll",
        "lseek",
        "mmap",
        "mprotect",
        "munmap",
        "brk",
        "rt_sigaction",
        "rt_sigprocmask",
        "rt_sigreturn",
        "ioctl",
        "pread64",
        "access",
        "getpid",
        "exit",
        "exit_group",
        "uname",
        "fcntl",
        "getcwd",
        "readlink",
        "getuid",
        "getgid",
        "geteuid",
        "getegid",
        "getppid",
        "getpgrp",
        "arch_prctl",
        "set_tid_address",
        "set_robust_list",
        "rseq",
        "prlimit64",
        "getrandom",
        "execve",
        "capget",
        "capset",
        "prctl",
        "setgroups",
        "setgid",
        "setuid",
        "futex",
        "statx",
        "fchdir",
        "chdir",
        "epoll_ctl",
        "epoll_pwait",
        "nanosleep",
        "sched_yield",
        "tgkill",
        "gettid",
        "getdents64",
        "fstatfs",
        "close_range",
        "readlinkat",
        "sigaltstack",
        "madvise",
        "faccessat2",
        "fchown",
        "setresuid",
        "setresgid",
        "umask",
        "keyctl"
    ]);
    let Some(peers) = peers() else { return };
    let outputs = peers.map(|runtime| {
        let case = Case::new(&runtime);
        let bundle = case.bundle().shell("echo allowed; umask; pwd; kill -0 1 || echo refused").edit(json!({
            "linux": {"seccomp": {
                "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38,
                "syscalls": [{"names": allowed, "action": "SCMP_ACT_ALLOW"}]
            }}
        }));
        let output = case.run(&bundle).ok();
        case.finish();
        output.stdout
    });
    assert!(outputs[1].starts_with("allowed\n") && outputs[1].ends_with("refused\n"), "{}", outputs[1]);
    assert_eq!(outputs[0], outputs[1]);
}

#[test]
fn it_holds_in_exec_too() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let rules = json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]);
        let id = case.detached(&filtered(case.bundle().forever(), &rules), "a");
        let output = case.exec(&id, &["mkdir", "/dev/shm/x"]).exits(1);
        assert!(output.stderr.contains("No space left"), "{}", output.stderr);
        case.delete(&id);
        case.finish();
    }
}
