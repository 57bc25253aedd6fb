//! Configuration lists of CNI.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::network::{Error, Result};

/// The versions of the specification that are spoken, oldest first.
const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// A list of plugins that make one network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::network) struct List {
    /// The network's name.
    pub(super) name: String,
    /// The version of the specification that plugins are spoken to in.
    pub(super) version: String,
    /// Their configurations, in the order of ADD.
    pub(super) plugins: Vec<Map<String, Value>>,
    #[serde(default)]
    no_check: bool,
    #[serde(default)]
    no_collection: bool,
}

impl List {
    /// Looks for a network by its name in all files of a folder, in the order of their names.
    pub(super) fn find(folder: &Path, network: &str) -> Result<Self> {
        let refused = |reason: String| Error::Plugin {
            network: network.to_owned(),
            step: "its configuration".to_owned(),
            reason,
        };
        let mut names = Vec::new();
        for file in files(folder).map_err(|error| refused(format!("{}: {error}", folder.display())))? {
            let text = fs::read(&file).map_err(|error| refused(format!("{}: {error}", file.display())))?;
            let Ok(Value::Object(value)) = serde_json::from_slice(&text) else {
                tracing::warn!(file = %file.display(), "a configuration of CNI is not an object of JSON: it is passed over");
                continue;
            };
            let name = value.get("name").and_then(Value::as_str).unwrap_or_default();
            if name == network {
                return Self::parse(value).map_err(|reason| refused(format!("{}: {reason}", file.display())));
            }
            names.push(name.to_owned());
        }
        let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        Err(refused(format!("no file in {} has this name; there is: {known}", folder.display())))
    }

    fn parse(mut value: Map<String, Value>) -> std::result::Result<Self, String> {
        let name = value.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let is_letter = |letter: char| letter.is_ascii_alphanumeric() || "_.-".contains(letter);
        if !name.starts_with(|letter: char| letter.is_ascii_alphanumeric()) || !name.chars().all(is_letter) {
            return Err(format!("name {name:?}: a letter or digit, and then letters, digits, _, . and - are needed"));
        }
        let version = version(&value)?;
        let flag = |name: &str| value.get(name).is_some_and(|flag| flag == true || flag == "true");
        let (no_check, no_collection) = (flag("disableCheck"), flag("disableGC"));
        let plugins = match value.remove("plugins") {
            Some(Value::Array(plugins)) => plugins,
            Some(_) => return Err("plugins: a list is needed".to_owned()),
            // A file of the older form has a single plugin.
            None => vec![Value::Object(value)],
        };
        let object = |plugin: Value| match plugin {
            Value::Object(plugin) if is_program(plugin.get("type")) => Ok(plugin),
            other => Err(format!("plugins: {other}: an object with the name of a program as its type is needed")),
        };
        let plugins = plugins.into_iter().map(object).collect::<std::result::Result<Vec<_>, _>>()?;
        if plugins.is_empty() {
            return Err("plugins: at least one is needed".to_owned());
        }
        Ok(Self { name, version, plugins, no_check, no_collection })
    }

    /// Whether it is the network of that name.
    pub(in crate::network) fn is(&self, name: &str) -> bool {
        self.name == name
    }

    /// What a plugin is given: its own configuration, with the list's name and version.
    pub(super) fn of(&self, plugin: &Map<String, Value>) -> Map<String, Value> {
        let mut configuration = plugin.clone();
        configuration.insert("name".to_owned(), self.name.clone().into());
        configuration.insert("cniVersion".to_owned(), self.version.clone().into());
        configuration
    }

    /// Whether a plugin says that it can use what the capability's name stands for.
    pub(super) fn has_capability(plugin: &Map<String, Value>, name: &str) -> bool {
        plugin.get("capabilities").and_then(|all| all.get(name)).is_some_and(|capability| capability == true)
    }

    /// CHECK came with 0.4.0.
    pub(super) fn can_check(&self) -> bool {
        !self.no_check && self.is_at_least("0.4.0")
    }

    /// GC came with 1.1.0.
    pub(super) fn can_collect(&self) -> bool {
        !self.no_collection && self.is_at_least("1.1.0")
    }

    fn is_at_least(&self, version: &str) -> bool {
        let place = |version: &str| VERSIONS.iter().position(|known| *known == version);
        place(&self.version) >= place(version)
    }
}

/// The highest version that both know: lists of 1.1.0 and later may have several.
fn version(value: &Map<String, Value>) -> std::result::Result<String, String> {
    let one = value.get("cniVersion").and_then(Value::as_str);
    let several = value.get("cniVersions").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let all: Vec<&str> = one.into_iter().chain(several).collect();
    let best = VERSIONS.iter().rev().find(|known| all.contains(known));
    best.map(|version| (*version).to_owned()).ok_or_else(|| {
        let has = if all.is_empty() { "none".to_owned() } else { all.join(", ") };
        format!("cniVersion: one of {} is needed, and it has {has}", VERSIONS.join(", "))
    })
}

/// A plugin is named, not given by a path: it is looked for in the administrator's folders alone.
fn is_program(kind: Option<&Value>) -> bool {
    kind.and_then(Value::as_str).is_some_and(|name| !name.is_empty() && !name.starts_with('.') && !name.contains('/'))
}

fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "conflist" || extension == "conf" || extension == "json")
        {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(files: &[(&str, &str)], network: &str) -> Result<List> {
        let dir = tempfile::tempdir().expect("a folder");
        for (name, text) in files {
            fs::write(dir.path().join(name), text).expect("write");
        }
        List::find(dir.path(), network)
    }

    const TWO: &str = r#"{"cniVersion":"1.0.0","name":"two","disableCheck":true,
        "plugins":[{"type":"bridge"},{"type":"portmap","capabilities":{"portMappings":true}}]}"#;

    #[test]
    fn lists_and_single_plugins_are_found_by_name() {
        let files = [
            ("10-a.conflist", TWO),
            ("20-b.conf", r#"{"cniVersion":"0.3.1","name":"one","type":"ptp"}"#),
            ("x.txt", ""),
        ];
        let two = find(&files, "two").expect("two");
        assert_eq!((two.plugins.len(), two.version.as_str(), two.can_check()), (2, "1.0.0", false));
        assert!(List::has_capability(two.plugins.last().expect("a plugin"), "portMappings"));
        let one = find(&files, "one").expect("one");
        assert_eq!(one.plugins.len(), 1);
        assert!(!one.can_check() && !one.can_collect());
        let error = find(&files, "three").expect_err("none").to_string();
        assert!(error.contains("there is: two, one"), "{error}");
    }

    #[test]
    fn what_cannot_be_used_is_refused() {
        for (text, word) in [
            (r#"{"name":"x","plugins":[{"type":"a"}]}"#, "cniVersion"),
            (r#"{"name":"x","cniVersion":"0.1.0","plugins":[{"type":"a"}]}"#, "0.1.0"),
            (r#"{"name":"x","cniVersion":"1.0.0","plugins":[]}"#, "at least one"),
            (r#"{"name":"x","cniVersion":"1.0.0","plugins":[{"type":"../a"}]}"#, "name of a program"),
            (r#"{"name":"x","cniVersion":"1.0.0","plugins":{}}"#, "a list"),
        ] {
            let error = find(&[("a.conflist", text)], "x").expect_err(text).to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn the_highest_known_version_is_spoken() {
        let text = r#"{"name":"x","cniVersion":"0.4.0","cniVersions":["1.1.0","9.0.0"],"plugins":[{"type":"a"}]}"#;
        let list = find(&[("a.conflist", text)], "x").expect("a list");
        assert_eq!(list.version, "1.1.0");
        assert!(list.can_check() && list.can_collect());
    }
}
