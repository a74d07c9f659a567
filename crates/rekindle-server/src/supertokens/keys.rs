//! An app's signing keys as SuperTokens SDKs see them: dynamic and static ones, with `kid`s that tell them apart.

use std::sync::Arc;

use aws_lc_rs::digest;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD, Engine as _};
use rekindle::{
    clock::{Seconds, Timestamp},
    engine::{Engine, Error},
    journal::Context,
    keys::{Chain, Key, KeyError, KeyId, KeyRing, MAX_KEYS_AGE, SignerKey, VerifierKey},
    session::{InvalidName, Scope},
    store::StoreError,
};
use serde_json::{Value, json};
use tokio::runtime::Handle;

use super::{
    access::{self, Claims, Unverified, Version},
    application::Application,
    path,
    verified::{Signed, VerifiedTokens},
};
use crate::{app::App, config::TokenAlgorithm};

/// The keys of one app at one moment.
pub(super) struct Keys {
    ring: Arc<KeyRing>,
    now: Timestamp,
    algorithm: TokenAlgorithm,
}

/// Dynamic ones first, as SDKs expect them.
const CHAINS: [Chain; 3] = [Chain::Dynamic, Chain::DynamicEs256, Chain::Static];

impl Keys {
    /// Those of an app, whose `public` tenant has them; they are made if there are none.
    pub(super) async fn of(engine: &Engine, app: &Application) -> Result<Self, Error> {
        let algorithm = app.settings.algorithm;
        let used = CHAINS.into_iter().filter(|c| *c != Chain::DynamicEs256 || algorithm == TokenAlgorithm::Es256);
        let ring = engine.keys(&app.scope(&path::public()), &used.collect::<Vec<_>>()).await?;
        Ok(Self { ring, now: engine.now(), algorithm })
    }

    /// Those that are there, none or few: another server may have made the others a moment ago.
    async fn fresh(engine: &Engine, app: &Application) -> Result<Self, Error> {
        let ring = engine.fresh_keys(&app.scope(&path::public())).await?;
        Ok(Self { ring, now: engine.now(), algorithm: app.settings.algorithm })
    }

    /// Signs an access token with a dynamic or a static key.
    pub(super) fn mint(&self, version: Version, claims: &Claims, chain: Chain) -> Result<String, Error> {
        let chain = match (self.algorithm, chain) {
            (TokenAlgorithm::Es256, Chain::Dynamic) if version.is_jwt() => Chain::DynamicEs256,
            _ => chain,
        };
        let (kid, signer) = self.signer(chain)?;
        let sign = |message: &[u8]| signer.signature(message);
        Ok(access::mint(version, claims, access::Signer { kid: &kid, algorithm: chain.algorithm(), sign }))
    }

    /// The key of a chain that signs now, under its `kid`.
    pub(super) fn signer(&self, chain: Chain) -> Result<(String, &SignerKey), Error> {
        let key = self.ring.signing(chain, self.now).map_err(unusable)?;
        Ok((kid(key, chain), key.signer().map_err(unusable)?))
    }

    /// The JWK Set: dynamic keys from the newest on, then static ones.
    pub(super) fn jwks(&self) -> Value {
        let jwk = |key: &Key, chain| {
            let mut jwk: Value = serde_json::from_str(key.public_jwk()).expect("a published key was read once");
            jwk["kid"] = kid(key, chain).into();
            jwk
        };
        CHAINS.into_iter().flat_map(|chain| self.newest_first(chain).map(move |key| jwk(key, chain))).collect()
    }

    /// For how many seconds the JWK Set may be cached: until the next key is published, and no longer than one that is made by hand can
    /// wait.
    pub(super) fn max_age(&self) -> u64 {
        let replaced = CHAINS.into_iter().filter(|chain| *chain != Chain::Static && self.ring.has(*chain));
        let next = replaced.map(|chain| self.ring.next_key_at(chain, self.now)).min().unwrap_or(self.now);
        next.since(self.now).0.clamp(1, MAX_KEYS_AGE.0)
    }

    /// What clients up to CDI 2.20 verify access tokens with: the key that signs, and until when it does.
    pub(super) fn handshake(&self, chain: Chain) -> Result<(String, Timestamp), Error> {
        let key = self.ring.signing(chain, self.now).map_err(unusable)?;
        let verifier = key.verifier().ok_or_else(|| Error::Key("the public key cannot be read".into()))?;
        Ok((public_key(verifier), self.until(chain, key)))
    }

    /// The keys whose access tokens may live, from the newest on, for clients from CDI 2.9 on: since when each signs, and until when
    /// a token of it can live that lives for `validity`.
    ///
    /// Not those that are yet to sign: a client asks the server about each token that is younger than a key that did not sign it.
    pub(super) fn handshake_list(&self, chain: Chain, validity: Seconds) -> Value {
        // Twice, because another server may sign with a key for a while after its successor took over.
        let verifies_until = |key: &Key| self.until(chain, key) + validity + validity;
        let signs = |key: &&Key| key.times().signs_from <= self.now && verifies_until(key) > self.now;
        let entry = |key: &Key| {
            json!({
                "publicKey": key.verifier().map(public_key),
                "createdAt": signs_since(key).millis(),
                "expiryTime": verifies_until(key).millis(),
            })
        };
        self.newest_first(chain).filter(signs).map(entry).collect()
    }

    fn newest_first(&self, chain: Chain) -> impl Iterator<Item = &Key> {
        self.ring.published(chain, self.now).into_iter().rev()
    }

    fn until(&self, chain: Chain, key: &Key) -> Timestamp {
        match chain {
            // Replaced only by hand: what was said of it must hold long enough.
            Chain::Static => self.now + TEN_YEARS,
            _ => self.ring.signs_until(chain, key.times().signs_from),
        }
    }

    /// The token, if a key of this app signed it.
    fn signed(&self, token: &Unverified<'_>) -> Option<Signed> {
        let signed_by = |chain: Chain, key: &Key| {
            token.kid.as_ref().is_none_or(|named| *named == kid(key, chain))
                && key.verifier().is_some_and(|public| public.verifies(token.message.as_bytes(), &token.signature))
        };
        let chains = CHAINS.into_iter().filter(|chain| chain.algorithm() == token.algorithm);
        let mut keys = chains.flat_map(|chain| self.newest_first(chain).map(move |key| (chain, key)));
        let (chain, key) = keys.find(|(chain, key)| signed_by(*chain, key))?;
        let chain = if chain == Chain::Static { chain } else { Chain::Dynamic };
        Some(Signed { version: token.version, chain, claims: token.claims()?, key: key.kid().clone() })
    }
}

/// An access token of this app, or what is wrong with it.
pub(super) async fn verify(
    engine: &Engine,
    app: &Application,
    known: &VerifiedTokens,
    token: &str,
) -> Result<Result<Arc<Signed>, &'static str>, Error> {
    let keys = Keys::of(engine, app).await?;
    if let Some(signed) = known.get(token).filter(|signed| keys.ring.verifier(signed.key.as_str()).is_some()) {
        return Ok(Ok(signed));
    }
    let Some(unverified) = access::parse(token) else { return Ok(Err("Access token is invalid")) };
    let mut signed = keys.signed(&unverified);
    if signed.is_none() {
        signed = Keys::fresh(engine, app).await?.signed(&unverified);
    }
    let Some(signed) = signed.map(Arc::new) else {
        return Ok(Err("Access token is not signed by this app, or does not contain all the information"));
    };
    known.insert(token, &signed);
    Ok(Ok(signed))
}

/// Makes the keys of an app before its first session asks for them, on a thread that nobody waits for: an RSA key takes some 100 ms.
pub(super) fn make_ahead(server: App, mut application: Application, ctx: Context) {
    let runtime = Handle::current();
    runtime.clone().spawn_blocking(move || {
        let made = runtime.block_on(async {
            application.prepare(&server, &ctx).await?;
            Keys::of(server.engine(), &application).await
        });
        if let Err(error) = made {
            tracing::warn!(%error, "the signing keys of app `{}` could not be made ahead", application.id);
        }
    });
}

/// A key that another server made is not here yet in a store that lags behind.
fn unusable(error: KeyError) -> Error {
    match error {
        KeyError::Missing(_) => Error::Store(StoreError::Unavailable(error.to_string())),
        _ => Error::Key(error.to_string()),
    }
}

const TEN_YEARS: Seconds = Seconds(10 * 365 * 86_400);

/// The key id under which a key of the core that an app was imported from is kept: it tells the app and the `kid` that SDKs know.
/// `Err` for a `kid` that does not fit.
pub(super) fn adopted_id(scope: &Scope, kid: &str) -> Result<KeyId, InvalidName> {
    let hash = digest::digest(&digest::SHA256, scope.to_string().as_bytes());
    format!("{ADOPTED}{}_{kid}", BASE64_URL_SAFE_NO_PAD.encode(&hash.as_ref()[..6])).parse()
}

const ADOPTED: &str = "supertokens_";

/// The `kid` that an adopted key has had before; no key of our own is spelt like one.
fn adopted_kid(id: &KeyId) -> Option<&str> {
    id.as_str().strip_prefix(ADOPTED)?.get(8..)?.strip_prefix('_')
}

/// Since when a key has signed.
fn signs_since(key: &Key) -> Timestamp {
    let made = adopted_kid(key.kid()).and_then(|kid| kid.strip_prefix("d-")?.parse().ok());
    made.map_or(key.times().signs_from, Timestamp::from_millis)
}

/// SDKs tell the chains apart by how a `kid` starts.
fn kid(key: &Key, chain: Chain) -> String {
    if let Some(kid) = adopted_kid(key.kid()) {
        return kid.to_owned();
    }
    match chain {
        Chain::Static => {
            let hash = digest::digest(&digest::SHA256, key.kid().as_str().as_bytes());
            let bytes = hash.as_ref()[..16].try_into().expect("SHA-256 has 32 bytes");
            format!("s-{}", uuid::Builder::from_random_bytes(bytes).into_uuid())
        }
        Chain::DynamicEs256 => format!("d-e{}", key.times().created_at.millis()),
        _ => format!("d-{}", key.times().created_at.millis()),
    }
}

/// Base64 of the X.509 form, on one line.
fn public_key(verifier: &VerifierKey) -> String {
    BASE64_STANDARD.encode(verifier.spki())
}
