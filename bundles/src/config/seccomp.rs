//! docker's default seccomp profile, as a list for one machine and one set of capabilities.
//!
//! What is allowed are facts about docker (moby/profiles, seccomp/default.json, June 2026); the tables are ours. docker
//! decides by the architecture, the capabilities and the kernel when a container is made, and so do we.

use serde_json::{Value, json};

/// Calls that every container may make.
const ALWAYS: &str = "
_llseek _newselect accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown
chown32 clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64
clock_nanosleep clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3
epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd
eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark
fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock
fork fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex
futex_requeue futex_time64 futex_wait futex_waitv futex_wake futimesat get_robust_list get_thread_area getcpu
getcwd getdents getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getitimer
getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid getresgid32 getresuid getresuid32
getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday getuid getuid32 getxattr getxattrat
inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents
io_pgetevents_time64 io_setup io_submit ioctl ioprio_get ioprio_set ipc kill landlock_add_rule
landlock_create_ruleset landlock_restrict_self lchown lchown32 lgetxattr link linkat listen listmount
listxattr listxattrat llistxattr lremovexattr lseek lsetxattr lstat lstat64 madvise map_shadow_stack
membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2
mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend
mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall munmap
name_to_handle_at nanosleep newfstatat open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2
pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64
process_mrelease pselect6 pselect6_time64 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv
recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr removexattrat rename renameat
renameat2 restart_syscall riscv_hwprobe rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo
rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_get_priority_max
sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval
sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield
seccomp select semctl semget semop semtimedop semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg
sendto set_robust_list set_thread_area set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32
setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid
setresuid32 setreuid setreuid32 setrlimit setsid setsockopt setuid setuid32 setxattr setxattrat shmat shmctl
shmdt shmget shutdown sigaltstack signalfd signalfd4 sigprocmask sigreturn socketcall socketpair splice stat
stat64 statfs statfs64 statmount statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time
timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64
timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill truncate
truncate64 ugetrlimit umask uname unlink unlinkat uretprobe utime utimensat utimensat_time64 utimes vfork
vmsplice wait4 waitid waitpid write writev";

/// Calls that a capability allows.
const BY_CAPABILITY: &[(&str, &str)] = &[
    ("CAP_BPF", "bpf"),
    ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    ("CAP_PERFMON", "perf_event_open"),
    (
        "CAP_SYS_ADMIN",
        "
bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr
lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl
quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare",
    ),
    ("CAP_SYS_BOOT", "reboot"),
    ("CAP_SYS_CHROOT", "chroot"),
    ("CAP_SYS_MODULE", "delete_module finit_module init_module"),
    ("CAP_SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("CAP_SYS_PACCT", "acct"),
    ("CAP_SYS_PTRACE", "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace"),
    ("CAP_SYS_RAWIO", "ioperm iopl"),
    ("CAP_SYS_TIME", "clock_settime clock_settime64 settimeofday stime"),
    ("CAP_SYS_TTY_CONFIG", "vhangup"),
    ("CAP_SYSLOG", "syslog"),
];

/// An architecture: Rust's name, the specification's names (its own and those whose programs it runs), its calls.
struct Machine {
    name: &'static str,
    architectures: &'static [&'static str],
    calls: &'static str,
}

const MACHINES: &[Machine] = &[
    Machine {
        name: "x86_64",
        architectures: &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        calls: "arch_prctl modify_ldt",
    },
    Machine {
        name: "aarch64",
        architectures: &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
        calls: "arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls sync_file_range2",
    },
    Machine { name: "riscv64", architectures: &["SCMP_ARCH_RISCV64"], calls: "riscv_flush_icache" },
    Machine {
        name: "s390x",
        architectures: &["SCMP_ARCH_S390X", "SCMP_ARCH_S390"],
        calls: "s390_pci_mmio_read s390_pci_mmio_write s390_runtime_instr",
    },
    Machine { name: "loongarch64", architectures: &["SCMP_ARCH_LOONGARCH64"], calls: "" },
];

/// The flags of clone(2) that make namespaces: CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
const NAMESPACE_FLAGS: u64 = 0x7e02_0000;
/// PER_LINUX, PER_LINUX32, UNAME26, both, and the question for the current one.
const PERSONALITIES: [u64; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];
const AF_ALG: u64 = 38;
const AF_VSOCK: u64 = 40;
/// clone3's flags are behind a pointer, which a filter cannot follow: libraries fall back to clone.
const ENOSYS: u32 = 38;
const EPERM: u32 = 1;

/// The profile for this architecture, which must be one of Rust's names. An architecture that docker has no profile for
/// gets no filter, as docker gives it none.
pub(super) fn profile(capabilities: &[&str], architecture: &str) -> Value {
    let Some(machine) = MACHINES.iter().find(|machine| machine.name == architecture) else { return Value::Null };
    let has = |capability: &str| capabilities.contains(&capability);
    // ptrace is safe for the filter since Linux 4.8; flint needs a newer one.
    let mut names: Vec<&str> =
        ALWAYS.split_whitespace().chain(["process_vm_readv", "process_vm_writev", "ptrace"]).collect();
    names.extend(machine.calls.split_whitespace());
    for (capability, calls) in BY_CAPABILITY {
        if has(capability) {
            names.extend(calls.split_whitespace());
        }
    }
    names.sort_unstable();
    names.dedup();
    let mut rules = vec![json!({"names": names, "action": "SCMP_ACT_ALLOW"})];
    let mut when = |name: &str, index: u32, value: u64, op: &str| {
        let args = json!([{"index": index, "value": value, "op": op}]);
        rules.push(json!({"names": [name], "action": "SCMP_ACT_ALLOW", "args": args}));
    };
    when("socket", 0, AF_ALG, "SCMP_CMP_LT");
    when("socket", 0, AF_ALG + 1, "SCMP_CMP_EQ");
    when("socket", 0, AF_VSOCK, "SCMP_CMP_GT");
    for persona in PERSONALITIES {
        when("personality", 0, persona, "SCMP_CMP_EQ");
    }
    if !has("CAP_SYS_ADMIN") {
        // The order of clone's parameters is another on s390.
        let index = u32::from(architecture == "s390x");
        // The flags masked out of the value must all be 0.
        let args = json!([{"index": index, "value": NAMESPACE_FLAGS, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]);
        rules.push(json!({"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": args}));
        rules.push(json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS}));
    }
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": EPERM,
        "architectures": machine.architectures,
        "syscalls": rules,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(profile: &Value) -> Vec<&str> {
        let names = profile.pointer("/syscalls/0/names").and_then(Value::as_array).unwrap();
        names.iter().filter_map(Value::as_str).collect()
    }

    #[test]
    fn capabilities_open_their_calls() {
        let plain = profile(&super::super::defaults::CAPABILITIES, "x86_64");
        let names = allowed(&plain);
        for (name, expected) in [
            ("read", true),
            ("chroot", true),
            ("arch_prctl", true),
            ("mount", false),
            ("clone", false),
            ("clone3", false),
            ("socket", false),
            ("keyctl", false),
            ("io_uring_setup", false),
            ("userfaultfd", false),
            ("cacheflush", false),
            ("bpf", false),
        ] {
            assert_eq!(names.contains(&name), expected, "{name}");
        }
        let admin = profile(&["CAP_SYS_ADMIN"], "aarch64");
        let names = allowed(&admin);
        assert!(names.contains(&"mount") && names.contains(&"clone3") && names.contains(&"cacheflush"));
        assert!(!names.contains(&"chroot") && !names.contains(&"arch_prctl"));
        assert!(!admin.to_string().contains("ENOSYS") && !admin.to_string().contains("MASKED"));
        assert!(profile(&[], "m68k").is_null());
    }

    #[test]
    fn every_name_is_a_call_once() {
        for text in [ALWAYS].into_iter().chain(BY_CAPABILITY.iter().map(|(_, text)| *text)) {
            let names: Vec<&str> = text.split_whitespace().collect();
            let mut sorted = names.clone();
            sorted.sort_unstable();
            sorted.dedup();
            assert_eq!(names.len(), sorted.len());
            let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
            assert!(names.iter().all(|name| name.bytes().all(plain)));
        }
    }
}
