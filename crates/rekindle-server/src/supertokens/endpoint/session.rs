//! Sessions: what their endpoints share.

pub(super) mod create;
pub(super) mod data;
pub(super) mod handshake;
pub(super) mod refresh;
pub(super) mod regenerate;
pub(super) mod remove;
pub(super) mod show;
pub(super) mod user;
pub(super) mod verify;

use std::sync::Arc;

use rekindle::{
    clock::{Seconds, Timestamp},
    definition::OnTheft,
    engine::{Conduct, Error, Refresh, Unsigned},
    keys::Chain,
    refresh::RefreshToken,
    rotation::Position,
    session::Session,
};
use serde_json::{Map, Value, json};
use subtle::ConstantTimeEq;

use super::super::{
    Call,
    access::{Claims, Version},
    application,
    cdi::Cdi,
    handle::{self, Handle},
    keys::{self, Keys},
    lineage::Lineage,
    origin::Origin,
    payload::Payload,
    reply::{Reply, object},
    verified::Signed,
};

/// An access token that one of the app's keys signed; it may have expired.
struct Presented {
    signed: Arc<Signed>,
    handle: Handle,
    /// Nothing for a token of the core that its session was imported from: only what is kept there tells.
    lineage: Option<Lineage>,
}

impl Presented {
    /// Its lineage, told by its session.
    fn lineage_in(&self, session: &Session) -> Option<Lineage> {
        let claims = &self.signed.claims;
        let of = |origin: Origin| Lineage {
            session: session.id,
            generation: origin.generation(&claims.refresh_hash, claims.parent_hash.as_deref()),
            kid: session.position.kid,
        };
        self.lineage.or_else(|| Payload::of(session.claims.to_map()).origin.map(of))
    }
}

/// What an access token is to say.
struct Grant<'a> {
    version: Version,
    chain: Chain,
    session: &'a Session,
    user_data: &'a Map<String, Value>,
    lineage: Lineage,
    /// Whether its first use has to be told.
    unconfirmed: bool,
    anti_csrf: Option<String>,
    issued_at: Timestamp,
    expires_at: Timestamp,
}

/// Which cookie a token goes into, for clients that are told.
#[derive(Clone, Copy, PartialEq)]
enum Cookie {
    Access,
    Refresh,
    IdRefresh,
}

impl Call {
    /// The app's keys; an app that was never used is made ready.
    pub(super) async fn keys(&mut self) -> Result<Keys, Reply> {
        self.prepare().await?;
        Ok(Keys::of(self.engine(), &self.application).await?)
    }

    /// Makes the app ready for sessions.
    async fn prepare(&mut self) -> Result<(), Reply> {
        Ok(self.application.prepare(&self.server, &self.ctx).await?)
    }

    /// Whether access tokens come with an anti-CSRF token: said with each request since CDI 2.6, configured before.
    fn anti_csrf(&self) -> Result<bool, Reply> {
        if self.cdi >= Cdi::V2_6 {
            return self.input.flag("enableAntiCsrf");
        }
        Ok(self.config().enable_anti_csrf.unwrap_or(self.cdi < Cdi::V2_0))
    }

    /// The keys that sign for clients that do not say which.
    fn configured_chain(&self) -> Chain {
        if self.application.settings.dynamic_signing_key { Chain::Dynamic } else { Chain::Static }
    }

    /// The active session of a handle.
    async fn active(&self, handle: &Handle) -> Result<Option<Session>, Reply> {
        let found = self.engine().active_session(&self.application.scope(&handle.tenant), handle.id).await;
        Ok(there(found)?.flatten().filter(|session| session.tag == application::tag()))
    }

    /// The active session of a handle as it was sent.
    async fn active_by(&self, handle: &str) -> Result<Option<Session>, Reply> {
        match handle.parse() {
            Ok(handle) => self.active(&handle).await,
            Err(()) => Ok(None),
        }
    }

    /// Reads an access token of an app that is ready. `Err` in the result says what is wrong with it.
    async fn presented(&self, token: &str) -> Result<Result<Presented, &'static str>, Reply> {
        let engine = self.engine();
        let signed = match keys::verify(engine, &self.application, self.server.verified_tokens(), token).await? {
            Ok(signed) => signed,
            Err(problem) => return Ok(Err(problem)),
        };
        let tag = |kid, message: &[u8]| engine.secrets().tag(kid, message);
        let Ok(handle) = signed.claims.handle.parse::<Handle>() else { return Ok(Err(UNKNOWN_SESSION)) };
        let lineage = Lineage::read(handle.id, &signed.claims.refresh_hash, &tag);
        Ok(Ok(Presented { signed, handle, lineage }))
    }

    /// The active session of an access token, and where in it the token belongs.
    async fn located(&self, presented: &Presented) -> Result<Option<(Session, Lineage)>, Reply> {
        let Some(session) = self.active(&presented.handle).await? else { return Ok(None) };
        let Some(lineage) = presented.lineage_in(&session) else { return Ok(None) };
        let session = match presented.lineage {
            None => self.brought_to(lineage.generation, session).await?,
            Some(_) => Some(session),
        };
        Ok(session.zip(Some(lineage)))
    }

    /// An imported session, brought to the generation for which the token in use of its former core stands: the core had handed it out
    /// and not seen it used. Nothing for a session that ended meanwhile.
    async fn brought_to(&self, generation: u32, session: Session) -> Result<Option<Session>, Reply> {
        if session.position.generation >= generation {
            return Ok(Some(session));
        }
        let engine = self.engine();
        let token = self.issue(&session, session.position.generation)?;
        let request = Refresh { refresh_token: token.expose(), tag: Some(application::tag()), proof: None };
        let conduct = Conduct { reuse_leeway: Seconds(0), on_theft: OnTheft::ReportOnly };
        match engine.refresh_unsigned(&session.scope, request, conduct, &self.ctx).await? {
            Ok(moved) => Ok(Some(moved.session)),
            Err(_) => Ok(None),
        }
    }

    /// Our refresh token of a session at a generation.
    fn issue(&self, session: &Session, generation: u32) -> Result<RefreshToken, Reply> {
        let (engine, kid) = (self.engine(), session.position.kid);
        let issued = engine.secrets().issue(session.id, &Position { generation, ..session.position });
        let no_secret = || Error::Key(format!("the master secret with key id {kid} is not configured"));
        Ok(issued.ok_or_else(no_secret)?)
    }

    /// Whether a request's anti-CSRF token is the one that it must be.
    fn anti_csrf_matches(&self, expected: Option<&str>) -> Result<bool, Reply> {
        let given = self.input.optional_text("antiCsrfToken")?;
        Ok(given.zip(expected).is_some_and(|(given, expected)| bool::from(given.as_bytes().ct_eq(expected.as_bytes()))))
    }

    /// Signs an access token, and says what a client has to know of it.
    fn grant(&self, keys: &Keys, grant: &Grant<'_>) -> Result<Value, Reply> {
        let engine = self.engine();
        let tag = |kid, message: &[u8]| engine.secrets().tag(kid, message);
        let no_secret = || Error::Key(format!("the master secret with key id {} is not configured", grant.lineage.kid));
        let user_id = grant.session.user_id.to_string();
        let claims = Claims {
            handle: Handle::of(grant.session).to_string(),
            recipe_user_id: user_id.clone(),
            user_id,
            tenant: grant.session.scope.env.to_string(),
            refresh_hash: grant.lineage.refresh_hash(&tag).ok_or_else(no_secret)?,
            parent_hash: match grant.lineage.parent().filter(|_| grant.unconfirmed) {
                Some(parent) => Some(parent.refresh_hash(&tag).ok_or_else(no_secret)?),
                None => None,
            },
            anti_csrf: grant.anti_csrf.clone(),
            user_data: grant.user_data.clone(),
            issued_at: grant.issued_at,
            expires_at: grant.expires_at,
        };
        let token = keys.mint(grant.version, &claims, grant.chain)?;
        let told = |t: Timestamp| if grant.version >= Version::V3 { t.secs() * 1000 } else { t.millis() };
        Ok(self.token(Cookie::Access, &token, told(grant.issued_at), told(grant.expires_at)))
    }

    /// When an access token expires that is issued now: with its session at the latest.
    fn access_expiry(&self, session: &Session, now: Timestamp, shorter: Option<Seconds>) -> Timestamp {
        let validity = self.application.settings.access_token_validity;
        let validity = shorter.map_or(validity, |shorter| shorter.min(validity));
        (now + validity).min(session.idle_expires_at).min(session.expires_at)
    }

    /// A token with what a client has to know of it.
    fn token(&self, cookie: Cookie, token: &str, created: i64, expiry: i64) -> Value {
        let mut info = object([("token", token.into()), ("expiry", expiry.into()), ("createdTime", created.into())]);
        if self.cdi < Cdi::V2_4 && (cookie != Cookie::IdRefresh || self.cdi >= Cdi::V2_0) {
            let config = self.config();
            let path = if cookie == Cookie::Refresh { self.refresh_path() } else { config.access_token_path.clone() };
            info.insert("cookiePath".into(), path.into());
            info.insert("cookieSecure".into(), config.cookie_secure.into());
            if let Some(domain) = self.cookie_domain() {
                info.insert("domain".into(), domain.into());
            }
            if self.cdi >= Cdi::V2_0 {
                info.insert("sameSite".into(), config.cookie_same_site.as_str().into());
            }
        }
        info.into()
    }

    /// The path of the cookie with the refresh token.
    fn refresh_path(&self) -> String {
        let default = if self.cdi < Cdi::V2_0 { "/refresh" } else { "/session/refresh" };
        self.config().refresh_api_path.clone().unwrap_or_else(|| default.into())
    }

    /// The domain of cookies; clients up to CDI 2.1 must have one.
    fn cookie_domain(&self) -> Option<String> {
        let default = (self.cdi < Cdi::V2_2).then(|| "localhost".to_owned());
        self.config().cookie_domain.clone().or(default)
    }

    /// A session as this version shows it.
    fn session(&self, handle: &Handle, user_id: &str, user_data: &Map<String, Value>) -> Value {
        let mut session = object([
            ("handle", handle.to_string().into()),
            ("userId", user_id.into()),
            ("userDataInJWT", json!(user_data)),
        ]);
        if self.cdi >= Cdi::V3_0 {
            session.insert("tenantId".into(), handle.tenant.as_str().into());
        }
        if self.cdi >= Cdi::V4_0 {
            session.insert("recipeUserId".into(), user_id.into());
        }
        session.into()
    }

    /// A session with fresh tokens: what a login or a refresh leads to.
    fn tokens(
        &self,
        keys: &Keys,
        issued: &Unsigned,
        payload: &Payload,
        anti_csrf: bool,
        shorter: Option<Seconds>,
    ) -> Result<Map<String, Value>, Reply> {
        let (engine, session) = (self.engine(), &issued.session);
        let now = engine.now();
        let lineage = Lineage::of(session.id, &session.position);
        let tag = |kid, message: &[u8]| engine.secrets().tag(kid, message);
        let anti_csrf = if anti_csrf { lineage.anti_csrf(&tag) } else { None };
        let access_token = self.grant(
            keys,
            &Grant {
                version: self.cdi.access_token(),
                chain: payload.chain,
                session,
                user_data: &payload.user_data,
                lineage,
                unconfirmed: self.cdi < Cdi::V5_6,
                anti_csrf: anti_csrf.clone(),
                issued_at: now,
                expires_at: self.access_expiry(session, now, shorter),
            },
        )?;
        let (created, expiry) = (now.millis(), session.idle_expires_at.millis());
        let refresh_token = handle::refresh_token(issued.refresh_token.expose(), &session.scope.env);
        let mut id = [0; 16];
        engine.rng().fill(&mut id);
        let id = uuid::Builder::from_random_bytes(id).into_uuid().to_string();
        let has_id_refresh = self.cdi < Cdi::V2_21;
        Ok(object([
            ("session", self.session(&Handle::of(session), session.user_id.as_str(), &payload.user_data)),
            ("accessToken", access_token),
            ("refreshToken", self.token(Cookie::Refresh, &refresh_token, created, expiry)),
            (
                "idRefreshToken",
                if has_id_refresh { self.token(Cookie::IdRefresh, &id, created, expiry) } else { Value::Null },
            ),
            ("antiCsrfToken", anti_csrf.into()),
        ]))
    }

    /// What clients up to CDI 2.20 verify access tokens with.
    fn key_info(&self, keys: &Keys) -> Result<Map<String, Value>, Reply> {
        if self.cdi >= Cdi::V2_21 {
            return Ok(Map::new());
        }
        let chain = self.configured_chain();
        let (key, until) = keys.handshake(chain)?;
        let list = (self.cdi >= Cdi::V2_9)
            .then(|| keys.handshake_list(chain, self.application.settings.access_token_validity));
        Ok(object([
            ("jwtSigningPublicKey", key.into()),
            ("jwtSigningPublicKeyExpiryTime", until.millis().into()),
            ("jwtSigningPublicKeyList", list.into()),
        ]))
    }
}

/// What was found in a tenant; nothing if the tenant is not there, or not any more.
fn there<T>(found: Result<T, Error>) -> Result<Option<T>, Error> {
    match found {
        Err(Error::ProductNotFound(_) | Error::EnvironmentNotFound(_)) => Ok(None),
        found => found.map(Some),
    }
}

/// `OK` with these members.
fn ok(parts: impl IntoIterator<Item = Map<String, Value>>) -> Reply {
    let mut members = object([("status", "OK".into())]);
    members.extend(parts.into_iter().flatten());
    Reply::Json(members)
}

/// A payload cannot have names that the token's format needs.
fn check_payload(version: Version, user_data: &Map<String, Value>) -> Result<(), Reply> {
    if version.clashes(user_data) { Err(Reply::bad("The user payload contains protected field")) } else { Ok(()) }
}

const NO_SESSION: &str = "Session does not exist.";
const UNKNOWN_SESSION: &str = "Access token is of a session that this server does not know";
