//! A lifetime that is accepted is within its bounds and is written as seconds that give the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rekindle::definition::Lifetime;

fuzz_target!(|text: &str| {
    let Ok(lifetime) = serde_json::from_str::<Lifetime>(text) else { return };
    assert!((Lifetime::MIN..=Lifetime::MAX).contains(&lifetime));
    let written = serde_json::to_string(&lifetime).expect("seconds are JSON");
    assert_eq!(serde_json::from_str::<Lifetime>(&written).expect("seconds are a lifetime"), lifetime);
});
