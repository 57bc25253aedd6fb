//! The program, run by an interpreter of the instructions it is made of.

use super::*;
use crate::cgroup::devices;

/// Runs `program` for one request as the kernel would; `None` when it leaves the program or uses something unknown.
fn run(program: &[u64], kind: i32, access: u8, major: u32, minor: u32) -> Option<u64> {
    let context = [u32::from(access) << 16 | kind as u32, major, minor];
    let mut registers = [0u64; 6];
    let mut at = 0usize;
    #[allow(clippy::explicit_counter_loop, reason = "jumps change it, too")]
    for _ in 0..10_000 {
        let bytes = program.get(at)?.to_ne_bytes();
        let (destination, source) = ((bytes[1] & 15) as usize, (bytes[1] >> 4) as usize);
        let offset = i16::from_ne_bytes([bytes[2], bytes[3]]);
        let immediate = i32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
        let wide = i64::from(immediate) as u64;
        at += 1;
        let mut jump = |taken: bool| at = at.wrapping_add_signed(if taken { offset as isize } else { 0 });
        match bytes[0] {
            LDX_MEM_W => registers[destination] = u64::from(*context.get(offset as usize / 4)?),
            ALU32_AND_K => registers[destination] = u64::from(registers[destination] as u32 & immediate as u32),
            ALU32_RSH_K => registers[destination] = u64::from(registers[destination] as u32 >> immediate),
            ALU32_MOV_X => registers[destination] = u64::from(registers[source] as u32),
            ALU64_MOV_K => registers[destination] = wide,
            JMP_JEQ_K => jump(registers[destination] == wide),
            JMP_JNE_K => jump(registers[destination] != wide),
            JMP_EXIT => return Some(registers[0]),
            _ => return None,
        }
    }
    None
}

fn compiled(resources: &str) -> Vec<u64> {
    let text = format!(r#"{{"resources":{{"devices":{resources}}}}}"#);
    let linux: oci_spec::runtime::Linux = serde_json::from_str(&text).unwrap();
    program(&devices::rules(Some(&linux)).unwrap())
}

const R: u8 = 2;
const W: u8 = 4;
const M: u8 = 1;

#[test]
fn the_default_list() {
    let program = compiled("[]");
    let allowed = |kind, access, major, minor| run(&program, kind, access, major, minor) == Some(1);
    for minor in [3, 5, 7, 8, 9] {
        assert!(allowed(CHARACTER, R | W | M, 1, minor), "1:{minor}");
        assert!(!allowed(BLOCK, R, 1, minor), "a block device of the same number");
    }
    assert!(allowed(CHARACTER, R | W, 136, 77) && allowed(CHARACTER, R | W, 5, 2) && allowed(CHARACTER, R, 10, 200));
    assert!(allowed(CHARACTER, M, 9, 9) && allowed(BLOCK, M, 8, 0));
    assert!(!allowed(BLOCK, R, 8, 0) && !allowed(BLOCK, R | M, 8, 0) && !allowed(CHARACTER, W, 1, 1));
    assert!(!allowed(CHARACTER, R, 5, 1), "the host's console");
}

#[test]
fn the_last_rule_decides_each_access() {
    let program = compiled(
        r#"[{"allow":true,"type":"b","access":"rwm"},
            {"allow":false,"type":"b","major":8,"access":"w"},
            {"allow":true,"type":"b","major":8,"minor":1,"access":"w"},
            {"allow":false,"type":"b","major":9,"minor":0,"access":"rwm"},
            {"allow":true,"type":"b","major":9,"minor":0,"access":"r"}]"#,
    );
    let answer = |access, major, minor| run(&program, BLOCK, access, major, minor).unwrap();
    assert_eq!([answer(R, 8, 0), answer(W, 8, 0), answer(R | W, 8, 0)], [1, 0, 0]);
    assert_eq!([answer(R, 8, 1), answer(W, 8, 1), answer(R | W, 8, 1)], [1, 1, 1]);
    assert_eq!([answer(R, 9, 0), answer(W, 9, 0), answer(R | W, 9, 0)], [1, 0, 0]);
    assert_eq!(answer(R | W, 7, 0), 1);
    assert_eq!(run(&program, CHARACTER, R, 8, 1), Some(0));
}

#[test]
fn a_rule_for_everything_ends_the_program() {
    let program = compiled(r#"[{"allow":true,"access":"rwm"}]"#);
    assert_eq!(run(&program, BLOCK, R | W | M, 8, 0), Some(1));
    let program =
        compiled(r#"[{"allow":true,"access":"rwm"},{"allow":false,"type":"c","major":1,"minor":1,"access":"rw"}]"#);
    assert_eq!(run(&program, CHARACTER, R, 1, 1), Some(0));
    assert_eq!(run(&program, CHARACTER, M, 1, 1), Some(1));
    let program = compiled(r#"[{"allow":true,"access":"rwm"},{"allow":false,"access":"rwm"}]"#);
    assert_eq!(run(&program, BLOCK, R, 8, 0), Some(0));
}

#[test]
fn numbers_beyond_an_i32_match_nothing() {
    let program = compiled(r#"[{"allow":true,"type":"c","major":4294967295,"minor":3,"access":"rwm"}]"#);
    assert_eq!(run(&program, CHARACTER, R, 7, 3), Some(0));
}
