//! `session/data` and `jwt/data`: what a session carries, for the application and for its access tokens.

use rekindle::engine::Replace;
use serde_json::json;

use super::super::super::{Call, payload::Payload, reply::Reply};
use super::{NO_SESSION, check_payload};

/// `GET session/data`.
pub(in super::super) async fn show(call: &Call) -> Result<Reply, Reply> {
    Ok(match call.active_by(call.input.text("sessionHandle")?).await? {
        Some(session) => Reply::ok([("userDataInDatabase", json!(session.data))]),
        None => Reply::unauthorised(NO_SESSION),
    })
}

/// `PUT session/data`: the whole of it.
pub(in super::super) async fn replace(call: &Call) -> Result<Reply, Reply> {
    let (handle, data) = (call.input.text("sessionHandle")?, call.input.object("userDataInDatabase")?);
    let Some(session) = call.active_by(handle).await? else { return Ok(Reply::unauthorised(NO_SESSION)) };
    let with = Replace { data: Some(data.clone()), claims: None };
    call.engine().replace(&session.scope, session.id, with, &call.ctx).await?;
    Ok(Reply::ok([]))
}

/// `GET jwt/data`.
pub(in super::super) async fn show_payload(call: &Call) -> Result<Reply, Reply> {
    Ok(match call.active_by(call.input.text("sessionHandle")?).await? {
        Some(session) => Reply::ok([("userDataInJWT", json!(Payload::of(session.claims.to_map()).user_data))]),
        None => Reply::unauthorised(NO_SESSION),
    })
}

/// `PUT jwt/data`: the whole of it, for the access tokens from the next one on.
pub(in super::super) async fn replace_payload(call: &Call) -> Result<Reply, Reply> {
    let (handle, user_data) = (call.input.text("sessionHandle")?, call.input.object("userDataInJWT")?);
    check_payload(call.cdi.access_token(), user_data)?;
    let Some(session) = call.active_by(handle).await? else { return Ok(Reply::unauthorised(NO_SESSION)) };
    let payload = Payload { user_data: user_data.clone(), ..Payload::of(session.claims.to_map()) };
    let with = Replace { claims: Some(payload.claims()), data: None };
    call.engine().replace(&session.scope, session.id, with, &call.ctx).await?;
    Ok(Reply::ok([]))
}
