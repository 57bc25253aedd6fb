//! Debian's registry: with a password, with TLS, with kills and with two at once.

use std::fs;
use std::path::Path;
use std::time::Duration;

use integration_tests::{Bundler, Guarded, Registry, fill_rootfs, tree, tree_differences};
use serde_json::json;

/// An image of two layers in the registry, as `HOST/two:1`; its rootfs.
fn pushed(bundler: &Bundler, registry: &Registry) -> std::path::PathBuf {
    let rootfs = bundler.path().join("rootfs");
    fill_rootfs(&rootfs);
    fs::write(rootfs.join("large"), (0..4_000_000_u32).flat_map(u32::to_le_bytes).collect::<Vec<u8>>()).expect("write");
    let maker = ["--root".into(), bundler.path().join("maker").into_os_string()];
    let _ = bundler
        .command(["import", "--quiet"])
        .args(maker.clone())
        .args([&rootfs])
        .args(["localhost/two:1"])
        .output()
        .ok();
    let file = bundler.path().join("two.tar");
    let _ = bundler.command(["export"]).args(maker).args(["localhost/two:1"]).args([&file]).output().ok();
    registry.push(&format!("oci-archive:{}", file.display()), "two:1");
    rootfs
}

fn log_in(bundler: &Bundler, registry: &Registry, password: &str) {
    let folder = bundler.path().join("docker");
    fs::create_dir_all(&folder).expect("make a folder");
    let auths = json!({"auths": {registry.host.clone(): {"username": "tester", "password": password}}});
    fs::write(folder.join("config.json"), auths.to_string()).expect("write the config");
}

#[test]
fn a_password_is_shown_where_it_is_wanted() {
    let Some(bundler) = Bundler::new() else { return };
    let Some(registry) = Registry::start(Guarded { password: true, tls: false }) else { return };
    pushed(&bundler, &registry);
    let name = format!("{}/two:1", registry.host);
    let refused = bundler.call(["pull", "--quiet", &name]).exits(1);
    assert!(refused.stderr.contains("docker login"), "{}", refused.stderr);
    log_in(&bundler, &registry, "wrong-secret");
    let refused = bundler.call(["pull", "--quiet", &name]).exits(1);
    assert!(refused.stderr.contains("does not accept"), "{}", refused.stderr);
    assert!(!refused.stderr.contains("wrong-secret"), "{}", refused.stderr);
    log_in(&bundler, &registry, "secret");
    let _ = bundler.call(["pull", "--quiet", &name]).ok();
}

#[test]
fn tls_is_checked() {
    let Some(bundler) = Bundler::new() else { return };
    let Some(registry) = Registry::start(Guarded { password: true, tls: true }) else { return };
    let _rootfs = pushed(&bundler, &registry);
    log_in(&bundler, &registry, "secret");
    let name = format!("{}/two:1", registry.host);
    let refused = bundler.call(["pull", "--quiet", &name]).exits(1);
    assert!(refused.stderr.contains("certificate") && refused.stderr.contains("UnknownIssuer"), "{}", refused.stderr);
    let known = |command: integration_tests::Command| command.env("SSL_CERT_FILE", registry.authority());
    let _ = known(bundler.command(["pull", "--quiet", &name])).output().ok();
}

/// A kill at any moment: the next pull takes up what is there, and believes nothing that is not whole.
#[test]
fn killed_pulls_are_taken_up() {
    let Some(bundler) = Bundler::new() else { return };
    let Some(registry) = Registry::start(Guarded::default()) else { return };
    let rootfs = pushed(&bundler, &registry);
    let name = format!("{}/two:1", registry.host);
    for moment in [1, 3, 10, 20, 30, 45, 60, 80, 100, 130, 170, 220, 300] {
        let running = bundler.command(["pull", "--quiet", &name]).spawn();
        std::thread::sleep(Duration::from_millis(moment));
        // Dropping it kills it.
        drop(running);
        let listed = bundler.call(["--json", "list"]).ok();
        let images: serde_json::Value = serde_json::from_str(&listed.stdout).expect("JSON");
        if images[0]["name"] == name {
            // It had come; from the start, then.
            let _ = bundler.call(["rm", &name]).ok();
            let _ = bundler.call(["gc"]).ok();
        }
    }
    let _ = bundler.call(["pull", "--quiet", &name]).ok();
    assert_tree(&bundler, &name, &rootfs, "after-kills");
    let _ = bundler.call(["gc"]).ok();
    let left: Vec<_> = fs::read_dir(bundler.store().join("tmp")).expect("the store").flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[track_caller]
fn assert_tree(bundler: &Bundler, name: &str, rootfs: &Path, folder: &str) {
    let target = bundler.path().join(folder);
    let _ = bundler.command(["unpack", name]).args([&target]).output().ok();
    let differences = tree_differences(("it", &tree(&target)), ("the rootfs", &tree(rootfs)));
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn several_pulls_at_once_are_one() {
    let Some(bundler) = Bundler::new() else { return };
    let Some(registry) = Registry::start(Guarded::default()) else { return };
    let rootfs = pushed(&bundler, &registry);
    let name = format!("{}/two:1", registry.host);
    let running: Vec<_> = (0..6).map(|_| bundler.command(["pull", "--quiet", &name]).spawn()).collect();
    for one in running {
        let _ = one.finish("flint-bundle pull").ok();
    }
    assert_tree(&bundler, &name, &rootfs, "once");
    let layers = fs::read_dir(bundler.store().join("layers")).expect("the store").count();
    assert_eq!(layers, 1);
}
