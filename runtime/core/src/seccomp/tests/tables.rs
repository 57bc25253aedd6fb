//! Our syscall tables against libseccomp's.

use crate::seccomp::abi;
use crate::seccomp::oracle::architecture;
use libseccomp::ScmpSyscall;
use oci_spec::runtime::Arch;

const ARCHITECTURES: [Arch; 7] = [
    Arch::ScmpArchX86_64,
    Arch::ScmpArchX86,
    Arch::ScmpArchX32,
    Arch::ScmpArchAarch64,
    Arch::ScmpArchArm,
    Arch::ScmpArchRiscv64,
    Arch::ScmpArchPpc64le,
];

#[test]
fn numbers_agree_with_libseccomp() {
    let names: std::collections::BTreeSet<_> = abi::families(&ARCHITECTURES, &mut Vec::new())
        .into_iter()
        .flatten()
        .flat_map(|abi| (abi.calls)())
        .map(|(_, name)| name)
        .collect();
    let mut wrong = Vec::new();
    let mut compared = 0;
    for abi in abi::families(&ARCHITECTURES, &mut Vec::new()).into_iter().flatten() {
        let ours: std::collections::BTreeMap<_, _> =
            (abi.calls)().into_iter().map(|(number, name)| (name, number)).collect();
        for name in &names {
            let Ok(theirs) = ScmpSyscall::from_name_by_arch(name, architecture(abi.architecture())) else {
                continue;
            };
            // Negative: not on this architecture, or hidden behind a multiplexer.
            let theirs = u32::try_from(theirs.as_raw_syscall()).ok();
            if theirs.is_none() && (abi.multiplexers.is_some() && abi::multiplexed(name).is_some()) {
                continue;
            }
            compared += 1;
            if ours.get(name).copied() != theirs {
                wrong.push(format!(
                    "{} {name}: ours {:?}, libseccomp's {theirs:?}",
                    abi.architecture(),
                    ours.get(name)
                ));
            }
        }
    }
    assert!(compared > 2000, "{compared}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
