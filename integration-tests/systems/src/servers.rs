//! Images of real servers, made of Debian's packages once and kept in a cache. Their configurations are like those of docker's
//! official images of these names: what a pod's manifest has to say is the same.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::cache::kept;
use crate::debian::bookworm_with;

/// Another way to make them is another image.
const VERSION: u32 = 3;

/// The first start makes the database, as the user that the container runs as.
const POSTGRESQL: &str = r#"#!/bin/sh
set -e
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    password="${POSTGRES_PASSWORD:-$(cat "$POSTGRES_PASSWORD_FILE")}"
    printf '%s\n' "$password" | initdb --username=postgres --pwfile=/dev/stdin --auth-local=trust --auth-host=scram-sha-256
    echo 'host all all all scram-sha-256' >> "$PGDATA/pg_hba.conf"
fi
unset POSTGRES_PASSWORD
exec "$@"
"#;

/// Where Debian 12 has PostgreSQL's own programs.
const POSTGRESQL_PROGRAMS: &str = "/usr/lib/postgresql/15/bin";

/// A server that there is an image of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// nginx with its configuration in /etc/nginx/conf.d, as root.
    Nginx,
    /// Redis with its data in /data, as the user redis.
    Redis,
    /// `PostgreSQL` with its data in `PGDATA` and its first password in `POSTGRES_PASSWORD_FILE`, as the user postgres.
    Postgresql,
}

/// An image of a server, shared: nothing in it may be written to.
#[derive(Debug, Clone)]
pub struct ServerImage {
    /// The OCI layout.
    pub layout: PathBuf,
    /// The same files as a root filesystem.
    pub rootfs: PathBuf,
}

impl ServerImage {
    /// An image of these files with this configuration (image-spec 1.1, `config`), its OCI layout written beside them.
    #[must_use]
    #[track_caller]
    pub fn of_files(rootfs: PathBuf, config: &Value) -> Self {
        let image = Self { layout: rootfs.with_extension("layout"), rootfs };
        layout(&image, config).unwrap_or_else(|error| panic!("{error}"));
        image
    }

    /// The cached image of a server, made if it is missing (a minute); None after a skip.
    #[must_use]
    pub fn of(server: Server) -> Option<Self> {
        let folder = kept(&format!("bookworm-{}-{VERSION}", server.name()), |folder| make(server, folder))?;
        Some(Self { layout: folder.join("layout"), rootfs: folder.join("rootfs") })
    }

    /// The numbers of a user of it, and of that user's group.
    #[must_use]
    pub fn user(&self, name: &str) -> (u32, u32) {
        let users = fs::read_to_string(self.rootfs.join("etc/passwd")).expect("the users of the image");
        let line = users.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":x:"));
        let mut numbers = line.expect("a user of the image").split(':').map(|number| number.parse().expect("a number"));
        (numbers.next().expect("its number"), numbers.next().expect("its group's number"))
    }
}

impl Server {
    const fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Redis => "redis",
            Self::Postgresql => "postgresql",
        }
    }

    fn config(self) -> Value {
        let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        match self {
            Self::Nginx => json!({
                "Env": [format!("PATH={path}")],
                "Cmd": ["nginx", "-g", "daemon off;"],
                "ExposedPorts": {"80/tcp": {}},
                // It ends when its requests are answered.
                "StopSignal": "SIGQUIT",
            }),
            Self::Redis => json!({
                "User": "redis",
                "Env": [format!("PATH={path}")],
                "Entrypoint": ["redis-server", "--protected-mode", "no"],
                "ExposedPorts": {"6379/tcp": {}},
                "Volumes": {"/data": {}},
                "WorkingDir": "/data",
            }),
            Self::Postgresql => json!({
                "User": "postgres",
                "Env": [format!("PATH={path}:{POSTGRESQL_PROGRAMS}"), "PGDATA=/var/lib/postgresql/data", "LANG=C.UTF-8"],
                "Entrypoint": ["entrypoint"],
                "Cmd": ["postgres", "-c", "listen_addresses=*"],
                "ExposedPorts": {"5432/tcp": {}},
                "Volumes": {"/var/lib/postgresql/data": {}},
                // It ends without waiting for its clients.
                "StopSignal": "SIGINT",
            }),
        }
    }

    /// What the packages leave to whoever makes an image of them.
    fn furnish(self, image: &ServerImage) -> std::io::Result<()> {
        let path = |name: &str| image.rootfs.join(name);
        let owned = |name: &str, user: &str, mode: u32| {
            fs::create_dir_all(path(name))?;
            let (uid, gid) = image.user(user);
            chown(path(name), Some(uid), Some(gid))?;
            fs::set_permissions(path(name), fs::Permissions::from_mode(mode))
        };
        match self {
            Self::Nginx => {
                fs::remove_file(path("etc/nginx/sites-enabled/default"))?;
                for (log, stream) in [("access.log", "/dev/stdout"), ("error.log", "/dev/stderr")] {
                    let log = path("var/log/nginx").join(log);
                    let _ = fs::remove_file(&log);
                    symlink(stream, log)?;
                }
                Ok(())
            }
            Self::Redis => owned("data", "redis", 0o755),
            Self::Postgresql => {
                // The package has made a database of its own.
                for made in ["var/lib/postgresql/15", "etc/postgresql/15"] {
                    let _ = fs::remove_dir_all(path(made));
                }
                owned("var/lib/postgresql/data", "postgres", 0o700)?;
                owned("run/postgresql", "postgres", 0o2775)?;
                fs::write(path("usr/local/bin/entrypoint"), POSTGRESQL)?;
                fs::set_permissions(path("usr/local/bin/entrypoint"), fs::Permissions::from_mode(0o755))
            }
        }
    }
}

fn make(server: Server, folder: &Path) -> Result<(), String> {
    let image = ServerImage { layout: folder.join("layout"), rootfs: folder.join("rootfs") };
    fs::create_dir(folder).map_err(|error| error.to_string())?;
    let packages: &[&str] = match server {
        Server::Nginx => &["nginx-light"],
        Server::Redis => &["redis-server"],
        Server::Postgresql => &["postgresql-15"],
    };
    bookworm_with(packages, &image.rootfs)?;
    // What no server reads.
    for dir in ["usr/share/doc", "usr/share/man", "usr/share/locale"] {
        let _ = fs::remove_dir_all(image.rootfs.join(dir));
    }
    server.furnish(&image).map_err(|error| format!("furnish the image: {error}"))?;
    layout(&image, &server.config())
}

/// An OCI image layout of one layer (image-spec 1.1), which is not compressed: it is unpacked by many tests.
fn layout(image: &ServerImage, config: &Value) -> Result<(), String> {
    let blobs = image.layout.join("blobs/sha256");
    let told = |error: std::io::Error| format!("write the image: {error}");
    fs::create_dir_all(&blobs).map_err(told)?;
    let layer = blobs.join("layer");
    let paths = [image.rootfs.display().to_string(), layer.display().to_string()];
    let tar = ["--create", "--sort=name", "--numeric-owner", "--directory", &paths[0], "--file", &paths[1], "."];
    run("tar", &tar)?;
    let digest_of = |path: &Path| -> Result<(String, u64), String> {
        let digest = run("sha256sum", &[&path.display().to_string()])?;
        fs::rename(path, blobs.join(&digest)).map_err(told)?;
        let size = fs::metadata(blobs.join(&digest)).map_err(told)?.len();
        Ok((format!("sha256:{digest}"), size))
    };
    let blob = |value: &Value| {
        let path = blobs.join("blob");
        fs::write(&path, value.to_string()).map_err(told)?;
        digest_of(&path)
    };
    let descriptor = |kind: &str, (digest, size): (String, u64)| json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest, "size": size});
    let layer = digest_of(&layer)?;
    let unpacked = layer.0.clone();
    let layer = descriptor("layer.v1.tar", layer);
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = blob(&json!({
        "architecture": architecture, "os": "linux", "config": config,
        "rootfs": {"type": "layers", "diff_ids": [unpacked]},
    }))?;
    let manifest = blob(&json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("config.v1+json", config), "layers": [layer],
    }))?;
    let index = json!({"schemaVersion": 2, "manifests": [descriptor("manifest.v1+json", manifest)]});
    fs::write(image.layout.join("index.json"), index.to_string()).map_err(told)?;
    fs::write(image.layout.join("oci-layout"), json!({"imageLayoutVersion": "1.0.0"}).to_string()).map_err(told)
}

/// The first word that a program prints.
fn run(program: &str, args: &[&str]) -> Result<String, String> {
    let output =
        std::process::Command::new(program).args(args).output().map_err(|error| format!("{program}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).split_whitespace().next().unwrap_or_default().to_owned())
}
