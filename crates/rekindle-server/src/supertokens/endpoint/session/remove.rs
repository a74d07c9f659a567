//! `POST session/remove`, and `DELETE session` before: ends sessions.

use rekindle::{
    engine::{EndAll, Error},
    session::{EndReason, Env, UserId},
};
use serde_json::json;

use super::{
    super::super::{Call, application, cdi::Cdi, handle::Handle, reply::Reply},
    there,
    user::{handles_of, tenants},
};

/// Ends sessions, and says which ones were active until then.
pub(in super::super) async fn answer(call: &Call) -> Result<Reply, Reply> {
    Ok(Reply::ok([("sessionHandlesRevoked", json!(remove(call).await?))]))
}

/// The same up to CDI 1.0, which wants their number.
pub(in super::super) async fn answer_delete(call: &Call) -> Result<Reply, Reply> {
    Ok(Reply::ok([("numberOfSessionsRevoked", remove(call).await?.len().into())]))
}

async fn remove(call: &Call) -> Result<Vec<String>, Reply> {
    let input = &call.input;
    let one = if call.cdi < Cdi::V2_0 { input.optional_text("sessionHandle")? } else { None };
    let (user_id, many) = (input.optional_text("userId")?, input.optional_texts("sessionHandles")?);
    let handles: Vec<String> = match (user_id, one, many) {
        (None, Some(one), None) => vec![one.to_owned()],
        (None, None, Some(many)) => {
            if call.cdi >= Cdi::V3_0 && input.names("revokeAcrossAllTenants") {
                return Err(Reply::bad("Invalid JSON input - revokeAcrossAllTenants can only be set if userId is set"));
            }
            many.into_iter().map(str::to_owned).collect()
        }
        (Some(user_id), None, None) => {
            let tenants = tenants(call, "revokeAcrossAllTenants")?;
            return remove_all(call, user_id, &tenants).await;
        }
        _ => return Err(Reply::bad("Invalid JSON input - use one of userId or sessionHandles array")),
    };
    let mut removed = Vec::new();
    for text in handles {
        let Ok(handle) = text.parse::<Handle>() else { continue };
        let scope = call.application.scope(&handle.tenant);
        // Looked up first: a handle may be of another kind of session, or of none.
        match there(call.engine().session(&scope, handle.id).await) {
            Ok(Some(session)) if session.tag == application::tag() => {}
            Ok(_) | Err(Error::SessionNotFound(_)) => continue,
            Err(error) => return Err(error.into()),
        }
        // Also one that seems to be over: an earlier try may have stopped half-way, or the store have lost its last refresh.
        if call.engine().end(&scope, handle.id, EndReason::Revoked, &call.ctx).await? {
            removed.push(text);
        }
    }
    Ok(removed)
}

/// Ends a user's sessions in these tenants.
async fn remove_all(call: &Call, user_id: &str, tenants: &[Env]) -> Result<Vec<String>, Reply> {
    let handles = handles_of(call, user_id, tenants).await?;
    let Ok(user_id) = user_id.parse::<UserId>() else { return Ok(handles) };
    for tenant in tenants {
        let which = EndAll { user_id: Some(user_id.clone()), tag: Some(application::tag()), ..EndAll::default() };
        let scope = call.application.scope(tenant);
        there(call.engine().revoke_all(&scope, which, EndReason::Revoked, &call.ctx).await)?;
    }
    Ok(handles)
}
