//! Pods without their secrets, for whoever looks.

use crate::desired::{Pod, VolumeSource};

/// What stands in a secret's place.
const HIDDEN: &str = "<hidden>";

/// Takes out what is never to be shown: values of secret variables, also where commands and paths have them by `$(NAME)`, credentials
/// of pulls, contents of secret files. Contents of other files go, too: they may be long, and are where they came from.
#[must_use]
pub fn redact(mut pod: Pod) -> Pod {
    for container in pod.init_containers.iter_mut().chain(&mut pod.containers) {
        let values = container.env.iter().filter(|variable| variable.is_secret && !variable.value.is_empty());
        let mut values: Vec<String> = values.map(|variable| variable.value.clone()).collect();
        // One may be a part of another.
        values.sort_by_key(|value| std::cmp::Reverse(value.len()));
        let commands = [&mut container.entrypoint, &mut container.args].into_iter().flatten().flatten();
        let paths = container.mounts.iter_mut().filter_map(|mount| mount.sub_path.as_mut());
        for text in commands.chain(paths) {
            for value in &values {
                *text = text.replace(value, HIDDEN);
            }
        }
        for variable in container.env.iter_mut().filter(|variable| variable.is_secret) {
            HIDDEN.clone_into(&mut variable.value);
        }
        if container.pull_credentials.is_some() {
            container.pull_credentials = Some(HIDDEN.to_owned());
        }
    }
    for volume in &mut pod.volumes {
        if let VolumeSource::Files(items) | VolumeSource::Secret(items) = &mut volume.source {
            for item in items {
                item.content = Vec::new();
            }
        }
    }
    pod
}

#[cfg(test)]
mod tests {
    use super::redact;
    use crate::desired::{Pod, VolumeSource};

    #[test]
    fn no_secret_is_left() {
        let item = || serde_json::json!([{"path": "key", "content": b"geheim".to_vec(), "mode": 0o600}]);
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "key": {"namespace": "default", "name": "web"}, "uid": "u", "source": "api", "hostname": "web",
            "grace": {"secs": 1, "nanos": 0},
            "volumes": [{"name": "a", "source": {"secret": item()}}, {"name": "b", "source": {"files": item()}}],
            "init_containers": [{"name": "init", "image": "i", "env": [{"name": "T", "value": "geheim", "is_secret": true}]}],
            "containers": [{"name": "main", "image": "i", "pull_credentials": "user:geheim",
                            "entrypoint": ["/bin/tool", "--password=geheim"], "args": ["geheim"],
                            "mounts": [{"volume": "a", "path": "/a", "sub_path": "of/geheim"}],
                            "env": [{"name": "A", "value": "shown"}, {"name": "B", "value": "geheim", "is_secret": true}]}],
        }))
        .unwrap();
        let shown = redact(pod);
        let json = serde_json::to_string(&shown).unwrap();
        let bytes = serde_json::to_string(b"geheim".as_slice()).unwrap();
        assert!(!json.contains("geheim") && !json.contains(bytes.trim_matches(['[', ']'])), "{json}");
        assert!(json.contains("shown") && json.contains("--password=<hidden>"), "{json}");
        assert!(matches!(&shown.volumes[0].source, VolumeSource::Secret(items) if items[0].path == "key"));
    }
}
