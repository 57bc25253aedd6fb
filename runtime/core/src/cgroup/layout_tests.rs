//! Layouts of hosts and containers, from their texts.

use super::*;

const V1_HOST: &str = "\
22 1 254:0 / / rw - ext4 /dev/vda rw
31 22 0:28 / /sys/fs/cgroup ro,nosuid shared:9 - tmpfs tmpfs ro,mode=755
32 31 0:29 / /sys/fs/cgroup/systemd rw shared:10 - cgroup cgroup rw,xattr,release_agent=/x,name=systemd
33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw shared:11 - cgroup cgroup rw,cpu,cpuacct
34 31 0:31 / /sys/fs/cgroup/memory rw shared:12 - cgroup cgroup rw,memory
35 31 0:32 / /sys/fs/cgroup/my\\040own rw shared:13 - cgroup cgroup rw,name=own
";
const V1_OWN: &str = "\
5:name=own:/
4:memory:/system.slice/docker.service
3:cpu,cpuacct:/system.slice/docker.service
1:name=systemd:/a:b
";

#[test]
fn v1_host() {
    let layout = Layout::parse(V1_HOST, V1_OWN).unwrap();
    assert_eq!(layout.mode(), Mode::V1);
    assert_eq!(layout.unified(), None);
    let cpu = layout.hierarchy_of("cpuacct").unwrap();
    assert_eq!(cpu.name, "cpu,cpuacct");
    assert_eq!(cpu.mountpoint, Path::new("/sys/fs/cgroup/cpu,cpuacct"));
    assert_eq!(cpu.own, "system.slice/docker.service");
    assert_eq!(layout.hierarchy_of("name=systemd").unwrap().own, "a:b");
    let named = layout.hierarchy_of("name=own").unwrap();
    assert_eq!(named.mountpoint, Path::new("/sys/fs/cgroup/my own"));
    assert!(!named.is_joined() && cpu.is_joined());
}

#[test]
fn hybrid_host_and_a_foreign_cgroup2_mount() {
    let foreign = format!("{V1_HOST}90 22 0:40 / /mnt/cgroup2 rw - cgroup2 none rw\n");
    assert_eq!(Layout::parse(&foreign, V1_OWN).unwrap().mode(), Mode::V1);

    let hybrid = format!("{foreign}36 31 0:40 / /sys/fs/cgroup/unified rw shared:14 - cgroup2 cgroup2 rw\n");
    let layout = Layout::parse(&hybrid, &format!("{V1_OWN}0::/user.slice\n")).unwrap();
    assert_eq!(layout.mode(), Mode::Hybrid);
    assert_eq!(layout.unified(), Some(Path::new("/sys/fs/cgroup/unified")));
    assert_eq!(layout.unified_tree().unwrap().own, "user.slice");
    assert_eq!(layout.hierarchies().len(), 4);
}

#[test]
fn v2_host() {
    let text = "22 1 254:0 / / rw - ext4 /dev/vda rw\n\
                30 22 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
    let layout = Layout::parse(text, "0::/user.slice/user-0.slice/session-1.scope\n").unwrap();
    assert_eq!(layout.mode(), Mode::V2);
    assert!(layout.hierarchies().is_empty());
    assert_eq!(layout.unified_tree().unwrap().own, "user.slice/user-0.slice/session-1.scope");
    let layout = layout.with_unified_controllers(&["cpu"]);
    assert_eq!(layout.unified_controllers(), ["cpu"]);
}

#[test]
fn cgroup2_over_the_v1_mounts_hides_them() {
    let text = format!("{V1_HOST}99 31 0:40 / /sys/fs/cgroup rw - cgroup2 none rw\n");
    let layout = Layout::parse(&text, &format!("{V1_OWN}0::/\n")).unwrap();
    assert_eq!(layout.mode(), Mode::V2);
    assert!(layout.hierarchies().is_empty());

    // The other way round: a tmpfs with v1 mounts over a cgroup2 mount.
    let text = "30 22 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n\
                31 30 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                34 31 0:31 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
    let layout = Layout::parse(text, "4:memory:/\n0::/\n").unwrap();
    assert_eq!(layout.mode(), Mode::V1);
}

#[test]
fn nested_in_a_container() {
    // Without a cgroup namespace: the mounts show a part of the hierarchy, /proc/self/cgroup the whole path.
    let text = "31 22 0:28 / /sys/fs/cgroup ro - tmpfs tmpfs rw\n\
                34 31 0:31 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n\
                35 31 0:32 /docker/abc /sys/fs/cgroup/pids ro - cgroup cgroup rw,pids\n\
                36 31 0:33 /docker/abc /sys/fs/cgroup/devices ro - cgroup cgroup rw,devices\n";
    let own = "4:memory:/docker/abc\n3:pids:/docker/abc/inner\n2:devices:/docker/abcdef\n";
    let layout = Layout::parse(text, own).unwrap();
    assert_eq!(layout.hierarchy_of("memory").unwrap().own, "");
    assert_eq!(layout.hierarchy_of("pids").unwrap().own, "inner");
    assert_eq!(layout.hierarchy_of("devices").unwrap().own, "", "a sibling with the same beginning is outside");

    // With one, seen by a process that was moved out of it.
    let text = "30 22 0:26 / /sys/fs/cgroup ro - cgroup2 cgroup rw\n";
    assert_eq!(Layout::parse(text, "0::/../other\n").unwrap().unified_tree().unwrap().own, "");
}

#[test]
fn nothing_mounted_is_refused() {
    let error = Layout::parse("22 1 254:0 / / rw - ext4 /dev/vda rw\nnot a mount\n", V1_OWN).unwrap_err();
    assert_eq!(error.kind(), crate::Kind::Unsupported);
    assert!(error.to_string().contains("no cgroup file system is mounted"), "{error}");
}
