//! The workers: each with a place of its own, as a node of the manager's swarm.

use std::any::Any;

use anyhow::{Context, Result};
use integration_tests::swarm::{Flintd, Manager};
use integration_tests::{Dockerd, DockerdOptions, Layout, Place, System};

/// Those there are, in the order in which they are measured.
pub(crate) const NAMES: [&str; 2] = ["flintd", "dockerd"];

/// A worker that has joined.
pub(crate) struct Worker {
    pub(crate) name: &'static str,
    /// Its id in the swarm.
    pub(crate) node: String,
    /// The image of the service, which it has: one that no worker asks a registry for.
    pub(crate) image: String,
    /// What the names of what it makes hold.
    pub(crate) prefixes: Vec<String>,
    /// A process in its place.
    pub(crate) pid: u32,
    /// What it consists of, to be dropped in its order: a place ends first, and with it all that runs in it.
    parts: Box<dyn Any>,
}

impl Worker {
    /// Starts one in a place of its own and joins the swarm; `number` is that of its connection.
    pub(crate) fn start(name: &'static str, manager: &Manager, number: u8) -> Result<Self> {
        if name == "flintd" { Self::flintd(manager, number) } else { Self::dockerd(manager, number) }
    }

    fn flintd(manager: &Manager, number: u8) -> Result<Self> {
        let place = Place::open(System::Host, Layout::Host).context("make a place")?;
        manager.connect(place.pid(), number);
        let mut flintd = Flintd::in_place(&place, "").context("a part of flint is missing: `cargo xtask dist`")?;
        flintd.join(manager);
        Ok(Self {
            name: "flintd",
            node: flintd.id().to_owned(),
            image: Flintd::IMAGE.to_owned(),
            // Its own folder is in its command line, and has a name of its own.
            prefixes: vec![place.prefix().to_owned(), flintd.prefix().to_owned(), flintd.path().display().to_string()],
            pid: place.pid(),
            parts: Box::new((place, flintd)),
        })
    }

    fn dockerd(manager: &Manager, number: u8) -> Result<Self> {
        let dockerd = Dockerd::of(System::Host, DockerdOptions::default()).context("start dockerd")?;
        let ip = manager.connect(dockerd.place().pid(), number);
        let (token, address) = (manager.token(), manager.address());
        let _ = dockerd
            .call(&["swarm", "join", "--token", &token, "--advertise-addr", &ip, "--listen-addr", &ip, &address])
            .ok();
        let node = dockerd.call(&["info", "--format", "{{.Swarm.NodeID}}"]).ok().stdout.trim().to_owned();
        manager.wait_node(&node, "ready active");
        // By its id: dockerd asks a registry for a name each time.
        let image = dockerd.call(&["images", "--quiet", "--no-trunc"]).ok().stdout.trim().to_owned();
        Ok(Self {
            name: "dockerd",
            node,
            image,
            prefixes: vec![dockerd.prefix().to_owned()],
            pid: dockerd.place().pid(),
            parts: Box::new(dockerd),
        })
    }

    /// Ends it and all that it runs, and takes the node out of the swarm.
    pub(crate) fn end(self, manager: &Manager) -> Result<()> {
        let Self { node, prefixes, parts, .. } = self;
        drop(parts);
        for prefix in &prefixes {
            integration_tests::sweep(prefix);
        }
        let removed = manager.docker(&["node", "rm", "--force", &node]);
        anyhow::ensure!(removed.code == 0, "remove the node {node}: {}", removed.stderr);
        Ok(())
    }
}
