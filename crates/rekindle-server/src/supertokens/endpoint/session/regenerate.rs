//! `POST session/regenerate`: writes a new payload and puts it into the access token at hand.

use rekindle::engine::Replace;

use super::super::super::{
    Call,
    payload::Payload,
    reply::{Reply, object},
};
use super::{Grant, NO_SESSION, check_payload, ok};

pub(in super::super) async fn answer(call: &mut Call) -> Result<Reply, Reply> {
    call.for_the_app()?;
    let token = call.input.text("accessToken")?.to_owned();
    let user_data = call.input.optional_object("userDataInJWT")?.cloned();
    let keys = call.keys().await?;
    let presented = match call.presented(&token).await? {
        Ok(presented) => presented,
        Err(problem) => return Ok(Reply::unauthorised(problem)),
    };
    if let Some(user_data) = &user_data {
        check_payload(presented.signed.version, user_data)?;
    }
    let Some((mut session, lineage)) = call.located(&presented).await? else {
        return Ok(Reply::unauthorised(NO_SESSION));
    };
    let mut payload = Payload::of(session.claims.to_map());
    if let Some(user_data) = user_data {
        payload.user_data = user_data;
        let with = Replace { claims: Some(payload.claims()), data: None };
        session = call.engine().replace(&session.scope, session.id, with, &call.ctx).await?;
    }
    let claims = &presented.signed.claims;
    let view = object([("session", call.session(&presented.handle, &claims.user_id, &payload.user_data))]);
    let now = call.engine().now();
    if claims.expires_at <= now {
        return Ok(ok([view]));
    }
    let token = call.grant(
        &keys,
        &Grant {
            version: presented.signed.version,
            chain: presented.signed.chain,
            session: &session,
            user_data: &payload.user_data,
            lineage,
            unconfirmed: claims.parent_hash.is_some(),
            anti_csrf: claims.anti_csrf.clone(),
            issued_at: now,
            expires_at: claims.expires_at,
        },
    )?;
    Ok(ok([view, object([("accessToken", token)])]))
}
