//! On a made-up file system, as no machine of the tests has resctrl: a folder with the files that the kernel's has.

use std::fs;

use serde_json::json;
use tempfile::TempDir;

use super::{Allocation, Group, IntelRdt, Resctrl, compile};
use crate::{Kind, Result};

struct Machine {
    folder: TempDir,
}

impl Machine {
    fn new() -> Self {
        let machine = Self { folder: tempfile::tempdir().unwrap() };
        machine.write("info/L3/cbm_mask", "fffff\n");
        machine.write("info/L3/min_cbm_bits", "2\n");
        machine.write("info/L3/num_closids", "16\n");
        machine.write("info/MB/bandwidth_gran", "10\n");
        machine.write("info/MB/delay_linear", "1\n");
        machine.write("info/MB/min_bandwidth", "10\n");
        machine.write("info/MB/num_closids", "8\n");
        machine.write("info/last_cmd_status", "ok\n");
        machine.write("schemata", "    L3:0=fffff;1=fffff\n    MB:0=100;1=100\n");
        machine
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.folder.path().join(path)).unwrap_or_else(|error| error.to_string())
    }

    fn has(&self, path: &str) -> bool {
        self.folder.path().join(path).exists()
    }

    /// The kernel's own files go with their folder.
    fn forget_files(&self, path: &str) {
        for file in ["tasks", "schemata"] {
            let _ = fs::remove_file(self.folder.path().join(path).join(file));
        }
    }

    fn resctrl(&self) -> Resctrl {
        Resctrl { root: self.folder.path().into() }
    }

    fn compile(&self, config: serde_json::Value) -> Result<Allocation> {
        compile(&serde_json::from_value(config).unwrap(), "c1", Some(self.resctrl()))
    }

    fn made(&self, config: serde_json::Value) -> Group {
        let allocation = self.compile(config).unwrap();
        let group = allocation.place();
        allocation.make(4711).unwrap();
        group
    }
}

#[test]
fn a_class_of_its_own_comes_and_goes_with_the_container() {
    let machine = Machine::new();
    let group = machine.made(json!({"l3CacheSchema": "L3:0=f", "memBwSchema": "MB:0=20", "schemata": ["L2:0=3"]}));
    assert_eq!(machine.read("c1/tasks"), "4711");
    assert_eq!(machine.read("c1/schemata"), "L3:0=f\nMB:0=20\nL2:0=3\n");
    group.add(12).unwrap();
    assert_eq!(machine.read("c1/tasks"), "12");
    machine.forget_files("c1");
    group.remove().unwrap();
    assert!(!machine.has("c1"));
    group.remove().unwrap();
}

#[test]
fn a_class_that_is_named_is_shared_and_stays() {
    let machine = Machine::new();
    let group = machine.made(json!({"closID": "gold", "schemata": ["L3:0=ff"]}));
    assert_eq!((machine.read("gold/tasks"), machine.read("gold/schemata")), ("4711".into(), "L3:0=ff\n".into()));
    machine.forget_files("gold");
    group.remove().unwrap();
    assert!(machine.has("gold"));
    // Without schemata it must be there.
    let missing = machine.compile(json!({"closID": "silver"})).unwrap();
    let error = missing.make(1).unwrap_err().to_string();
    assert!(error.contains("silver does not exist"), "{error}");
    assert!(!machine.has("silver"));
    machine.made(json!({"closID": "gold"}));
    assert!(!machine.has("gold/schemata"), "nothing is written that is not asked for");
    // Somebody made a folder of the container's name: it is not the container's.
    machine.write("c1/schemata", "x");
    let group = machine.made(json!({"l3CacheSchema": "L3:0=f"}));
    machine.forget_files("c1");
    group.remove().unwrap();
    assert!(machine.has("c1"));
}

#[test]
fn the_root_class() {
    let machine = Machine::new();
    let group = machine.made(json!({"closID": "/"}));
    assert_eq!(machine.read("tasks"), "4711");
    group.remove().unwrap();
    assert!(machine.has("info"));
}

#[test]
fn monitoring_groups_go_with_the_container_whatever_the_class() {
    let machine = Machine::new();
    fs::create_dir_all(machine.folder.path().join("gold/mon_groups")).unwrap();
    let group = machine.made(json!({"closID": "gold", "enableMonitoring": true}));
    assert_eq!(machine.read("gold/mon_groups/c1/tasks"), "4711");
    assert_eq!(machine.read("gold/tasks"), "4711");
    machine.forget_files("gold/mon_groups/c1");
    group.remove().unwrap();
    assert!(machine.has("gold/mon_groups") && !machine.has("gold/mon_groups/c1"));
}

#[test]
fn what_cannot_be_is_refused_with_the_field() {
    let machine = Machine::new();
    for wrong in [".", "..", "a/b", "/a"] {
        let error = machine.compile(json!({"closID": wrong})).unwrap_err();
        assert!(error.kind() == Kind::Invalid && error.to_string().contains("linux.intelRdt.closID"), "{error}");
    }
    fs::remove_dir_all(machine.folder.path().join("info/MB")).unwrap();
    let error = machine.compile(json!({"memBwSchema": "MB:0=20"})).unwrap_err();
    assert!(error.to_string().contains("linux.intelRdt.memBwSchema: Intel RDT/MBA is not enabled"), "{error}");
    let error = compile(&serde_json::from_value(json!({})).unwrap(), "c1", None).unwrap_err();
    assert!(error.kind() == Kind::Unsupported && error.to_string().contains("mount -t resctrl"), "{error}");
    // What the kernel says of a refusal is told.
    machine.write("info/last_cmd_status", "mask f1 has non-consecutive 1-bits\n");
    machine.write("bad/schemata/is-a-folder", "");
    let error = machine.compile(json!({"closID": "bad", "schemata": ["L3:0=f1"]})).unwrap().make(1).unwrap_err();
    assert!(error.to_string().contains("non-consecutive"), "{error}");
}

#[test]
fn schemata_of_a_running_container() {
    let machine = Machine::new();
    let group = machine.made(json!({"l3CacheSchema": "L3:0=f"}));
    group.set(Some("L3:0=ff"), None).unwrap();
    assert_eq!(machine.read("c1/schemata"), "L3:0=ff\n");
    group.set(Some("L3:0=1"), Some("MB:0=30")).unwrap();
    assert_eq!(machine.read("c1/schemata"), "L3:0=1\nMB:0=30\n");
    fs::remove_dir_all(machine.folder.path().join("info/L3")).unwrap();
    let error = group.set(Some("L3:0=1"), None).unwrap_err().to_string();
    assert_eq!(error, "Intel RDT/CAT: l3 cache schema is not enabled");
}

#[test]
fn what_events_tells() {
    let machine = Machine::new();
    machine.write("info/L3_MON/mon_features", "llc_occupancy\nmbm_total_bytes\nmbm_local_bytes\n");
    let group = machine.made(json!({"l3CacheSchema": "L3:0=f", "memBwSchema": "MB:0=20"}));
    machine.write("c1/mon_data/mon_L3_00/llc_occupancy", "123\n");
    machine.write("c1/mon_data/mon_L3_00/mbm_total_bytes", "456\n");
    machine.write("c1/mon_data/mon_L3_01/llc_occupancy", "Unavailable\n");
    let stats = serde_json::to_value(group.stats()).unwrap();
    let expected = json!({
        "l3_cache_info": {"cbm_mask": "fffff", "min_cbm_bits": 2, "num_closids": 16},
        "l3_cache_schema_root": "L3:0=fffff;1=fffff", "l3_cache_schema": "L3:0=f",
        "mem_bw_info": {"bandwidth_gran": 10, "delay_linear": 1, "min_bandwidth": 10, "num_closids": 8},
        "mem_bw_schema_root": "MB:0=100;1=100", "mem_bw_schema": "MB:0=20",
        "schemata": ["L3:0=f", "MB:0=20"],
        "mbm_stats": [{"mbm_total_bytes": 456, "mbm_local_bytes": 0}, {"mbm_total_bytes": 0, "mbm_local_bytes": 0}],
        "cmt_stats": [{"llc_occupancy": 123}, {"llc_occupancy": 0}],
    });
    assert_eq!(stats, expected);
    assert_eq!(serde_json::to_value(IntelRdt::default()).unwrap(), json!({}));
}
