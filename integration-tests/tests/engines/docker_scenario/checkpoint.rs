//! A container of docker's that counts, to disk and back.

use integration_tests::{COUNTING, Dockerd, wait_until};

pub(crate) fn count(docker: &Dockerd, id: &str) -> u32 {
    docker.call(&["exec", id, "cat", "/tmp/count"]).stdout.trim().parse().unwrap_or(0)
}

/// To disk and back, in the same container. `told` are the runtimes whose shim dockerd tells to end the container: those of
/// runc's shim.
///
/// On the host's network: dockerd 28 looks for that of a restored container at pid 0.
pub(crate) fn checkpoint_and_restore(docker: &Dockerd, runtimes: &[&str], told: &[&str]) {
    if !docker.place().has_criu() {
        return;
    }
    for runtime in runtimes {
        let reply = docker.run(runtime, &["--detach", "--network", "host"], &["sh", "-c", COUNTING]);
        let _ = reply.output.ok();
        let id = reply.id;
        wait_until("it counts", || count(docker, &id) > 3);
        let _ = docker.call(&["checkpoint", "create", &id, "first"]).ok();
        if !told.contains(runtime) {
            let _ = docker.call(&["kill", &id]).ok();
        }
        wait_until("it has stopped", || docker.inspect(&id, "{{.State.Running}}") == "false");
        assert!(docker.call(&["checkpoint", "ls", &id]).ok().stdout.contains("first"), "{runtime}");
        // dockerd stores the checkpoint once more, and fails while containerd still has the first copy, which its garbage
        // collector takes: under every runtime (moby#42900).
        wait_until(&format!("docker starts it from the checkpoint under {runtime}"), || {
            let started = docker.call(&["start", "--checkpoint", "first", &id]);
            assert!(started.code == 0 || started.stderr.contains("already exists"), "{runtime}: {}", started.stderr);
            started.code == 0
        });
        wait_until("it runs again", || docker.inspect(&id, "{{.State.Running}}") == "true");
        let mut again = 0;
        wait_until("its count is told", || {
            again = count(docker, &id);
            again > 0
        });
        assert!(again > 3, "{runtime}: it began anew: {again}");
        wait_until("it counts on", || count(docker, &id) > again);
        docker.remove(&id);
    }
}
