//! JWTs that the application signs for itself, and the keys that all JWTs are verified with.

use rekindle::{clock::Timestamp, keys::Chain};
use serde_json::json;

use super::super::{
    Call, access,
    keys::Keys,
    reply::{Reply, object},
};

/// `POST /recipe/jwt`: signs a payload.
pub(super) async fn sign(call: &mut Call) -> Result<Reply, Reply> {
    call.for_the_app()?;
    let input = &call.input;
    let algorithm = input.text("algorithm")?;
    let issuer = input.text("jwksDomain")?;
    let mut payload = input.object("payload")?.clone();
    let validity = input.optional_whole("validity")?.ok_or_else(|| input.invalid("validity"))?;
    if validity <= 0 {
        return Err(Reply::bad("validity must be greater than or equal to 0"));
    }
    let chain =
        if input.optional_flag("useStaticSigningKey")?.unwrap_or(true) { Chain::Static } else { Chain::Dynamic };
    if !algorithm.eq_ignore_ascii_case("RS256") {
        return Ok(Reply::status("UNSUPPORTED_ALGORITHM_ERROR", []));
    }
    let now = call.engine().now();
    let expires_at = now.secs().saturating_add(validity).min(Timestamp::MAX.secs());
    payload.insert("iss".into(), issuer.into());
    payload.insert("iat".into(), now.secs().into());
    payload.insert("exp".into(), expires_at.into());
    let keys = call.keys().await?;
    let (kid, signer) = keys.signer(chain)?;
    let jwt =
        access::jwt(&json!({ "kid": kid, "typ": "JWT", "alg": "RS256" }), payload, |message| signer.signature(message));
    Ok(Reply::ok([("jwt", jwt.into())]))
}

/// `GET /.well-known/jwks.json`: anybody may ask. A key is here before it signs.
pub(super) async fn well_known(call: &Call) -> Result<Reply, Reply> {
    // Nobody without a key makes an app: before its first session there is nothing to verify.
    if call.application.definition().is_none() {
        return Ok(Reply::Cached(object([("keys", json!([]))]), 1));
    }
    let keys = Keys::of(call.engine(), &call.application).await?;
    Ok(Reply::Cached(object([("keys", keys.jwks())]), keys.max_age()))
}

/// `GET /recipe/jwt/jwks`: the same for older SDKs.
pub(super) async fn jwks(call: &mut Call) -> Result<Reply, Reply> {
    Ok(Reply::ok([("keys", call.keys().await?.jwks())]))
}
