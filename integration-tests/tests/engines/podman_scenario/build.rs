//! `podman build` with RUN, commit and cp.

use std::fs;

use integration_tests::Podman;

use super::RUNTIMES;

const CONTAINERFILE: &str = "FROM localhost/flint-it-busybox\n\
    RUN echo built > /made && id -u >> /made\n\
    COPY file /copied\n\
    WORKDIR /work\n\
    USER 1000\n\
    RUN pwd > /tmp/where && id -u >> /tmp/where\n\
    CMD cat /made /copied /tmp/where\n";

pub(crate) fn build(podman: &Podman) {
    let dir = podman.place().path().join("context");
    fs::create_dir_all(&dir).expect("make the context");
    fs::write(dir.join("Containerfile"), CONTAINERFILE).expect("write the Containerfile");
    fs::write(dir.join("file"), "copied\n").expect("write a file");
    let context = dir.display().to_string();
    // A build takes it for the cgroup of the container itself: others may not be in it.
    let (parent, built) = (podman.parent(), format!("{}-build", podman.parent()));
    for runtime in RUNTIMES {
        let tag = format!("localhost/built-by-{runtime}");
        let args = ["--runtime", runtime, "build", "--no-cache", "--cgroup-parent", &built, "-t", &tag, &context];
        let _ = podman.call(&args).ok();
        let name = podman.place().name();
        let args = ["--runtime", runtime, "run", "--rm", "--name", &name, "--cgroup-parent", &parent, &tag];
        let output = podman.call(&args).ok();
        assert_eq!(output.stdout, "built\n0\ncopied\n/work\n1000\n", "{runtime}");
        // A failing RUN fails the build with its code.
        fs::write(dir.join("Failing"), "FROM localhost/flint-it-busybox\nRUN exit 5\n").expect("write");
        let failing = dir.join("Failing").display().to_string();
        let output = podman.call(&[
            "--runtime",
            runtime,
            "build",
            "--no-cache",
            "--cgroup-parent",
            &built,
            "-f",
            &failing,
            &context,
        ]);
        assert_ne!(output.code, 0, "{runtime}");
        assert!(output.stderr.contains("exit status 5"), "{runtime}: {}", output.stderr);
        let _ = podman.call(&["rmi", "--force", &tag]).ok();
    }
}

pub(crate) fn copy_and_commit(podman: &Podman) {
    for runtime in RUNTIMES {
        let id = podman.forever(runtime, &[]);
        let _ = podman.call(&["exec", &id, "sh", "-c", "echo changed > /tmp/changed"]).ok();
        let target = podman.place().path().join("copied");
        let _ = podman.call(&["cp", &format!("{id}:/tmp/changed"), &target.display().to_string()]).ok();
        assert_eq!(fs::read_to_string(&target).expect("read"), "changed\n", "{runtime}");
        let _ = podman.call(&["cp", &target.display().to_string(), &format!("{id}:/tmp/back")]).ok();
        assert_eq!(podman.call(&["exec", &id, "cat", "/tmp/back"]).ok().stdout, "changed\n", "{runtime}");
        let _ = podman.call(&["commit", "--quiet", "--pause=false", &id, "localhost/committed"]).ok();
        podman.remove(&id);
        let _ = podman.call(&["rmi", "--force", "localhost/committed"]).ok();
    }
}
