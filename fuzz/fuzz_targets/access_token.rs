//! No text is a good access token of a key that signed nothing: as it is, and after the header that the key itself writes.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use rekindle::{
    access::{self, Expected},
    clock::Timestamp,
    keys::{Algorithm, KeyRing, KeySchedule, SigningKey},
    refresh::SecretRing,
    rng::Rng,
    session::Scope,
};

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

/// The same key in every run, so that an input that was found stays one.
struct Zeros;

impl Rng for Zeros {
    fn fill(&self, dest: &mut [u8]) {
        dest.fill(0);
    }
}

/// `{"alg":"EdDSA","kid":"AAAAAAAAAAAAAAAA","typ":"at+jwt"}`: what the key writes.
const HEADER: &str = "eyJhbGciOiJFZERTQSIsImtpZCI6IkFBQUFBQUFBQUFBQUFBQUEiLCJ0eXAiOiJhdCtqd3QifQ";

static RING: LazyLock<(Scope, KeyRing)> = LazyLock::new(|| {
    let secrets = SecretRing::parse("1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8").expect("a good secret");
    let scope = Scope { product: "shop".parse().expect("a tag"), env: "dev".parse().expect("a slug") };
    let key = SigningKey::generate(scope.clone(), Algorithm::EdDsa, NOW, NOW, &secrets, &Zeros);
    (scope.clone(), KeyRing::open(scope, vec![key], &secrets, KeySchedule::default()))
});

fuzz_target!(|input: &str| {
    let (scope, ring) = &*RING;
    let expected = Expected { scope, issuer: "https://shop.example", audience: "shop/dev", tag: None };
    assert!(access::verify(input, ring, &expected, NOW).is_err());
    assert!(access::verify(&format!("{HEADER}.{input}"), ring, &expected, NOW).is_err());
});
