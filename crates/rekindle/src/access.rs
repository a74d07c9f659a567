//! Access tokens: short-lived JWTs (RFC 9068) that any server of the scope verifies without I/O.
//!
//! [`sign`] makes one, [`verify`] reads one, and [`VerifiedCache`] remembers those that it has read, so that a token that
//! comes again costs a hash and a look-up. All times are whole seconds, and `now` is a parameter.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aws_lc_rs::digest;
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use quick_cache::{Weighter, sync::Cache};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::clock::{Seconds, Timestamp};
use crate::keys::{KeyRing, SignerKey, VerifierKey};
use crate::refresh::Commitment;
use crate::rng::{self, Rng};
use crate::session::{Auth, Env, Object, Scope, SessionId, Tag, UserId};

/// The claim names that Rekindle sets itself, or that mean something to every JWT library; a session cannot set them.
pub const RESERVED: &[&str] = &[
    "iss",
    "aud",
    "sub",
    "sid",
    "client_id",
    "env",
    "tag",
    "gen",
    "iat",
    "exp",
    "nbf",
    "jti",
    "auth_time",
    "acr",
    "amr",
    "binding",
    "cfm",
];

/// A session's own claims use a name that is not theirs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the claim `{0}` is set by Rekindle; choose another name")]
pub struct ReservedClaim(&'static str);

/// Checks that a session's own claims can stand beside the standard ones. Every write of a session's claims must pass here:
/// [`sign`] relies on it.
pub fn check_claims(claims: &Map<String, Value>) -> Result<(), ReservedClaim> {
    RESERVED.iter().find(|name| claims.contains_key(**name)).map_or(Ok(()), |name| Err(ReservedClaim(name)))
}

/// What protects a session's refresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Binding {
    /// The refresh token alone.
    Bearer,
    /// The refresh token and the client's opening.
    Committed,
}

impl From<Commitment> for Binding {
    fn from(commitment: Commitment) -> Self {
        if commitment.is_some() { Self::Committed } else { Self::Bearer }
    }
}

/// What an access token says.
#[derive(Debug, Clone, Copy)]
pub struct AccessClaims<'a> {
    /// `iss`: as configured.
    pub issuer: &'a str,
    /// `aud`.
    pub audience: &'a str,
    /// `client_id` and `env`. Must be the scope of the key that signs.
    pub scope: &'a Scope,
    /// `tag`: of the session's definition.
    pub tag: &'a Tag,
    /// `sub`.
    pub user_id: &'a UserId,
    /// `sid`.
    pub session: SessionId,
    /// `gen`: the generation of the refresh token that this came with.
    pub generation: u32,
    /// `binding`.
    pub binding: Binding,
    /// `cfm`: a verifier should report that this generation reached its client.
    pub confirm: bool,
    /// `iat`, rounded down.
    pub issued_at: Timestamp,
    /// `exp`, rounded down.
    pub expires_at: Timestamp,
    /// `auth_time`, `acr`, `amr`.
    pub auth: &'a Auth,
    /// The session's own claims, which have passed [`check_claims`].
    pub claims: &'a Object,
}

/// An access token's text. Handle it like a password; it never prints itself.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct AccessToken(String);

impl AccessToken {
    /// The text that the client sends.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessToken(…)")
    }
}

/// Signs an access token.
pub fn sign(key: &SignerKey, claims: &AccessClaims<'_>, rng: &dyn Rng) -> AccessToken {
    let own = claims.claims.as_str().trim();
    let own = own.strip_prefix('{').and_then(|own| own.strip_suffix('}')).unwrap_or_default().trim();
    let mut payload = Vec::with_capacity(512 + own.len());
    // The session's own claims come first, so that a reader that takes the last of two equal names takes ours.
    if !own.is_empty() {
        payload.push(b'{');
        payload.extend_from_slice(own.as_bytes());
    }
    let at = payload.len();
    let mut token_id = [0; 22];
    BASE64_URL_SAFE_NO_PAD
        .encode_slice(rng::bytes::<16>(rng), &mut token_id)
        .expect("16 bytes are 22 base64url characters");
    let standard = Signed {
        iss: claims.issuer,
        aud: claims.audience,
        sub: claims.user_id,
        sid: claims.session,
        client_id: &claims.scope.product,
        env: &claims.scope.env,
        tag: claims.tag,
        generation: claims.generation,
        iat: claims.issued_at.secs(),
        exp: claims.expires_at.secs(),
        jti: std::str::from_utf8(&token_id).expect("base64url is ASCII"),
        auth_time: claims.auth.time.secs(),
        acr: claims.auth.acr.as_deref(),
        amr: &claims.auth.amr,
        binding: claims.binding,
        cfm: claims.confirm,
    };
    serde_json::to_writer(&mut payload, &standard).expect("claims are JSON");
    if at > 0 {
        payload[at] = b',';
    }
    // Room for the longest signature, so that no copy of the token is left behind by growing.
    let mut token = String::with_capacity(key.header().len() + 1 + payload.len() * 4 / 3 + 4 + 350);
    token.push_str(key.header());
    token.push('.');
    BASE64_URL_SAFE_NO_PAD.encode_string(&payload, &mut token);
    key.sign(&mut token);
    AccessToken(token)
}

/// The standard claims, as they are written.
#[derive(Serialize)]
struct Signed<'a> {
    iss: &'a str,
    aud: &'a str,
    sub: &'a UserId,
    sid: SessionId,
    client_id: &'a Tag,
    env: &'a Env,
    tag: &'a Tag,
    #[serde(rename = "gen")]
    generation: u32,
    iat: i64,
    exp: i64,
    jti: &'a str,
    auth_time: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    acr: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    amr: &'a [String],
    binding: Binding,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    cfm: bool,
}

/// The claims, as they are read. A name that comes twice is an error.
#[derive(Deserialize)]
struct Read {
    iss: Box<str>,
    aud: Box<str>,
    sub: UserId,
    sid: SessionId,
    client_id: Tag,
    env: Env,
    tag: Tag,
    #[serde(rename = "gen")]
    generation: u32,
    iat: i64,
    exp: i64,
    jti: Box<str>,
    auth_time: i64,
    acr: Option<String>,
    #[serde(default)]
    amr: Vec<String>,
    binding: Binding,
    #[serde(default)]
    cfm: bool,
    #[serde(flatten)]
    own: Map<String, Value>,
}

/// What a token has to be for to be accepted here.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// The product and environment; the key ring must be theirs.
    pub scope: &'a Scope,
    /// The configured issuer.
    pub issuer: &'a str,
    /// The audience that this scope's tokens carry.
    pub audience: &'a str,
    /// One session definition, or any of the product.
    pub tag: Option<&'a Tag>,
}

/// What a token that one of our keys signed says.
#[derive(Debug)]
pub struct Verified {
    /// Who issued it.
    pub issuer: Box<str>,
    /// For whom.
    pub audience: Box<str>,
    /// The session's product and environment.
    pub scope: Scope,
    /// The tag of its definition.
    pub tag: Tag,
    /// The session.
    pub session: SessionId,
    /// Its user.
    pub user_id: UserId,
    /// The generation of the refresh token that this came with.
    pub generation: u32,
    /// What protects the session's refresh.
    pub binding: Binding,
    /// The token's own id, `jti`: it may be logged.
    pub token_id: Box<str>,
    /// When it was issued.
    pub issued_at: Timestamp,
    /// From then on it is expired.
    pub expires_at: Timestamp,
    /// The authentication that the session rests on.
    pub auth: Auth,
    /// The session's own claims.
    pub claims: Object,
    /// Its generation is still to be reported as confirmed.
    unreported: AtomicBool,
}

impl Verified {
    /// Whether to report now that this generation reached its client (the token asks for it with `cfm`). True once: while
    /// the token stays in a [`VerifiedCache`], only its first use reports.
    pub fn take_confirmation(&self) -> bool {
        // The load keeps the cache line shared among cores in the usual case.
        self.unreported.load(Ordering::Relaxed) && self.unreported.swap(false, Ordering::Relaxed)
    }

    /// What changes between two uses of one token: by whom it is expected, and the time.
    fn judge(self: Arc<Self>, expected: &Expected<'_>, now: Timestamp) -> Result<Arc<Self>, AccessRefusal> {
        if self.issued_at > now + LEEWAY {
            Err(AccessRefusal::Malformed)
        } else if self.scope != *expected.scope
            || *self.issuer != *expected.issuer
            || *self.audience != *expected.audience
            || expected.tag.is_some_and(|tag| self.tag != *tag)
        {
            Err(AccessRefusal::ScopeMismatch)
        } else if now >= self.expires_at {
            Err(AccessRefusal::Expired(self))
        } else {
            Ok(self)
        }
    }

    /// About how many bytes this occupies in a cache, the cache's own share included.
    fn weight(&self) -> u64 {
        let texts = self.issuer.len() + self.audience.len() + self.token_id.len() + self.user_id.as_str().len();
        let names = self.tag.as_str().len() + self.scope.product.as_str().len() + self.scope.env.as_str().len();
        let auth = self.auth.acr.as_ref().map_or(0, String::len)
            + self.auth.amr.iter().map(|method| method.len() + size_of::<String>()).sum::<usize>();
        // Ten allocations of some 16 bytes, and a key, pointer, hash and links in the cache.
        (size_of::<Self>() + texts + names + auth + self.claims.as_str().len() + 10 * 16 + 96) as u64
    }
}

/// Why a token was not accepted.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AccessRefusal {
    /// Not a token of this scope's keys: wrong shape, type, key id, algorithm or signature; or from the future. Deliberately
    /// says no more. (`token_malformed`)
    #[error("this is not an access token that this server issued, or it was damaged")]
    Malformed,
    /// It names a key that was withdrawn in an emergency, so that its signature says nothing. A client that got it from us
    /// refreshes and goes on. (`access_token_expired`)
    #[error("the key that signed this access token was withdrawn; refresh the session")]
    Withdrawn,
    /// One of our keys signed it, for another product, environment, definition, issuer or audience. (`token_scope_mismatch`)
    #[error("this access token is for another product, environment, definition, issuer or audience")]
    ScopeMismatch,
    /// It was good until now. What it said is still true, which is enough to sign out. (`access_token_expired`)
    #[error("this access token expired at {}; refresh the session", .0.expires_at)]
    Expired(Arc<Verified>),
}

/// The longest token that is looked at: 16 KiB.
pub const MAX_TOKEN: usize = 16 * 1024;

/// By how much the clock of the server that issued a token may be ahead.
pub(crate) const LEEWAY: Seconds = Seconds(30);

/// Verifies a token: its signature first, then what it says, then whether it is expected here and in time.
pub fn verify(
    token: &str,
    ring: &KeyRing,
    expected: &Expected<'_>,
    now: Timestamp,
) -> Result<Arc<Verified>, AccessRefusal> {
    Parts::of(token, ring)?.read()?.judge(expected, now)
}

/// Tokens that were verified, by their SHA-256. One cache serves all scopes; it never holds a token.
///
/// What does not change is remembered: that a key signed the token, and what it says. At each use the key must still be in
/// the ring, the token must be expected, and `now` within its time.
pub struct VerifiedCache(Cache<[u8; 32], Arc<Verified>, Weight>);

impl VerifiedCache {
    /// A cache of at most about `bytes` of memory. Zero: nothing is remembered.
    pub fn new(bytes: u64) -> Self {
        Self(Cache::with_weighter((bytes / 1024) as usize, bytes, Weight))
    }

    /// As [`verify`], with the same outcomes.
    pub fn verify(
        &self,
        token: &str,
        ring: &KeyRing,
        expected: &Expected<'_>,
        now: Timestamp,
    ) -> Result<Arc<Verified>, AccessRefusal> {
        let parts = Parts::of(token, ring)?;
        let hash = digest::digest(&digest::SHA256, token.as_bytes());
        let hash: [u8; 32] = hash.as_ref().try_into().expect("SHA-256 has 32 bytes");
        if let Some(known) = self.0.get(&hash) {
            let judged = known.judge(expected, now);
            if let Err(AccessRefusal::Expired(_)) = judged {
                self.0.remove(&hash);
            }
            return judged;
        }
        let verified = parts.read()?.judge(expected, now)?;
        self.0.insert(hash, verified.clone());
        Ok(verified)
    }
}

impl fmt::Debug for VerifiedCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifiedCache({} tokens, {} of {} bytes)", self.0.len(), self.0.weight(), self.0.capacity())
    }
}

#[derive(Clone)]
struct Weight;

impl Weighter<[u8; 32], Arc<Verified>> for Weight {
    fn weight(&self, _: &[u8; 32], verified: &Arc<Verified>) -> u64 {
        verified.weight()
    }
}

/// A token taken apart, with the key that its header names. Nothing is believed yet.
struct Parts<'a> {
    key: &'a VerifierKey,
    message: &'a str,
    payload: &'a str,
    signature: &'a str,
}

impl<'a> Parts<'a> {
    /// The header is compared with those that our keys write, not parsed: there is no algorithm to choose, no type to
    /// confuse, no `jku`, `jwk` or `crit` to obey.
    fn of(token: &'a str, ring: &'a KeyRing) -> Result<Self, AccessRefusal> {
        let taken = || {
            let (message, signature) = token.rsplit_once('.')?;
            let (header, payload) = message.split_once('.')?;
            Some((header, message, payload, signature))
        };
        let (header, message, payload, signature) =
            Some(token).filter(|t| t.len() <= MAX_TOKEN).and_then(|_| taken()).ok_or(AccessRefusal::Malformed)?;
        match ring.by_header(header) {
            Some(key) => Ok(Self { key, message, payload, signature }),
            None if ring.is_withdrawn(header) => Err(AccessRefusal::Withdrawn),
            None => Err(AccessRefusal::Malformed),
        }
    }

    /// Checks the signature, and reads the claims that it covers.
    fn read(&self) -> Result<Arc<Verified>, AccessRefusal> {
        let decode = |part: &str| BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| AccessRefusal::Malformed);
        if !self.key.verifies(self.message.as_bytes(), &decode(self.signature)?) {
            return Err(AccessRefusal::Malformed);
        }
        let read: Read = serde_json::from_slice(&decode(self.payload)?).map_err(|_| AccessRefusal::Malformed)?;
        Ok(Arc::new(Verified {
            issuer: read.iss,
            audience: read.aud,
            scope: Scope { product: read.client_id, env: read.env },
            tag: read.tag,
            session: read.sid,
            user_id: read.sub,
            generation: read.generation,
            binding: read.binding,
            token_id: read.jti,
            issued_at: Timestamp::from_secs(read.iat),
            expires_at: Timestamp::from_secs(read.exp),
            auth: Auth { time: Timestamp::from_secs(read.auth_time), acr: read.acr, amr: read.amr },
            claims: Object::from_map(&read.own),
            unreported: AtomicBool::new(read.cfm),
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use jsonwebtoken as independent;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::keys::tests::{Counting, NOW, key, ring, scope};
    use crate::keys::{Algorithm, SigningKey};

    static KEYS: LazyLock<Vec<SigningKey>> = LazyLock::new(|| Algorithm::ALL.map(|a| key(a, 1 + a as u64)).into());
    static RING: LazyLock<KeyRing> = LazyLock::new(|| ring(KEYS.clone()));
    static SCOPE: LazyLock<Scope> = LazyLock::new(|| scope("shop/dev"));
    static TAG: LazyLock<Tag> = LazyLock::new(|| "web".parse().unwrap());
    static USER: LazyLock<UserId> = LazyLock::new(|| "ada".parse().unwrap());
    static EMPTY: LazyLock<Object> = LazyLock::new(Object::empty);
    static AUTH: LazyLock<Auth> = LazyLock::new(|| Auth {
        time: NOW - Seconds(60),
        acr: Some("aal2".into()),
        amr: vec!["pwd".into(), "otp".into()],
    });
    const END: Timestamp = Timestamp::from_secs(1_800_000_900);

    fn claims() -> AccessClaims<'static> {
        AccessClaims {
            issuer: "https://auth.example",
            audience: "shop/dev",
            scope: &SCOPE,
            tag: &TAG,
            user_id: &USER,
            session: SessionId::from_bytes([7; 16]),
            generation: 3,
            binding: Binding::Bearer,
            confirm: true,
            issued_at: NOW,
            expires_at: END,
            auth: &AUTH,
            claims: &EMPTY,
        }
    }

    fn expected() -> Expected<'static> {
        Expected { scope: &SCOPE, issuer: "https://auth.example", audience: "shop/dev", tag: None }
    }

    fn signed(algorithm: Algorithm, claims: &AccessClaims<'_>) -> String {
        let key = RING.signer(algorithm, NOW).unwrap();
        sign(key, claims, &Counting::from(5)).expose().to_owned()
    }

    /// A token with any header and payload, signed by our own EdDSA key.
    fn crafted(header: &str, payload: &str) -> String {
        let encode = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
        let mut token = format!("{}.{}", encode(header), encode(payload));
        RING.signer(Algorithm::EdDsa, NOW).unwrap().sign(&mut token);
        token
    }

    fn part(token: &str, at: usize) -> Value {
        serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(at).unwrap()).unwrap()).unwrap()
    }

    fn header(token: &str) -> String {
        let raw = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap();
        String::from_utf8(raw).unwrap()
    }

    fn check(token: &str) -> Result<Arc<Verified>, AccessRefusal> {
        verify(token, &RING, &expected(), NOW)
    }

    fn malformed(token: &str) -> bool {
        matches!(check(token), Err(AccessRefusal::Malformed))
    }

    #[test]
    fn every_algorithm_is_read_by_ourselves_and_by_an_independent_reader() {
        let own = Object::parse(r#" { "role" : "admin", "limits":{"a":[1,2.5,null]} } "#.into()).unwrap();
        let jwks: independent::jwk::JwkSet = serde_json::from_str(&RING.jwks(NOW)).unwrap();
        for (algorithm, name) in Algorithm::ALL.into_iter().zip(["EdDSA", "ES256", "RS256"]) {
            let token = signed(algorithm, &AccessClaims { claims: &own, ..claims() });

            let kid = RING.signer(algorithm, NOW).unwrap().kid().as_str();
            let jwk = jwks.find(kid).unwrap();
            assert_eq!(jwk.common.public_key_use, Some(independent::jwk::PublicKeyUse::Signature));
            let mut validation = independent::Validation::new(name.parse().unwrap());
            validation.validate_exp = false;
            validation.set_audience(&["shop/dev"]);
            validation.set_issuer(&["https://auth.example"]);
            let read = independent::decode::<Value>(&token, &jwk.try_into().unwrap(), &validation).unwrap();
            assert_eq!(read.header.typ.as_deref(), Some("at+jwt"));
            assert_eq!(read.header.kid.as_deref(), Some(kid));
            let token_id = read.claims["jti"].as_str().unwrap();
            assert_eq!(token_id.len(), 22);
            assert_eq!(
                read.claims,
                json!({
                    "iss": "https://auth.example", "aud": "shop/dev", "sub": "ada", "client_id": "shop", "env": "dev",
                    "sid": "07070707-0707-0707-0707-070707070707", "tag": "web", "gen": 3, "jti": token_id,
                    "iat": 1_800_000_000, "exp": 1_800_000_900, "auth_time": 1_799_999_940, "acr": "aal2",
                    "amr": ["pwd", "otp"], "binding": "bearer", "cfm": true,
                    "role": "admin", "limits": { "a": [1, 2.5, null] },
                })
            );

            let verified = check(&token).unwrap();
            assert_eq!((&*verified.issuer, &*verified.audience), ("https://auth.example", "shop/dev"));
            assert_eq!((&verified.scope, &verified.tag, &verified.user_id), (&*SCOPE, &*TAG, &*USER));
            assert_eq!((verified.session, verified.generation), (SessionId::from_bytes([7; 16]), 3));
            assert_eq!((verified.issued_at, verified.expires_at, &verified.auth), (NOW, END, &*AUTH));
            assert_eq!((verified.binding, &*verified.token_id), (Binding::Bearer, token_id));
            assert_eq!(verified.claims.to_map(), own.to_map());
        }
    }

    #[test]
    fn what_is_absent_is_left_out() {
        let auth = Auth { time: NOW, acr: None, amr: vec![] };
        let token = signed(Algorithm::EdDsa, &AccessClaims { auth: &auth, confirm: false, ..claims() });
        let payload = part(&token, 1);
        assert!(["acr", "amr", "cfm"].iter().all(|name| payload.get(name).is_none()));
        let verified = check(&token).unwrap();
        assert_eq!(verified.auth, auth);
        assert!(verified.claims.is_empty() && !verified.take_confirmation());
        assert!(payload.as_object().unwrap().keys().all(|name| RESERVED.contains(&name.as_str())));
    }

    #[test]
    fn own_claims_cannot_take_the_place_of_the_standard_ones() {
        for name in RESERVED {
            let map = Map::from_iter([((*name).to_owned(), json!("mallory"))]);
            assert_eq!(check_claims(&map), Err(ReservedClaim(name)));
            let own = Object::from_map(&map);
            let token = signed(Algorithm::EdDsa, &AccessClaims { claims: &own, ..claims() });
            // Had it been stored all the same, a reader that takes the last of two names takes ours, and we take none.
            if *name != "nbf" {
                assert_ne!(part(&token, 1)[name], "mallory", "{name}");
                assert!(malformed(&token), "{name}");
            }
        }
        assert_eq!(check_claims(&Map::from_iter([("role".to_owned(), json!("admin"))])), Ok(()));
    }

    #[test]
    fn a_header_that_our_keys_do_not_write_is_refused() {
        let token = signed(Algorithm::EdDsa, &claims());
        let (ours, payload) = (header(&token), part(&token, 1).to_string());
        assert!(check(&crafted(&ours, &payload)).is_ok());
        let kid = RING.signer(Algorithm::EdDsa, NOW).unwrap().kid().as_str();
        let rsa = RING.signer(Algorithm::Rs256, NOW).unwrap().kid().as_str();
        let jwk = KEYS[0].public_jwk.as_str();
        for header in [
            ours.replace("EdDSA", "none"),
            ours.replace("EdDSA", "RS256"),
            ours.replace("EdDSA", "HS256"),
            ours.replace(kid, rsa),
            ours.replace(kid, "unknown"),
            ours.replace("at+jwt", "JWT"),
            ours.replace("at+jwt", "AT+JWT"),
            ours.replace(r#","typ":"at+jwt""#, ""),
            ours.replace('}', r#","crit":["exp"]}"#),
            ours.replace('}', &format!(r#","jwk":{jwk}}}"#)),
            ours.replace('}', r#","jku":"https://mallory.example/jwks.json"}"#),
            "{}".into(),
            String::new(),
            "[".repeat(5000),
        ] {
            assert!(malformed(&crafted(&header, &payload)), "{header}");
        }
    }

    #[test]
    fn a_key_put_into_the_header_is_never_looked_at() {
        let mallory = key(Algorithm::EdDsa, 99);
        let theirs = ring(vec![mallory.clone()]);
        let ours = RING.signer(Algorithm::EdDsa, NOW).unwrap().kid();
        let header = format!(r#"{{"alg":"EdDSA","jwk":{},"kid":"{ours}","typ":"at+jwt"}}"#, mallory.public_jwk);
        let payload = part(&signed(Algorithm::EdDsa, &claims()), 1).to_string();
        let encode = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
        let mut token = format!("{}.{}", encode(&header), encode(&payload));
        theirs.signer(Algorithm::EdDsa, NOW).unwrap().sign(&mut token);
        assert!(malformed(&token));
    }

    #[test]
    fn a_public_key_is_no_shared_secret() {
        let kid = RING.signer(Algorithm::Rs256, NOW).unwrap().kid();
        let jwk = RING.jwks(NOW);
        let payload = part(&signed(Algorithm::Rs256, &claims()), 1);
        let mut head = independent::Header::new(independent::Algorithm::HS256);
        (head.kid, head.typ) = (Some(kid.to_string()), Some("at+jwt".into()));
        let secret = independent::EncodingKey::from_secret(jwk.as_bytes());
        assert!(malformed(&independent::encode(&head, &payload, &secret).unwrap()));
        // With the right header, the wrong kind of signature.
        let token = signed(Algorithm::Rs256, &claims());
        let (message, _) = token.rsplit_once('.').unwrap();
        let mac = independent::crypto::sign(message.as_bytes(), &secret, independent::Algorithm::HS256).unwrap();
        assert!(malformed(&format!("{message}.{mac}")));
        assert!(malformed(&format!("{message}.")));
    }

    #[test]
    fn a_payload_that_lacks_or_twists_a_claim_is_refused_although_signed() {
        let token = signed(Algorithm::EdDsa, &claims());
        let (head, payload) = (header(&token), part(&token, 1));
        let required = RESERVED.iter().filter(|name| !["nbf", "acr", "amr", "cfm"].contains(name));
        for name in required {
            let mut lacking = payload.clone();
            lacking.as_object_mut().unwrap().remove(*name);
            assert!(malformed(&crafted(&head, &lacking.to_string())), "{name} missing");
            let mut twisted = payload.clone();
            twisted[name] = json!({ "a": 1 });
            assert!(malformed(&crafted(&head, &twisted.to_string())), "{name} of another type");
        }
        let deep = format!(r#"{{"x":{}{}}}"#, "[".repeat(3000), "]".repeat(3000));
        for payload in ["", "null", "[]", "{", &deep] {
            assert!(malformed(&crafted(&head, payload)), "{payload:.20}");
        }
    }

    #[test]
    fn what_is_no_jwt_at_all_is_refused() {
        let token = signed(Algorithm::EdDsa, &claims());
        let refresh = crate::keys::tests::secrets(&["1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"])
            .issue(
                SessionId::from_bytes([7; 16]),
                &crate::rotation::Position { generation: 3, commitment: Commitment::NONE, issued_at: 5, kid: 1 },
            )
            .unwrap();
        let oversized = crafted(&header(&token), &format!(r#"{{"x":"{}"}}"#, "x".repeat(MAX_TOKEN)));
        for text in
            ["", ".", "..", "a.b.c", refresh.expose(), &oversized, &format!("{token}="), &format!("web:{token}")]
        {
            assert!(malformed(text));
        }
    }

    #[test]
    fn a_token_holds_from_its_issue_to_its_end_exactly() {
        let token = signed(Algorithm::EdDsa, &claims());
        let at = |now| verify(&token, &RING, &expected(), now);
        assert!(matches!(at(NOW - Seconds(31)), Err(AccessRefusal::Malformed)));
        assert!(at(NOW - Seconds(30)).is_ok());
        assert!(at(Timestamp::from_millis(END.millis() - 1)).is_ok());
        let Err(AccessRefusal::Expired(verified)) = at(END) else { panic!("expired at its very end") };
        assert_eq!(verified.session, SessionId::from_bytes([7; 16]));
    }

    #[test]
    fn a_token_is_good_only_for_what_it_was_issued_for() {
        let token = signed(Algorithm::EdDsa, &claims());
        let (other, tag) = (scope("shop/prod"), "mobile".parse().unwrap());
        let e = expected();
        for elsewhere in [
            Expected { scope: &other, ..e },
            Expected { issuer: "https://auth.example/", ..e },
            Expected { audience: "shop", ..e },
            Expected { tag: Some(&tag), ..e },
        ] {
            for now in [NOW, END] {
                let refused = verify(&token, &RING, &elsewhere, now);
                assert!(matches!(refused, Err(AccessRefusal::ScopeMismatch)), "before it is called expired");
            }
        }
        assert!(verify(&token, &RING, &Expected { tag: Some(&TAG), ..e }, NOW).is_ok());
        // Another scope has other keys: their key ids are unknown here.
        let elsewhere = ring(vec![key(Algorithm::EdDsa, 2)]);
        assert!(matches!(verify(&token, &elsewhere, &e, NOW), Err(AccessRefusal::Malformed)));
    }

    #[test]
    fn the_cache_judges_each_use_anew() {
        let cache = VerifiedCache::new(1 << 20);
        let token = signed(Algorithm::EdDsa, &claims());
        let at = |expected: &Expected<'_>, now| cache.verify(&token, &RING, expected, now);
        let first = at(&expected(), NOW).unwrap();
        let second = at(&expected(), NOW).unwrap();
        assert!(Arc::ptr_eq(&first, &second));
        assert!(first.take_confirmation() && !second.take_confirmation(), "its use is reported once");

        let other = scope("shop/prod");
        let elsewhere = Expected { scope: &other, ..expected() };
        assert!(matches!(at(&elsewhere, NOW), Err(AccessRefusal::ScopeMismatch)));
        assert!(matches!(at(&expected(), NOW - Seconds(31)), Err(AccessRefusal::Malformed)));
        let without = ring(vec![key(Algorithm::EdDsa, 2)]);
        assert!(matches!(cache.verify(&token, &without, &expected(), NOW), Err(AccessRefusal::Malformed)));
        assert!(matches!(at(&expected(), END), Err(AccessRefusal::Expired(_))));
        assert_eq!(cache.0.len(), 0, "an expired token is forgotten");
        assert!(matches!(at(&expected(), END), Err(AccessRefusal::Expired(_))));
        assert_eq!(cache.0.len(), 0, "and not remembered again");
    }

    #[test]
    fn the_cache_stays_within_its_bytes_and_keeps_no_token() {
        let cache = VerifiedCache::new(20_000);
        let rng = Counting::from(3);
        let signer = RING.signer(Algorithm::EdDsa, NOW).unwrap();
        for _ in 0..200 {
            let token = sign(signer, &claims(), &rng);
            cache.verify(token.expose(), &RING, &expected(), NOW).unwrap();
        }
        assert!(cache.0.weight() <= 20_000 && cache.0.len() > 5, "{cache:?}");
        let none = VerifiedCache::new(0);
        let token = signed(Algorithm::EdDsa, &claims());
        assert!(none.verify(&token, &RING, &expected(), NOW).is_ok());
        assert_eq!(none.0.len(), 0);
    }

    #[test]
    fn no_token_prints_itself() {
        let signer = RING.signer(Algorithm::EdDsa, NOW).unwrap();
        let token = sign(signer, &claims(), &Counting::from(1));
        assert_eq!(format!("{token:?}"), "AccessToken(…)");
        assert_ne!(token, sign(signer, &claims(), &Counting::from(2)), "each has an id of its own");
    }

    proptest! {
        #[test]
        fn any_changed_character_is_refused(which in 0..3_usize, at in any::<prop::sample::Index>(), by in any::<char>()) {
            let token = signed(Algorithm::ALL[which], &claims());
            let mut chars: Vec<char> = token.chars().collect();
            let at = at.index(chars.len());
            prop_assume!(chars[at] != by);
            chars[at] = by;
            prop_assert!(malformed(&chars.into_iter().collect::<String>()));
        }

        #[test]
        fn any_changed_bit_is_refused(which in 0..3_usize, at in any::<prop::sample::Index>(), bit in 0..7_u8) {
            let token = signed(Algorithm::ALL[which], &claims());
            let mut bytes = token.into_bytes();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(malformed(&String::from_utf8(bytes).unwrap()));
        }

        #[test]
        fn any_truncation_or_extension_is_refused(at in any::<prop::sample::Index>(), more in "[A-Za-z0-9_.-]{1,40}") {
            let token = signed(Algorithm::EdDsa, &claims());
            prop_assert!(malformed(&token[..at.index(token.len())]));
            for longer in [format!("{token}{more}"), format!("{more}{token}")] {
                prop_assert!(malformed(&longer));
            }
        }

        #[test]
        fn any_text_is_refused_not_feared(text in ".{0,200}", payload in ".{0,200}") {
            prop_assert!(malformed(&text));
            prop_assert!(malformed(&crafted(&header(&signed(Algorithm::EdDsa, &claims())), &payload)));
        }

        #[test]
        fn whatever_a_session_holds_comes_back(
            user in "\\PC{0,60}",
            generation in any::<u32>(),
            names in prop::collection::btree_map("\\PC{0,12}", "\\PC{0,12}", 0..5),
        ) {
            let map: Map<String, Value> = names.into_iter().map(|(name, value)| (name, value.into())).collect();
            prop_assume!(check_claims(&map).is_ok());
            let (user, own) = (user.parse().unwrap(), Object::from_map(&map));
            let said = AccessClaims { user_id: &user, generation, claims: &own, ..claims() };
            let verified = check(&signed(Algorithm::EdDsa, &said)).unwrap();
            prop_assert_eq!((&verified.user_id, verified.generation), (&user, generation));
            prop_assert_eq!(verified.claims.to_map(), map);
        }
    }
}
