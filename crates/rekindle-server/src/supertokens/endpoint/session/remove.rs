//! `POST session/remove`, and `DELETE session` before: ends sessions.

use rekindle::session::EndReason;
use serde_json::json;

use super::super::super::{Call, cdi::Cdi, handle::Handle, reply::Reply};
use super::user::{handles_of, tenants};

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
            handles_of(call, user_id, tenants).await?
        }
        _ => return Err(Reply::bad("Invalid JSON input - use one of userId or sessionHandles array")),
    };
    let mut removed = Vec::new();
    for text in handles {
        let Ok(handle) = text.parse::<Handle>() else { continue };
        // Looked up first: a handle may be of another kind of session, or of none.
        let Some(session) = call.active(&handle).await? else { continue };
        if call.engine().end(&session.scope, session.id, EndReason::Revoked, &call.ctx).await? {
            removed.push(text);
        }
    }
    Ok(removed)
}
