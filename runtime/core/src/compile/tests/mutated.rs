//! Damaged configs: refused with a sentence, or compiled to the same plan each time.

use crate::compile::damaged;
use crate::fuzzing::{Verdict, corpus};
use crate::mutation::{Random, runs, seed};

#[test]
fn damaged_configs_are_refused_or_give_one_plan() {
    let seeds = damaged::seeds();
    for seed in &seeds {
        let json = seed.to_string().into_bytes();
        assert_eq!(damaged::check(&json), Verdict::Taken, "no host takes the undamaged config");
    }
    let (mut random, runs) = (Random(seed()), runs());
    let (mut planned, mut refused) = (0, 0);
    for _ in 0..runs {
        match damaged::check(&random.document(&seeds)) {
            Verdict::Taken => planned += 1,
            Verdict::Refused => refused += 1,
        }
    }
    println!("{runs} configs: {planned} planned, {refused} refused");
    assert!(
        planned > runs / 20 && refused > runs / 20,
        "the inputs show nothing: {planned} planned, {refused} refused"
    );
}

#[test]
fn configs_of_the_corpus_are_refused_or_give_one_plan() {
    for json in corpus("config_to_plan") {
        damaged::check(&json);
    }
}
