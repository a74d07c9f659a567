//! Plays seeds of the simulator: `REKINDLE_FULL=1` many more, `REKINDLE_SEED=n` one, with every step printed.

use rekindle_testkit::simulation::{Counts, Variant, run};

/// Seeds that once failed, and why. They always run.
const KEPT: &[(u64, &str)] = &[
    (2, "a refresh asked the revocation log, then the store lost the ending, then the refresh advanced"),
    (77, "an operator's ending without an answer, repeated as another ending, then lost"),
    (325, "a late cookie, and a store that lost as many generations as openings are kept for"),
    (473, "the log was asked before the first write only"),
    (492, "online verify did not ask the revocation log"),
];

fn play(seeds: impl Iterator<Item = u64>) -> Counts {
    let (mut counts, mut violations) = (Counts::default(), Vec::new());
    for seed in seeds {
        match run(seed, Variant::Sound, false) {
            Ok(of_seed) => counts.add(&of_seed),
            Err(violation) => {
                eprintln!("seed {seed}: {}", violation.what);
                violations.push(violation);
            }
        }
    }
    if let [first, rest @ ..] = &violations[..] {
        let rest: Vec<String> = rest.iter().map(|v| format!("\nalso seed {}: {}", v.seed, v.what)).collect();
        panic!("{first}\nREKINDLE_SEED={} replays it{}", first.seed, rest.concat());
    }
    counts
}

#[test]
fn every_promise_holds_on_every_seed() {
    if let Ok(seed) = std::env::var("REKINDLE_SEED") {
        let seed = seed.parse().expect("REKINDLE_SEED is a number");
        match run(seed, Variant::Sound, true) {
            Ok(counts) => println!("{counts}"),
            Err(violation) => panic!("{}", violation.what),
        }
        return;
    }
    let seeds = if std::env::var_os("REKINDLE_FULL").is_some() { 20_000 } else { 500 };
    println!("{}", play(0..seeds));
}

#[test]
fn seeds_that_once_failed_pass() {
    println!("{}", play(KEPT.iter().map(|(seed, _)| *seed)));
}

#[test]
fn a_seed_always_tells_the_same_story() {
    for seed in 0..5 {
        assert_eq!(run(seed, Variant::Sound, false).unwrap(), run(seed, Variant::Sound, false).unwrap());
    }
}

/// The first seed on which a broken variant is caught.
fn caught(variant: Variant, within: u64) -> String {
    let found = (0..within).find_map(|seed| run(seed, variant, false).err());
    let violation = found.unwrap_or_else(|| panic!("{variant:?} was not caught within {within} seeds"));
    println!("{variant:?}: seed {}: {}", violation.seed, violation.what);
    violation.what
}

#[test]
fn an_opening_sent_before_it_is_durable_is_caught() {
    assert!(caught(Variant::UndurableOpenings, 200).starts_with("property 1"));
}

#[test]
fn a_missing_revocation_log_is_caught() {
    assert!(caught(Variant::NoRevocationLog, 200).starts_with("property 4"));
}

#[test]
fn a_revocation_log_that_other_servers_cannot_read_is_caught() {
    assert!(caught(Variant::LogPerServer, 400).starts_with("property 4"));
}

#[test]
fn a_blind_update_is_caught() {
    assert!(caught(Variant::BlindAdvance, 200).starts_with("property"));
}

#[test]
fn a_confirmation_at_any_generation_is_caught() {
    assert!(caught(Variant::ConfirmAnyGeneration, 400).starts_with("property 1"));
}
