//! A kernel that is too old: `cargo xtask vm --kernel bullseye --test vm_kernel` has Linux 5.10.

use integration_tests::{Case, skip, under_test_only};

/// Major and minor number of the running kernel.
fn version() -> (u32, u32) {
    let text = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("the kernel's release");
    let mut numbers = text.split(|character: char| !character.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// The error says which kernel it would take, and nothing is left behind.
#[test]
fn an_old_kernel_is_told() {
    if version() >= (5, 12) {
        skip("needs a kernel before 5.12 (cargo xtask vm --kernel bullseye --test vm_kernel)");
        return;
    }
    let Some([runtime]) = under_test_only("runc works on 5.10") else { return };
    let case = Case::new(&runtime);
    let output = case.run(&case.bundle());
    assert_ne!(output.code, 0);
    assert!(output.stderr.contains("flint needs Linux 5.12 or newer"), "{}", output.stderr);
    assert!(output.stderr.contains("this is Linux 5."), "{}", output.stderr);
    assert_eq!(output.error_lines().len(), 1, "{}", output.stderr);
    case.finish();
}
