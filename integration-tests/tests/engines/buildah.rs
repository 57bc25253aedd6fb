//! buildah, the machine's and Debian sid's, with flint as its runtime: flint beside runc.

use std::fs;
use std::path::PathBuf;

use integration_tests::{Command, Layout, Output, Place, System, fill_rootfs, missing, peers};

const BASE: &str = "localhost/base";

const CONTAINERFILE: &str = "FROM localhost/base\n\
    RUN echo built > /made && id -u >> /made\n\
    COPY file /copied\n\
    WORKDIR /work\n\
    USER 1000\n\
    RUN pwd > /tmp/where && id -u >> /tmp/where\n\
    CMD cat /made\n";

/// buildah in a place of its own.
struct Buildah {
    place: Place,
}

impl Buildah {
    /// None after a skip.
    fn open(system: System) -> Option<Self> {
        let _ = peers()?;
        if missing(&["unshare", "nsenter", "tar"]) || (system == System::Host && missing(&["buildah"])) {
            return None;
        }
        let buildah = Self { place: Place::open(system, Layout::Host)? };
        // The hard limits that buildah would ask for may be above the host's, and may not be raised everywhere.
        let config = "[containers]\ndefault_ulimits = [\"nofile=1000:1000\", \"nproc=4000:4000\"]\n";
        fs::write(buildah.config(), config).expect("write containers.conf");
        let image = buildah.place.path().join("image");
        fill_rootfs(&image);
        let base = buildah.from("scratch", &[]);
        let _ = buildah.call(&["add", &base, &image.display().to_string(), "/"]).ok();
        let _ = buildah.call(&["config", "--env", "PATH=/bin", &base]).ok();
        let _ = buildah.call(&["commit", "--quiet", "--rm", &base, BASE]).ok();
        Some(buildah)
    }

    fn command(&self) -> Command {
        self.place.command("buildah").env("BUILDAH_ISOLATION", "oci").env("CONTAINERS_CONF", self.config())
    }

    fn config(&self) -> PathBuf {
        self.place.path().join("containers.conf")
    }

    fn call(&self, args: &[&str]) -> Output {
        self.command().args(args.iter().copied()).output()
    }

    /// A working container; its name.
    fn from(&self, image: &str, options: &[&str]) -> String {
        let name = self.place.name();
        let parent = self.parent();
        let mut all = vec!["from", "--pull-never", "--name", &name, "--cgroup-parent", &parent];
        all.extend(options);
        all.push(image);
        let _ = self.call(&all).ok();
        name
    }

    fn parent(&self) -> String {
        format!("/{}buildah", self.place.prefix())
    }

    fn runtimes(&self) -> [(&'static str, String); 2] {
        [("flint", self.place.flint().display().to_string()), ("runc", "runc".into())]
    }

    /// `buildah run` of a script.
    fn run(&self, runtime: &str, options: &[&str], name: &str, script: &str) -> Output {
        let mut all = vec!["run", "--runtime", runtime];
        all.extend(options);
        all.extend([name, "--", "sh", "-c", script]);
        self.call(&all)
    }

    /// Nothing but the storage is left.
    fn finish(self) {
        for runtime in ["flint", "runc"] {
            let folder = self.place.outside(&format!("/run/{runtime}"));
            let left = fs::read_dir(folder).map_or(0, Iterator::count);
            assert_eq!(left, 0, "states of {runtime} are left");
        }
        self.place.assert_still();
        self.place.assert_no_layer();
    }
}

fn builds(system: System) {
    let Some(buildah) = Buildah::open(system) else { return };
    let dir = buildah.place.path().join("context");
    fs::create_dir_all(&dir).expect("make the context");
    fs::write(dir.join("Containerfile"), CONTAINERFILE).expect("write the Containerfile");
    fs::write(dir.join("Failing"), "FROM localhost/base\nRUN exit 5\n").expect("write the other");
    fs::write(dir.join("file"), "copied\n").expect("write a file");
    let (context, failing) = (dir.display().to_string(), dir.join("Failing").display().to_string());
    let parent = buildah.parent();
    for (name, runtime) in buildah.runtimes() {
        let build = |options: &[&str]| {
            let mut all =
                vec!["bud", "--runtime", &runtime, "--no-cache", "--network", "none", "--cgroup-parent", &parent];
            all.extend(options);
            all.push(&context);
            buildah.call(&all)
        };
        let tag = format!("localhost/built-by-{name}");
        let _ = build(&["-t", &tag]).ok();
        let container = buildah.from(&tag, &[]);
        let output = buildah.run(&runtime, &[], &container, "cat /made /copied /tmp/where").ok();
        assert_eq!(output.stdout, "built\n0\ncopied\n/work\n1000\n", "{name}");
        let _ = buildah.call(&["rm", &container]).ok();
        let output = build(&["-f", &failing]);
        assert_ne!(output.code, 0, "{name}");
        assert!(output.stderr.contains("exit status 5"), "{name}: {}", output.stderr);
    }
    buildah.finish();
}

fn runs(system: System) {
    let Some(buildah) = Buildah::open(system) else { return };
    let volume = buildah.place.path().join("volume");
    fs::create_dir_all(&volume).expect("make a folder");
    let volume = format!("{}:/v", volume.display());
    let sees = "id -u; id -g; pwd; grep -E 'Cap|NoNew|Seccomp:' /proc/self/status; ulimit -n; \
                readlink /proc/self/ns/net | cut -c1-4; ip -o link | wc -l; touch /v/x && rm /v/x; tr -s ' ' < /proc/self/uid_map";
    let ranges = ["--userns-uid-map", "0:700000:65536", "--userns-gid-map", "0:700000:65536"];
    let from: &[&[&str]] = &[
        &[],
        &["--cap-drop", "all", "--ulimit", "nofile=77:77"],
        &["--memory", "64m", "--cpu-shares", "512"],
        &ranges,
    ];
    for options in from {
        // 1.28 does not give the layers to the mapped root, who then may not make /run/.containerenv: under no runtime.
        let mapped = options.first() == Some(&"--userns-uid-map");
        let works = !mapped || system == System::Sid;
        let outputs = buildah.runtimes().map(|(name, runtime)| {
            let container = buildah.from(BASE, options);
            // Only root may write to what is outside of its ids.
            let run = ["--user", "0:5", "--workingdir", "/var", "--network", "none", "-v", &volume];
            let run = if mapped { &run[..6] } else { &run };
            let output = buildah.run(&runtime, run, &container, sees);
            assert!(mapped || output.code == 0, "{name} {options:?}: {output:?}");
            let failed = buildah.run(&runtime, &["--network", "none"], &container, "exit 9");
            assert!(failed.code != 0, "{name}: {failed:?}");
            assert!(!works || failed.stderr.contains("exit status 9"), "{name}: {failed:?}");
            let missing =
                buildah.call(&["run", "--runtime", &runtime, "--network", "none", &container, "no-such-program"]);
            assert_ne!(missing.code, 0, "{name}");
            // buildah's own exit codes differ between versions.
            let output = Output { code: failed.code, ..output };
            let _ = buildah.call(&["rm", &container]).ok();
            format!("{}{}", output.stdout, output.code)
        });
        assert!(!works || outputs[1].starts_with("0\n5\n/var\nCap"), "{options:?}: {}", outputs[1]);
        assert_eq!(outputs[0], outputs[1], "flint (left) against runc, {options:?}");
    }
    for (name, runtime) in buildah.runtimes() {
        let container = buildah.from(BASE, &[]);
        let config = buildah.config().display().to_string();
        let mut run = buildah.place.on_terminal(
            &[
                "buildah",
                "run",
                "--runtime",
                &runtime,
                "--isolation",
                "oci",
                "--network",
                "none",
                "--tty",
                &container,
                "sh",
            ],
            &[("CONTAINERS_CONF", &config)],
        );
        run.wait_for("# ");
        run.send("tty; exit 4\n");
        let output = run.finish();
        assert!(output.stdout.contains("/dev/pts/0"), "{name}: {}", output.stdout);
        let _ = buildah.call(&["rm", &container]).ok();
    }
    buildah.finish();
}

#[test]
fn the_machines_builds() {
    builds(System::Host);
}

#[test]
fn the_machines_runs() {
    runs(System::Host);
}

#[test]
fn sids_builds() {
    builds(System::Sid);
}

#[test]
fn sids_runs() {
    runs(System::Sid);
}
