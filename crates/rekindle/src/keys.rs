//! The keys that sign access tokens, and the schedule by which they come and go.
//!
//! Each scope (product and environment) has its own keys, one chain per algorithm. A key is published in the JWKS before
//! it signs, and stays published until the last token that it can have signed has expired. [`KeySchedule::plan`] decides
//! that from times alone; [`KeyRing`] carries it out on the keys that a store returned.
//!
//! Servers on one store agree without talking to each other: each decides alone from the same records, and a store adds
//! a key only if the newest key of its scope and algorithm is still the one that the plan was made from
//! ([`Successor::after`]). Whoever loses that race reads again.

use std::{fmt, str::FromStr, sync::Arc};

use aws_lc_rs::digest;
use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
    ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair, RsaPublicKeyComponents,
};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use zeroize::Zeroizing;

use crate::clock::{Seconds, Timestamp};
use crate::refresh::SecretRing;
use crate::rng::{self, Rng};
use crate::session::{InvalidName, Scope};

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
    /// How.
    pub algorithm: Algorithm,
    /// The public half as a JWK (RFC 7517), the very text that the JWKS shows.
    pub public_jwk: String,
    /// The private half, PKCS#8 under a master secret; bound to scope, key id and algorithm. The first byte is the secret's
    /// key id.
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
        algorithm: Algorithm,
        now: Timestamp,
        signs_from: Timestamp,
        secrets: &SecretRing,
        rng: &dyn Rng,
    ) -> Self {
        let kid = KeyId::draw(rng);
        let pair = Pair::generate(algorithm, rng);
        let wrapped = secrets.wrap(&context(&scope, &kid, algorithm), &pair.to_pkcs8());
        let public_jwk = pair.public_jwk(&kid);
        Self { kid, scope, algorithm, public_jwk, wrapped, created_at: now, signs_from }
    }

    /// The record with its private key under the current master secret; `None` when it is there already.
    ///
    /// An old master secret can be taken away once no record and no session carries its key id.
    pub fn rewrapped(&self, secrets: &SecretRing) -> Result<Option<Self>, KeyError> {
        if self.wrapped.first() == Some(&secrets.current()) {
            return Ok(None);
        }
        let wrapped = secrets.wrap(&context(&self.scope, &self.kid, self.algorithm), &self.unwrap(secrets)?);
        Ok(Some(Self { wrapped, ..self.clone() }))
    }

    fn unwrap(&self, secrets: &SecretRing) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        secrets.unwrap(&context(&self.scope, &self.kid, self.algorithm), &self.wrapped).ok_or_else(|| {
            KeyError::Undecryptable { kid: self.kid.clone(), secret: self.wrapped.first().copied().unwrap_or(0) }
        })
    }

    fn pair(&self, secrets: &SecretRing) -> Result<Pair, KeyError> {
        let pair = Pair::from_pkcs8(self.algorithm, &self.unwrap(secrets)?)
            .ok_or_else(|| KeyError::Corrupt { kid: self.kid.clone(), what: "private key" })?;
        // A key that signs what its published half cannot verify would end every session at its next request.
        if pair.public_jwk(&self.kid) == self.public_jwk {
            Ok(pair)
        } else {
            Err(KeyError::Corrupt { kid: self.kid.clone(), what: "public key" })
        }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("kid", &self.kid)
            .field("scope", &self.scope)
            .field("algorithm", &self.algorithm)
            .field("created_at", &self.created_at)
            .field("signs_from", &self.signs_from)
            .finish_non_exhaustive()
    }
}

/// Why a key cannot be used. The other keys of its ring still can.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The scope has no key of this algorithm (yet).
    #[error("there is no {0} signing key; add one as the upkeep of the key ring says")]
    Missing(Algorithm),
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

/// The longest lifetime of an access token that a session definition may choose: 7 days.
pub const MAX_ACCESS_LIFETIME: Seconds = Seconds(7 * DAY);

/// The longest that anybody, the servers themselves included, may work from a copy of the keys: one hour.
pub const MAX_KEYS_AGE: Seconds = Seconds(3600);

const DAY: u64 = 24 * 3600;

/// When keys are replaced, published and retired. The default: every 30 days, a day ahead, 8 days after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeySchedule {
    rotate_every: Seconds,
    publish_ahead: Seconds,
    retire_after: Seconds,
}

impl Default for KeySchedule {
    fn default() -> Self {
        Self { rotate_every: Seconds(30 * DAY), publish_ahead: Seconds(DAY), retire_after: Seconds(8 * DAY) }
    }
}

/// Why a schedule was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSchedule {
    /// A cached JWKS could lack the key that signs.
    #[error("keys published {} s ahead could sign before every cache has them; use more than {} s", .0.0, MAX_KEYS_AGE.0)]
    PublishAhead(Seconds),
    /// A successor would be due before its predecessor signs.
    #[error("keys cannot be replaced every {} s; use more than the {} s that they are published ahead", rotate_every.0, publish_ahead.0)]
    RotateEvery {
        /// What was given.
        rotate_every: Seconds,
        /// What it must exceed.
        publish_ahead: Seconds,
    },
    /// A token could outlive its key.
    #[error("keys retired after {} s could be missed by their last tokens; use at least {} s", given.0, least.0)]
    RetireAfter {
        /// What was given.
        given: Seconds,
        /// [`MAX_ACCESS_LIFETIME`] and the time published ahead.
        least: Seconds,
    },
}

/// All that the schedule knows of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyTimes {
    /// Since when it is published.
    pub created_at: Timestamp,
    /// From when it signs.
    pub signs_from: Timestamp,
}

/// What the schedule says about the keys of one scope and algorithm. Keys are named by their place in the slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The one that signs.
    pub signing: Option<usize>,
    /// A key that signs from then must be created now.
    pub next: Option<Timestamp>,
    /// To be shown in the JWKS, oldest first.
    pub published: Vec<usize>,
    /// No valid token carries them any more: they may be deleted.
    pub retired: Vec<usize>,
}

impl KeySchedule {
    /// Checks that no token can outlive its key, nor meet a cache that lacks it.
    ///
    /// A key signs for `rotate_every`, is published `publish_ahead` before that, and for `retire_after` after its successor
    /// took over.
    pub fn new(rotate_every: Seconds, publish_ahead: Seconds, retire_after: Seconds) -> Result<Self, InvalidSchedule> {
        // A server that learns late of an emergency rotation signs with the old key for as long as its copy may be old.
        let least = Seconds(MAX_ACCESS_LIFETIME.0.saturating_add(publish_ahead.0));
        if publish_ahead <= MAX_KEYS_AGE {
            Err(InvalidSchedule::PublishAhead(publish_ahead))
        } else if rotate_every <= publish_ahead {
            Err(InvalidSchedule::RotateEvery { rotate_every, publish_ahead })
        } else if retire_after < least {
            Err(InvalidSchedule::RetireAfter { given: retire_after, least })
        } else {
            Ok(Self { rotate_every, publish_ahead, retire_after })
        }
    }

    /// What is to be done at `now` about the keys of one scope and algorithm.
    ///
    /// The key with the latest `signs_from` that is not in the future signs (of two, the later created; of two of those,
    /// the later in the slice). A first key signs at once: there was nothing before it that a cache could hold.
    pub fn plan(&self, keys: &[KeyTimes], now: Timestamp) -> Plan {
        let mut order: Vec<usize> = (0..keys.len()).collect();
        order.sort_by_key(|&i| (keys[i].signs_from, keys[i].created_at, i));
        let signs_from = |at: usize| keys[order[at]].signs_from;

        // Before the first key's time (its maker's clock was ahead) there is no other to sign with.
        let signing = (0..order.len()).rev().find(|&at| signs_from(at) <= now).or(order.first().map(|_| 0));
        let next = match order.len().checked_sub(1) {
            None => Some(now),
            Some(newest) => {
                let due = signs_from(newest) + self.rotate_every;
                (now >= due - self.publish_ahead).then(|| due.max(self.rotated_now(now)))
            }
        };
        let still = |at: usize| at + 1 == order.len() || now < signs_from(at + 1) + self.retire_after;
        let (published, retired): (Vec<usize>, Vec<usize>) = (0..order.len()).partition(|&at| still(at));
        let keys = |places: Vec<usize>| places.into_iter().map(|at| order[at]).collect();
        Plan { signing: signing.map(|at| order[at]), next, published: keys(published), retired: keys(retired) }
    }

    /// From when a key signs that is created now because somebody asked for it.
    ///
    /// In an emergency use `now` itself: caches may refuse the first tokens for [`MAX_KEYS_AGE`], and a key that has leaked
    /// must also be deleted, since until then what it signs is believed.
    pub fn rotated_now(&self, now: Timestamp) -> Timestamp {
        now + self.publish_ahead
    }
}

/// The keys of one scope, parsed once.
///
/// A key that cannot be used is reported by [`KeyRing::faults`] and stands in nobody's way: without its private half it
/// still verifies, without its public half it is left out.
pub struct KeyRing {
    scope: Scope,
    schedule: KeySchedule,
    /// By time, so that [`Plan`]'s places mean the same on every server.
    keys: Vec<Key>,
}

struct Key {
    kid: KeyId,
    algorithm: Algorithm,
    times: KeyTimes,
    public_jwk: String,
    verifier: Option<VerifierKey>,
    signer: Result<SignerKey, KeyError>,
}

/// What the schedule asks the store to do for one algorithm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upkeep {
    /// A key to add.
    pub add: Option<Successor>,
    /// Keys to delete.
    pub delete: Vec<KeyId>,
}

/// A key that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Successor {
    /// Add it only while this is the newest key (by `signs_from`, `created_at`, key id) of the scope and algorithm; `None`:
    /// while there is no key. Otherwise another server was faster: read again.
    pub after: Option<KeyId>,
    /// For [`SigningKey::generate`].
    pub signs_from: Timestamp,
}

impl KeyRing {
    /// Parses and decrypts all `records` of a scope: some 50 µs for a key, 1 ms for an RS256 key.
    pub fn open(scope: Scope, records: Vec<SigningKey>, secrets: &SecretRing, schedule: KeySchedule) -> Self {
        let mut keys: Vec<Key> = records.into_iter().map(|record| Key::open(&scope, record, secrets)).collect();
        keys.sort_by(|a, b| a.order().cmp(&b.order()));
        Self { scope, schedule, keys }
    }

    /// Whose keys these are.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The key that signs at `now`.
    pub fn signer(&self, algorithm: Algorithm, now: Timestamp) -> Result<&SignerKey, KeyError> {
        let signs = |k: &&Key| k.algorithm == algorithm;
        // The rule of `KeySchedule::plan`, on keys that are in order already.
        let mut latest_first = self.keys.iter().rev().filter(signs);
        latest_first
            .find(|k| k.times.signs_from <= now)
            .or_else(|| self.keys.iter().find(signs))
            .ok_or(KeyError::Missing(algorithm))?
            .signer
            .as_ref()
            .map_err(KeyError::clone)
    }

    /// The key that verifies what `kid` signed.
    pub fn verifier(&self, kid: &str) -> Option<&VerifierKey> {
        self.verifiers().find(|v| v.kid.as_str() == kid)
    }

    /// The JWKS (RFC 7517) to publish at `now`. It may be cached for [`MAX_KEYS_AGE`].
    pub fn jwks(&self, now: Timestamp) -> String {
        let mut published: Vec<&str> = Vec::with_capacity(self.keys.len());
        for algorithm in Algorithm::ALL {
            let (keys, plan) = self.plan(algorithm, now);
            let usable = plan.published.into_iter().map(|at| keys[at]).filter(|k| k.verifier.is_some());
            published.extend(usable.map(|k| k.public_jwk.as_str()));
        }
        format!(r#"{{"keys":[{}]}}"#, published.join(","))
    }

    /// What to do in the store at `now`. Ask for each algorithm that a definition of this scope uses.
    pub fn upkeep(&self, algorithm: Algorithm, now: Timestamp) -> Upkeep {
        let (keys, plan) = self.plan(algorithm, now);
        Upkeep {
            add: plan.next.map(|signs_from| Successor { after: keys.last().map(|k| k.kid.clone()), signs_from }),
            delete: plan.retired.into_iter().map(|at| keys[at].kid.clone()).collect(),
        }
    }

    /// A rotation that somebody asked for: a successor now, that signs once every cache has it, or at once.
    pub fn rotation(&self, algorithm: Algorithm, now: Timestamp, emergency: bool) -> Successor {
        let after = self.keys.iter().rfind(|k| k.algorithm == algorithm).map(|k| k.kid.clone());
        Successor { after, signs_from: if emergency { now } else { self.schedule.rotated_now(now) } }
    }

    /// The keys that cannot be used as they should.
    pub fn faults(&self) -> impl Iterator<Item = &KeyError> {
        self.keys.iter().filter_map(|k| k.signer.as_ref().err())
    }

    /// The key whose tokens start with this header part.
    pub(crate) fn by_header(&self, header: &str) -> Option<&VerifierKey> {
        self.verifiers().find(|v| v.header == header)
    }

    fn verifiers(&self) -> impl Iterator<Item = &VerifierKey> {
        // The newest is the likeliest.
        self.keys.iter().rev().filter_map(|k| k.verifier.as_ref())
    }

    fn plan(&self, algorithm: Algorithm, now: Timestamp) -> (Vec<&Key>, Plan) {
        let keys: Vec<&Key> = self.keys.iter().filter(|k| k.algorithm == algorithm).collect();
        let times: Vec<KeyTimes> = keys.iter().map(|k| k.times).collect();
        (keys, self.schedule.plan(&times, now))
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|k| &k.kid)).finish()
    }
}

impl Key {
    fn open(scope: &Scope, record: SigningKey, secrets: &SecretRing) -> Self {
        let corrupt = |what| KeyError::Corrupt { kid: record.kid.clone(), what };
        let header = header(&record.kid, record.algorithm);
        let (verifier, signer) = if record.scope != *scope {
            (None, Err(corrupt("scope")))
        } else if let Some(public) = Jwk::verifier(&record) {
            match record.pair(secrets) {
                // The two halves contradict each other: neither is believed.
                Err(fault @ KeyError::Corrupt { what: "public key", .. }) => (None, Err(fault)),
                pair => {
                    let (kid, algorithm) = (record.kid.clone(), record.algorithm);
                    let signer = pair.map(|pair| SignerKey { kid, algorithm, header: header.clone(), pair });
                    (Some(VerifierKey { kid: record.kid.clone(), algorithm, header, public }), signer)
                }
            }
        } else {
            (None, Err(corrupt("public key")))
        };
        Self {
            kid: record.kid,
            algorithm: record.algorithm,
            times: KeyTimes { created_at: record.created_at, signs_from: record.signs_from },
            public_jwk: record.public_jwk,
            verifier,
            signer,
        }
    }

    fn order(&self) -> (Timestamp, Timestamp, &KeyId) {
        (self.times.signs_from, self.times.created_at, &self.kid)
    }
}

/// A private key, ready to sign.
pub struct SignerKey {
    kid: KeyId,
    algorithm: Algorithm,
    header: String,
    pair: Pair,
}

impl SignerKey {
    /// Its id.
    pub fn kid(&self) -> &KeyId {
        &self.kid
    }

    /// How it signs.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The first part of every token that this key signs.
    pub(crate) fn header(&self) -> &str {
        &self.header
    }

    /// Appends `.` and the signature of all of `token`.
    pub(crate) fn sign(&self, token: &mut String) {
        const SIGNS: &str = "a parsed private key signs any message";
        let message = token.as_bytes();
        let sha256 = || digest::digest(&digest::SHA256, message);
        let encode = |signature: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(signature);
        let signature = match &self.pair {
            Pair::EdDsa(pair) => encode(pair.sign(message).as_ref()),
            Pair::Es256(pair) => encode(pair.sign_digest(&sha256()).expect(SIGNS).as_ref()),
            Pair::Rs256(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign_digest(&RSA_PKCS1_SHA256, &sha256(), &mut signature).expect(SIGNS);
                encode(&signature)
            }
        };
        token.push('.');
        token.push_str(&signature);
    }
}

impl fmt::Debug for SignerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SignerKey({}, {})", self.kid, self.algorithm)
    }
}

/// A public key, ready to verify what one algorithm signed with it.
pub struct VerifierKey {
    kid: KeyId,
    algorithm: Algorithm,
    header: String,
    public: ParsedPublicKey,
}

impl VerifierKey {
    /// Its id.
    pub fn kid(&self) -> &KeyId {
        &self.kid
    }

    /// The only algorithm that it verifies.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Whether `signature` is this key's for `message`.
    ///
    /// By aws-lc directly: jsonwebtoken would do the same, but parses the key again for each token and takes its
    /// cryptography from a process-wide setting. The tests read our tokens with it.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.public.verify_sig(message, signature).is_ok()
    }
}

impl fmt::Debug for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifierKey({}, {})", self.kid, self.algorithm)
    }
}

/// The first part of every access token that a key signs. Its spelling is frozen: it is compared, not parsed.
fn header(kid: &KeyId, algorithm: Algorithm) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"{algorithm}","kid":"{kid}","typ":"at+jwt"}}"#))
}

/// What a wrapped private key is bound to. None of the parts can hold a space.
fn context(scope: &Scope, kid: &KeyId, algorithm: Algorithm) -> String {
    format!("rekindle/v1/signing-key {scope} {kid} {algorithm}")
}

enum Pair {
    EdDsa(Ed25519KeyPair),
    Es256(EcdsaKeyPair),
    Rs256(RsaKeyPair),
}

impl Pair {
    fn generate(algorithm: Algorithm, rng: &dyn Rng) -> Self {
        const WORKS: &str = "aws-lc generates keys unless memory or the system's random generator fails";
        match algorithm {
            Algorithm::EdDsa => {
                let seed = Zeroizing::new(rng::bytes::<32>(rng));
                Self::EdDsa(Ed25519KeyPair::from_seed_unchecked(&*seed).expect("32 bytes are a seed"))
            }
            Algorithm::Es256 => Self::Es256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect(WORKS)),
            Algorithm::Rs256 => Self::Rs256(RsaKeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).expect(WORKS)),
        }
    }

    fn from_pkcs8(algorithm: Algorithm, der: &[u8]) -> Option<Self> {
        Some(match algorithm {
            Algorithm::EdDsa => Self::EdDsa(Ed25519KeyPair::from_pkcs8(der).ok()?),
            Algorithm::Es256 => Self::Es256(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der).ok()?),
            Algorithm::Rs256 => Self::Rs256(RsaKeyPair::from_pkcs8(der).ok()?),
        })
    }

    fn to_pkcs8(&self) -> Zeroizing<Vec<u8>> {
        const ENCODES: &str = "a parsed private key has an encoding";
        Zeroizing::new(match self {
            Self::EdDsa(pair) => pair.to_pkcs8().expect(ENCODES).as_ref().to_vec(),
            Self::Es256(pair) => pair.to_pkcs8v1().expect(ENCODES).as_ref().to_vec(),
            Self::Rs256(pair) => {
                AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(pair).expect(ENCODES).as_ref().to_vec()
            }
        })
    }

    fn public_jwk(&self, kid: &KeyId) -> String {
        let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let (alg, material) = match self {
            Self::EdDsa(pair) => {
                let x = encode(pair.public_key().as_ref());
                (Algorithm::EdDsa, Material::Okp { crv: "Ed25519".into(), x })
            }
            Self::Es256(pair) => {
                // SEC 1, uncompressed: 4, x, y.
                let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
                (Algorithm::Es256, Material::Ec { crv: "P-256".into(), x: encode(x), y: encode(y) })
            }
            Self::Rs256(pair) => {
                let public = RsaPublicKeyComponents::<Vec<u8>>::from(pair.public_key());
                (Algorithm::Rs256, Material::Rsa { n: encode(&public.n), e: encode(&public.e) })
            }
        };
        let jwk = Jwk { material, alg, kid: kid.clone(), usage: "sig".into() };
        serde_json::to_string(&jwk).expect("a JWK is JSON")
    }
}

/// A public key as RFC 7517, RFC 7518 (section 6) and RFC 8037 write it.
#[derive(Serialize, Deserialize)]
struct Jwk {
    #[serde(flatten)]
    material: Material,
    alg: Algorithm,
    kid: KeyId,
    #[serde(rename = "use")]
    usage: String,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "kty")]
enum Material {
    #[serde(rename = "OKP")]
    Okp { crv: String, x: String },
    #[serde(rename = "EC")]
    Ec { crv: String, x: String, y: String },
    #[serde(rename = "RSA")]
    Rsa { n: String, e: String },
}

impl Jwk {
    /// The public key of a record, if its parts agree.
    fn verifier(record: &SigningKey) -> Option<ParsedPublicKey> {
        let jwk: Self = serde_json::from_str(&record.public_jwk).ok()?;
        let decode = |text: &str| BASE64_URL_SAFE_NO_PAD.decode(text).ok();
        if jwk.kid != record.kid || jwk.alg != record.algorithm {
            return None;
        }
        match (record.algorithm, &jwk.material) {
            (Algorithm::EdDsa, Material::Okp { crv, x }) if crv == "Ed25519" => {
                ParsedPublicKey::new(&ED25519, decode(x)?).ok()
            }
            (Algorithm::Es256, Material::Ec { crv, x, y }) if crv == "P-256" => {
                ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, [vec![4], decode(x)?, decode(y)?].concat()).ok()
            }
            (Algorithm::Rs256, Material::Rsa { n, e }) => RsaPublicKeyComponents { n: decode(n)?, e: decode(e)? }
                .to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256)
                .ok(),
            _ => None,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::rng::Rng;
    use proptest::prelude::*;

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

    const ONE: &str = "1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";
    const TWO: &str = "2:AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA";

    pub(crate) fn secrets(lines: &[&str]) -> SecretRing {
        SecretRing::parse(&lines.join("\n")).unwrap()
    }

    pub(crate) fn key(algorithm: Algorithm, seed: u64) -> SigningKey {
        SigningKey::generate(scope("shop/dev"), algorithm, NOW, NOW, &secrets(&[ONE]), &Counting::from(seed))
    }

    pub(crate) fn ring(keys: Vec<SigningKey>) -> KeyRing {
        KeyRing::open(scope("shop/dev"), keys, &secrets(&[ONE]), KeySchedule::default())
    }

    fn schedule() -> impl Strategy<Value = KeySchedule> {
        let hour = 3600_u64;
        (2..72 * hour, 1..40 * 24 * hour, 0..9 * 24 * hour).prop_map(move |(ahead, rotate, retire)| {
            let ahead = MAX_KEYS_AGE.0 + ahead;
            let retire = MAX_ACCESS_LIFETIME.0 + ahead + retire;
            KeySchedule::new(Seconds(ahead + rotate), Seconds(ahead), Seconds(retire)).unwrap()
        })
    }

    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Act {
        Upkeep,
        Nothing,
        Rotate,
        Emergency,
    }

    /// What a store holds at a moment: the keys by the order of their creation.
    struct View {
        at: Timestamp,
        keys: Vec<(usize, KeyTimes)>,
    }

    impl View {
        fn plan(&self, schedule: &KeySchedule, now: Timestamp) -> Plan {
            schedule.plan(&self.keys.iter().map(|k| k.1).collect::<Vec<_>>(), now)
        }

        fn signing(&self, schedule: &KeySchedule, now: Timestamp) -> (usize, KeyTimes) {
            self.keys[self.plan(schedule, now).signing.expect("a store with keys has one that signs")]
        }
    }

    /// Lets time pass in random steps, and does what the plan says where somebody looks.
    fn history(schedule: &KeySchedule, steps: &[(u64, Act)]) -> Vec<View> {
        let (mut now, mut keys, mut made) = (NOW, Vec::new(), 0);
        let mut views = Vec::new();
        for (step, act) in [(0, Act::Upkeep)].iter().chain(steps) {
            now = now + Seconds(*step);
            let view = View { at: now, keys: keys.clone() };
            let plan = view.plan(schedule, now);
            let add = match act {
                Act::Upkeep => plan.next,
                Act::Nothing => None,
                Act::Rotate => Some(schedule.rotated_now(now)),
                Act::Emergency => Some(now),
            };
            if *act == Act::Upkeep {
                let retired: Vec<usize> = plan.retired.iter().map(|&i| keys[i].0).collect();
                keys.retain(|k| !retired.contains(&k.0));
            }
            if let Some(signs_from) = add {
                keys.push((made, KeyTimes { created_at: now, signs_from }));
                made += 1;
            }
            views.push(View { at: now, keys: keys.clone() });
        }
        views
    }

    /// Whatever was signed at each moment, by servers whose copy is up to `publish_ahead` old, can be verified to its end.
    fn no_token_loses_its_key(schedule: &KeySchedule, views: &[View]) {
        for (i, view) in views.iter().enumerate() {
            let stale = views[..=i].iter().rposition(|v| v.at + schedule.publish_ahead <= view.at).unwrap_or(0);
            for copy in &views[stale..=i] {
                let (signed, _) = copy.signing(schedule, view.at);
                for later in views[i..].iter().take_while(|v| v.at <= view.at + MAX_ACCESS_LIFETIME) {
                    // What may be deleted in between is what the plan no longer publishes.
                    let published = later.plan(schedule, later.at).published;
                    assert!(published.iter().any(|&k| later.keys[k].0 == signed), "{signed} at {}", view.at);
                }
            }
        }
    }

    fn steps(acts: impl Strategy<Value = Act> + Clone) -> impl Strategy<Value = Vec<(u64, Act)>> {
        let step = prop_oneof![8 => 0..2 * DAY, 2 => 0..3600_u64, 1 => 0..60 * DAY];
        prop::collection::vec((step, acts), 1..60)
    }

    proptest! {
        #[test]
        fn no_key_signs_before_every_cache_can_have_it(
            schedule in schedule(),
            steps in steps(prop_oneof![6 => Just(Act::Upkeep), 2 => Just(Act::Nothing), 1 => Just(Act::Rotate)]),
        ) {
            let views = history(&schedule, &steps);
            no_token_loses_its_key(&schedule, &views);
            for (i, view) in views.iter().enumerate() {
                let (made, key) = view.signing(&schedule, view.at);
                prop_assert!(key.signs_from <= view.at);
                prop_assert!(made == 0 || key.created_at + schedule.publish_ahead <= view.at);
                // A server whose copy is old signs with the same key, so long as nothing was done in an emergency.
                let stale = views[..=i].iter().rposition(|v| v.at + schedule.publish_ahead <= view.at).unwrap_or(0);
                prop_assert!(views[stale..=i].iter().all(|copy| copy.signing(&schedule, view.at).0 == made));
                prop_assert!(view.plan(&schedule, view.at).published.contains(
                    &view.keys.iter().position(|k| k.0 == made).unwrap()
                ));
            }
        }

        #[test]
        fn emergencies_cost_no_token_its_key(
            schedule in schedule(),
            steps in steps(prop_oneof![
                6 => Just(Act::Upkeep), 2 => Just(Act::Nothing), 1 => Just(Act::Rotate), 1 => Just(Act::Emergency)
            ]),
        ) {
            no_token_loses_its_key(&schedule, &history(&schedule, &steps));
        }

        #[test]
        fn keys_are_replaced_and_retired_and_stay_few(schedule in schedule(), every in 600..DAY) {
            let cycle = schedule.rotate_every.0 + schedule.retire_after.0;
            let steps = vec![(every, Act::Upkeep); (3 * cycle / every + 2) as usize];
            let views = history(&schedule, &steps);
            let few = schedule.retire_after.0 / schedule.rotate_every.0 + 3;
            prop_assert!(views.iter().all(|v| v.keys.len() as u64 <= few));
            let last = views.last().unwrap();
            prop_assert!(last.keys.iter().all(|k| k.0 > 0), "the first key is gone after three cycles");
            // Each successor takes over on time, or as soon as the next look at the keys allowed.
            let (made, key) = last.signing(&schedule, last.at);
            prop_assert!(last.at < key.signs_from + schedule.rotate_every + Seconds(every));
            prop_assert!(made > 0);
        }

        #[test]
        fn the_order_of_the_records_does_not_matter(
            schedule in schedule(),
            times in prop::collection::hash_set((0..40_u64, 0..40_u64), 0..6),
            now in 0..40_u64,
        ) {
            let at = |day: u64| Timestamp::from_secs((day * DAY) as i64);
            let mut keys: Vec<KeyTimes> =
                times.iter().map(|&(c, s)| KeyTimes { created_at: at(c), signs_from: at(s) }).collect();
            let named = |keys: &[KeyTimes], places: &[usize]| places.iter().map(|&i| keys[i]).collect::<Vec<_>>();
            let plan = schedule.plan(&keys, at(now));
            prop_assert_eq!(plan.signing.is_none(), keys.is_empty());
            prop_assert_eq!(plan.published.len() + plan.retired.len(), keys.len());
            let before = keys.clone();
            keys.reverse();
            let again = schedule.plan(&keys, at(now));
            prop_assert_eq!(again.next, plan.next);
            prop_assert_eq!(again.signing.map(|i| keys[i]), plan.signing.map(|i| before[i]));
            prop_assert_eq!(named(&keys, &again.published), named(&before, &plan.published));
            prop_assert_eq!(named(&keys, &again.retired), named(&before, &plan.retired));
        }

        #[test]
        fn names_are_parsed_or_refused(text in ".{0,70}") {
            prop_assert!(text.parse::<KeyId>().map_or(true, |kid| kid.as_str() == text));
            prop_assert!(text.parse::<Algorithm>().map_or(true, |a| a.as_str() == text));
        }

        #[test]
        fn any_record_is_a_key_or_a_fault(jwk in ".{0,100}", wrapped in prop::collection::vec(any::<u8>(), 0..100)) {
            let record = SigningKey { public_jwk: jwk, wrapped, ..key(Algorithm::EdDsa, 1) };
            prop_assert_eq!(ring(vec![record]).faults().count(), 1);
        }
    }

    #[test]
    fn a_schedule_under_which_a_token_could_lose_its_key_is_refused() {
        let new = |rotate, ahead, retire| KeySchedule::new(Seconds(rotate), Seconds(ahead), Seconds(retire));
        assert_eq!(new(30 * DAY, DAY, 8 * DAY), Ok(KeySchedule::default()));
        assert_eq!(
            new(30 * DAY, 3600, 8 * DAY).unwrap_err().to_string(),
            "keys published 3600 s ahead could sign before every cache has them; use more than 3600 s"
        );
        assert_eq!(
            new(DAY, DAY, 8 * DAY).unwrap_err().to_string(),
            "keys cannot be replaced every 86400 s; use more than the 86400 s that they are published ahead"
        );
        assert_eq!(
            new(30 * DAY, 2 * DAY, 8 * DAY).unwrap_err().to_string(),
            "keys retired after 691200 s could be missed by their last tokens; use at least 777600 s"
        );
    }

    #[test]
    fn the_life_of_a_chain_of_keys() {
        let schedule = KeySchedule::default();
        let day = |n: u64| NOW + Seconds(n * DAY);
        assert_eq!(schedule.plan(&[], NOW).next, Some(NOW));
        let first = KeyTimes { created_at: NOW, signs_from: NOW };
        assert_eq!(schedule.plan(&[first], day(29) - Seconds(1)).next, None);
        assert_eq!(schedule.plan(&[first], day(29)).next, Some(day(30)));
        assert_eq!(schedule.plan(&[first], day(90)).next, Some(day(91)), "late: never without notice");
        let second = KeyTimes { created_at: day(29), signs_from: day(30) };
        let plan = |now| schedule.plan(&[first, second], now);
        let early = Plan { signing: Some(0), next: None, published: vec![0, 1], retired: vec![] };
        assert_eq!(plan(day(30) - Seconds(1)), early);
        assert_eq!(plan(day(30)), Plan { signing: Some(1), ..early });
        let over = Plan { signing: Some(1), next: None, published: vec![1], retired: vec![0] };
        assert_eq!(plan(day(38) - Seconds(1)).published, [0, 1], "a late server's last token has just expired");
        assert_eq!(plan(day(38)), over);
        // A server whose clock is behind that of the first key's maker still signs.
        assert_eq!(schedule.plan(&[second], NOW).signing, Some(0));
    }

    #[test]
    fn a_ring_signs_publishes_and_asks_for_its_successor() {
        let (secrets, rng) = (secrets(&[ONE]), Counting::from(7));
        let day = |n: u64| NOW + Seconds(n * DAY);
        let open = |keys: Vec<SigningKey>| KeyRing::open(scope("shop/dev"), keys, &secrets, KeySchedule::default());
        let algorithm = Algorithm::EdDsa;
        let generate = |now, from| SigningKey::generate(scope("shop/dev"), algorithm, now, from, &secrets, &rng);

        let empty = open(vec![]);
        assert_eq!(empty.signer(algorithm, NOW).unwrap_err(), KeyError::Missing(algorithm));
        assert_eq!(empty.upkeep(algorithm, NOW).add, Some(Successor { after: None, signs_from: NOW }));
        assert_eq!(empty.jwks(NOW), r#"{"keys":[]}"#);

        let first = generate(NOW, NOW);
        let one = open(vec![first.clone()]);
        let add = one.upkeep(algorithm, day(29)).add.unwrap();
        assert_eq!(add, Successor { after: Some(first.kid.clone()), signs_from: day(30) });
        assert_eq!(one.rotation(algorithm, NOW, false).signs_from, day(1));
        assert_eq!(one.rotation(algorithm, NOW, true), Successor { after: Some(first.kid.clone()), signs_from: NOW });

        let second = generate(day(29), add.signs_from);
        let two = open(vec![second.clone(), first.clone()]);
        assert_eq!(two.signer(algorithm, day(29)).unwrap().kid(), &first.kid);
        assert_eq!(two.signer(algorithm, day(30)).unwrap().kid(), &second.kid);
        assert_eq!(two.jwks(day(29)), format!(r#"{{"keys":[{},{}]}}"#, first.public_jwk, second.public_jwk));
        assert_eq!(two.jwks(day(38)), format!(r#"{{"keys":[{}]}}"#, second.public_jwk));
        assert_eq!(two.upkeep(algorithm, day(38)), Upkeep { add: None, delete: vec![first.kid.clone()] });
        assert_eq!(two.rotation(algorithm, day(29), true).after, Some(second.kid.clone()));
        assert_eq!(two.upkeep(Algorithm::Es256, NOW).add, Some(Successor { after: None, signs_from: NOW }));
        assert!(two.verifier(first.kid.as_str()).is_some() && two.verifier("unknown").is_none());
    }

    #[test]
    fn an_unusable_key_is_named_and_stands_in_nobodys_way() {
        let good = key(Algorithm::EdDsa, 1);
        let undecryptable = SigningKey {
            wrapped: key(Algorithm::EdDsa, 3).wrapped,
            signs_from: NOW + Seconds(1),
            ..key(Algorithm::EdDsa, 2)
        };
        let swapped = SigningKey {
            public_jwk: good.public_jwk.replace(good.kid.as_str(), key(Algorithm::EdDsa, 4).kid.as_str()),
            ..key(Algorithm::EdDsa, 4)
        };
        let foreign = SigningKey { scope: scope("shop/prod"), ..key(Algorithm::EdDsa, 5) };
        let keys = vec![good.clone(), undecryptable.clone(), swapped.clone(), foreign.clone()];
        let ring = ring(keys);
        let verifies = |key: &SigningKey| ring.verifier(key.kid.as_str()).is_some();
        assert_eq!([&good, &undecryptable, &swapped, &foreign].map(verifies), [true, true, false, false]);
        let fault = KeyError::Undecryptable { kid: undecryptable.kid.clone(), secret: 1 };
        assert_eq!(ring.signer(Algorithm::EdDsa, NOW + Seconds(1)).unwrap_err(), fault);
        assert!(fault.to_string().contains(undecryptable.kid.as_str()));
        let faults: Vec<_> = ring.faults().cloned().collect();
        assert_eq!(faults.len(), 3);
        for (kid, what) in [(swapped.kid, "public key"), (foreign.kid.clone(), "scope")] {
            assert!(faults.contains(&KeyError::Corrupt { kid, what }));
        }
        assert!(!ring.jwks(NOW).contains(foreign.kid.as_str()));
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
