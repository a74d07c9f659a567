//! `POST session/refresh`: rotates a refresh token by the engine's rules for bearer tokens; by those for committed clients if it comes
//! with a proof.

use rekindle::{
    clock::Seconds,
    definition::OnTheft,
    engine::{Conduct, Error, Patch, Refresh, TokenRefusal},
    keys::Chain,
    refresh::{Presented, Proof, RefreshToken},
    rotation::Position,
    session::{Env, Scope, Session, SessionId, UserId},
};
use serde_json::{Value, json};

use super::super::super::{
    Call, application,
    cdi::Cdi,
    handle::{Handle, SentToken},
    lineage::Lineage,
    origin::{self, Opened},
    payload::Payload,
    reply::{Reply, object},
};
use super::{create::shorter, ok, there};
use crate::{config::RecentTokenReuse, refusal::count_refresh};

pub(in super::super) async fn answer(call: &mut Call) -> Result<Reply, Reply> {
    call.for_the_app()?;
    let token = call.input.text("refreshToken")?.to_owned();
    let anti_csrf = call.anti_csrf()?;
    let chain = chain(call)?;
    let shorter = shorter(call)?;
    let keys = call.keys().await?;
    let read = if origin::is_refresh_token(&token) { former(call, &token).await? } else { ours(call, &token) };
    let Some(Authentic { text, tenant, presented, proof, anti_csrf: expected, behind }) = read else {
        return Ok(Reply::unauthorised("The refresh token is not one of this app, or was damaged"));
    };
    if anti_csrf && call.cdi >= Cdi::V2_3 {
        let matches = call.anti_csrf_matches(expected.as_deref())?;
        let may_pass = match behind {
            // Each token of the former core says whether one came with it.
            Some(_) => matches || expected.is_none(),
            None => matches || needs_none(call, &tenant, &presented).await?,
        };
        if !may_pass {
            return Ok(Reply::unauthorised("Anti CSRF token missing, or not matching"));
        }
    }
    if let Some(session) = behind
        && call.brought_to(presented.position.generation, session).await?.is_none()
    {
        return Ok(Reply::unauthorised(NOT_THERE));
    }
    let scope = call.application.scope(&tenant);
    let request = Refresh { refresh_token: text.expose(), tag: Some(application::tag()), proof };
    let outcome = call.engine().refresh_unsigned(&scope, request, conduct(call), &call.ctx).await;
    let moved = outcome.as_ref().map(|outcome| outcome.as_ref().map(|issued| issued.issued));
    count_refresh(call.server.metrics(), moved);
    let issued = match there(outcome)?.unwrap_or(Err(TokenRefusal::ScopeMismatch)) {
        Ok(issued) => issued,
        Err(refusal) => return refused(call, &scope, &presented, refusal).await,
    };
    if call.cdi >= Cdi::V5_6 && !issued.session.confirmed {
        // Nobody will tell that the child was used: from the grace period on the parent is theft.
        call.engine().confirm(&scope, vec![(issued.session.id, issued.session.position.generation)]).await?;
    }
    let mut payload = Payload::of(issued.session.claims.to_map());
    if call.cdi.access_token().clashes(&payload.user_data) {
        return Ok(Reply::unauthorised("The user payload contains protected field"));
    }
    let before = payload.marks();
    payload.chain = chain.unwrap_or(payload.chain);
    payload.anti_csrf = anti_csrf;
    if payload.marks() != before {
        let patch = Patch { claims: Some(payload.marks()), ..Patch::default() };
        match call.engine().patch(&scope, issued.session.id, patch, &call.ctx).await {
            // A payload without room for it: the next refresh says it again.
            Ok(_) | Err(Error::DataInvalid(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(ok([call.tokens(&keys, &issued, &payload, anti_csrf, shorter)?]))
}

/// Whether a request may come without an anti-CSRF token: the client of this session was never given one, because its application did
/// not ask for them until now.
async fn needs_none(call: &Call, tenant: &Env, presented: &Presented) -> Result<bool, Reply> {
    if call.input.optional_text("antiCsrfToken")?.is_some() {
        return Ok(false);
    }
    let session = call.active(&Handle { id: presented.session, tenant: tenant.clone() }).await?;
    Ok(session.is_some_and(|session| !Payload::of(session.claims.to_map()).anti_csrf))
}

/// A refresh token of this app, as one of ours.
struct Authentic {
    text: RefreshToken,
    tenant: Env,
    presented: Presented,
    proof: Option<Proof>,
    /// The anti-CSRF token that belongs to it.
    anti_csrf: Option<String>,
    /// Its session, if that was imported and has yet to be brought to the token's generation.
    behind: Option<Session>,
}

/// Reads one of ours.
fn ours(call: &Call, token: &str) -> Option<Authentic> {
    let SentToken { ours, tenant, step } = SentToken::parse(token)?;
    let secrets = call.engine().secrets();
    let presented = secrets.authenticate(ours).ok()?;
    let tag = |kid, message: &[u8]| secrets.tag(kid, message);
    let anti_csrf = Lineage::of(presented.session, &presented.position).anti_csrf(&tag);
    let text = secrets.issue(presented.session, &presented.position)?;
    let proof = step.map(|step| step.proof(&presented));
    Some(Authentic { text, tenant, presented, proof, anti_csrf, behind: None })
}

/// Reads one of the core that the app was imported from.
async fn former(call: &Call, token: &str) -> Result<Option<Authentic>, Reply> {
    let opened = call.application.refresh_key(call.engine()).and_then(|key| key.open(token));
    let Some(Opened { handle, hash, parent_hash, anti_csrf }) = opened else { return Ok(None) };
    let Some(session) = call.active(&handle).await? else { return Err(Reply::unauthorised(NOT_THERE)) };
    let Some(origin) = Payload::of(session.claims.to_map()).origin else { return Ok(None) };
    let generation = origin.generation(&hash, parent_hash.as_deref());
    let text = call.issue(&session, generation)?;
    let presented = Presented { session: session.id, position: Position { generation, ..session.position } };
    let tenant = handle.tenant;
    Ok(Some(Authentic { text, tenant, presented, proof: None, anti_csrf, behind: Some(session) }))
}

/// Which keys sign from now on; as before, where the client does not say.
fn chain(call: &Call) -> Result<Option<Chain>, Reply> {
    let dynamic = match call.cdi {
        cdi if cdi >= Cdi::V5_0 => Some(call.input.flag("useDynamicSigningKey")?),
        cdi if cdi >= Cdi::V3_0 => call.input.optional_flag("useDynamicSigningKey")?,
        cdi if cdi >= Cdi::V2_21 => None,
        _ => return Ok(Some(call.configured_chain())),
    };
    Ok(dynamic.map(|dynamic| if dynamic { Chain::Dynamic } else { Chain::Static }))
}

/// Up to CDI 5.4 a parent is good until its child is used, and the SDK ends the session of a theft; from 5.6 on there is a grace
/// period, and the core does.
fn conduct(call: &Call) -> Conduct {
    let on_theft = call.application.definition().map_or(OnTheft::ReportOnly, |definition| definition.refresh.on_theft);
    if call.cdi < Cdi::V5_6 {
        return Conduct { reuse_leeway: Seconds(0), on_theft };
    }
    let on_theft = if on_theft == OnTheft::ReportOnly { OnTheft::RevokeSession } else { on_theft };
    Conduct { reuse_leeway: call.application.settings.grace_period, on_theft }
}

async fn refused(call: &Call, scope: &Scope, presented: &Presented, refusal: TokenRefusal) -> Result<Reply, Reply> {
    let message = match refusal {
        TokenRefusal::Theft { session_id, user_id, .. } => {
            return theft(call, scope, presented, session_id, &user_id).await;
        }
        TokenRefusal::Malformed | TokenRefusal::ScopeMismatch | TokenRefusal::AccessExpired => {
            "The refresh token is not one of this app, or was damaged"
        }
        TokenRefusal::Expired(_) | TokenRefusal::Revoked(_) => NOT_THERE,
        TokenRefusal::ProofRequired(_) => "The session's client has to send a proof",
        TokenRefusal::Superseded(_) => "The refresh token was replaced; a newer one is in its client's storage",
    };
    Ok(Reply::unauthorised(message))
}

async fn theft(
    call: &Call,
    scope: &Scope,
    presented: &Presented,
    id: SessionId,
    user_id: &UserId,
) -> Result<Reply, Reply> {
    let handle = Handle { id, tenant: scope.env.clone() };
    let mut session = object([("handle", handle.to_string().into()), ("userId", user_id.as_str().into())]);
    if call.cdi >= Cdi::V4_0 {
        session.insert("recipeUserId".into(), user_id.as_str().into());
    }
    let mut subtype = Value::Null;
    if call.cdi >= Cdi::V5_6 {
        let present = match call.engine().session(scope, id).await {
            Ok(session) => session.position.generation,
            Err(Error::SessionNotFound(_)) => u32::MAX,
            Err(error) => return Err(error.into()),
        };
        let is_parent = presented.position.generation.checked_add(1) == Some(present);
        subtype = json!(if is_parent { "RECENT_PREV" } else { "STALE_LINEAGE" });
        if is_parent && call.config().recent_token_reuse_behaviour == RecentTokenReuse::Unauthorised {
            let members = [("message", NOT_THERE.into()), ("recentTokenReuseSubtype", subtype)];
            return Ok(Reply::status("UNAUTHORISED", members));
        }
    }
    let members = [("session", session.into()), ("recentTokenReuseSubtype", subtype)];
    Ok(Reply::status("TOKEN_THEFT_DETECTED", members))
}

const NOT_THERE: &str = "Session missing in db or has expired";
