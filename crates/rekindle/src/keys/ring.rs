//! The keys of one scope: which one signs, which verify, and what the schedule asks for.

use std::fmt;

use aws_lc_rs::digest;
use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::signature::{ParsedPublicKey, RSA_PKCS1_SHA256};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::pair::{Jwk, Pair};
use super::{Algorithm, Chain, KeyError, KeyId, KeySchedule, KeyTimes, Plan, SigningKey};
use crate::clock::Timestamp;
use crate::refresh::SecretRing;
use crate::session::Scope;

/// The keys of one scope, parsed once.
///
/// A key that cannot be used is reported by [`KeyRing::faults`] and stands in nobody's way: without its private half it
/// still verifies, without its public half it is left out.
pub struct KeyRing {
    scope: Scope,
    schedule: KeySchedule,
    /// By time, so that [`Plan`]'s places mean the same on every server.
    keys: Vec<Key>,
    /// Their tokens are refused, and their clients refresh.
    withdrawn: Vec<Withdrawn>,
}

struct Withdrawn {
    kid: KeyId,
    chain: Chain,
    times: KeyTimes,
    header: String,
}

/// A key of a ring, as far as it can be used.
pub struct Key {
    kid: KeyId,
    chain: Chain,
    times: KeyTimes,
    public_jwk: String,
    verifier: Option<VerifierKey>,
    signer: Result<SignerKey, KeyError>,
}

/// What the schedule asks the store to do for one chain.
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
    /// Add it only while this is the newest key (by `signs_from`, `created_at`, key id) of the scope and chain; `None`:
    /// while there is no key. Otherwise another server was faster: read again.
    pub after: Option<KeyId>,
    /// For [`SigningKey::generate`].
    pub signs_from: Timestamp,
}

impl KeyRing {
    /// Parses and decrypts all `records` of a scope: some 50 µs for a key, 1 ms for an RS256 key.
    pub fn open(scope: Scope, records: Vec<SigningKey>, secrets: &SecretRing, schedule: KeySchedule) -> Self {
        // But for a first key, only one that was made in an emergency signs at once. What is older is withdrawn, also where
        // another server was moving its private half to the current master secret at that moment.
        let emergency = Chain::ALL.map(|chain| {
            let at_once = records.iter().filter(|k| k.chain == chain && k.signs_from == k.created_at);
            (chain, at_once.map(|k| k.created_at).max())
        });
        let older = |key: &SigningKey| {
            emergency.iter().any(|(chain, at)| *chain == key.chain && at.is_some_and(|at| key.created_at < at))
        };
        let (withdrawn, records): (Vec<_>, Vec<_>) = records.into_iter().partition(|k| k.is_withdrawn() || older(k));
        let mut keys: Vec<Key> = records.into_iter().map(|record| Key::open(&scope, record, secrets)).collect();
        keys.sort_by(|a, b| a.order().cmp(&b.order()));
        Self { scope, schedule, keys, withdrawn: withdrawn.into_iter().map(Withdrawn::from).collect() }
    }

    /// The keys of a JWKS that a scope's server published ([`KeyRing::jwks`]): they verify, and sign nothing.
    ///
    /// What is no key of ours is left out. `earlier` is the ring that this one replaces: a key that has gone since was withdrawn or
    /// has no token left, so that its clients refresh.
    pub fn of_jwks(scope: Scope, jwks: &str, earlier: Option<&Self>) -> Result<Self, InvalidJwks> {
        let Jwks { keys } = serde_json::from_str(jwks).map_err(|e| InvalidJwks(e.to_string()))?;
        let keys: Vec<Key> = keys.into_iter().filter_map(|jwk| Key::public(jwk.get())).collect();
        let gone = |kid: &KeyId| !keys.iter().any(|key| key.kid == *kid);
        let before = earlier.map(|ring| (ring.keys.iter(), ring.withdrawn.iter()));
        let withdrawn = before.into_iter().flat_map(|(keys, withdrawn)| {
            let keys = keys.map(|key| Withdrawn::of(key.kid.clone(), key.chain, key.times));
            keys.chain(withdrawn.map(|w| Withdrawn::of(w.kid.clone(), w.chain, w.times)))
        });
        let mut withdrawn: Vec<Withdrawn> = withdrawn.filter(|w| gone(&w.kid)).collect();
        withdrawn.drain(..withdrawn.len().saturating_sub(MAX_GONE));
        Ok(Self { scope, schedule: KeySchedule::default(), keys, withdrawn })
    }

    /// Whose keys these are.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The key that signs at `now`.
    pub fn signer(&self, chain: impl Into<Chain>, now: Timestamp) -> Result<&SignerKey, KeyError> {
        self.signing(chain.into(), now)?.signer()
    }

    /// The same with its times.
    pub fn signing(&self, chain: Chain, now: Timestamp) -> Result<&Key, KeyError> {
        let signs = |k: &&Key| k.chain == chain;
        // The rule of `KeySchedule::plan`, on keys that are in order already.
        let mut latest_first = self.keys.iter().rev().filter(signs);
        latest_first
            .find(|k| k.times.signs_from <= now)
            .or_else(|| self.keys.iter().find(signs))
            .ok_or(KeyError::Missing(chain))
    }

    /// The keys of a chain that are published at `now`, in the order in which they sign.
    pub fn published(&self, chain: Chain, now: Timestamp) -> Vec<&Key> {
        let (keys, plan) = self.plan(chain, now);
        plan.published.into_iter().map(|at| keys[at]).filter(|k| k.verifier.is_some()).collect()
    }

    /// When the key that signs at `now` is replaced, as far as that is known today.
    pub fn signs_until(&self, chain: Chain, now: Timestamp) -> Timestamp {
        let keys = || self.keys.iter().filter(|k| k.chain == chain);
        let successor = keys().map(|k| k.times.signs_from).find(|from| *from > now);
        let newest = keys().next_back().map_or(now, |k| k.times.signs_from);
        successor.unwrap_or_else(|| newest + self.schedule_of(chain).rotate_every())
    }

    /// When the next key of a chain is to be published; not before `now`.
    pub fn next_key_at(&self, chain: Chain, now: Timestamp) -> Timestamp {
        let newest = self.keys.iter().rfind(|k| k.chain == chain).map_or(now, |k| k.times.signs_from);
        self.schedule_of(chain).successor_due(newest).max(now)
    }

    /// Whether a chain has a key already.
    pub fn has(&self, chain: Chain) -> bool {
        self.keys.iter().any(|k| k.chain == chain)
    }

    /// The key that verifies what `kid` signed.
    pub fn verifier(&self, kid: &str) -> Option<&VerifierKey> {
        self.verifiers().find(|v| v.kid.as_str() == kid)
    }

    /// The JWKS (RFC 7517) for access tokens to publish at `now`. It may be cached for [`MAX_KEYS_AGE`].
    pub fn jwks(&self, now: Timestamp) -> String {
        let mut published: Vec<&str> = Vec::with_capacity(self.keys.len());
        for algorithm in Algorithm::ALL {
            published.extend(self.published(algorithm.into(), now).into_iter().map(Key::public_jwk));
        }
        format!(r#"{{"keys":[{}]}}"#, published.join(","))
    }

    /// What to do in the store at `now`. Ask for each chain that is used in this scope.
    pub fn upkeep(&self, chain: impl Into<Chain>, now: Timestamp) -> Upkeep {
        let chain = chain.into();
        let (keys, plan) = self.plan(chain, now);
        let mut delete: Vec<KeyId> = plan.retired.into_iter().map(|at| keys[at].kid.clone()).collect();
        // Every key that is left was made at or after the withdrawal; once one could retire another, no token of those lives.
        if keys.iter().any(|k| k.times.signs_from + self.schedule.retire_after() <= now) {
            delete.extend(self.withdrawn.iter().filter(|w| w.chain == chain).map(|w| w.kid.clone()));
        }
        Upkeep { add: plan.next.map(|signs_from| Successor { after: self.newest(chain), signs_from }), delete }
    }

    /// A rotation that somebody asked for: a successor now, that signs once every cache has it, or at once.
    pub fn rotation(&self, chain: impl Into<Chain>, now: Timestamp, emergency: bool) -> Successor {
        let after = self.newest(chain.into());
        Successor { after, signs_from: if emergency { now } else { self.schedule.rotated_now(now) } }
    }

    /// The keys that cannot be used as they should.
    pub fn faults(&self) -> impl Iterator<Item = &KeyError> {
        self.keys.iter().filter_map(|k| k.signer.as_ref().err())
    }

    /// The key whose access tokens start with this header part.
    pub(crate) fn by_header(&self, header: &str) -> Option<&VerifierKey> {
        self.verifiers().find(|v| v.header == header && matches!(v.chain, Chain::Access(_)))
    }

    /// Whether a token with this header part was signed by a key that was withdrawn since, if by any.
    pub(crate) fn is_withdrawn(&self, header: &str) -> bool {
        self.withdrawn.iter().any(|w| w.header == header)
    }

    /// Whether this token names a key that is not in this ring: another server may have made it a moment ago.
    pub fn lacks_key_of(&self, token: &str) -> bool {
        let Some((header, _)) = token.split_once('.') else { return false };
        let spelt_like_ours = || {
            BASE64_URL_SAFE_NO_PAD
                .decode(header)
                .is_ok_and(|text| text.starts_with(br#"{"alg":""#) && text.ends_with(br#"","typ":"at+jwt"}"#))
        };
        header.len() <= MAX_HEADER
            && self.by_header(header).is_none()
            && !self.is_withdrawn(header)
            && spelt_like_ours()
    }

    /// The newest key of a chain as stores see it, withdrawn ones included.
    fn newest(&self, chain: Chain) -> Option<KeyId> {
        let keys = self.keys.iter().filter(|k| k.chain == chain).map(Key::order);
        let withdrawn = self.withdrawn.iter().filter(|w| w.chain == chain);
        let withdrawn = withdrawn.map(|w| (w.times.signs_from, w.times.created_at, &w.kid));
        keys.chain(withdrawn).max().map(|(_, _, kid)| kid.clone())
    }

    fn verifiers(&self) -> impl Iterator<Item = &VerifierKey> {
        // The newest is the likeliest.
        self.keys.iter().rev().filter_map(|k| k.verifier.as_ref())
    }

    fn plan(&self, chain: Chain, now: Timestamp) -> (Vec<&Key>, Plan) {
        let keys: Vec<&Key> = self.keys.iter().filter(|k| k.chain == chain).collect();
        let times: Vec<KeyTimes> = keys.iter().map(|k| k.times).collect();
        (keys, self.schedule_of(chain).plan(&times, now))
    }

    fn schedule_of(&self, chain: Chain) -> KeySchedule {
        if chain == Chain::Static { self.schedule.by_hand() } else { self.schedule }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({}, {})", self.kid, self.chain)
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|k| &k.kid)).finish()
    }
}

impl From<SigningKey> for Withdrawn {
    fn from(record: SigningKey) -> Self {
        let times = KeyTimes { created_at: record.created_at, signs_from: record.signs_from };
        Self::of(record.kid, record.chain, times)
    }
}

impl Withdrawn {
    fn of(kid: KeyId, chain: Chain, times: KeyTimes) -> Self {
        Self { header: header(&kid, chain.algorithm()), times, chain, kid }
    }
}

impl Key {
    /// Its id.
    pub fn kid(&self) -> &KeyId {
        &self.kid
    }

    /// When it was made, and from when it signs.
    pub fn times(&self) -> KeyTimes {
        self.times
    }

    /// The public half as a JWK (RFC 7517).
    pub fn public_jwk(&self) -> &str {
        &self.public_jwk
    }

    /// The public half, ready to verify.
    pub fn verifier(&self) -> Option<&VerifierKey> {
        self.verifier.as_ref()
    }

    /// The private half, ready to sign.
    pub fn signer(&self) -> Result<&SignerKey, KeyError> {
        self.signer.as_ref().map_err(KeyError::clone)
    }

    /// A key of which only the public half is here.
    fn public(jwk: &str) -> Option<Self> {
        let (kid, algorithm, public) = Jwk::read(jwk)?;
        let chain = Chain::from(algorithm);
        Some(Self {
            verifier: Some(VerifierKey { kid: kid.clone(), chain, header: header(&kid, algorithm), public }),
            signer: Err(KeyError::Missing(chain)),
            times: KeyTimes { created_at: Timestamp::EPOCH, signs_from: Timestamp::EPOCH },
            public_jwk: jwk.into(),
            chain,
            kid,
        })
    }

    fn open(scope: &Scope, record: SigningKey, secrets: &SecretRing) -> Self {
        let corrupt = |what| KeyError::Corrupt { kid: record.kid.clone(), what };
        let header = header(&record.kid, record.chain.algorithm());
        let (verifier, signer) = if record.scope != *scope {
            (None, Err(corrupt("scope")))
        } else if let Some(public) = Jwk::verifier(&record) {
            match record.pair(secrets) {
                // The two halves contradict each other: neither is believed.
                Err(fault @ KeyError::Corrupt { what: "public key", .. }) => (None, Err(fault)),
                pair => {
                    let (kid, chain) = (record.kid.clone(), record.chain);
                    let signer = pair.map(|pair| SignerKey { kid, chain, header: header.clone(), pair });
                    (Some(VerifierKey { kid: record.kid.clone(), chain, header, public }), signer)
                }
            }
        } else {
            (None, Err(corrupt("public key")))
        };
        Self {
            kid: record.kid,
            chain: record.chain,
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
    chain: Chain,
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
        self.chain.algorithm()
    }

    /// The first part of every token that this key signs.
    pub(crate) fn header(&self) -> &str {
        &self.header
    }

    /// The signature of `message`, as RFC 7518 and RFC 8037 write it in a JWS.
    pub fn signature(&self, message: &[u8]) -> Vec<u8> {
        const SIGNS: &str = "a parsed private key signs any message";
        let sha256 = || digest::digest(&digest::SHA256, message);
        match &self.pair {
            Pair::EdDsa(pair) => pair.sign(message).as_ref().to_vec(),
            Pair::Es256(pair) => pair.sign_digest(&sha256()).expect(SIGNS).as_ref().to_vec(),
            Pair::Rs256(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign_digest(&RSA_PKCS1_SHA256, &sha256(), &mut signature).expect(SIGNS);
                signature
            }
        }
    }

    /// Appends `.` and the signature of all of `token`.
    pub(crate) fn sign(&self, token: &mut String) {
        let signature = self.signature(token.as_bytes());
        token.push('.');
        BASE64_URL_SAFE_NO_PAD.encode_string(&signature, token);
    }
}

impl fmt::Debug for SignerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SignerKey({}, {})", self.kid, self.chain)
    }
}

/// A public key, ready to verify what one algorithm signed with it.
pub struct VerifierKey {
    kid: KeyId,
    chain: Chain,
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
        self.chain.algorithm()
    }

    /// Whether `signature` is this key's for `message`.
    ///
    /// By aws-lc directly: jsonwebtoken would do the same, but parses the key again for each token and takes its
    /// cryptography from a process-wide setting. The tests read our tokens with it.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.public.verify_sig(message, signature).is_ok()
    }

    /// The public key as an X.509 SubjectPublicKeyInfo (RFC 5280), in DER.
    pub fn spki(&self) -> Vec<u8> {
        self.public.as_der().expect("a parsed public key has an encoding").as_ref().to_vec()
    }
}

impl fmt::Debug for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifierKey({}, {})", self.kid, self.chain)
    }
}

/// Not a JWK Set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is not a JWK Set (RFC 7517): {0}")]
pub struct InvalidJwks(String);

/// A JWK Set; what its keys are is not looked at yet.
#[derive(Deserialize)]
struct Jwks {
    keys: Vec<Box<RawValue>>,
}

/// How many keys that have gone a ring of public keys remembers.
const MAX_GONE: usize = 64;

/// No header of ours is longer.
const MAX_HEADER: usize = 200;

/// The first part of every access token that a key signs. Its spelling is frozen: it is compared, not parsed.
fn header(kid: &KeyId, algorithm: Algorithm) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"{algorithm}","kid":"{kid}","typ":"at+jwt"}}"#))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Seconds;
    use crate::keys::tests::*;
    use proptest::prelude::*;

    const DAY: u64 = 24 * 3600;

    proptest! {
        #[test]
        fn any_jwks_is_read_or_refused(jwks in r#"[ -~]{0,60}|\{"keys":\[(\{"(kty|kid|alg|crv|x)":"[ -~&&[^"\\]]{0,20}"\})?\]\}"#) {
            let _ = KeyRing::of_jwks(scope("shop/dev"), &jwks, None);
        }

        #[test]
        fn any_record_is_a_key_or_a_fault(jwk in ".{0,100}", wrapped in prop::collection::vec(any::<u8>(), 1..100)) {
            let record = SigningKey { public_jwk: jwk, wrapped, ..key(Algorithm::EdDsa, 1) };
            prop_assert_eq!(ring(vec![record]).faults().count(), 1);
        }
    }

    #[test]
    fn a_ring_of_a_jwks_verifies_what_the_keys_behind_it_signed() {
        let signing = ring(Algorithm::ALL.map(|a| key(a, 1 + a as u64)).into());
        let public = KeyRing::of_jwks(scope("shop/dev"), &signing.jwks(NOW), None).unwrap();
        for algorithm in Algorithm::ALL {
            let signer = signing.signer(algorithm, NOW).unwrap();
            let mut token = format!("{}.{}", signer.header(), "e30");
            signer.sign(&mut token);
            let (message, signature) = token.rsplit_once('.').unwrap();
            let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).unwrap();
            assert!(public.by_header(signer.header()).unwrap().verifies(message.as_bytes(), &signature));
            assert!(public.signer(algorithm, NOW).is_err());
            assert!(!public.lacks_key_of(&token));
        }
        let later = KeyRing::of_jwks(scope("shop/dev"), r#"{"keys":[{"kty":"oct"},7]}"#, Some(&public)).unwrap();
        let header = signing.signer(Algorithm::EdDsa, NOW).unwrap().header();
        assert!(later.by_header(header).is_none() && later.is_withdrawn(header));
        let again = KeyRing::of_jwks(scope("shop/dev"), &signing.jwks(NOW), Some(&later)).unwrap();
        assert!(again.by_header(header).is_some() && !again.is_withdrawn(header));
        assert!(KeyRing::of_jwks(scope("shop/dev"), "[]", None).is_err());
    }

    #[test]
    fn a_ring_signs_publishes_and_asks_for_its_successor() {
        let (secrets, rng) = (secrets(&[ONE]), Counting::from(7));
        let day = |n: u64| NOW + Seconds(n * DAY);
        let open = |keys: Vec<SigningKey>| KeyRing::open(scope("shop/dev"), keys, &secrets, KeySchedule::default());
        let algorithm = Algorithm::EdDsa;
        let generate = |now, from| SigningKey::generate(scope("shop/dev"), algorithm, now, from, &secrets, &rng);

        let empty = open(vec![]);
        assert_eq!(empty.signer(algorithm, NOW).unwrap_err(), KeyError::Missing(algorithm.into()));
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
    fn a_withdrawn_key_is_known_and_nothing_else() {
        let algorithm = Algorithm::EdDsa;
        let day = |n: u64| NOW + Seconds(n * DAY);
        let generate = |seed, now, from| {
            SigningKey::generate(scope("shop/dev"), algorithm, now, from, &secrets(&[ONE]), &Counting::from(seed))
        };
        let (first, pending) = (generate(1, NOW, NOW), generate(2, day(29), day(30)));
        let gone = vec![first.withdrawn(), pending.withdrawn()];
        let headers = [&first, &pending].map(|k| header(&k.kid, algorithm));

        let empty = ring(gone.clone());
        assert_eq!(empty.signer(algorithm, day(40)).unwrap_err(), KeyError::Missing(algorithm.into()));
        assert_eq!((empty.jwks(day(29)).as_str(), empty.faults().count()), (r#"{"keys":[]}"#, 0));
        let first_again = Successor { after: Some(pending.kid.clone()), signs_from: day(29) };
        assert_eq!(empty.upkeep(algorithm, day(29)), Upkeep { add: Some(first_again), delete: vec![] });

        let fresh = generate(3, day(29), day(29));
        // One of them was put back by a server that did not know.
        let ring = ring(vec![first.clone(), pending.withdrawn(), fresh.clone()]);
        for header in &headers {
            assert!(ring.by_header(header).is_none() && ring.is_withdrawn(header));
            assert!(!ring.lacks_key_of(&format!("{header}.payload.signature")));
        }
        // Never the withdrawn successor, also when its time has come.
        assert_eq!(ring.signer(algorithm, day(31)).unwrap().kid(), &fresh.kid);
        assert_eq!(ring.jwks(day(31)), format!(r#"{{"keys":[{}]}}"#, fresh.public_jwk));
        assert_eq!(ring.upkeep(algorithm, day(37) - Seconds(1)), Upkeep { add: None, delete: vec![] });
        assert_eq!(ring.upkeep(algorithm, day(37)).delete, [first.kid, pending.kid]);
        assert_eq!(fresh.withdrawn().rewrapped(&secrets(&[TWO])), Ok(None));
    }

    #[test]
    fn a_key_that_another_server_may_have_made_is_told_from_nonsense() {
        let (known, other) = (key(Algorithm::EdDsa, 1), key(Algorithm::Es256, 2));
        let ring = ring(vec![known.clone()]);
        assert!(ring.lacks_key_of(&format!("{}.a.b", header(&other.kid, other.chain.algorithm()))));
        let nonsense = BASE64_URL_SAFE_NO_PAD.encode(r#"{"alg":"EdDSA","kid":"x"}"#);
        for header in
            [header(&known.kid, known.chain.algorithm()), nonsense, "!".into(), "a".repeat(300), String::new()]
        {
            assert!(!ring.lacks_key_of(&format!("{header}.a.b")) && !ring.lacks_key_of(&header));
        }
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
}
