//! `POST session`: a user has signed in.

use rekindle::{
    clock::Seconds,
    engine::StartRequest,
    keys::Chain,
    session::{InvalidName, UserId},
};

use super::super::super::{Call, application, cdi::Cdi, payload::Payload, reply::Reply};
use super::{check_payload, ok};

pub(in super::super) async fn answer(call: &mut Call) -> Result<Reply, Reply> {
    let input = &call.input;
    let user_id: UserId = input.text("userId")?.parse().map_err(|error: InvalidName| Reply::bad(error.to_string()))?;
    let user_data = input.object("userDataInJWT")?.clone();
    let data = input.object("userDataInDatabase")?.clone();
    let anti_csrf = call.anti_csrf()?;
    let shorter = shorter(call)?;
    let chain = match call.cdi >= Cdi::V2_21 {
        true if !input.optional_flag("useDynamicSigningKey")?.unwrap_or(true) => Chain::Static,
        true => Chain::Dynamic,
        false => call.configured_chain(),
    };
    check_payload(call.cdi.access_token(), &user_data)?;
    let payload = Payload { user_data, chain, anti_csrf, origin: None };
    let keys = call.keys().await?;
    let request =
        StartRequest { claims: payload.claims(), data, ..StartRequest::new(application::tag(), Some(user_id)) };
    let scope = call.application.scope(&call.tenant());
    let issued = call.engine().start_unsigned(&scope, request, &call.ctx).await?;
    Ok(ok([call.tokens(&keys, &issued, &payload, anti_csrf, shorter)?, call.key_info(&keys)?]))
}

/// How long the access token may live at most, where the client says so.
pub(super) fn shorter(call: &Call) -> Result<Option<Seconds>, Reply> {
    if call.cdi < Cdi::V5_6 {
        return Ok(None);
    }
    let Some(millis) = call.input.optional_whole("accessTokenValidity")? else { return Ok(None) };
    let longest = call.application.settings.access_token_validity;
    match u64::try_from(millis).ok().filter(|millis| (1000..=longest.0 * 1000).contains(millis)) {
        Some(millis) => Ok(Some(Seconds(millis / 1000))),
        None => Err(Reply::bad(format!("accessTokenValidity must be from 1000 to {} ms", longest.0 * 1000))),
    }
}
