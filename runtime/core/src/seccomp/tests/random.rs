//! Argument checks: every operator at every boundary, and random profiles.

use super::*;
use crate::mutation::Random;
use crate::seccomp::judge;
use std::fmt::Write;

const OPERATORS: [&str; 7] = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"];

impl Random {
    fn value(&mut self) -> u64 {
        let value = *self.pick(&BOUNDARIES);
        if self.below(3) == 0 { value.wrapping_add(self.below(5) as u64).wrapping_sub(2) } else { value }
    }

    fn condition(&mut self, index: usize) -> String {
        format!(
            r#"{{"index": {index}, "value": {}, "valueTwo": {}, "op": "SCMP_CMP_{}"}}"#,
            self.value(),
            self.value(),
            self.pick(&OPERATORS)
        )
    }

    /// Rules on a few calls, some with conditions, all with `actions`.
    fn profile(&mut self, actions: &[&str]) -> String {
        let names = ["read", "ioctl", "socket", "shmat", "clone", "openat2", "stat64", "no_such_call"];
        let architectures = [
            "",
            r#""architectures": ["SCMP_ARCH_X86"],"#,
            r#""architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],"#,
        ];
        let mut rules = String::new();
        for at in 0..=self.below(6) {
            let conditions: Vec<_> = match self.below(8) {
                0 => Vec::new(),
                // Now and then an argument twice.
                1 => (0..2).map(|_| self.condition(1)).collect(),
                _ => {
                    let some = 1 + self.below(62);
                    (0..6).filter(|index| some >> index & 1 == 1).map(|index| self.condition(index)).take(3).collect()
                }
            };
            let comma = if at == 0 { "" } else { "," };
            let (name, action) = (self.pick(&names), self.pick(actions));
            let conditions = conditions.join(",");
            write!(rules, r#"{comma}{{"names": ["{name}"], "action": "SCMP_ACT_{action}", "args": [{conditions}]}}"#)
                .expect("a string takes all");
        }
        let default = self.pick(&["KILL_PROCESS", "TRACE"]);
        let architectures = self.pick(&architectures);
        format!(r#"{{"defaultAction": "SCMP_ACT_{default}", {architectures} "syscalls": [{rules}]}}"#)
    }

    fn arguments(&mut self) -> [u64; 6] {
        // Sometimes all the same, so that several conditions hold at once.
        let value = self.value();
        let same = self.below(3) == 0;
        std::array::from_fn(|_| if same { value } else { self.value() })
    }
}

/// The calls of `Random::profile` on each ABI, with the multiplexers.
const CALLS: [(u32, u32); 22] = [
    (X86_64, 0),
    (X86_64, 16),
    (X86_64, 41),
    (X86_64, 30),
    (X86_64, 56),
    (X86_64, 437),
    (X86_64, 438),
    (X86_64, 5),
    (X86, 3),
    (X86, 54),
    (X86, 359),
    (X86, 102),
    (X86, 117),
    (X86, 397),
    (X86, 120),
    (X86, 437),
    (X86, 195),
    (X86_64, X32_BIT),
    (X86_64, X32_BIT | 514),
    (X86_64, X32_BIT | 16),
    (X86_64, X32_BIT | 41),
    (X86_64, X32_BIT | 56),
];

#[test]
fn every_operator_is_right_at_every_boundary() {
    for operator in OPERATORS {
        for value in BOUNDARIES {
            for second in [0, 1, 0xffff_ffff, 1 << 32, u64::MAX] {
                let spec = spec(&format!(
                    r#"{{"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86"],
                        "syscalls": [{{"names": ["ioctl"], "action": "SCMP_ACT_ALLOW", "args": [
                        {{"index": 2, "value": {value}, "valueTwo": {second}, "op": "SCMP_CMP_{operator}"}}]}}]}}"#
                ));
                let (filter, oracle) = (compiled(&spec), Oracle::new(&spec).expect("libseccomp takes it"));
                for argument in BOUNDARIES {
                    let holds = match operator {
                        "NE" => argument != value,
                        "LT" => argument < value,
                        "LE" => argument <= value,
                        "EQ" => argument == value,
                        "GE" => argument >= value,
                        "GT" => argument > value,
                        _ => argument & value == second & value,
                    };
                    let wide = call(X86_64, 16, &[0, 0, argument]);
                    let result = interpreter::run(&filter.program, &wide).0;
                    assert_eq!(result == ALLOW, holds, "{argument:#x} {operator} {value:#x} {second:#x}");
                    assert_same(&filter, &oracle, &wide, &spec);
                    assert_same(&filter, &oracle, &call(X86, 54, &[0, 0, argument]), &spec);
                }
                if operator != "MASKED_EQ" {
                    break;
                }
            }
        }
    }
}

/// What the documented semantics say for one profile of `Random::profile` on a 64-bit or 32-bit ABI, straight from
/// the bundle: whether a rule on `name` matches.
fn reference(spec: &LinuxSeccomp, name: &str, wide: bool, arguments: &[u64; 6]) -> bool {
    let mut blocks = spec.syscalls().iter().flatten().filter(|block| block.names().iter().any(|known| known == name));
    blocks.any(|block| judge::matches(block, wide, arguments))
}

/// Profiles with one action: whether a call gets it is a matter of logic, and the order of rules is none.
#[test]
fn random_profiles_mean_what_the_bundle_says() {
    let mut random = Random(3);
    for _ in 0..400 {
        let spec = spec(&random.profile(&["ERRNO"]));
        let filter = compiled(&spec);
        for (architecture, number, name) in
            [(X86_64, 16, "ioctl"), (X86_64, 56, "clone"), (X86_64, 41, "socket"), (X86_64, 0, "read")]
        {
            for _ in 0..40 {
                let call = call(architecture, number, &random.arguments());
                let matches = reference(&spec, name, true, &call.arguments);
                let result = interpreter::run(&filter.program, &call).0;
                assert_eq!(
                    result == ERRNO | 1,
                    matches,
                    "{call:x?} {}",
                    serde_json::to_string(&spec).unwrap_or_default()
                );
            }
        }
    }
}

/// How many of our results differ from runc's: refused profiles, compared calls, different results.
fn differences(
    random: &mut Random,
    count: usize,
    profile: impl Fn(&mut Random) -> String,
) -> (usize, usize, Vec<String>) {
    let (mut refused, mut compared, mut different) = (0, 0, Vec::new());
    for _ in 0..count {
        let spec = spec(&profile(random));
        let filter = compiled(&spec);
        let Some(oracle) = Oracle::new(&spec) else {
            refused += 1;
            continue;
        };
        for (architecture, number) in CALLS {
            for _ in 0..12 {
                let call = call(architecture, number, &random.arguments());
                let (ours, theirs) = (interpreter::run(&filter.program, &call).0, oracle.run(&call));
                compared += 1;
                if ours != theirs {
                    let json = serde_json::to_string(&spec).unwrap_or_default();
                    different.push(format!("ours {ours:#x} theirs {theirs:#x} {call:x?} {json}"));
                }
            }
        }
    }
    (refused, compared, different)
}

/// libseccomp merges the conditions of several rules on one call into a tree and now and then loses or invents a
/// match (`random_profiles_mean_what_the_bundle_says` shows that these errors are not ours). Apart from them the
/// results, and so the order of rules with different actions, are the same.
#[test]
fn random_profiles_agree_with_runc() {
    for actions in [&["ERRNO"][..], &["ERRNO", "LOG", "TRAP"]] {
        let (refused, compared, different) = differences(&mut Random(1), 600, |random| random.profile(actions));
        println!("{actions:?}: {refused} refused, {compared} compared, {} different", different.len());
        assert!(refused < 20 && different.len() * 400 < compared, "{}", different.join("\n"));
    }
}

#[test]
fn single_rules_agree_with_runc_exactly() {
    let profile = |random: &mut Random| {
        let rules = ["ioctl", "clone", "read", "openat2"].map(|name| {
            let some = 1 + random.below(62);
            let conditions: Vec<_> =
                (0..6).filter(|index| some >> index & 1 == 1).map(|index| random.condition(index)).collect();
            format!(r#"{{"names": ["{name}"], "action": "SCMP_ACT_LOG", "args": [{}]}}"#, conditions.join(","))
        });
        format!(r#"{{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{}]}}"#, rules.join(","))
    };
    let (refused, compared, different) = differences(&mut Random(2), 600, profile);
    println!("single rules: {refused} refused, {compared} compared, {} different", different.len());
    assert!(refused == 0 && different.is_empty(), "{}", different.join("\n"));
}
