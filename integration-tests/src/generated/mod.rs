//! Configs made at random from a seed: the default one, varied in what runc 1.1 and flint both know.
//!
//! ```text
//!  (seed, number) ──> Random ──> process, mounts, linux vary the default spec ──> Generated { spec, changes() }
//! ```
//!
//! The same seed and number give the same config, so a failure is replayed by naming the two. `<case>` in a config stands for
//! the folder of the case that runs it.

mod linux;
mod mounts;
mod process;
mod random;

use serde_json::{Value, json};

pub use random::Random;

use crate::default_spec;

/// Where the generator puts the case's folder.
const CASE: &str = "<case>";

/// A config, and where it comes from.
#[derive(Clone, Debug)]
pub struct Generated {
    /// What the generator was started with.
    pub seed: u64,
    /// The config's number among those of the seed.
    pub number: u64,
    spec: Value,
}

impl Generated {
    /// Config `number` of `seed`; it runs `script` by /bin/sh, or now and then something that cannot be run.
    #[must_use]
    pub fn new(seed: u64, number: u64, script: &str) -> Self {
        let mut random = Random::new(seed, number);
        let mut spec = default_spec();
        spec["process"]["args"] = json!(["/bin/sh", "-c", script]);
        linux::vary(&mut random, &mut spec);
        mounts::vary(&mut random, &mut spec);
        process::vary(&mut random, &mut spec);
        Self { seed, number, spec }
    }

    /// The config for a case in `folder`.
    #[must_use]
    pub fn spec(&self, folder: &str) -> Value {
        let text = self.spec.to_string().replace(CASE, folder);
        serde_json::from_str(&text).expect("a folder's name needs no escapes in JSON")
    }

    /// Whether it has a new namespace of this kind.
    #[must_use]
    pub fn has_namespace(&self, kind: &str) -> bool {
        let list = self.spec["linux"]["namespaces"].as_array();
        list.into_iter().flatten().any(|namespace| namespace["type"] == kind)
    }

    /// Whether a mount has this option.
    #[must_use]
    pub fn has_mount_option(&self, option: &str) -> bool {
        let mounts = self.spec["mounts"].as_array().into_iter().flatten();
        mounts.filter_map(|mount| mount["options"].as_array()).flatten().any(|known| known == option)
    }

    /// Whether it has a mount of this type at such a place.
    #[must_use]
    pub fn has_mount(&self, kind: &str, at: impl Fn(&str) -> bool) -> bool {
        let mut mounts = self.spec["mounts"].as_array().into_iter().flatten();
        mounts.any(|mount| mount["type"] == kind && mount["destination"].as_str().is_some_and(&at))
    }

    /// The value at this JSON pointer; null when there is none.
    #[must_use]
    pub fn at(&self, pointer: &str) -> &Value {
        self.spec.pointer(pointer).unwrap_or(&Value::Null)
    }

    /// What differs from the default config, for people; the script is left out.
    #[must_use]
    pub fn changes(&self) -> Value {
        let mut spec = self.spec.clone();
        if spec["process"]["args"][0] == "/bin/sh" {
            spec["process"]["args"] = default_spec()["process"]["args"].clone();
        }
        changes(&default_spec(), &spec)
    }
}

/// The merge patch (RFC 7386) from `old` to `new`; null where they are the same.
fn changes(old: &Value, new: &Value) -> Value {
    let (Value::Object(before), Value::Object(after)) = (old, new) else { return new.clone() };
    let mut patch = serde_json::Map::new();
    for (name, value) in after {
        match before.get(name) {
            Some(same) if same == value => {}
            Some(other) => drop(patch.insert(name.clone(), changes(other, value))),
            None => drop(patch.insert(name.clone(), value.clone())),
        }
    }
    for name in before.keys().filter(|name| !after.contains_key(*name)) {
        patch.insert(name.clone(), Value::Null);
    }
    Value::Object(patch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merge;

    #[test]
    fn a_number_gives_one_config_and_its_changes_lead_to_it() {
        let mut different = 0;
        for number in 0..50 {
            let config = Generated::new(7, number, "true");
            assert_eq!(config.spec, Generated::new(7, number, "true").spec);
            let mut merged = default_spec();
            merge(&mut merged, config.changes());
            let mut spec = config.spec.clone();
            if spec["process"]["args"][0] == "/bin/sh" {
                spec["process"]["args"] = default_spec()["process"]["args"].clone();
            }
            assert_eq!(merged, spec);
            different += u32::from(config.spec != Generated::new(8, number, "true").spec);
        }
        assert!(different > 40, "{different} configs of another seed differ");
    }
}
