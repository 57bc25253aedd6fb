//! The check passes what is good and catches what is not, class by class, in programs built as flint is.
#![cfg(target_arch = "x86_64")]
#![forbid(unsafe_code)]

mod dist;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use iced_x86::{Decoder, DecoderOptions, Register};
use init_object::{ENTRIES, Report, check};
use object::{Object, ObjectSection};

fn spawner() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| dist::build("init-object-fixtures", "spawner"))
}

fn offenders() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| std::fs::read(dist::build("init-object-fixtures", "offenders")).unwrap())
}

fn offender(name: &str) -> Report {
    check(offenders(), &[&format!("offenders::{name}")]).unwrap()
}

/// The function is caught, and for this reason.
fn caught(name: &str, reason: &str) {
    let report = offender(name);
    let findings: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    assert!(findings.iter().any(|finding| finding.contains(reason)), "{name}, {reason}: {findings:#?}");
}

#[test]
fn a_real_init_side_passes_and_works() {
    let report = check(&std::fs::read(spawner()).unwrap(), &ENTRIES).unwrap();
    let findings: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    assert!(findings.is_empty(), "{}", findings.join("\n"));
    let names: BTreeSet<&str> = report.functions.iter().map(|it| it.name.as_str()).collect();
    assert!(ENTRIES.iter().all(|entry| names.iter().any(|name| name.starts_with(entry))), "{names:?}");
    assert!(report.instructions() > 3000 && report.functions.iter().any(|it| it.tables > 0), "{report}");
    let executed = |program: &str| Command::new(spawner()).arg(program).status().unwrap().success();
    assert!(executed("true"));
    assert!(!executed("/nonexistent"));
}

/// There its jump tables hold offsets.
#[test]
fn a_position_independent_init_side_passes_too() {
    let program = dist::build_position_independent("init-object-fixtures", "spawner");
    let report = check(&std::fs::read(program).unwrap(), &ENTRIES).unwrap();
    let findings: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    assert!(findings.is_empty(), "{}", findings.join("\n"));
    assert!(report.functions.iter().any(|it| it.tables > 0), "{report}");
}

#[test]
fn what_init_may_do_is_no_finding() {
    for name in ["harmless", "switches"] {
        let report = offender(name);
        assert!(report.findings.is_empty(), "{:#?}", report.findings);
    }
    let names: Vec<String> = offender("harmless").functions.into_iter().map(|it| it.name).collect();
    assert!(names.iter().any(|name| name.contains("memset")), "{names:?}");
    assert_eq!(offender("switches").functions[0].tables, 1);
}

#[test]
fn allocators_are_caught() {
    caught("allocates", "is an allocator");
}

#[test]
fn panics_are_caught() {
    for name in ["indexes", "slices", "unwraps", "prints"] {
        caught(name, "is panic machinery");
    }
}

#[test]
fn std_alloc_libc_and_other_crates_are_caught() {
    caught("prints", "is of std");
    caught("aborts", "is of std");
    caught("allocates", "is of alloc");
    caught("asks_libc", "getpid is a function of libc");
    caught("calls_another_crate", "is of the crate offenders");
}

#[test]
fn indirect_calls_and_jumps_are_caught() {
    caught("calls_pointer", "an indirect call");
    caught("calls_object", "an indirect");
    caught("jumps_to_pointer", "an indirect jump that is no jump table");
    caught("jumps_by_table_of_functions", "an indirect jump that is no jump table");
}

#[test]
fn thread_local_storage_is_caught() {
    caught("keeps_thread_local", "thread-local storage");
}

#[test]
fn the_chain_leads_from_spawn_to_the_fault() {
    let report = check(offenders(), &["flint_sys::process::spawn"]).unwrap();
    let chain = &report.findings.first().expect("a finding").chain;
    assert!(chain.first().unwrap().starts_with("flint_sys::process::spawn"), "{chain:?}");
    assert_eq!(chain.last().unwrap(), "offenders::allocates_in_child");
}

#[test]
fn a_program_without_an_entry_is_not_passed() {
    for entry in ENTRIES.iter().filter(|it| it.starts_with("flint_init")) {
        let error = check(offenders(), &[entry]).unwrap_err().to_string();
        assert!(error.contains(entry), "{error}");
    }
    assert!(check(b"#!/bin/sh", &ENTRIES).is_err());
    assert!(check(&[], &ENTRIES).is_err());
}

/// A jump table with one entry that leads elsewhere, be it the first, a middle one or the last.
#[test]
fn a_jump_table_that_leads_elsewhere_is_caught() {
    const ENTRIES_OF_SWITCHES: usize = 6;
    let place = table_of("switches");
    for entry in 0..ENTRIES_OF_SWITCHES {
        let mut changed = offenders().to_vec();
        let at = place + entry * 8;
        let target = u64::from_le_bytes(changed[at..at + 8].try_into().unwrap());
        changed[at..at + 8].copy_from_slice(&(target - 0x1000).to_le_bytes());
        let report = check(&changed, &["offenders::switches"]).unwrap();
        assert!(!report.findings.is_empty(), "entry {entry} was changed and not noticed");
    }
}

/// Where in the file the first jump table of the function is.
fn table_of(name: &str) -> usize {
    let address = offender(name).functions[0].address;
    let file = object::read::elf::ElfFile64::<object::Endianness>::parse(offenders()).unwrap();
    let text = file.sections().find(|it| it.name() == Ok(".text")).unwrap();
    let code = &text.data().unwrap()[(address - text.address()) as usize..];
    let mut decoder = Decoder::with_ip(64, code, address, DecoderOptions::NONE);
    let table = decoder.iter().find(|it| it.memory_index() != Register::None && it.memory_index_scale() == 8).unwrap();
    let table = table.memory_displacement64();
    let section = file.sections().find(|it| (it.address()..it.address() + it.size()).contains(&table)).unwrap();
    (section.file_range().unwrap().0 + table - section.address()) as usize
}
