use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use super::{Change, Folder};
use crate::desired::{Key, Pod, Source};
use crate::manifest::fuzzing::node;

/// A folder of manifests, and a store of pods as flintd keeps one.
struct Node {
    place: tempfile::TempDir,
    folder: Folder,
    store: RefCell<BTreeMap<(Key, Source), String>>,
}

impl Node {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        Self { folder: Folder::new(place.path()), place, store: RefCell::default() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        // By a rename: another inode, as editors do it.
        let new = self.path(".new");
        fs::write(&new, text).unwrap();
        fs::rename(new, self.path(name)).unwrap();
    }

    /// Looks, and does with the store what flintd does.
    fn scan(&mut self) -> Vec<Change> {
        let store = &self.store;
        let known = |key: &Key, source: &Source| store.borrow().get(&(key.clone(), source.clone())).cloned();
        let changes = self.folder.scan(&node(), &known, &BTreeSet::new());
        for change in &changes {
            if let Change::Pods { file, pods } = change {
                let source = Source::Manifest(file.clone());
                let mut store = store.borrow_mut();
                store.retain(|(key, of), _| *of != source || pods.iter().any(|pod| pod.key == *key));
                store.extend(pods.iter().map(|pod| ((pod.key.clone(), source.clone()), pod.uid.clone())));
            }
        }
        changes
    }

    /// The pods of one file, which is the only one that changed.
    fn pods(&mut self, name: &str) -> Vec<Pod> {
        match self.scan().as_slice() {
            [Change::Pods { file, pods }, rest @ ..] if *file == self.path(name) => {
                assert!(matches!(rest, [] | [Change::Files(_)]), "{rest:?}");
                pods.clone()
            }
            other => panic!("{other:#?}"),
        }
    }

    /// What is told to be wrong with one file.
    fn problems(&mut self, name: &str) -> String {
        match self.scan().as_slice() {
            [Change::Bad { file, problems }] if *file == self.path(name) => {
                problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
            }
            other => panic!("{other:#?}"),
        }
    }
}

fn web(name: &str, image: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{containers: [{{name: c, image: \"{image}\"}}]}}\n"
    )
}

#[test]
fn a_file_comes_changes_and_goes() {
    let mut node = Node::new();
    assert_eq!(node.scan(), [Change::Files(BTreeSet::new())]);
    node.write("a.yaml", &web("a", "i:1"));
    node.write(".hidden.yaml", "x: [");
    node.write("notes.txt", "x: [");
    fs::create_dir(node.path("folder.yaml")).unwrap();
    let first = node.pods("a.yaml");
    assert_eq!(first[0].source, Source::Manifest(node.path("a.yaml")));
    assert_eq!(node.scan(), [], "nothing new");
    node.write("a.yaml", &(web("a", "i:2") + "---\n" + &web("b", "i:1")));
    let second = node.pods("a.yaml");
    assert_eq!(second.len(), 2);
    assert_eq!((&second[0].uid, second[0].containers[0].image.as_str()), (&first[0].uid, "i:2"));
    assert_ne!(second[0].uid, second[1].uid);
    node.write("a.yaml", &(format!("# a remark\n{}---\n{}", web("a", "i:2"), web("b", "i:1"))));
    assert_eq!(node.scan(), [], "another text with the same meaning");
    node.write("a.yaml", &web("b", "i:1"));
    assert_eq!(node.pods("a.yaml").len(), 1);
    fs::remove_file(node.path("a.yaml")).unwrap();
    assert_eq!(node.pods("a.yaml"), []);
    node.write("a.yaml", &web("a", "i:1"));
    assert_ne!(node.pods("a.yaml")[0].uid, first[0].uid, "removed and made again");
}

#[test]
fn a_bad_file_is_told_once_and_changes_nothing() {
    let mut node = Node::new();
    node.write("a.yaml", &web("a", "i:1"));
    let first = node.pods("a.yaml");
    node.write("a.yaml", "apiVersion: v1\nkind: [");
    assert!(node.problems("a.yaml").starts_with("line "), "where it is");
    assert_eq!(node.scan(), [], "told once");
    node.write("a.yaml", &(web("a", "i:2") + "---\n" + &web("b", "i:1").replace("image", "imag")));
    let found = node.problems("a.yaml");
    assert!(
        found.contains("spec.containers[0].imag: unknown field; did you mean \"image\"? (Pod default/b)"),
        "{found}"
    );
    node.write("a.yaml", &web("a", "i:1"));
    assert_eq!(node.pods("a.yaml"), first, "told again, since it was bad in between");
    fs::remove_file(node.path("a.yaml")).unwrap();
    node.pods("a.yaml");
    node.write("b.yaml", "x");
    assert!(node.problems("b.yaml").contains("no apiVersion and kind"));
    fs::remove_file(node.path("b.yaml")).unwrap();
    assert_eq!(node.pods("b.yaml"), [], "a bad file that is gone wants nothing");
}

#[test]
fn a_restart_finds_the_same_pods_and_knows_what_went_meanwhile() {
    let mut node = Node::new();
    node.write("a.yaml", &web("a", "i:1"));
    node.write("b.yaml", &web("b", "i:1"));
    node.scan();
    let before = node.store.borrow().clone();
    node.folder = Folder::new(node.place.path());
    fs::remove_file(node.path("b.yaml")).unwrap();
    node.write("c.yaml", "bad: [");
    let changes = node.scan();
    assert_eq!(changes.len(), 3, "{changes:#?}");
    assert_eq!(changes[2], Change::Files([node.path("a.yaml"), node.path("c.yaml")].into()));
    let a = (Key::new("default", "a"), Source::Manifest(node.path("a.yaml")));
    assert_eq!(node.store.borrow()[&a], before[&a]);
}

#[test]
fn objects_of_other_files_are_found_and_their_changes_reach_pods() {
    let config =
        |mode: &str| format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: m}}\ndata: {{mode: {mode}}}\n");
    let mut node = Node::new();
    let pod = web("a", "i:1").replace("\"i:1\"", "\"i:1\", envFrom: [{configMapRef: {name: m}}]");
    node.write("a.yaml", &pod);
    assert!(matches!(&node.scan()[..], [Change::Bad { .. }, Change::Files(_)]));
    node.write("z.yaml", &config("fast"));
    let changes = node.scan();
    let [Change::Pods { pods, .. }, Change::Pods { pods: others, .. }] = &changes[..] else { panic!("{changes:#?}") };
    assert_eq!((pods[0].containers[0].env[0].value.as_str(), others.len()), ("fast", 0));
    node.write("z.yaml", &config("slow"));
    assert_eq!(node.pods("a.yaml")[0].containers[0].env[0].value, "slow");
    node.write("z.yaml", "bad: [");
    node.problems("z.yaml");
    node.write("a.yaml", &pod.replace("i:1", "i:2"));
    assert_eq!(node.pods("a.yaml")[0].containers[0].env[0].value, "slow", "the last good one holds");
    node.write("z.yaml", &config("slow"));
    node.pods("z.yaml");
    node.write("y.yaml", &config("other"));
    assert!(matches!(
        &node.scan()[..],
        [Change::Pods { .. }, Change::Bad { .. }] | [Change::Pods { .. }, Change::Pods { .. }, Change::Bad { .. }]
    ));
}

#[test]
fn a_pod_of_two_files_stays_with_the_one_that_has_it() {
    let mut node = Node::new();
    node.write("b.yaml", &web("a", "i:1"));
    node.pods("b.yaml");
    node.write("a.yaml", &web("a", "i:2"));
    assert!(node.problems("a.yaml").contains("pod default/a is in"));
    node.folder = Folder::new(node.place.path());
    let changes = node.scan();
    assert!(matches!(&changes[..], [Change::Bad { .. }, Change::Pods { .. }, Change::Files(_)]), "{changes:#?}");
    fs::remove_file(node.path("b.yaml")).unwrap();
    let changes = node.scan();
    assert!(matches!(&changes[..], [Change::Pods { .. }, ..]), "{changes:#?}");
    node.scan();
    assert_eq!(node.store.borrow().len(), 1);
}

#[test]
fn a_folder_that_cannot_be_read_removes_nothing() {
    let mut node = Node::new();
    node.write("a.yaml", &web("a", "i:1"));
    node.pods("a.yaml");
    let aside = node.place.path().with_extension("aside");
    fs::rename(node.place.path(), &aside).unwrap();
    let changes = node.scan();
    assert!(matches!(&changes[..], [Change::Bad { file, .. }] if file == node.place.path()), "{changes:#?}");
    assert_eq!(node.scan(), [], "told once");
    fs::rename(&aside, node.place.path()).unwrap();
    assert_eq!(node.scan(), [], "all as before");
}

#[test]
fn a_file_that_is_being_written_waits() {
    let mut node = Node::new();
    node.write("a.yaml", &web("a", "i:1"));
    node.pods("a.yaml");
    fs::write(node.path("a.yaml"), "").unwrap();
    let busy = BTreeSet::from([node.path("a.yaml")]);
    let known = |_: &Key, _: &Source| Some("x".to_owned());
    let changes = node.folder.scan(&crate::manifest::fuzzing::node(), &known, &busy);
    assert!(
        !changes.iter().any(|change| matches!(change, Change::Pods { pods, .. } if pods.is_empty())),
        "{changes:#?}"
    );
}
