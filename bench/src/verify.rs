//! A known access token, verified in process.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use rekindle::access::{self, AccessClaims, Binding, Expected, VerifiedCache};
use rekindle::clock::{Clock, Seconds, SystemClock};
use rekindle::engine::{StartRequest, VerifyOutcome};
use rekindle::journal::Context;
use rekindle::keys::{Algorithm, KeyRing, KeySchedule, SigningKey};
use rekindle::memory::MemoryStore;
use rekindle::refresh::SecretRing;
use rekindle::rng::SystemRng;
use rekindle::session::{Auth, Object, SessionId};

use crate::floors::per_operation;
use crate::seed::{ISSUER, engine_on, scope};

/// CPU time for one verification.
pub struct Verified {
    /// By the cache of verified tokens alone.
    pub cache: Duration,
    /// By the engine: clock, scope, known revocations included.
    pub engine: Duration,
    /// By the engine, the first time: signature and claims.
    pub first: Duration,
}

/// Measures.
pub fn known_token(each: Duration) -> Result<Verified> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let rng = SystemRng::default();
    let secrets = || SecretRing::parse(&SecretRing::generate(1, &rng));
    let engine = runtime.block_on(engine_on(Arc::new(MemoryStore::new()), secrets()?))?;
    let request = StartRequest::new("default".parse()?, Some("user-00000001".parse()?));
    let scope = scope();
    let tokens = runtime.block_on(engine.start(&scope, request, &Context::default()))?;
    let token = tokens.access_token.expose();
    let engine_once = || match runtime.block_on(engine.verify(&scope, token, None, false))? {
        VerifyOutcome::Active(_) => Ok(()),
        VerifyOutcome::Inactive(_) => bail!("the token was refused"),
    };

    let (now, secrets) = (SystemClock.now(), secrets()?);
    let key = SigningKey::generate(scope.clone(), Algorithm::EdDsa, now, now, &secrets, &rng);
    let ring = KeyRing::open(scope.clone(), vec![key], &secrets, KeySchedule::default());
    let (tag, user_id, claims) = ("default".parse()?, "user-00000001".parse()?, Object::empty());
    let auth = Auth { time: now, acr: None, amr: Vec::new() };
    let claims = AccessClaims {
        issuer: ISSUER,
        audience: "default/dev",
        scope: &scope,
        tag: &tag,
        user_id: &user_id,
        session: SessionId::draw(now, &rng),
        generation: 1,
        binding: Binding::Committed,
        confirm: false,
        issued_at: now,
        expires_at: now + Seconds(900),
        auth: &auth,
        claims: &claims,
    };
    let expected = Expected { scope: &scope, issuer: ISSUER, audience: "default/dev", tag: None };
    let signed = access::sign(ring.signer(Algorithm::EdDsa, now)?, &claims, &rng);
    let cache = VerifiedCache::new(1 << 20);
    let with_cache = || Ok(cache.verify(signed.expose(), &ring, &expected, now)?);
    with_cache()?;
    Ok(Verified {
        cache: per_operation(each, with_cache)?,
        engine: per_operation(each, engine_once)?,
        first: per_operation(each, || Ok(access::verify(signed.expose(), &ring, &expected, now)?))?,
    })
}
