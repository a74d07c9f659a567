//! Plays seeds of the simulator: `REKINDLE_FULL=1` many more, `REKINDLE_SEED=n` one, with every step printed.

use rekindle_testkit::simulation::{Counts, Variant, run};

/// Seeds that fail when something is taken away from the engine, and what; the last one for its story. They always run.
const KEPT: &[(u64, &str)] = &[
    (92, "a bulk ending without an answer, repeated, then lost by the store: the log is completed from the feed"),
    (410, "an ending that the store lost: online verify asks the revocation log"),
    (454, "an ending that the store lost during a refresh: the log is asked again before the answer"),
    (10322, "an ending that the store lost when the feed no longer told it: the log alone holds it"),
    (17630, "the store lost the first signing key before it was used: the store's failure, and the client repeats"),
    (18037, "a login that arrives after four later ones: the browser still has its opening"),
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
fn kept_seeds_pass() {
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

#[test]
fn a_client_that_gives_up_without_signing_out_is_caught() {
    assert!(caught(Variant::GivesUpSilently, 400).starts_with("property 2"));
}

#[test]
fn a_log_that_is_not_completed_from_the_feed_is_caught() {
    assert!(caught(Variant::SilentFeed, 400).starts_with("property 4"));
}
