//! What of the host a container could reach by a descriptor, flint beside runc: the runtime's own, and those that its caller gives.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::Path;
use std::process::Command as Program;

use integration_tests::{Bundle, Case, peers};
use serde_json::json;

/// A file of the host, as a descriptor of the host's procfs leads to it, by the root of a process that is not the container's.
fn of_the_host(descriptor: i32, file: &Path) -> String {
    format!("/proc/self/fd/{descriptor}/{}/root{}", std::process::id(), file.display())
}

/// With a kernel parameter: it is written through the host's procfs. The capability lets it look at every process's root.
fn bundle(case: &Case) -> Bundle {
    let sysctl = json!({"net.ipv4.ip_unprivileged_port_start": "0"});
    case.bundle().writable().capabilities(&["CAP_SYS_PTRACE"]).edit(json!({"linux": {"sysctl": sysctl}}))
}

/// As CVE-2024-21626, by what is executed or read and not by the working directory: the image has links in the places of its
/// program, of a hook, and of /etc/passwd.
#[test]
fn no_link_of_the_image_leads_to_the_host() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let (tool, users) = (case.path().join("busybox-of-the-host"), case.path().join("users"));
        fs::copy("/bin/busybox", &tool).expect("a program of the host");
        fs::write(&users, "root:x:0:0::/of-the-host:/bin/sh\n").expect("users of the host");
        // As many as flint has open when it does it.
        for descriptor in if runtime.is_runc() { 3..10 } else { 3..40 } {
            let link = |bundle: &Bundle, file: &Path, place: &str| {
                let place = bundle.rootfs().join(place);
                let _ = fs::remove_file(&place);
                symlink(of_the_host(descriptor, file), place).expect("make the link");
            };
            let program = bundle(&case).args(&["/bin/busybox-link", "echo", "from the host"]);
            link(&program, &tool, "bin/busybox-link");
            let output = case.run(&program);
            assert!(output.code != 0 && output.stdout.is_empty(), "{}, {descriptor}: {output:?}", runtime.name);

            let hooks =
                json!({"startContainer": [{"path": "/bin/busybox-link", "args": ["busybox", "touch", "/tmp/hooked"]}]});
            let hooked = bundle(&case).shell("true").edit(json!({"hooks": hooks}));
            link(&hooked, &tool, "bin/busybox-link");
            let _ = case.run(&hooked);
            assert!(!hooked.rootfs().join("tmp/hooked").exists(), "{}: the hook, {descriptor}", runtime.name);

            let home = bundle(&case).shell("echo $HOME");
            link(&home, &users, "etc/passwd");
            let output = case.run(&home);
            assert!(!output.stdout.contains("of-the-host"), "{}: HOME, {descriptor}", runtime.name);
        }
        case.finish();
    }
}

/// In the foreground a program shares its caller's stdio: what a shell redirects to stays the caller's file.
#[test]
fn the_callers_files_stay_the_callers() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let id = case.detached(&case.bundle().forever(), "a");
        let bundle =
            case.bundle().shell("cat; echo err >&2").edit(json!({"process": {"user": {"uid": 1000, "gid": 1000}}}));
        let (dir, other) = (bundle.write().display().to_string(), case.id("b"));
        let exec = ["exec", "--user", "1000:1000", &id, "sh", "-c", "cat; echo err >&2"];
        for args in [&exec[..], &["run", "--bundle", &dir, &other]] {
            let [input, output, errors] = ["in", "out", "err"].map(|name| case.path().join(name));
            fs::write(&input, "text\n").expect("write the input");
            let create = |path: &Path| File::create(path).expect("make a file");
            let status = Program::new(&runtime.path)
                .arg("--root")
                .arg(case.state_root())
                .args(args)
                .stdin(File::open(&input).expect("open the input"))
                .stdout(create(&output))
                .stderr(create(&errors))
                .status()
                .expect("the runtime runs");
            assert!(status.success(), "{}: {args:?}", runtime.name);
            assert_eq!(fs::read_to_string(&output).expect("read"), "text\n", "{}: {args:?}", runtime.name);
            assert_eq!(fs::read_to_string(&errors).expect("read"), "err\n", "{}: {args:?}", runtime.name);
            for file in [input, output, errors] {
                let owner = fs::metadata(&file).expect("stat").uid();
                assert_eq!(owner, 0, "{}: {args:?} gave {} away", runtime.name, file.display());
            }
        }
        case.delete(&id);
        case.finish();
    }
}
