//! An image with all that is awkward in layers, made by buildah, in each form that tools write: flint-bundle's trees beside
//! those of umoci and containerd.

use std::fs;
use std::path::{Path, PathBuf};

use integration_tests::{
    Bundler, Command, Containerd, Guarded, Registry, System, fill_rootfs, missing, peers, tree, tree_differences,
};
use rustix::fs::XattrFlags;

/// Each line makes a layer; busybox's shell runs them in a chroot.
const STEPS: [&str; 27] = [
    "mkdir -p /a/b/c /etc /var && echo 1 > /a/b/c/file && ln /a/b/c/file /a/hard && ln -s ../a/b /link",
    "rm /a/b/c/file && echo 2 > /a/b/c/other",
    "rm -r /a/b && mkdir -p /a/b && echo 3 > /a/b/new",
    "chmod 0711 /a && chown 1234:4321 /a/hard",
    "echo 4 >> /a/hard",
    "mkfifo -m 622 /fifo && mkdir -m 1777 /sticky && mkdir -m 2750 /set-group && chown 7:8 /set-group",
    "cp /bin/busybox /set-user && chown 5:6 /set-user && chmod 4755 /set-user",
    "dd if=/dev/zero of=/sparse bs=1 count=1 seek=20971519 2>/dev/null",
    "touch -d '1971-02-03 04:05:06' /old && touch -d '2037-02-03 04:05:06' /far",
    "mkdir -p /long/$(printf %0120d 1)/$(printf %0120d 2) && echo 5 > /long/$(printf %0120d 1)/$(printf %0120d 2)/$(printf %0200d 3)",
    "echo 6 > '/with space and ü' && echo 7 > '/back\\\\slash' && echo 8 > '/ends in a dot.'",
    "ln -s /proc/self/root/etc /absolute && ln -s ../../../../../../etc /climbs && ln -s nowhere /dangling",
    "rm /link && mkdir /link && echo 9 > /link/file",
    "rm -r /link && echo 10 > /link",
    "mkdir -p /many && for i in $(seq 300); do echo $i > /many/$i; done",
    "for i in $(seq 1 2 299); do rm /many/$i; done",
    "mv /many /moved",
    "rm -rf /moved && mkdir -p /moved/again",
    "echo .wh.odd > /not.wh.a-whiteout",
    "ln /a/hard /a/harder && ln /set-user /set-user-too",
    "chmod 0 /old && chown 65534:65534 /far",
    "echo 11 > /etc/passwd && printf 'root:x:0:0:root:/root:/bin/sh\\nweb:x:33:34::/srv:/bin/sh\\n' > /etc/passwd",
    "printf 'root:x:0:\\nweb:x:34:\\nlog:x:4:web\\n' > /etc/group",
    "mkdir -p /srv && chown 33:34 /srv",
    "true > /empty",
    "head -c 3000000 /dev/urandom > /random",
    "rm -f /random",
];

/// Builds it by buildah into `folder`/layout, an OCI layout with the tag `1`; None after a skip.
pub(crate) fn build(folder: &Path) -> Option<PathBuf> {
    if missing(&["buildah", "skopeo", "umoci"]) {
        return None;
    }
    let context = folder.join("context");
    let rootfs = context.join("rootfs");
    fs::create_dir_all(&rootfs).expect("make the context");
    fill_rootfs(&rootfs);
    // What only the host can give: a capability of a file, and an xattr.
    let capable = rootfs.join("capable");
    fs::write(&capable, "x").expect("write a file");
    // Version 2, effective: cap_net_raw (capabilities(7)).
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    rustix::fs::setxattr(&capable, "security.capability", &capability, XattrFlags::empty()).expect("set a capability");
    rustix::fs::setxattr(&capable, "user.flint", b"xattr\0value", XattrFlags::empty()).expect("set an xattr");
    let mut lines = "FROM scratch\nCOPY rootfs /\nENV GREETING=hello PATH=/bin\nUSER web\nWORKDIR /srv\n\
        LABEL team=flint run.oci.hooks.stdout=/etc/steered\nENTRYPOINT [\"/bin/sh\", \"-c\"]\nCMD [\"id -u; pwd; echo $GREETING\"]\n\
        USER root\n"
        .to_owned();
    for step in STEPS {
        lines.extend(["RUN ", step, "\n"]);
    }
    lines += "USER web\n";
    fs::write(context.join("Containerfile"), lines).expect("write the Containerfile");
    Some(of_buildah(folder, "awkward"))
}

/// Builds `folder`/context by buildah, each line of its Containerfile a layer, into `folder`/layout, an OCI layout with the
/// tag `1`.
pub(crate) fn of_buildah(folder: &Path, name: &str) -> PathBuf {
    let storage = folder.join("storage");
    let buildah = |args: &[&str]| {
        let of_its_own = ["--storage-driver".to_owned(), "overlay".to_owned(), "--root".to_owned()];
        let command = Command::new("buildah").args(of_its_own).args([storage.join("root")]);
        let output = command.args(["--runroot"]).args([storage.join("run")]).args(args.iter().copied()).output();
        let _ = output.ok();
    };
    let (context, layout) = (folder.join("context").display().to_string(), folder.join("layout"));
    let name = format!("localhost/{name}");
    buildah(&["bud", "--isolation", "chroot", "--layers", "--quiet", "-t", &name, &context]);
    buildah(&["push", "--quiet", &name, &format!("oci:{}:1", layout.display())]);
    fs::remove_dir_all(&storage).expect("remove buildah's storage");
    layout
}

/// The tree that umoci makes of a layout.
pub(crate) fn of_umoci(layout: &Path, target: &Path) {
    let image = format!("{}:1", layout.display());
    let _ = Command::new("umoci").args(["raw", "unpack", "--image", &image]).args([target]).output().ok();
}

#[track_caller]
pub(crate) fn assert_same(one: (&str, &Path), other: (&str, &Path), but: impl Fn(&str) -> bool) {
    // No layer of buildah's names the root: umoci gives it the time 0, others leave it the time when it was made.
    let tree_of = |root: &Path| {
        let mut all = tree(root);
        if let Some(of_root) = all.get_mut("") {
            *of_root = of_root.split(' ').take(2).collect::<Vec<_>>().join(" ");
        }
        all
    };
    let mut differences = tree_differences((one.0, &tree_of(one.1)), (other.0, &tree_of(other.1)));
    differences.retain(|line| !but(line));
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
}

#[test]
fn trees_are_those_of_umoci_and_containerd_from_every_source() {
    let (Some(bundler), Some(_)) = (Bundler::new(), peers()) else { return };
    let Some(layout) = build(bundler.path()) else { return };
    let Some(registry) = Registry::start(Guarded::default()) else { return };
    let path = |name: &str| bundler.path().join(name);
    let umoci = path("umoci");
    of_umoci(&layout, &umoci);
    assert_eq!(tree(&umoci).get("a/hard").map(|text| text.contains("1234:4321")), Some(true), "the image is as meant");

    registry.push(&format!("oci:{}:1", layout.display()), "awkward:1");
    let copy = |kind: &str, name: &str| {
        let source = format!("oci:{}:1", layout.display());
        let target = format!("{kind}:{}", path(name).display());
        let _ = Command::new("skopeo").args(["copy", "--quiet", &source, &target]).output().ok();
    };
    copy("oci-archive", "oci.tar:localhost/archive:1");
    copy("docker-archive", "docker.tar:localhost/docker:1");
    let name = format!("{}/awkward:1", registry.host);
    let _ = bundler.call(["pull", "--quiet", &name]).ok();
    let import = |file: &str, name: &str| {
        let _ = bundler.command(["import", "--quiet"]).args([path(file)]).args([name]).output().ok();
    };
    import("layout", "localhost/layout:1");
    import("oci.tar", "localhost/archive:1");
    import("docker.tar", "localhost/docker:1");
    for (number, image) in
        [name.as_str(), "localhost/layout:1", "localhost/archive:1", "localhost/docker:1"].iter().enumerate()
    {
        let target = path(&format!("unpacked{number}"));
        let _ = bundler.command(["unpack", image]).args([&target]).output().ok();
        assert_same(("flint-bundle", &target), ("umoci", &umoci), |_| false);
        let bundle = path(&format!("bundle{number}"));
        let _ = bundler.command(["create", "--rootfs", "overlay", image]).args([&bundle]).output().ok();
        assert_same(("the overlay", &bundle.join("rootfs")), ("umoci", &umoci), |_| false);
        let _ = bundler.command(["rm"]).args([&bundle]).output().ok();
    }
    // What it exports is taken by others, and has the same tree.
    let _ = bundler.command(["export", &name]).args([path("exported.tar")]).output().ok();
    let again = path("again");
    let source = format!("oci-archive:{}", path("exported.tar").display());
    let target = format!("oci:{}:1", again.display());
    let _ = Command::new("skopeo").args(["copy", "--quiet", &source, &target]).output().ok();
    of_umoci(&again, &path("umoci-again"));
    assert_same(("exported", &path("umoci-again")), ("umoci", &umoci), |_| false);
    // A root filesystem comes back as it was.
    import("umoci", "localhost/rootfs:1");
    let _ = bundler.command(["unpack", "localhost/rootfs:1"]).args([path("rootfs")]).output().ok();
    assert_same(("imported", &path("rootfs")), ("umoci", &umoci), |_| false);

    assert_same_by_containerd(&name, &path("exported.tar"), &umoci);
}

/// The tree that containerd mounts of an archive's image, beside umoci's; nothing after a skip.
#[track_caller]
pub(crate) fn assert_same_by_containerd(name: &str, archive: &Path, umoci: &Path) {
    if missing(&["containerd", "ctr", "unshare", "nsenter"]) {
        return;
    }
    let Some(containerd) = Containerd::of(System::Host) else { return };
    let _ = containerd.ctr(&["image", "import", &archive.display().to_string()]).ok();
    let mounted = containerd.place().path().join("mounted");
    fs::create_dir(&mounted).expect("make a folder");
    let _ = containerd.ctr(&["image", "mount", name, &mounted.display().to_string()]).ok();
    let seen = containerd.place().outside(&mounted.display().to_string());
    assert_same(("containerd", &seen), ("umoci", umoci), |_| false);
    let _ = containerd.ctr(&["image", "unmount", &mounted.display().to_string()]).ok();
}
