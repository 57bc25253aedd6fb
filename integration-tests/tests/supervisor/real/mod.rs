//! Real servers as pods: nginx, Redis and PostgreSQL of Debian's packages, reached by their host ports.
//!
//! Each test has a host of its own, a network namespace: what it is asked from there comes by way of a host port, and nothing of
//! the machine's own network is touched.

mod clients;
mod databases;
mod examples;
mod rolling;
mod web;

use integration_tests::{Server, ServerImage, missing, wait_until};

use crate::network::place::Space;
use crate::node::rig::Node;

/// A namespace that stands for the host, and the image of a server, made outside of it; None after a skip.
fn host(server: Server) -> Option<(Space, ServerImage)> {
    if missing(&["nft", "ip", "debootstrap"]) {
        return None;
    }
    let image = ServerImage::of(server)?;
    Some((space(), image))
}

fn space() -> Space {
    let host = Space::new();
    host.shell("ip link set lo up");
    host
}

/// The name of a server's image in the node's store.
const fn image_name(server: Server) -> &'static str {
    match server {
        Server::Nginx => "tests/nginx:1",
        Server::Redis => "tests/redis:1",
        Server::Postgresql => "tests/postgresql:1",
    }
}

/// A node that has the image of a server; None after a skip.
fn node_with(server: Server, image: &ServerImage) -> Option<Node> {
    let node = Node::start()?;
    node.import_layout(&image.layout, image_name(server));
    Some(node)
}

/// Waits until all containers of a pod are ready.
#[track_caller]
fn wait_ready(node: &Node, name: &str) {
    node.wait_for(name, "Running");
    let is_ready = || {
        let status = node.status(name);
        status["containers"].as_object().is_some_and(|all| all.values().all(|container| container["ready"] == true))
    };
    let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| wait_until("it is ready", is_ready)));
    assert!(told.is_ok(), "{name} does not get ready: {:#}\n{:#?}", node.status(name), node.events());
}

/// Removes pods and waits until nothing is left of them.
#[track_caller]
fn remove(node: &Node, names: &[&str]) {
    for name in names {
        let _ = node.ctl(["rm", "--no-wait", name]).ok();
    }
    for name in names {
        node.wait_gone(name);
    }
}
