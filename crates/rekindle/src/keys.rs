//! The keys that sign access tokens, and the schedule by which they come and go.
//!
//! Each scope (product and environment) has its own keys, in [`Chain`]s: one per algorithm for Rekindle's own access tokens, and
//! those of a face that signs tokens of another format. A key is published in a JWKS before
//! it signs, and stays published until the last token that it can have signed has expired. [`KeySchedule::plan`] decides
//! that from times alone (`schedule.rs`); [`KeyRing`] carries it out on the keys that a store returned (`ring.rs`). The
//! algorithms themselves are in `pair.rs`.
//!
//! Servers on one store agree without talking to each other: each decides alone from the same records, and a store adds
//! a key only if the newest key of its scope and chain is still the one that the plan was made from
//! ([`Successor::after`]). Whoever loses that race reads again.

mod pair;
mod ring;
mod schedule;

use std::{fmt, str::FromStr, sync::Arc};

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use zeroize::Zeroizing;

use crate::clock::Timestamp;
use crate::refresh::SecretRing;
use crate::rng::{self, Rng};
use crate::session::{InvalidName, Scope};
use pair::Pair;

pub use ring::{InvalidJwks, Key, KeyRing, SignerKey, Successor, Upkeep, VerifierKey};
pub use schedule::{InvalidSchedule, KeySchedule, KeyTimes, MAX_ACCESS_LIFETIME, MAX_KEYS_AGE, Plan};

/// How access tokens are signed (the `alg` of RFC 7518 and RFC 8037).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub enum Algorithm {
    /// Ed25519: the fastest to sign, the smallest.
    #[default]
    #[serde(rename = "EdDSA")]
    EdDsa,
    /// ECDSA on P-256 with SHA-256.
    #[serde(rename = "ES256")]
    Es256,
    /// RSA PKCS#1 v1.5 with SHA-256 and 2048 bits: for verifiers that know nothing newer.
    #[serde(rename = "RS256")]
    Rs256,
}

impl Algorithm {
    /// Every algorithm.
    pub const ALL: [Self; 3] = [Self::EdDsa, Self::Es256, Self::Rs256];

    /// The name in a JWT header.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
            Self::Rs256 => "RS256",
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Algorithm {
    type Err = InvalidName;
    fn from_str(s: &str) -> Result<Self, InvalidName> {
        Self::ALL
            .into_iter()
            .find(|a| a.as_str() == s)
            .ok_or_else(|| InvalidName::new("algorithm", s, "one of EdDSA, ES256 and RS256"))
    }
}

/// A succession of keys of one scope that serve one purpose; of each, one key signs at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Chain {
    /// Rekindle's own access tokens, signed with this algorithm.
    Access(Algorithm),
    /// RS256 keys for tokens of another format, replaced by the schedule.
    Dynamic,
    /// ES256 keys for the same tokens, where their verifiers take them.
    DynamicEs256,
    /// RS256 keys for tokens of another format, replaced only by hand.
    Static,
}

impl Chain {
    /// Every chain.
    pub const ALL: [Self; 6] = [
        Self::Access(Algorithm::EdDsa),
        Self::Access(Algorithm::Es256),
        Self::Access(Algorithm::Rs256),
        Self::Dynamic,
        Self::DynamicEs256,
        Self::Static,
    ];

    /// How its keys sign.
    pub fn algorithm(self) -> Algorithm {
        match self {
            Self::Access(algorithm) => algorithm,
            Self::DynamicEs256 => Algorithm::Es256,
            Self::Dynamic | Self::Static => Algorithm::Rs256,
        }
    }

    /// Its name in a store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Access(algorithm) => algorithm.as_str(),
            Self::Dynamic => "RS256-dynamic",
            Self::DynamicEs256 => "ES256-dynamic",
            Self::Static => "RS256-static",
        }
    }
}

impl From<Algorithm> for Chain {
    fn from(algorithm: Algorithm) -> Self {
        Self::Access(algorithm)
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Chain {
    type Err = InvalidName;
    fn from_str(s: &str) -> Result<Self, InvalidName> {
        const NAMES: &str = "one of EdDSA, ES256, RS256, RS256-dynamic, ES256-dynamic and RS256-static";
        Self::ALL.into_iter().find(|chain| chain.as_str() == s).ok_or_else(|| InvalidName::new("key chain", s, NAMES))
    }
}

impl Serialize for Chain {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Chain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// A signing key's id: the `kid` of JWT headers and JWKS. 1 to 64 characters of the base64url alphabet.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(Arc<str>);

impl KeyId {
    /// A fresh id of 96 random bits: unique among all scopes.
    pub fn draw(rng: &dyn Rng) -> Self {
        Self(BASE64_URL_SAFE_NO_PAD.encode(rng::bytes::<12>(rng)).into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KeyId {
    type Err = InvalidName;
    fn from_str(s: &str) -> Result<Self, InvalidName> {
        let valid = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        if (1..=64).contains(&s.len()) && s.bytes().all(valid) {
            Ok(Self(s.into()))
        } else {
            Err(InvalidName::new("key id", s, "1 to 64 of A-Z, a-z, 0-9, `_` and `-`"))
        }
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Serialize for KeyId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for KeyId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// A signing key as a store keeps it: the record never changes but for [`SigningKey::rewrapped`].
#[derive(Clone, PartialEq, Eq)]
pub struct SigningKey {
    /// Its id.
    pub kid: KeyId,
    /// Whose tokens it signs.
    pub scope: Scope,
    /// In which succession.
    pub chain: Chain,
    /// The public half as a JWK (RFC 7517), the very text that the JWKS shows.
    pub public_jwk: String,
    /// The private half, PKCS#8 under a master secret; bound to scope, key id and chain. The first byte is the secret's
    /// key id. Empty: the key was [withdrawn](SigningKey::withdrawn).
    pub wrapped: Vec<u8>,
    /// Since when it is published.
    pub created_at: Timestamp,
    /// From when it signs.
    pub signs_from: Timestamp,
}

impl SigningKey {
    /// Makes a key that is published from `now` and signs from `signs_from`.
    ///
    /// The key id and Ed25519 keys come from `rng` alone; ES256 and RS256 keys are drawn by aws-lc's own generator, which
    /// takes no other. An RS256 key takes some 100 ms of CPU.
    pub fn generate(
        scope: Scope,
        chain: impl Into<Chain>,
        now: Timestamp,
        signs_from: Timestamp,
        secrets: &SecretRing,
        rng: &dyn Rng,
    ) -> Self {
        let (kid, chain) = (KeyId::draw(rng), chain.into());
        let pair = Pair::generate(chain.algorithm(), rng);
        let wrapped = secrets.wrap(&context(&scope, &kid, chain), &pair.to_pkcs8());
        let public_jwk = pair.public_jwk(&kid);
        Self { kid, scope, chain, public_jwk, wrapped, created_at: now, signs_from }
    }

    /// The same of a key that another system made and signed with, an RS256 key in PKCS#8; nothing if it is none.
    pub fn adopt(
        key: Adopted,
        scope: Scope,
        now: Timestamp,
        signs_from: Timestamp,
        secrets: &SecretRing,
    ) -> Option<Self> {
        let Adopted { kid, chain, pkcs8 } = key;
        let pair = Pair::from_pkcs8(chain.algorithm(), &pkcs8)?;
        let wrapped = secrets.wrap(&context(&scope, &kid, chain), &pkcs8);
        let public_jwk = pair.public_jwk(&kid);
        Some(Self { kid, scope, chain, public_jwk, wrapped, created_at: now, signs_from })
    }

    /// The record without its private half: it neither signs nor verifies any more and is not published. It stays only so that
    /// its tokens are told apart from forgeries, and their clients refresh.
    pub fn withdrawn(&self) -> Self {
        Self { wrapped: Vec::new(), ..self.clone() }
    }

    /// Whether it was withdrawn.
    pub fn is_withdrawn(&self) -> bool {
        self.wrapped.is_empty()
    }

    /// The key id of the master secret that its private half needs.
    pub fn secret(&self) -> Option<u8> {
        self.wrapped.first().copied()
    }

    /// The record with its private key under the current master secret; `None` when it is there already, or withdrawn.
    ///
    /// An old master secret can be taken away once no record and no session carries its key id.
    pub fn rewrapped(&self, secrets: &SecretRing) -> Result<Option<Self>, KeyError> {
        if self.secret().is_none_or(|kid| kid == secrets.current()) {
            return Ok(None);
        }
        let wrapped = secrets.wrap(&context(&self.scope, &self.kid, self.chain), &self.unwrap(secrets)?);
        Ok(Some(Self { wrapped, ..self.clone() }))
    }

    fn unwrap(&self, secrets: &SecretRing) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        secrets
            .unwrap(&context(&self.scope, &self.kid, self.chain), &self.wrapped)
            .ok_or_else(|| KeyError::Undecryptable { kid: self.kid.clone(), secret: self.secret().unwrap_or(0) })
    }

    fn pair(&self, secrets: &SecretRing) -> Result<Pair, KeyError> {
        let pair = Pair::from_pkcs8(self.chain.algorithm(), &self.unwrap(secrets)?)
            .ok_or_else(|| KeyError::Corrupt { kid: self.kid.clone(), what: "private key" })?;
        // A key that signs what its published half cannot verify would end every session at its next request.
        if pair.public_jwk(&self.kid) == self.public_jwk {
            Ok(pair)
        } else {
            Err(KeyError::Corrupt { kid: self.kid.clone(), what: "public key" })
        }
    }
}

/// A key of another system, to be used on. It never prints its private half.
#[derive(Clone)]
pub struct Adopted {
    /// Its id from now on.
    pub kid: KeyId,
    /// In which succession.
    pub chain: Chain,
    /// The private key in PKCS#8.
    pub pkcs8: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Adopted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Adopted({}, {})", self.kid, self.chain)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("kid", &self.kid)
            .field("scope", &self.scope)
            .field("chain", &self.chain)
            .field("created_at", &self.created_at)
            .field("signs_from", &self.signs_from)
            .finish_non_exhaustive()
    }
}

/// Why a key cannot be used. The other keys of its ring still can.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The scope has no key of this chain (yet).
    #[error("there is no {0} signing key; add one as the upkeep of the key ring says")]
    Missing(Chain),
    /// The master secret is missing, or the record was altered.
    #[error(
        "the private key of signing key `{kid}` cannot be decrypted with master secret {secret}: give that secret back, \
         or rotate the key at once"
    )]
    Undecryptable {
        /// Of which key.
        kid: KeyId,
        /// The key id of the master secret that it asks for.
        secret: u8,
    },
    /// The record contradicts itself.
    #[error("the {what} of signing key `{kid}` is not what was stored: restore the record, or rotate the key at once")]
    Corrupt {
        /// Of which key.
        kid: KeyId,
        /// Which part.
        what: &'static str,
    },
}

/// What a wrapped private key is bound to. None of the parts can hold a space.
fn context(scope: &Scope, kid: &KeyId, chain: Chain) -> String {
    format!("rekindle/v1/signing-key {scope} {kid} {chain}")
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use aws_lc_rs::digest;
    use proptest::prelude::*;

    use super::*;
    use crate::rng::Rng;

    /// A generator whose draws are all different, and the same in every run.
    pub(crate) struct Counting(AtomicU64);

    impl Counting {
        pub(crate) fn from(seed: u64) -> Self {
            Self(AtomicU64::new(seed << 32))
        }
    }

    impl Rng for Counting {
        fn fill(&self, dest: &mut [u8]) {
            let seed = self.0.fetch_add(1, Ordering::Relaxed).to_be_bytes();
            let hash = digest::digest(&digest::SHA256, &seed);
            dest.iter_mut().zip(hash.as_ref().iter().cycle()).for_each(|(to, from)| *to = *from);
        }
    }

    pub(crate) const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    pub(crate) fn scope(name: &str) -> Scope {
        let (product, env) = name.split_once('/').unwrap();
        Scope { product: product.parse().unwrap(), env: env.parse().unwrap() }
    }

    pub(super) const ONE: &str = "1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";
    pub(super) const TWO: &str = "2:AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA";

    pub(crate) fn secrets(lines: &[&str]) -> SecretRing {
        SecretRing::parse(&lines.join("\n")).unwrap()
    }

    pub(crate) fn key(algorithm: Algorithm, seed: u64) -> SigningKey {
        SigningKey::generate(scope("shop/dev"), algorithm, NOW, NOW, &secrets(&[ONE]), &Counting::from(seed))
    }

    pub(crate) fn ring(keys: Vec<SigningKey>) -> KeyRing {
        KeyRing::open(scope("shop/dev"), keys, &secrets(&[ONE]), KeySchedule::default())
    }

    proptest! {
        #[test]
        fn names_are_parsed_or_refused(text in ".{0,70}") {
            prop_assert!(text.parse::<KeyId>().map_or(true, |kid| kid.as_str() == text));
            prop_assert!(text.parse::<Algorithm>().map_or(true, |a| a.as_str() == text));
            prop_assert!(text.parse::<Chain>().map_or(true, |c| c.as_str() == text));
        }
    }

    #[test]
    fn a_key_moves_to_the_current_master_secret() {
        let old = key(Algorithm::Es256, 1);
        let both = secrets(&[TWO, ONE]);
        assert_eq!(old.rewrapped(&secrets(&[ONE])), Ok(None));
        let moved = old.rewrapped(&both).unwrap().unwrap();
        assert_eq!(moved.wrapped[0], 2);
        assert_eq!(moved.rewrapped(&both), Ok(None));
        let kid = old.kid.clone();
        assert_eq!(old.rewrapped(&secrets(&[TWO])), Err(KeyError::Undecryptable { kid, secret: 1 }));
        let open = |secrets: &[&str]| {
            KeyRing::open(scope("shop/dev"), vec![moved.clone()], &self::secrets(secrets), KeySchedule::default())
        };
        assert!(open(&[TWO]).signer(Algorithm::Es256, NOW).is_ok());
        assert!(open(&[ONE]).signer(Algorithm::Es256, NOW).is_err());
    }

    #[test]
    fn keys_are_drawn_from_the_given_randomness() {
        assert_eq!(key(Algorithm::EdDsa, 1).public_jwk, key(Algorithm::EdDsa, 1).public_jwk);
        assert_ne!(key(Algorithm::EdDsa, 1).public_jwk, key(Algorithm::EdDsa, 2).public_jwk);
        let jwk = key(Algorithm::EdDsa, 1).public_jwk;
        let kid = key(Algorithm::EdDsa, 1).kid;
        assert!(jwk.starts_with(r#"{"kty":"OKP","crv":"Ed25519","x":""#), "{jwk}");
        assert!(jwk.ends_with(&format!(r#"","alg":"EdDSA","kid":"{kid}","use":"sig"}}"#)), "{jwk}");
    }

    #[test]
    fn nothing_secret_prints_itself() {
        let record = key(Algorithm::EdDsa, 1);
        let ring = ring(vec![record.clone()]);
        let (signer, kid) = (ring.signer(Algorithm::EdDsa, NOW).unwrap(), &record.kid);
        assert_eq!(format!("{ring:?} {signer:?}"), format!("[{kid:?}] SignerKey({kid}, EdDSA)"));
        assert!(!format!("{record:?}").contains("wrapped"));
    }
}
