//! The image that is pulled: folders of this machine, each a layer, and a registry that has it.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// Where folders are looked for: programs, libraries, texts, small files and large.
const PLACES: [&str; 3] = ["/usr/lib", "/usr/share", "/usr/lib/x86_64-linux-gnu"];
/// A layer has so many bytes at least and at most.
const LAYER: std::ops::RangeInclusive<u64> = 8 << 20..=256 << 20;

/// What was built.
#[derive(Debug)]
pub struct Image {
    /// The OCI layout, with the tag `1`.
    pub layout: PathBuf,
    /// How many layers, files and bytes.
    pub text: String,
}

/// Builds an image of about `bytes` by umoci, gzip-compressed as it does.
///
/// # Errors
///
/// When umoci fails, or the machine has not enough files.
pub fn build(folder: &Path, bytes: u64) -> Result<Image> {
    let (mut sum, mut files, mut layers) = (0, 0, Vec::new());
    for place in PLACES {
        let mut folders: Vec<PathBuf> =
            fs::read_dir(place).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        folders.retain(|path| fs::symlink_metadata(path).is_ok_and(|status| status.is_dir()));
        folders.sort();
        for path in folders {
            let (size, count) = measure(&path);
            if LAYER.contains(&size) && sum + size <= bytes {
                (sum, files) = (sum + size, files + count);
                layers.push(path);
            }
        }
    }
    ensure!(sum > bytes / 2, "this machine's /usr has only {sum} bytes in folders of a layer's size");
    let layout = folder.join("layout");
    let tagged = format!("{}:1", layout.display());
    run("umoci", &["init", "--layout", &layout.display().to_string()])?;
    run("umoci", &["new", "--image", &tagged])?;
    for layer in &layers {
        let path = layer.display().to_string();
        run("umoci", &["insert", "--image", &tagged, &path, &path])?;
    }
    run("umoci", &["config", "--image", &tagged, "--config.cmd", "/bin/true"])?;
    let packed = measure(&layout).0;
    let text = format!(
        "{} layers, {files} files, {} MB unpacked, {} MB as gzip",
        layers.len(),
        sum / 1_000_000,
        packed / 1_000_000
    );
    Ok(Image { layout, text })
}

/// Bytes and number of files in a folder.
fn measure(folder: &Path) -> (u64, u64) {
    let (mut bytes, mut count) = (0, 0);
    let mut queue = vec![folder.to_owned()];
    while let Some(folder) = queue.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let Ok(status) = entry.metadata() else { continue };
            count += 1;
            if status.is_dir() {
                queue.push(entry.path());
            } else if status.is_file() {
                bytes += status.len();
            }
        }
    }
    (bytes, count)
}

/// Runs a program that must succeed.
///
/// # Errors
///
/// When it does not; with its own words.
pub fn run(program: &str, args: &[&str]) -> Result<()> {
    let output = Command::new(program).args(args).output().with_context(|| format!("cannot start {program}"))?;
    if !output.status.success() {
        bail!("{program} {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Debian's docker-registry. Dropping it ends it.
#[derive(Debug)]
pub struct Registry {
    child: Child,
    /// `127.0.0.1:PORT`
    pub host: String,
}

impl Registry {
    /// Starts it, and pushes the image as `bench:1`.
    ///
    /// # Errors
    ///
    /// When it does not start, or skopeo fails.
    pub fn start(folder: &Path, image: &Image) -> Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let host = format!("127.0.0.1:{port}");
        let config = folder.join("registry.yml");
        let data = folder.join("registry");
        let text = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: {host}}}\n",
            data.display()
        );
        fs::write(&config, text).context("cannot write the registry's config")?;
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&config).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().context("cannot start docker-registry")?;
        let registry = Self { child, host };
        let end = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(&registry.host).is_err() {
            ensure!(Instant::now() < end, "the registry does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        let (source, target) =
            (format!("oci:{}:1", image.layout.display()), format!("docker://{}/bench:1", registry.host));
        run("skopeo", &["copy", "--quiet", "--dest-tls-verify=false", &source, &target])?;
        Ok(registry)
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
