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

use super::handle::Handle;

/// What is kept of a session's past: `refresh_token_hash_2`, the hash of the hash of the refresh token that was current.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin(String);

impl Origin {
    /// Reads it: 64 hexadecimal digits.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let digits = text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        digits.then(|| Self(text.to_owned()))
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
    digest::digest(&digest::SHA256, text.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
