//! A containerd with its CRI plugin on, as a node of Kubernetes has it.

use std::path::Path;
use std::sync::Arc;

use super::{Cri, ImageSpec, ImageStatusRequest};
use crate::containerd::IMAGE;
use crate::daemon::Shared;
use crate::process::becomes_true;
use crate::{Containerd, Layout, Place, System, skip};

const PAUSE_IMAGE: &str = "localhost/flint-it:pause";
const PAUSE: &str = "trap 'exit 0' TERM INT; while :; do sleep 1000 & wait $!; done";
/// Where Debian has the plugins.
const CNI: &str = "/usr/lib/cni";
/// What the documentation says, and these tests replace by where their shim is.
const DOCUMENTED_SHIM: &str = "/usr/local/bin/containerd-shim-flint-v1";
/// The same of the runtime.
const DOCUMENTED_RUNTIME: &str = "/usr/local/bin/flint";

static RUNNING: [Shared<Node>; System::COUNT] = [const { Shared::new() }; System::COUNT];

/// A node. Its containers are in containerd's namespace `k8s.io`.
#[derive(Debug)]
pub struct Node {
    /// The daemon, and `ctr` for it.
    pub containerd: Containerd,
}

/// The block of configuration in docs/containerd.md that follows the line `<!-- test: NAME -->`.
fn documented(name: &str) -> String {
    let text = include_str!("../../../docs/containerd.md");
    let (_, rest) = text.split_once(&format!("<!-- test: {name} -->\n")).expect("a block of that name");
    let block = rest.trim_start().strip_prefix("```toml\n").expect("a block of TOML");
    block.split_once("```").expect("its end").0.to_owned()
}

impl Node {
    /// The node of this test binary, started if none runs; None after a skip.
    #[must_use]
    pub fn shared_of(system: System) -> Option<Arc<Self>> {
        RUNNING[system as usize].get_or_skip(|| Self::of(system))
    }

    /// One that no other test has: it may be killed. None after a skip.
    #[must_use]
    pub fn of(system: System) -> Option<Self> {
        let place = Place::open(system, Layout::Host)?;
        let shim = place.shim()?;
        if copy_plugins(&place) {
            write_network(place.path());
        }
        let (name, own) = match system {
            System::Host => ("cri-1.6", own_settings_of_1_6(place.path())),
            System::Sid => ("cri-2", own_settings_of_2(place.path())),
        };
        let block = documented(name)
            .replace(DOCUMENTED_SHIM, &shim.display().to_string())
            .replace(DOCUMENTED_RUNTIME, &place.flint().display().to_string());
        let containerd = Containerd::start(place, &format!("{block}\n{own}"), "k8s.io", "");
        containerd.import_image(PAUSE_IMAGE, &["sh", "-c", PAUSE]);
        let node = Self { containerd };
        node.wait_for_images();
        Some(node)
    }

    /// A client.
    #[must_use]
    pub fn client(&self) -> Cri {
        Cri::new(self.containerd.address())
    }

    /// Whether pods may have a network of their own; skips otherwise.
    #[must_use]
    pub fn has_network(&self) -> bool {
        let has = self.containerd.place().path().join("net.d").exists();
        if !has {
            skip("the CNI plugins (containernetworking-plugins) are not installed");
        }
        has
    }

    /// The plugin learns of images by events.
    pub fn wait_for_images(&self) {
        let client = self.client();
        for image in [IMAGE, PAUSE_IMAGE] {
            let image = Some(ImageSpec { image: image.to_owned() });
            let request = ImageStatusRequest { image };
            let ask = || client.call(request.clone());
            let known = becomes_true(|| ask().is_ok_and(|response| response.image.is_some()));
            assert!(known, "an image is not known: {:?}\n{}", ask(), self.containerd.log_tail());
        }
    }
}

/// Debian's plugins for whichever system: they want nothing but a C library that is not older.
fn copy_plugins(place: &Place) -> bool {
    let target = place.path().join("cni");
    std::fs::create_dir(&target).expect("make a folder");
    ["bridge", "host-local", "loopback"]
        .iter()
        .all(|plugin| std::fs::copy(Path::new(CNI).join(plugin), target.join(plugin)).is_ok())
}

/// A bridge within the place's own network namespace, that no packet leaves.
fn write_network(dir: &Path) {
    let net = dir.join("net.d");
    std::fs::create_dir_all(&net).expect("make a folder");
    let list = serde_json::json!({
        "cniVersion": "0.4.0", "name": "flint-it",
        "plugins": [{
            "type": "bridge", "bridge": "cri0", "isGateway": true,
            "ipam": {"type": "host-local", "dataDir": dir.join("ipam"), "ranges": [[{"subnet": "10.88.0.0/16"}]]}
        }]
    });
    std::fs::write(net.join("10-flint.conflist"), list.to_string()).expect("write the network");
}

/// Names of images and folders, and a limit of the test machine: nobody there may lower an OOM score.
fn own_settings_of_1_6(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "[plugins.\"io.containerd.grpc.v1.cri\"]\n  sandbox_image = \"{PAUSE_IMAGE}\"\n  restrict_oom_score_adj = true\n\
         [plugins.\"io.containerd.grpc.v1.cri\".cni]\n  bin_dir = \"{dir}/cni\"\n  conf_dir = \"{dir}/net.d\"\n"
    )
}

/// The same.
fn own_settings_of_2(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "[plugins.'io.containerd.cri.v1.runtime']\n  restrict_oom_score_adj = true\n\
         [plugins.'io.containerd.cri.v1.runtime'.cni]\n  bin_dirs = ['{dir}/cni']\n  conf_dir = '{dir}/net.d'\n\
         [plugins.'io.containerd.cri.v1.images'.pinned_images]\n  sandbox = '{PAUSE_IMAGE}'\n"
    )
}
