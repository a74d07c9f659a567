//! `GET session`: all about one session.

use serde_json::json;

use super::super::super::{
    Call,
    cdi::Cdi,
    handle::Handle,
    payload::Payload,
    reply::{Reply, object},
};
use super::{NO_SESSION, ok};

pub(in super::super) async fn answer(call: &Call) -> Result<Reply, Reply> {
    let Some(session) = call.active_by(call.input.text("sessionHandle")?).await? else {
        return Ok(Reply::unauthorised(NO_SESSION));
    };
    let user_id = session.user_id.as_str();
    let mut members = object([
        ("sessionHandle", Handle::of(&session).to_string().into()),
        ("userId", user_id.into()),
        ("userDataInJWT", json!(Payload::of(session.claims.to_map()).user_data)),
        ("userDataInDatabase", json!(session.data)),
        ("expiry", session.idle_expires_at.min(session.expires_at).millis().into()),
        ("timeCreated", session.created_at.millis().into()),
    ]);
    if call.cdi >= Cdi::V3_0 {
        members.insert("tenantId".into(), session.scope.env.as_str().into());
    }
    if call.cdi >= Cdi::V4_0 {
        members.insert("recipeUserId".into(), user_id.into());
    }
    Ok(ok([members]))
}
