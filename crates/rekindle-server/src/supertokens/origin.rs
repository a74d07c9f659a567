//! Tokens of the core that sessions were imported from. Pure: they are opened with its key, and told from each other by what is kept of a
//! session's past there.
//!
//! A refresh token there is `<base64(iv, AES-256-GCM of JSON)>.<nonce>.V2`, its key PBKDF2-HMAC-SHA512 of the core's and the iv. An
//! imported session begins at [`Engine::IMPORTED_AT`]: that generation stands for the token that was current there, the next one for
//! those that it had handed out and not seen used, the one before for all older ones.

use std::num::NonZeroU32;

use aws_lc_rs::{aead, digest, pbkdf2};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use rekindle::engine::Engine;
use serde::Deserialize;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use super::{
    handle::Handle,
    lineage::{hex, unhex},
};

/// What is kept of a session's past: `refresh_token_hash_2`, the hash of the hash of the refresh token that was current.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin(String);

impl Origin {
    /// Reads it: 64 hexadecimal digits.
    pub(super) fn parse(text: &str) -> Option<Self> {
        unhex(text).map(|_| Self(text.to_owned()))
    }

    /// The digits.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// For which generation a refresh token with this hash, and whose parent has that one, stands.
    pub(super) fn generation(&self, hash: &str, parent_hash: Option<&str>) -> u32 {
        let is_current = |hash: &str| bool::from(sha256(hash).as_bytes().ct_eq(self.0.as_bytes()));
        if is_current(hash) {
            Engine::IMPORTED_AT
        } else if parent_hash.is_some_and(is_current) {
            Engine::IMPORTED_AT + 1
        } else {
            Engine::IMPORTED_AT - 1
        }
    }
}

/// The key with which the core sealed refresh tokens. It never prints itself.
pub(super) struct RefreshKey(Zeroizing<String>);

/// What a refresh token says that was sealed with the key.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Opened {
    /// Its session.
    pub(super) handle: Handle,
    /// The hash that its access tokens carry as `refreshTokenHash1`.
    pub(super) hash: String,
    /// That of the token that it was handed out for.
    pub(super) parent_hash: Option<String>,
    /// The anti-CSRF token that must come with it.
    pub(super) anti_csrf: Option<String>,
}

/// What is sealed.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sealed {
    session_handle: String,
    parent_refresh_token_hash1: Option<String>,
    nonce: String,
    anti_csrf_token: Option<String>,
}

/// The longest token that is looked at: a user id is sealed in it.
const MAX_TOKEN: usize = 4 << 10;

/// How the core derives a token's key.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(100).expect("not zero");

impl RefreshKey {
    /// A key as the core keeps it.
    pub(super) fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text. Handle it like a password.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }

    /// Opens a refresh token; nothing if it was not sealed with this key.
    pub(super) fn open(&self, token: &str) -> Option<Opened> {
        let (sealed, nonce) = parts(token)?;
        let mut sealed = BASE64_STANDARD.decode(sealed).ok()?;
        let (iv, text) = sealed.split_at_mut_checked(aead::NONCE_LEN)?;
        let mut key = Zeroizing::new([0; 32]);
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA512, ITERATIONS, iv, self.0.as_bytes(), &mut *key);
        let key = aead::LessSafeKey::new(aead::UnboundKey::new(&aead::AES_256_GCM, &*key).ok()?);
        let iv = aead::Nonce::try_assume_unique_for_key(iv).ok()?;
        let plain = key.open_in_place(iv, aead::Aad::empty(), text).ok()?;
        let said: Option<Sealed> = serde_json::from_slice(plain).ok();
        plain.zeroize();
        let Sealed { session_handle, parent_refresh_token_hash1: parent_hash, nonce: sealed_nonce, anti_csrf_token } =
            said?;
        let handle = session_handle.parse().ok()?;
        let genuine = bool::from(sealed_nonce.as_bytes().ct_eq(nonce.as_bytes()));
        genuine.then(|| Opened { handle, hash: sha256(token), parent_hash, anti_csrf: anti_csrf_token })
    }
}

/// Whether a text has the shape of such a refresh token.
pub(super) fn is_refresh_token(text: &str) -> bool {
    parts(text).is_some()
}

/// What is sealed and the nonce.
fn parts(token: &str) -> Option<(&str, &str)> {
    let (sealed, nonce) = token.strip_suffix(".V2").filter(|_| token.len() <= MAX_TOKEN)?.split_once('.')?;
    (!nonce.contains('.')).then_some((sealed, nonce))
}

/// SHA-256 in lower-case hexadecimal digits, of a text.
fn sha256(text: &str) -> String {
    let hash = digest::digest(&digest::SHA256, text.as_bytes());
    hex(hash.as_ref().try_into().expect("SHA-256 has 32 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // Made by another implementation of the description above: Node's crypto.
    const KEY: &str =
        "1000:0a1b2c3d4e5f60718293a4b5c6d7e8f9:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    const TOKEN: &str = "AAECAwQFBgcICQoLd1iuqrJorwCd+rUYEvWCI95Nc37vi/jvRgb5smZKGnf5uu7s7on/TAKxxZ77Ja44/fUn8cx88a74vRPsiEn65wzTSJfhRL3bGoDPle8sqdVXIgl/j/SqaDTnCEIqVLD8nW/wpevEIWWMDM22a7KrFsRWw9q7Y5qK5TvgfgAiLV8uuok4q8kuuqZOAym0QepMpUQutJqKpYv5XzCVc8xSLlQSv3Nunwmns9YgSgE8MqNtPGvPxX429lciRrv3EtPrlKNCV1aIXv2CvwDB9qgmJ+JNdtrDHCAp/F9FyDY0lBLxCEDmD+TSeqxjWChX0H278LI+saK2rg4VVUWD+nW+4KGMJY27OV1sykut+seTA6vyMSbsYAqXdNP7eF9U789yCh5f5ZKYZgPVV9N3M+TWO6xb+HnLKPDojUlFsDLPhz+LBbRYRCRfn0g=.5741c91db5139d8725ac08cb6caf13883a0aa600f08fe39918ecb08b58f69594.V2";
    const HASH: &str = "340a907525432e63c5ec7bf77eedd6b7e98dd9aeedbe668b8ee349052d3b063f";
    const HASH_2: &str = "8ae57cb4fafb8dd49531c8ac05b03e17c21d0e6a326f3289b09ea90c639d8c94";
    const PARENT: &str = "e47125968b3b71049fbc4802d1e40a71ea1359decfabacf70b34588037d4ff0c";
    const PARENT_2: &str = "d1f3022a1842a632de5fcae68a91c1222cb7019979e45ba11c29d1adac2970f1";

    fn key() -> RefreshKey {
        RefreshKey::new(KEY.to_owned())
    }

    #[test]
    fn a_token_of_the_core_is_opened_with_its_key() {
        let opened = key().open(TOKEN).unwrap();
        assert_eq!(
            opened,
            Opened {
                handle: "5f0c3a3e-2f53-4b0e-9a53-0c3b6a1b2c3d_t1".parse().unwrap(),
                hash: HASH.into(),
                parent_hash: Some(PARENT.into()),
                anti_csrf: Some("11111111-2222-4333-8444-555555555555".into()),
            }
        );
        assert_eq!(RefreshKey::new(format!("{KEY}0")).open(TOKEN), None);
    }

    #[test]
    fn what_is_kept_of_the_past_tells_the_present_token_from_its_children_and_from_older_ones() {
        let generation = |origin: &str, parent| Origin::parse(origin).unwrap().generation(HASH, parent);
        assert_eq!(generation(HASH_2, None), Engine::IMPORTED_AT);
        assert_eq!(generation(HASH_2, Some(PARENT)), Engine::IMPORTED_AT);
        assert_eq!(generation(PARENT_2, Some(PARENT)), Engine::IMPORTED_AT + 1);
        assert_eq!(generation(PARENT_2, None), Engine::IMPORTED_AT - 1);
        assert_eq!(generation(PARENT, Some(PARENT)), Engine::IMPORTED_AT - 1);
        assert_eq!(Origin::parse(&HASH.to_uppercase()), None);
        assert_eq!(Origin::parse(&HASH[1..]), None);
    }

    proptest! {
        #[test]
        fn a_damaged_token_is_none(at in 0..TOKEN.len(), by in 1..128_u8, cut in 0..TOKEN.len(), text in ".{0,200}(\\.V2)?") {
            let mut damaged = TOKEN.as_bytes().to_vec();
            damaged[at] ^= by;
            if let Ok(damaged) = String::from_utf8(damaged) {
                prop_assert_eq!(key().open(&damaged), None);
            }
            prop_assert_eq!(key().open(&TOKEN[..cut]), None);
            prop_assert_eq!(key().open(&text), None);
        }
    }
}
