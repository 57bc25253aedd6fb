//! `kill -9` of flintd at moments of a seeded schedule, while pods come and go.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use integration_tests::wait_until;
use rustix::process::Signal;

use super::rig::Node;

/// How many kills: `FLINT_KILLS`. 200 take minutes.
const KILLS: u32 = 6;
/// How many pods there are at a time: more would try the machine, and not flintd.
const PODS: usize = 30;

/// The same numbers for the same seed (`FLINT_KILLS_SEED`).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// How often a pod's program has begun.
fn begun(folder: &Path, name: &str) -> usize {
    std::fs::read_to_string(folder.join(name)).unwrap_or_default().lines().count()
}

fn one_of(pods: &BTreeMap<String, Option<u64>>, random: &mut Random) -> String {
    let index = random.below(pods.len() as u64) as usize;
    pods.keys().nth(index).expect("one of them").clone()
}

/// It was started once, and has ended with its status, or runs if it has none.
fn is_as_promised(node: &Node, out: &Path, name: &str, status: Option<u64>, seed: u64) {
    let told = format!("seed {seed}: {name}");
    if let Some(status) = status {
        wait_until(&format!("{told} has ended"), || node.state(name)["exited"]["status"].is_u64());
        assert_eq!(node.state(name)["exited"]["status"], status, "{told}");
    } else {
        node.wait_for(name, "Running");
        // Its shell may have said nothing yet.
        wait_until(&format!("{told} has begun"), || begun(out, name) >= 1);
    }
    assert_eq!(begun(out, name), 1, "{told} was started so often");
}

#[test]
fn no_pod_is_lost_or_started_twice_and_no_status_is_wrong() {
    let Some(mut node) = Node::start() else { return };
    let seed = number("FLINT_KILLS_SEED", 1);
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let out = node.folder("out");
    let volume = format!("  restartPolicy: Never\n  volumes: [{{name: out, hostPath: {{path: {}}}}}]\n", out.display());
    // What was promised: of each pod its exit status, none if it runs on.
    let mut wanted: BTreeMap<String, Option<u64>> = BTreeMap::new();
    for round in 0..number("FLINT_KILLS", u64::from(KILLS)) {
        for part in 0..3 {
            let name = format!("p{round}-{part}");
            let status = (random.below(2) == 0).then(|| random.below(100));
            let script = match status {
                Some(status) => format!("echo begun >> /out/{name}; exit {status}"),
                None => format!("echo begun >> /out/{name}; trap 'exit 3' TERM; sleep 100000 & wait"),
            };
            let manifest = node
                .manifest(&name, &volume, &script)
                .replace("    command:", "    volumeMounts: [{name: out, mountPath: /out}]\n    command:");
            node.apply(&manifest);
            wanted.insert(name, status);
        }
        if random.below(2) == 0 && wanted.len() > 4 {
            let name = one_of(&wanted, &mut random);
            let _ = node.ctl(["rm", &name]).ok();
            wanted.remove(&name);
        }
        while wanted.len() > PODS {
            let name = one_of(&wanted, &mut random);
            let status = wanted.remove(&name).expect("it is one of them");
            is_as_promised(&node, &out, &name, status, seed);
            let _ = node.ctl(["rm", &name]).ok();
        }
        std::thread::sleep(Duration::from_millis(random.below(400)));
        node.end(Signal::KILL);
        node.launch();
    }
    for (name, status) in &wanted {
        is_as_promised(&node, &out, name, *status, seed);
    }
    wait_until("what was removed is gone", || node.pods().len() == wanted.len());
    for name in wanted.keys() {
        let _ = node.ctl(["rm", name]).ok();
    }
    wait_until("all are gone", || node.pods().is_empty());
    node.finish();
}
