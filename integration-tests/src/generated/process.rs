//! The process of a generated config: who it is, what it may, where it starts.

use serde_json::{Value, json};

use super::Random;

const CAPABILITIES: [&str; 16] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_ADMIN",
    "CAP_MKNOD",
    "CAP_AUDIT_WRITE",
    "CAP_SETFCAP",
];

pub(super) fn vary(random: &mut Random, spec: &mut Value) {
    let process = &mut spec["process"];
    if random.percent(4) {
        let odd =
            [json!(["/nowhere"]), json!(["nowhere"]), json!(["/etc/passwd"]), json!(["/etc"]), json!(["true", "x"])];
        process["args"] = random.pick(&odd);
    }
    process["noNewPrivileges"] = json!(random.percent(60));
    process["cwd"] =
        random.pick(&[json!("/"), json!("/"), json!("/"), json!("/tmp"), json!("/var"), json!("/home/user")]);
    if random.percent(8) {
        process["cwd"] =
            random.pick(&[json!("/new/deep"), json!("/etc/passwd"), json!("tmp"), json!("/tmp/../var//"), json!("")]);
    }
    if random.percent(50) {
        user(random, process);
    }
    if random.percent(50) {
        capabilities(random, process);
    }
    if random.percent(50) {
        process["rlimits"] = rlimits(random);
    }
    if random.percent(40) {
        environment(random, process);
    }
    if random.percent(40) {
        process["oomScoreAdj"] = json!(random.pick(&[0, 1, 100, 321, 500, 777, 998, 999, 1000, -500, 1001]));
    }
}

fn user(random: &mut Random, process: &mut Value) {
    let mut user = json!({"uid": random.pick(&[0, 0, 1, 1000, 4321, 65_534]), "gid": random.pick(&[0, 5, 1000, 77])});
    if random.percent(50) {
        user["umask"] = json!(random.pick(&[0, 0o22, 0o77, 0o777, 0o27, 0o1777]));
    }
    if random.percent(50) {
        user["additionalGids"] = json!(random.some(&[0, 5, 1000, 2000, 3000, 5, 65_535], 40));
    }
    process["user"] = user;
}

fn capabilities(random: &mut Random, process: &mut Value) {
    if random.percent(10) {
        process.as_object_mut().expect("an object").remove("capabilities");
        return;
    }
    let chance = random.pick(&[20, 50, 100]);
    let bounding = random.some(&CAPABILITIES, chance);
    let permitted = random.some(&bounding, 70);
    let effective = random.some(&permitted, 70);
    let inheritable = random.some(&bounding, 30);
    let both: Vec<_> = inheritable.iter().filter(|name| permitted.contains(name)).copied().collect();
    let mut sets = json!({"bounding": bounding, "permitted": permitted, "effective": effective,
        "inheritable": inheritable, "ambient": random.some(&both, 60)});
    if random.percent(10) {
        // Sets that do not fit each other.
        let set = random.pick(&["permitted", "effective", "inheritable", "ambient"]);
        sets[set] = json!(random.some(&CAPABILITIES, 50));
    }
    if random.percent(5) {
        sets["bounding"].as_array_mut().expect("a list").push(json!("CAP_OF_TOMORROW"));
    }
    process["capabilities"] = sets;
}

/// Open files have one value for both: the Go runtime of runc raises its own soft limit and races with itself.
fn rlimits(random: &mut Random) -> Value {
    let mut limits = vec![json!({"type": "RLIMIT_NOFILE", "soft": 512, "hard": 512})];
    let kinds = [
        ("RLIMIT_CORE", 0_i64, 0_i64),
        ("RLIMIT_CPU", 999, 1000),
        ("RLIMIT_STACK", 4 << 20, 16 << 20),
        ("RLIMIT_MSGQUEUE", 4096, 8192),
        ("RLIMIT_FSIZE", 1 << 30, 1 << 31),
        ("RLIMIT_MEMLOCK", 4096, 8192),
        ("RLIMIT_SIGPENDING", 50, 60),
        ("RLIMIT_LOCKS", 10, 20),
        ("RLIMIT_NICE", 0, 0),
        ("RLIMIT_RTPRIO", 0, 0),
        ("RLIMIT_RTTIME", 1000, 2000),
        ("RLIMIT_AS", 1_i64 << 32, 1 << 33),
        ("RLIMIT_RSS", 1 << 30, 1 << 31),
        ("RLIMIT_DATA", 1 << 30, 1 << 31),
    ];
    for (kind, soft, hard) in random.some(&kinds, 20) {
        limits.push(json!({"type": kind, "soft": soft, "hard": hard}));
    }
    if random.percent(5) {
        let odd = [
            json!({"type": "RLIMIT_NOFILE", "soft": 300, "hard": 300}),
            json!({"type": "RLIMIT_CORE", "soft": 2, "hard": 1}),
            json!({"type": "RLIMIT_OF_TOMORROW", "soft": 1, "hard": 1}),
        ];
        limits.push(random.pick(&odd));
    }
    json!(limits)
}

fn environment(random: &mut Random, process: &mut Value) {
    let some = [
        "A=1",
        "A=2",
        "EMPTY=",
        "SPACE=a b\tc",
        "HOME=/elsewhere",
        "TERM=",
        "UTF=é",
        "EQUALS=a=b=c",
        "LONG=0123456789",
    ];
    let mut list = random.some(&some, 40);
    if random.percent(80) {
        list.insert(random.below(list.len() + 1), "PATH=/nowhere:/bin:/sbin");
    }
    if random.percent(4) {
        list.push(random.pick(&["NO_EQUALS", "=nameless", ""]));
    }
    process["env"] = json!(list);
}
