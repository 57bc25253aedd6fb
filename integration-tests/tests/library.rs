//! The library in a program with many threads that allocate without pause: what runs between clone and exec must
//! not need a lock that another thread held.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use flint_runtime::{Bundle, CgroupManager, CreateOptions, ExitStatus, Options, Runtime};
use integration_tests::{Case, under_test_only};

const CONTAINERS: u32 = 2000;
/// Threads that make containers, and threads that only allocate.
const MAKERS: u32 = 16;
const ALLOCATORS: u32 = 16;

#[test]
fn two_thousand_containers_from_32_threads() {
    let Some([peer]) = under_test_only("flint as a library") else { return };
    let case = Case::new(&peer);
    // Without a network namespace: its end is slow work of the kernel and has nothing to do with this.
    let mut spec: serde_json::Value = serde_json::from_slice(
        &std::fs::read(case.bundle().args(&["/bin/true"]).write().join("config.json")).expect("config.json"),
    )
    .expect("JSON");
    let namespaces = spec["linux"]["namespaces"].as_array_mut().expect("namespaces");
    namespaces.retain(|namespace| namespace["type"] != "network");
    let bundle = case.bundle().spec(spec).args(&["/bin/true"]).write();
    let bundle = Bundle::load(bundle).expect("load the bundle");
    let options = Options { root: case.state_root(), cgroup_manager: CgroupManager::Cgroupfs, rootless: false };
    let runtime = Runtime::open(options).expect("open the runtime");
    let descriptors = || std::fs::read_dir("/proc/self/fd").expect("read /proc/self/fd").count();
    let before = descriptors();
    let (next, done) = (AtomicU32::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        for _ in 0..ALLOCATORS {
            scope.spawn(|| {
                let mut size = 1;
                while !done.load(Ordering::Relaxed) {
                    for _ in 0..64 {
                        size = size * 7 % 65_521;
                        std::hint::black_box(vec![1u8; size + 1]);
                    }
                    // Together they keep half a processor in the allocator; all of both would be the makers' time.
                    thread::sleep(Duration::from_millis(2));
                }
            });
        }
        let makers: Vec<_> = (0..MAKERS).map(|_| scope.spawn(|| make(&case, &runtime, &bundle, &next))).collect();
        let results: Vec<_> = makers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        done.store(true, Ordering::Relaxed);
        for result in results {
            result.expect("a maker failed");
        }
    });
    assert_eq!(descriptors(), before, "descriptors are left");
    assert!(runtime.list().expect("list").is_empty(), "containers are left");
    drop(runtime);
    case.finish();
}

fn make(case: &Case, runtime: &Runtime, bundle: &Bundle, next: &AtomicU32) {
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= CONTAINERS {
            return;
        }
        let id = case.id(&format!("c{number}"));
        let container = runtime.create(&id, bundle, CreateOptions::default()).expect("create");
        runtime.start(&id).expect("start");
        assert_eq!(container.wait().expect("wait"), ExitStatus::Exited(0), "{id}");
        runtime.delete(&id, false).expect("delete");
    }
}
