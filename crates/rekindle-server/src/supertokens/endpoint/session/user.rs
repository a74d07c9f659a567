//! `GET session/user`: a user's active sessions.

use rekindle::{
    session::{Env, UserId},
    store::SessionQuery,
};
use serde_json::json;

use super::{
    super::super::{Call, application, cdi::Cdi, handle::Handle, path, reply::Reply},
    there,
};

pub(in super::super) async fn answer(call: &Call) -> Result<Reply, Reply> {
    let user_id = call.input.text("userId")?;
    let tenants = tenants(call, "fetchAcrossAllTenants")?;
    Ok(Reply::ok([("sessionHandles", json!(handles_of(call, user_id, &tenants).await?))]))
}

/// The tenants that a request about a user means: all of the app unless `flag` says no, or the path's.
pub(super) fn tenants(call: &Call, flag: &str) -> Result<Vec<Env>, Reply> {
    if call.cdi < Cdi::V3_0 {
        return Ok(vec![path::public()]);
    }
    if !call.input.optional_flag(flag)?.unwrap_or(true) {
        return Ok(vec![call.tenant()]);
    }
    call.for_the_app()?;
    Ok([path::public()].into_iter().chain(call.application.tenants().into_keys()).collect())
}

/// The handles of a user's active sessions.
pub(super) async fn handles_of(call: &Call, user_id: &str, tenants: &[Env]) -> Result<Vec<String>, Reply> {
    let mut handles = Vec::new();
    // Nobody can have a session whose id would not have been accepted, or before the app's first one.
    let (Ok(user_id), Some(_)) = (user_id.parse::<UserId>(), call.application.definition()) else { return Ok(handles) };
    for tenant in tenants {
        let mut query = SessionQuery {
            scope: call.application.scope(tenant),
            user_id: Some(user_id.clone()),
            tag: Some(application::tag()),
            active: Some(true),
            started_after: None,
            started_before: None,
            before: None,
            limit: PAGE,
            now: call.engine().now(),
        };
        loop {
            let page = there(call.engine().sessions(query.clone()).await)?.unwrap_or_default();
            handles.extend(page.iter().map(|session| Handle::of(session).to_string()));
            query.before = page.last().map(|session| session.id);
            if page.len() < PAGE as usize {
                break;
            }
        }
    }
    Ok(handles)
}

const PAGE: u32 = 200;
