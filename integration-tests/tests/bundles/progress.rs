//! What people see while something takes long: bars at a terminal, plain lines elsewhere, nothing where they want none.

use std::fs;

use integration_tests::{Bundler, PtyRun};

/// A root filesystem of a size that takes a moment.
fn rootfs(bundler: &Bundler) -> String {
    let rootfs = bundler.path().join("rootfs");
    fs::create_dir(&rootfs).expect("make a folder");
    let content: Vec<u8> =
        (0..8 << 20).map(|number: u32| number.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    fs::write(rootfs.join("large"), content).expect("write a file");
    rootfs.display().to_string()
}

#[test]
fn a_terminal_has_bars_that_go_away() {
    let Some(bundler) = Bundler::new() else { return };
    let (rootfs, store) = (rootfs(&bundler), bundler.store().display().to_string());
    let args = ["--root", &store, "import", &rootfs, "localhost/large:1"];
    let environment = [("TERM", "xterm"), ("NO_COLOR", "1")];
    let output = PtyRun::start(bundler.program(), &args, &environment, 24, 100).finish().ok().stdout;
    assert!(output.contains("localhost/large:1 0 of 1 layers"), "{output:?}");
    assert!(output.contains("/8.39 MB"), "a bar with the layer's size: {output:?}");
    // The last thing that is written is the result, on a line that was cleared of bars.
    let last = output.trim_end().rsplit(['\n', '\r']).next().unwrap_or_default();
    assert!(last.contains("localhost/large:1  sha256:") && !last.contains("of 1 layers"), "{output:?}");

    let output = PtyRun::start(bundler.program(), &args, &[("TERM", "dumb")], 24, 100).finish().ok().stdout;
    assert!(!output.contains('\x1b'), "{output:?}");
    let quiet = ["--root", &store, "--quiet", "import", &rootfs, "localhost/large:2"];
    let output = PtyRun::start(bundler.program(), &quiet, &environment, 24, 100).finish().ok().stdout;
    assert!(output.starts_with("localhost/large:2  sha256:") && output.lines().count() == 1, "{output:?}");
}

#[test]
fn no_terminal_has_a_line_for_each_thing() {
    let Some(bundler) = Bundler::new() else { return };
    let rootfs = rootfs(&bundler);
    let output = bundler.call(["import", &rootfs, "localhost/large:1"]).ok();
    let lines: Vec<&str> = output.stderr.lines().collect();
    let [image, begins, ends] = lines.as_slice() else { panic!("{lines:?}") };
    assert_eq!(*image, "localhost/large:1: 1 layers, 8.4 MB to take");
    assert!(begins.ends_with(": 8.4 MB ...") && ends.ends_with(": done"), "{lines:?}");
    assert_eq!(bundler.call(["--quiet", "import", &rootfs, "localhost/large:2"]).ok().stderr, "");
}
