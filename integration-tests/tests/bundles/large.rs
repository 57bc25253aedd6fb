//! A large image by buildah: many layers, many files, many bytes; flint-bundle's tree beside those of umoci, of skopeo with
//! umoci, and of containerd, bit for bit.
//!
//! The short form is small. `FLINT_LARGE_IMAGE=1 FLINT_PATIENCE=1800` makes one of more than 30 layers with Debian by
//! debootstrap in the lowest, 100,000 files and 1 GB, which takes minutes.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};

use integration_tests::{Bundler, Command, Guarded, Registry, fill_rootfs, missing, peers, tree};

use crate::images::{assert_same, assert_same_by_containerd, of_buildah, of_umoci};

struct Size {
    layers: u32,
    /// Small files in all layers.
    files: u32,
    /// Bytes of the large files in all layers.
    bytes: u32,
    debian: bool,
}

impl Size {
    fn wanted() -> Self {
        if std::env::var_os("FLINT_LARGE_IMAGE").is_some() {
            Self { layers: 30, files: 100_000, bytes: 900 << 20, debian: true }
        } else {
            Self { layers: 8, files: 800, bytes: 16 << 20, debian: false }
        }
    }
}

/// Numbers that look random, and are the same each time (Marsaglia's xorshift, 64 bits).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Builds an OCI layout with the tag `1`.
fn build(folder: &Path, size: &Size) -> PathBuf {
    let context = folder.join("context");
    let base = context.join("base");
    if size.debian {
        fs::create_dir_all(&context).expect("make the context");
        let _ = Command::new("debootstrap").args(["--variant=minbase", "bookworm"]).args([&base]).output().ok();
    } else {
        fs::create_dir_all(&base).expect("make the context");
        fill_rootfs(&base);
    }
    let mut lines = "FROM scratch\nCOPY base /\nENV PATH=/bin:/usr/bin\nCMD [\"/bin/true\"]\n".to_owned();
    let mut numbers = Numbers(1);
    for layer in 0..size.layers {
        let source = folder.join("layer");
        fill(&source, layer, size, &mut numbers);
        // A tar, which buildah unpacks as it is; what it copies loses its owners.
        let name = format!("layer{layer}.tar");
        let tar = Command::new("tar").args(["--create", "--file"]).args([context.join(&name)]).args(["--directory"]);
        let _ = tar.args([&source]).args(["."]).output().ok();
        fs::remove_dir_all(&source).expect("remove the layer's folder");
        let _ = writeln!(lines, "ADD {name} /srv/");
        match layer % 4 {
            // What the layer before made goes, and a folder of it is another from now on.
            2 => _ = writeln!(lines, "RUN rm -r /srv/layer{}/0", layer - 1),
            3 => {
                let other = layer - 1;
                let _ = writeln!(
                    lines,
                    "RUN rm -r /srv/layer{other} && mkdir /srv/layer{other} && echo {layer} > /srv/layer{other}/new"
                );
            }
            _ => {}
        }
    }
    fs::write(context.join("Containerfile"), lines).expect("write the Containerfile");
    let layout = of_buildah(folder, "large");
    fs::remove_dir_all(&context).expect("remove the context");
    layout
}

/// Small files in folders of a hundred, links among them, one large file, and one that every layer replaces.
fn fill(source: &Path, layer: u32, size: &Size, numbers: &mut Numbers) {
    let own = source.join(format!("layer{layer}"));
    for number in 0..size.files / size.layers {
        let folder = own.join((number / 100).to_string());
        if number % 100 == 0 {
            fs::create_dir_all(&folder).expect("make a folder");
        }
        let path = folder.join(format!("file{number}"));
        let before = folder.join(format!("file{}", number.saturating_sub(1)));
        let value = numbers.next();
        // No hard links of symbolic ones: buildah 1.28 fails on them.
        match value % 16 {
            0 => symlink(format!("file{}", number / 2), &path).expect("make a link"),
            1 if number % 100 > 0 && before.symlink_metadata().is_ok_and(|before| before.is_file()) => {
                fs::hard_link(&before, &path).expect("make a hard link");
            }
            kind => {
                let text = format!("{value:x} ").repeat((value >> 8) as usize % 200);
                fs::write(&path, text).expect("write a file");
                chown(&path, Some((value >> 20) as u32 % 70_000), Some(kind as u32)).expect("chown");
                let mode = [0o644, 0o600, 0o755, 0o4755, 0o2711, 0o1666][(value >> 40) as usize % 6];
                fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("chmod");
            }
        }
    }
    let mut content = Vec::new();
    while content.len() < (size.bytes / size.layers) as usize {
        let value = numbers.next();
        // A third of it can be compressed away.
        content.extend([value, value, numbers.next()].iter().flat_map(|value| value.to_le_bytes()));
    }
    fs::write(source.join(format!("large{layer}")), content).expect("write a file");
    fs::write(source.join("replaced"), layer.to_string()).expect("write a file");
}

#[test]
fn a_large_image_is_the_same_as_by_umoci_skopeo_and_containerd() {
    let (Some(bundler), Some(_)) = (Bundler::new(), peers()) else { return };
    if missing(&["buildah", "umoci", "skopeo", "debootstrap", "tar"]) {
        return;
    }
    let size = Size::wanted();
    let layout = build(bundler.path(), &size);
    let Some(registry) = Registry::start(Guarded::default()) else { return };
    registry.push(&format!("oci:{}:1", layout.display()), "large:1");
    let name = format!("{}/large:1", registry.host);
    let path = |name: &str| bundler.path().join(name);
    let umoci = path("umoci");
    of_umoci(&layout, &umoci);
    let replaced = fs::read_to_string(umoci.join("srv/replaced")).expect("a file of every layer");
    assert_eq!(replaced, (size.layers - 1).to_string(), "the image is as meant");
    assert!(!umoci.join("srv/layer1/0").exists() && umoci.join("srv/layer2/new").exists(), "the image is as meant");
    println!(
        "{} layers of {} files and {} bytes: {} files unpacked",
        size.layers,
        size.files,
        size.bytes,
        tree(&umoci).len()
    );

    let _ = bundler.call(["pull", "--quiet", &name]).ok();
    let _ = bundler.command(["create", "--rootfs", "overlay", &name]).args([path("bundle")]).output().ok();
    assert_same(("the overlay", &path("bundle/rootfs")), ("umoci", &umoci), |_| false);
    let _ = bundler.command(["rm"]).args([path("bundle")]).output().ok();
    let _ = bundler.command(["unpack", &name]).args([path("unpacked")]).output().ok();
    assert_same(("flint-bundle", &path("unpacked")), ("umoci", &umoci), |_| false);
    fs::remove_dir_all(path("unpacked")).expect("remove what was compared");

    let copy = ["copy", "--quiet", "--src-tls-verify=false", "--src-creds=tester:secret"];
    let (from, to) = (format!("docker://{name}"), format!("oci:{}:1", path("copied").display()));
    let _ = Command::new("skopeo").args(copy).args([&from, &to]).output().ok();
    of_umoci(&path("copied"), &path("skopeo"));
    assert_same(("skopeo and umoci", &path("skopeo")), ("umoci", &umoci), |_| false);
    fs::remove_dir_all(path("skopeo")).expect("remove what was compared");

    let _ = bundler.command(["export", &name]).args([path("exported.tar")]).output().ok();
    assert_same_by_containerd(&name, &path("exported.tar"), &umoci);
}
