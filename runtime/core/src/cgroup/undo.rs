//! What puts a file of a cgroup back to what it told before it was written.

/// The value that undoes writing `written` to `file`, which read `before`; `None` when nothing would.
///
/// Most files hold one value. Some hold a line for each device or key and take one such line; some read back with
/// words that they do not take.
pub(super) fn value(file: &str, written: &str, before: &str) -> Option<String> {
    if file == "memory.oom_control" {
        return line_of(before, "oom_kill_disable").map(|line| line["oom_kill_disable".len()..].trim().to_owned());
    }
    if file.contains("weight") && !written.contains(' ') {
        // `default 100`, and on v1 the number alone.
        let first = before.lines().next()?.trim();
        return Some(first.strip_prefix("default ").unwrap_or(first).to_owned());
    }
    let Some((key, rest)) = written.split_once(' ').filter(|_| is_keyed(file)) else {
        let value = before.trim();
        // v2's cpusets may be empty, and a write(2) of nothing does nothing.
        return Some(if value.is_empty() { "\n".to_owned() } else { value.to_owned() });
    };
    match line_of(before, key) {
        Some(line) if file == "io.max" || file == "rdma.max" => Some(line.to_owned()),
        Some(line) => Some(line.trim().to_owned()),
        // What is not listed has no limit.
        None if file == "io.max" => Some(format!("{key} {}", lifted(rest))),
        None if file.starts_with("io.") => Some(format!("{key} default")),
        None if file.starts_with("blkio.") => Some(format!("{key} 0")),
        None => None,
    }
}

/// Whether the file takes lines that begin with a key: a device's numbers, a device's or an interface's name.
fn is_keyed(file: &str) -> bool {
    file.starts_with("io.")
        || file.starts_with("blkio.")
        || ["rdma.max", "net_prio.ifpriomap", "misc.max", "dmem.max", "dmem.min", "dmem.low"].contains(&file)
}

fn line_of<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find(|line| line.split_ascii_whitespace().next() == Some(key))
}

/// `rbps=5 wbps=6` with every limit lifted.
fn lifted(limits: &str) -> String {
    let keys = limits.split_ascii_whitespace().filter_map(|limit| limit.split('=').next());
    keys.map(|key| format!("{key}=max")).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::value;

    #[test]
    fn values_before() {
        for (file, written, before, undo) in [
            ("memory.limit_in_bytes", "5", "33554432\n", Some("33554432")),
            ("memory.max", "5", "max\n", Some("max")),
            ("cpu.max", "5000 10000", "max 100000\n", Some("max 100000")),
            ("cpuset.cpus", "1", "0-3\n", Some("0-3")),
            ("cpuset.cpus", "1", "\n", Some("\n")),
            ("memory.oom_control", "1", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", Some("0")),
            ("blkio.bfq.weight", "100", "500\n", Some("500")),
            ("io.bfq.weight", "100", "default 500\n8:0 7\n", Some("500")),
            ("io.weight", "8:0 100", "default 500\n8:0 7\n", Some("8:0 7")),
            ("io.weight", "8:16 100", "default 500\n8:0 7\n", Some("8:16 default")),
            (
                "io.max",
                "8:0 rbps=5",
                "8:0 rbps=max wbps=9 riops=max wiops=max\n",
                Some("8:0 rbps=max wbps=9 riops=max wiops=max"),
            ),
            ("io.max", "8:0 rbps=5 wiops=7", "", Some("8:0 rbps=max wiops=max")),
            ("blkio.throttle.read_bps_device", "8:0 5", "8:16 9\n8:0 77\n", Some("8:0 77")),
            ("blkio.throttle.read_bps_device", "8:0 5", "8:16 9\n", Some("8:0 0")),
            ("net_prio.ifpriomap", "eth0 5", "lo 0\neth0 3\n", Some("eth0 3")),
            (
                "rdma.max",
                "mlx hca_handle=2",
                "mlx hca_handle=max hca_object=9\n",
                Some("mlx hca_handle=max hca_object=9"),
            ),
            ("rdma.max", "mlx hca_handle=2", "", None),
            ("hugetlb.2MB.limit_in_bytes", "0", "9223372036854771712\n", Some("9223372036854771712")),
        ] {
            assert_eq!(value(file, written, before).as_deref(), undo, "{file} {written}");
        }
    }
}
