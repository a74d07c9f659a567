//! No text is an authentic refresh token but one that the secret issued, and that is issued again as the same text.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use rekindle::refresh::SecretRing;

static SECRETS: LazyLock<SecretRing> =
    LazyLock::new(|| SecretRing::parse("1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8").expect("a good secret"));

fuzz_target!(|text: &str| {
    if let Ok(presented) = SECRETS.authenticate(text) {
        let issued = SECRETS.issue(presented.session, &presented.position).expect("its secret is there");
        assert_eq!(issued.expose(), text);
    }
});
