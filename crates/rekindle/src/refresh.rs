//! Refresh tokens, openings, commitments and proofs: formats, parsing, authentication.
//!
//! A refresh token is authenticated before any I/O, and is a function of the session's row and a master secret: issuing it
//! again gives the same bytes and stores nothing. A leaked database alone refreshes nothing.

use std::fmt;

use aws_lc_rs::{aead, digest, hkdf, hmac};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::rng::{self, Rng};
use crate::rotation::Position;
use crate::session::SessionId;

/// The hash of the opening that the client must show at its next refresh: `SHA-256(opening)[..16]`.
///
/// All zeros means "none": the generation is a bearer generation. On the wire: canonical base64url without padding.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Commitment([u8; 16]);

impl Commitment {
    /// No commitment: a bearer generation.
    pub const NONE: Self = Self([0; 16]);

    /// From a row's 16 bytes; all zeros are [`Commitment::NONE`].
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes that a row keeps.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    /// Whether this generation is committed.
    pub fn is_some(self) -> bool {
        self != Self::NONE
    }

    /// Whether this generation is a bearer generation.
    pub fn is_none(self) -> bool {
        self == Self::NONE
    }

    /// Reads a commitment that a client sent: 22 canonical base64url characters, not all zeros.
    pub fn parse(text: &str) -> Result<Self, InvalidProof> {
        let bytes = decode(text).ok_or(InvalidProof::CommitmentEncoding)?;
        match <[u8; 16]>::try_from(bytes.as_slice()) {
            Ok(bytes) if bytes != [0; 16] => Ok(Self(bytes)),
            Ok(_) => Err(InvalidProof::CommitmentZero),
            Err(_) => Err(InvalidProof::CommitmentLength(bytes.len())),
        }
    }
}

impl fmt::Display for Commitment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64_URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for Commitment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Commitment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Commitment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&std::borrow::Cow::<'de, str>::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// The client's secret for one step: 16 to 64 bytes, kept in the client's own durable storage until they are sent.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Opening(Vec<u8>);

impl Opening {
    /// From raw bytes; 16 to 64 of them.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidProof> {
        match bytes.len() {
            16..=64 => Ok(Self(bytes.to_vec())),
            other => Err(InvalidProof::OpeningLength(other)),
        }
    }

    /// Reads an opening that a client sent: canonical base64url of 16 to 64 bytes.
    pub fn parse(text: &str) -> Result<Self, InvalidProof> {
        Self::from_bytes(&decode(text).ok_or(InvalidProof::OpeningEncoding)?)
    }

    /// Draws a fresh one of 32 bytes: what a client does before each refresh.
    pub fn draw(rng: &dyn Rng) -> Self {
        Self(rng::bytes::<32>(rng).to_vec())
    }

    /// The commitment that this opens.
    pub fn commitment(&self) -> Commitment {
        let hash = digest::digest(&digest::SHA256, &self.0);
        Commitment(hash.as_ref()[..16].try_into().expect("SHA-256 has 32 bytes"))
    }

    /// The text that a client sends. Handle it like a password.
    pub fn expose(&self) -> Zeroizing<String> {
        Zeroizing::new(BASE64_URL_SAFE_NO_PAD.encode(&self.0))
    }
}

impl fmt::Debug for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opening(…)")
    }
}

impl<'de> Deserialize<'de> for Opening {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        Self::parse(&text).map_err(de::Error::custom)
    }
}

/// What a client sends beside its refresh token.
///
/// It names the session and generation that it was made for, because in a browser the token and the opening live in two
/// places that can part for a moment.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    /// The session that the client believes its token to belong to.
    pub session_id: SessionId,
    /// The generation that the client believes its token to have.
    pub generation: u32,
    /// The commitment for the *next* generation.
    pub commitment: Commitment,
    /// The opening of the token's own commitment; absent when the token is uncommitted, or storage was lost.
    #[serde(default)]
    pub opening: Option<Opening>,
    /// "I was told `superseded`, looked, and hold nothing newer."
    #[serde(default)]
    pub newest: bool,
}

impl Proof {
    /// Whether the opening is there and hashes to `commitment` (compared in constant time).
    pub fn opening_matches(&self, commitment: Commitment) -> bool {
        commitment.is_some() && self.opening.as_ref().is_some_and(|o| bool::from(o.commitment().0.ct_eq(&commitment.0)))
    }
}

/// Why a proof was refused before anything was decided.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidProof {
    /// Not canonical base64url.
    #[error("the commitment is not canonical base64url without padding")]
    CommitmentEncoding,
    /// Not 16 bytes.
    #[error("a commitment has 16 bytes (22 base64url characters), this one has {0}")]
    CommitmentLength(usize),
    /// All zeros stand for "none" and cannot be sent.
    #[error("a commitment of zeros means none; leave the proof out instead")]
    CommitmentZero,
    /// Not canonical base64url.
    #[error("the opening is not canonical base64url without padding")]
    OpeningEncoding,
    /// Not 16 to 64 bytes.
    #[error("an opening has 16 to 64 bytes, this one has {0}")]
    OpeningLength(usize),
}

/// An authenticated refresh token: this server's secret made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Presented {
    /// Whose token it is.
    pub session: SessionId,
    /// What it says.
    pub position: Position,
}

/// A refresh token's text. Handle it like a password; it never prints itself.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct RefreshToken(String);

impl RefreshToken {
    /// The text that the client keeps.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for RefreshToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RefreshToken(…)")
    }
}

/// Not a refresh token of ours: wrong shape, wrong version, unknown key id or bad MAC. Deliberately says no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not a refresh token that this server issued, or it was damaged")]
pub struct Malformed;

const PREFIX: &str = "rkr_";
const VERSION: u8 = 1;
const BODY: usize = 1 + 1 + 16 + 4 + 4 + 16;
const MAC: usize = 16;
const TEXT: usize = PREFIX.len() + (BODY + MAC) * 4 / 3 + 1;

/// The master secrets that a deployment holds outside its database, by key id; one of them issues, all of them are accepted.
///
/// From each secret four keys are derived with HKDF-SHA256 (RFC 5869) under separate labels: the MAC of refresh tokens, that of
/// [`SecretRing::tag`], the wrapping of private signing keys, and a check value that the database may know.
///
/// To replace a secret: add the new one *after* the current one on every server, then move it to the front on every server.
/// Each token moves to the new secret at its next refresh; the old one can go when no session carries its key id.
pub struct SecretRing {
    /// The first one issues.
    secrets: Vec<Derived>,
}

struct Derived {
    kid: u8,
    refresh: hmac::Key,
    tag: hmac::Key,
    wrap: aead::RandomizedNonceKey,
    check: [u8; 16],
}

/// Why a text of master secrets was refused. It never quotes the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSecrets {
    /// Nothing there.
    #[error("no master secret is given; write one line `1:<base64url of at least 32 random bytes>`")]
    Empty,
    /// A line is not `<kid>:<base64url>`.
    #[error("line {0} is not `<key id 0-255>:<base64url without padding>`")]
    Line(usize),
    /// Fewer than 32 bytes.
    #[error("the secret with key id {kid} has {len} bytes; it needs at least 32 random ones")]
    Short {
        /// Of which secret.
        kid: u8,
        /// Its length in bytes.
        len: usize,
    },
    /// Two secrets with one key id.
    #[error("the key id {0} is given twice")]
    Twice(u8),
}

impl SecretRing {
    /// Reads secrets from lines `<kid>:<base64url>`; the first line issues. Blank lines and lines starting with `#` are skipped.
    pub fn parse(text: &str) -> Result<Self, InvalidSecrets> {
        let mut secrets: Vec<Derived> = Vec::new();
        for (at, line) in text.lines().map(str::trim).enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (kid, secret) = line
                .split_once(':')
                .and_then(|(kid, secret)| Some((kid.parse().ok()?, decode(secret)?)))
                .ok_or(InvalidSecrets::Line(at + 1))?;
            if secret.len() < 32 {
                return Err(InvalidSecrets::Short { kid, len: secret.len() });
            }
            if secrets.iter().any(|s| s.kid == kid) {
                return Err(InvalidSecrets::Twice(kid));
            }
            secrets.push(Derived::new(kid, &secret));
        }
        if secrets.is_empty() { Err(InvalidSecrets::Empty) } else { Ok(Self { secrets }) }
    }

    /// Draws a fresh secret and returns its line for [`SecretRing::parse`].
    pub fn generate(kid: u8, rng: &dyn Rng) -> Zeroizing<String> {
        let secret = Zeroizing::new(rng::bytes::<32>(rng));
        Zeroizing::new(format!("{kid}:{}", BASE64_URL_SAFE_NO_PAD.encode(*secret)))
    }

    /// The key id that new tokens get.
    pub fn current(&self) -> u8 {
        self.secrets[0].kid
    }

    /// Key ids with their check values: the database keeps them, and a server whose secret has another value must not start.
    pub fn checks(&self) -> impl Iterator<Item = (u8, [u8; 16])> {
        self.secrets.iter().map(|s| (s.kid, s.check))
    }

    /// The token of a session at a position. Always the same bytes for the same input.
    ///
    /// `None` when the position's key id is not among the secrets: the session was issued under a secret that was taken away.
    pub fn issue(&self, session: SessionId, position: &Position) -> Option<RefreshToken> {
        let key = &self.by_kid(position.kid)?.refresh;
        let mut raw = [0; BODY + MAC];
        raw[0] = VERSION;
        raw[1] = position.kid;
        raw[2..18].copy_from_slice(&session.to_bytes());
        raw[18..22].copy_from_slice(&position.generation.to_be_bytes());
        raw[22..26].copy_from_slice(&position.issued_at.to_be_bytes());
        raw[26..42].copy_from_slice(&position.commitment.to_bytes());
        let mac = hmac::sign(key, &raw[..BODY]);
        raw[BODY..].copy_from_slice(&mac.as_ref()[..MAC]);
        let mut text = String::with_capacity(TEXT);
        text.push_str(PREFIX);
        BASE64_URL_SAFE_NO_PAD.encode_string(raw, &mut text);
        Some(RefreshToken(text))
    }

    /// Checks a token's shape and MAC. No I/O: a forged token dies here.
    pub fn authenticate(&self, text: &str) -> Result<Presented, Malformed> {
        let encoded = text.strip_prefix(PREFIX).filter(|_| text.len() == TEXT).ok_or(Malformed)?;
        let mut raw = [0; BODY + MAC];
        match BASE64_URL_SAFE_NO_PAD.decode_slice(encoded, &mut raw) {
            Ok(len) if len == raw.len() && raw[0] == VERSION => {}
            _ => return Err(Malformed),
        }
        let kid = raw[1];
        let mac = hmac::sign(&self.by_kid(kid).ok_or(Malformed)?.refresh, &raw[..BODY]);
        if !bool::from(mac.as_ref()[..MAC].ct_eq(&raw[BODY..])) {
            return Err(Malformed);
        }
        let array = |at: usize| raw[at..at + 16].try_into().expect("16 bytes");
        let word = |at: usize| u32::from_be_bytes(raw[at..at + 4].try_into().expect("4 bytes"));
        Ok(Presented {
            session: SessionId::from_bytes(array(2)),
            position: Position { generation: word(18), issued_at: word(22), commitment: Commitment(array(26)), kid },
        })
    }

    /// A value that nobody can compute who has not this secret, the same at any time: HMAC-SHA256 of `message` under a key for
    /// nothing else. `None` when the key id is not among the secrets.
    pub fn tag(&self, kid: u8, message: &[u8]) -> Option<[u8; 32]> {
        let tag = hmac::sign(&self.by_kid(kid)?.tag, message);
        Some(tag.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }

    /// Encrypts a key for the database (AES-256-GCM under the current secret). `context` is bound to the ciphertext, whose first
    /// byte is the secret's key id.
    pub fn wrap(&self, context: &str, plain: &[u8]) -> Vec<u8> {
        let current = &self.secrets[0];
        let mut sealed = plain.to_vec();
        let nonce = current
            .wrap
            .seal_in_place_append_tag(aead::Aad::from(context.as_bytes()), &mut sealed)
            .expect("AES-GCM seals any plaintext below 64 GiB");
        [&[current.kid][..], nonce.as_ref(), &sealed].concat()
    }

    /// Decrypts what [`SecretRing::wrap`] made; `None` when the secret is missing or the bytes or the context differ.
    pub fn unwrap(&self, context: &str, wrapped: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (kid, rest) = wrapped.split_first()?;
        let (nonce, sealed) = rest.split_at_checked(aead::NONCE_LEN)?;
        let nonce = aead::Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut plain = Zeroizing::new(sealed.to_vec());
        let key = &self.by_kid(*kid)?.wrap;
        let len = key.open_in_place(nonce, aead::Aad::from(context.as_bytes()), &mut plain).ok()?.len();
        plain.truncate(len);
        Some(plain)
    }

    fn by_kid(&self, kid: u8) -> Option<&Derived> {
        self.secrets.iter().find(|s| s.kid == kid)
    }
}

impl fmt::Debug for SecretRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.secrets.iter().map(|s| s.kid)).finish()
    }
}

impl Derived {
    fn new(kid: u8, secret: &[u8]) -> Self {
        let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(secret);
        let derive = |info: &str| {
            let mut out = Zeroizing::new([0; 32]);
            prk.expand(&[info.as_bytes()], hkdf::HKDF_SHA256)
                .and_then(|okm| okm.fill(&mut *out))
                .expect("32 bytes are within HKDF's limit");
            out
        };
        Self {
            kid,
            refresh: hmac::Key::new(hmac::HMAC_SHA256, &*derive("rekindle/v1/refresh")),
            tag: hmac::Key::new(hmac::HMAC_SHA256, &*derive("rekindle/v1/tag")),
            wrap: aead::RandomizedNonceKey::new(&aead::AES_256_GCM, &*derive("rekindle/v1/wrap"))
                .expect("AES-256 takes 32 bytes"),
            check: derive("rekindle/v1/check")[..16].try_into().expect("32 bytes"),
        }
    }
}

/// Canonical base64url without padding, or nothing.
fn decode(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    BASE64_URL_SAFE_NO_PAD.decode(text).ok().map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ring(lines: &[&str]) -> SecretRing {
        SecretRing::parse(&lines.join("\n")).unwrap()
    }

    const ONE: &str = "1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";
    const TWO: &str = "2:AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA";

    fn position() -> impl Strategy<Value = Position> {
        (any::<u32>(), any::<[u8; 16]>(), any::<u32>()).prop_map(|(generation, c, issued_at)| Position {
            generation,
            commitment: Commitment(c),
            issued_at,
            kid: 1,
        })
    }

    proptest! {
        #[test]
        fn a_token_says_what_was_put_in_and_is_always_the_same(sid in any::<[u8; 16]>(), position in position()) {
            let ring = ring(&[ONE]);
            let session = SessionId::from_bytes(sid);
            let token = ring.issue(session, &position).unwrap();
            prop_assert_eq!(token.expose().len(), TEXT);
            prop_assert_eq!(ring.authenticate(token.expose()), Ok(Presented { session, position }));
            prop_assert_eq!(ring.issue(session, &position).unwrap(), token);
        }

        #[test]
        fn any_changed_character_is_refused(position in position(), at in 0..TEXT, by in any::<char>()) {
            let ring = ring(&[ONE]);
            let token = ring.issue(SessionId::from_bytes([9; 16]), &position).unwrap();
            let mut chars: Vec<char> = token.expose().chars().collect();
            prop_assume!(chars[at] != by);
            chars[at] = by;
            prop_assert_eq!(ring.authenticate(&chars.into_iter().collect::<String>()), Err(Malformed));
        }

        #[test]
        fn any_truncation_or_extension_is_refused(position in position(), keep in 0..TEXT, more in "[A-Za-z0-9_-]{1,40}") {
            let ring = ring(&[ONE]);
            let token = ring.issue(SessionId::from_bytes([9; 16]), &position).unwrap();
            prop_assert_eq!(ring.authenticate(&token.expose()[..keep]), Err(Malformed));
            prop_assert_eq!(ring.authenticate(&format!("{}{more}", token.expose())), Err(Malformed));
        }

        #[test]
        fn any_text_is_refused_not_feared(text in ".{0,200}") {
            prop_assert_eq!(ring(&[ONE]).authenticate(&text), Err(Malformed));
            let _ = Commitment::parse(&text);
            let _ = Opening::parse(&text);
            let _ = SecretRing::parse(&text);
        }

        #[test]
        fn openings_are_opened_by_themselves_only(a in prop::collection::vec(any::<u8>(), 16..=64), b in prop::collection::vec(any::<u8>(), 16..=64)) {
            let (a, b) = (Opening::from_bytes(&a).unwrap(), Opening::from_bytes(&b).unwrap());
            prop_assert_eq!(Opening::parse(&a.expose()).unwrap(), a.clone());
            prop_assert_eq!(Commitment::parse(&a.commitment().to_string()), Ok(a.commitment()));
            prop_assert_eq!(a.commitment() == b.commitment(), a == b);
        }

        #[test]
        fn wrapped_keys_open_only_whole_and_in_their_context(plain in prop::collection::vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>()) {
            let ring = ring(&[ONE]);
            let wrapped = ring.wrap("here", &plain);
            prop_assert_eq!(&**ring.unwrap("here", &wrapped).unwrap(), &plain[..]);
            prop_assert!(ring.unwrap("there", &wrapped).is_none());
            let mut damaged = wrapped.clone();
            let at = at.index(damaged.len());
            damaged[at] ^= 1;
            prop_assert!(ring.unwrap("here", &damaged).is_none());
            prop_assert!(ring.unwrap("here", &wrapped[..at]).is_none());
        }
    }

    #[test]
    fn secrets_rotate_by_order_and_are_accepted_by_id() {
        let (old, both) = (ring(&[ONE]), ring(&[TWO, "", "# the one before", ONE]));
        assert_eq!((old.current(), both.current()), (1, 2));
        let position = Position { generation: 3, commitment: Commitment::NONE, issued_at: 5, kid: 1 };
        let token = old.issue(SessionId::from_bytes([1; 16]), &position).unwrap();
        assert!(both.authenticate(token.expose()).is_ok());
        assert_eq!(ring(&[TWO]).authenticate(token.expose()), Err(Malformed));
        assert!(ring(&[TWO]).issue(SessionId::from_bytes([1; 16]), &position).is_none());
        assert_ne!(old.checks().next().unwrap().1, ring(&[&ONE.replace("AAEC", "AAED")]).checks().next().unwrap().1);
    }

    #[test]
    fn bad_secrets_are_named_by_line_and_never_quoted() {
        let error = |text: &str| SecretRing::parse(text).unwrap_err().to_string();
        assert_eq!(error("# nothing\n\n"), InvalidSecrets::Empty.to_string());
        assert_eq!(error("\nhunter2"), "line 2 is not `<key id 0-255>:<base64url without padding>`");
        assert_eq!(error("256:AAAA"), "line 1 is not `<key id 0-255>:<base64url without padding>`");
        assert_eq!(error("7:AAAA"), "the secret with key id 7 has 3 bytes; it needs at least 32 random ones");
        assert_eq!(error(&format!("{ONE}\n{ONE}")), "the key id 1 is given twice");
    }

    #[test]
    fn nothing_secret_prints_itself() {
        let ring = ring(&[ONE]);
        let position = Position { generation: 3, commitment: Commitment::NONE, issued_at: 5, kid: 1 };
        let token = ring.issue(SessionId::from_bytes([1; 16]), &position).unwrap();
        let opening = Opening::from_bytes(&[65; 32]).unwrap();
        assert_eq!(format!("{ring:?} {token:?} {opening:?}"), "[1] RefreshToken(…) Opening(…)");
    }
}
