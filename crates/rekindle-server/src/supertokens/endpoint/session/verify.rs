//! `POST session/verify`: may this access token be let in?
//!
//! SDKs verify by themselves, and ask only where a token has a parent, or the session is to be looked up. The first such verify
//! after a refresh confirms the generation: from then on its parent is theft.

use rekindle::session::Session;
use serde_json::{Map, Value, json};

use super::super::super::{
    Call,
    cdi::Cdi,
    keys::Keys,
    lineage::Lineage,
    payload::Payload,
    reply::{Reply, object},
};
use super::{Grant, Presented, ok};

pub(in super::super) async fn answer(call: &mut Call) -> Result<Reply, Reply> {
    call.for_the_app()?;
    let token = call.input.text("accessToken")?.to_owned();
    let check_csrf = call.input.flag("doAntiCsrfCheck")? && call.anti_csrf()?;
    let check_database = match call.cdi >= Cdi::V2_21 {
        true => call.input.flag("checkDatabase")?,
        false => call.application.settings.access_token_blacklisting,
    };
    let keys = call.keys().await?;
    let presented = match call.presented(&token).await? {
        Ok(presented) => presented,
        Err(problem) => return try_refresh(call, &keys, problem),
    };
    let claims = &presented.signed.claims;
    if claims.expires_at <= call.engine().now() {
        return try_refresh(call, &keys, "Access token expired");
    }
    if check_csrf && !call.anti_csrf_matches(claims.anti_csrf.as_deref())? {
        return try_refresh(call, &keys, "anti-csrf check failed");
    }
    if claims.parent_hash.is_none() && !check_database {
        return answer_with(call, &keys, &presented, &claims.user_data, Map::new());
    }
    let Some((session, lineage)) = call.located(&presented).await? else {
        return Ok(Reply::unauthorised("Either the session has ended or has been blacklisted"));
    };
    let news = match claims.parent_hash {
        None => None,
        Some(_) => news(lineage.generation, session.position.generation, session.confirmed),
    };
    if news == Some(News::Confirm) {
        let seen = vec![(session.id, lineage.generation)];
        call.engine().confirm(&session.scope, seen).await?;
    }
    if call.cdi >= Cdi::V5_6 && session.position.generation.saturating_sub(lineage.generation) > 1 {
        return Ok(Reply::unauthorised("The access token is of a refresh token that was replaced long ago"));
    }
    let payload = Payload::of(session.claims.to_map());
    let changed = check_database && payload.user_data != claims.user_data;
    if call.cdi >= Cdi::V5_6 {
        let changed = object([("payloadUpdateAvailable", if changed { Value::Bool(true) } else { Value::Null })]);
        return answer_with(call, &keys, &presented, &claims.user_data, changed);
    }
    if news.is_none() && !changed {
        return answer_with(call, &keys, &presented, &claims.user_data, Map::new());
    }
    let token = again(call, &keys, &presented, (&session, lineage), &payload.user_data, news.is_none())?;
    answer_with(call, &keys, &presented, &payload.user_data, object([("accessToken", token)]))
}

/// What the use of an access token with a parent tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum News {
    /// Its generation has reached its client.
    Confirm,
    /// That was known.
    Known,
}

/// Decides what it tells that a token of generation `used` comes while the session is at `present`. Nothing: the session has moved
/// on beyond doubt, and the token is good until it expires, without its client getting another one.
fn news(used: u32, present: u32, confirmed: bool) -> Option<News> {
    match present.checked_sub(used) {
        Some(0) if !confirmed => Some(News::Confirm),
        Some(0) => Some(News::Known),
        // Its refresh token was used, which confirmed it; but the child's may be lost yet.
        Some(1) if !confirmed => Some(News::Known),
        _ => None,
    }
}

/// The same access token once more, with the payload as it is now.
fn again(
    call: &Call,
    keys: &Keys,
    presented: &Presented,
    (session, lineage): (&Session, Lineage),
    user_data: &Map<String, Value>,
    unconfirmed: bool,
) -> Result<Value, Reply> {
    let now = call.engine().now();
    call.grant(
        keys,
        &Grant {
            version: presented.signed.version,
            chain: presented.signed.chain,
            session,
            user_data,
            lineage,
            unconfirmed: unconfirmed && presented.signed.claims.parent_hash.is_some(),
            anti_csrf: presented.signed.claims.anti_csrf.clone(),
            issued_at: now,
            expires_at: call.access_expiry(session, now, None),
        },
    )
}

fn answer_with(
    call: &Call,
    keys: &Keys,
    presented: &Presented,
    user_data: &Map<String, Value>,
    more: Map<String, Value>,
) -> Result<Reply, Reply> {
    let session = call.session(&presented.handle, &presented.signed.claims.user_id, user_data);
    Ok(ok([object([("session", session)]), more, call.key_info(keys)?]))
}

fn try_refresh(call: &Call, keys: &Keys, message: &str) -> Result<Reply, Reply> {
    let mut members = object([("status", json!("TRY_REFRESH_TOKEN")), ("message", json!(message))]);
    if call.cdi >= Cdi::V2_7 {
        members.extend(call.key_info(keys)?);
    }
    Ok(Reply::Json(members))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_use_of_a_token_tells() {
        assert_eq!(news(1, 1, false), Some(News::Confirm));
        assert_eq!(news(1, 1, true), Some(News::Known));
        assert_eq!(news(1, 2, false), Some(News::Known));
        assert_eq!(news(1, 2, true), None);
        assert_eq!(news(1, 3, false), None);
        assert_eq!(news(2, 1, false), None, "the store lost writes; the refresh token brings it forward");
    }
}
