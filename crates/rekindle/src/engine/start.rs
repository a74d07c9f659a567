//! Starting a session.

use aws_lc_rs::digest;
use serde::Serialize;
use serde_json::{Map, Value};

use super::scopes::{Grant, ScopeState};
use super::{Engine, Error, Issued, Tokens, Unsigned};
use crate::access;
use crate::clock::{Seconds, Timestamp};
use crate::definition::{Definition, Violation};
use crate::journal::{Context, EventKind};
use crate::refresh::Commitment;
use crate::rotation::Position;
use crate::session::{Auth, Client, EndReason, Object, Scope, Session, SessionId, Tag, UserId};
use crate::store::{Idempotency, Start, Started};

/// A start request. [`StartRequest::new`] fills in what is usually left out.
#[derive(Debug, Clone, Serialize)]
pub struct StartRequest {
    /// Which definition.
    pub tag: Tag,
    /// Whose session. With a selector it may be left out, and must be equal if it is not. Neither: anonymous.
    pub user_id: Option<UserId>,
    /// The application's data: at most 64 KiB.
    pub data: Map<String, Value>,
    /// Claims for the access token: at most 4 KiB.
    pub claims: Map<String, Value>,
    /// The authentication that the session rests on; now, by default.
    pub auth: Option<Auth>,
    /// The commitment of generation 0: the session is committed from birth.
    pub commitment: Option<Commitment>,
    /// From where the user signed in.
    #[serde(skip)]
    pub client: Client,
    /// The session that this one replaces: it ends as `replaced` in the same step.
    pub previous_session_id: Option<SessionId>,
    /// Shortens the absolute lifetime.
    pub expires_in: Option<Seconds>,
    /// Repeating a request with the same key gives the same session, for 24 hours.
    #[serde(skip)]
    pub idempotency_key: Option<String>,
}

impl StartRequest {
    /// Asks for a bearer session of `user_id`, with nothing else said.
    pub fn new(tag: Tag, user_id: Option<UserId>) -> Self {
        Self {
            tag,
            user_id,
            data: Map::new(),
            claims: Map::new(),
            auth: None,
            commitment: None,
            client: Client::default(),
            previous_session_id: None,
            expires_in: None,
            idempotency_key: None,
        }
    }
}

/// The longest JSON text of a session's data, in bytes.
const MAX_DATA: usize = 64 << 10;

/// The longest JSON text of a session's claims, in bytes.
const MAX_CLAIMS: usize = 4 << 10;

/// The longest idempotency key, in bytes.
const MAX_IDEMPOTENCY_KEY: usize = 256;

const IDEMPOTENCY_LASTS: Seconds = Seconds(24 * 3600);

impl Engine {
    /// Starts a session.
    ///
    /// With an idempotency key, the same request gives the same session while that is at generation 0, and
    /// [`Error::Conflict`] later; another request gives [`Error::IdempotencyMismatch`].
    pub async fn start(&self, scope: &Scope, request: StartRequest, ctx: &Context) -> Result<Tokens, Error> {
        let state = self.active_scope(scope).await?;
        let (_, definition) = state.versioned(&request.tag)?;
        let now = self.now();
        let (session, warnings) = self.begin(&state, request, ctx, now).await?;
        let grant = Grant { lifetime: definition.access_token.lifetime.seconds(), confirms: false };
        Ok(Tokens { warnings, ..self.tokens(&state, definition, session, Issued::Started, grant, now).await? })
    }

    /// The same for a caller that signs access tokens of its own.
    pub async fn start_unsigned(&self, scope: &Scope, request: StartRequest, ctx: &Context) -> Result<Unsigned, Error> {
        let state = self.active_scope(scope).await?;
        let (session, _) = self.begin(&state, request, ctx, self.now()).await?;
        self.unsigned(session, Issued::Started)
    }

    async fn begin(
        &self,
        state: &ScopeState,
        request: StartRequest,
        ctx: &Context,
        now: Timestamp,
    ) -> Result<(Session, Vec<Violation>), Error> {
        let scope = &state.scope;
        let (version, definition) = state.versioned(&request.tag)?;
        let (session, warnings) = self.new_session(scope, (version, definition), &request, now)?;
        let start = Start {
            idempotency: idempotency(&request, now)?,
            max_sessions: definition.max_sessions_per_user.map(|max| (max.get(), definition.on_max_sessions)),
            event: self.session_event(&with_client(ctx, &session.client), now, EventKind::Start, &session),
            ending: self.ending(ctx, now, EndReason::Replaced, state),
            session: session.clone(),
        };
        let feed_until = start.ending.feed_until;
        match self.inner.store.start(start).await? {
            Started::Created(ended) => {
                self.ended(ended, feed_until).await?;
                Ok((session, warnings))
            }
            Started::Repeated(Some(first)) if first.position.generation == 0 && first.end(now).is_none() => {
                Ok((*first, warnings))
            }
            Started::Repeated(_) => Err(Error::Conflict(
                "the session that this idempotency key started has moved on or ended; start another with a new key"
                    .into(),
            )),
            Started::IdempotencyMismatch => Err(Error::IdempotencyMismatch),
            Started::Banned(ban) => Err(Error::UserBanned(ban)),
            Started::PreviousUnusable => Err(Error::Conflict(
                "the previous session is not an active session of this user or of an anonymous one in this environment"
                    .into(),
            )),
            Started::TooManySessions(active) => Err(Error::MaxSessionsReached { active }),
        }
    }

    fn new_session(
        &self,
        scope: &Scope,
        (definition_version, definition): (u32, &Definition),
        request: &StartRequest,
        now: Timestamp,
    ) -> Result<(Session, Vec<Violation>), Error> {
        let user_id = user_id(definition, request)?;
        let (data, claims, warnings) = payload(definition, &request.data, &request.claims)?;
        let lifetime = definition.refresh.absolute_lifetime.seconds();
        let expires_at = now + request.expires_in.map_or(lifetime, |shorter| shorter.min(lifetime));
        if expires_at <= now {
            return Err(Error::Invalid {
                field: "expires_in",
                problem: "is zero; leave it out or give at least 1".into(),
            });
        }
        let auth = request.auth.clone().unwrap_or(Auth { time: now, acr: None, amr: Vec::new() });
        check_auth(&auth, now)?;
        let session = Session {
            id: SessionId::draw(now, &*self.inner.rng),
            scope: scope.clone(),
            tag: definition.tag.clone(),
            definition_version,
            user_id,
            position: Position {
                generation: 0,
                commitment: request.commitment.unwrap_or(Commitment::NONE),
                issued_at: u32::try_from(now.secs()).unwrap_or(u32::MAX),
                kid: self.inner.secrets.current(),
            },
            confirmed: false,
            min_generation: 0,
            data,
            claims,
            version: 1,
            client: request.client.clone().bounded(),
            auth,
            created_at: now,
            idle_expires_at: (now + definition.refresh.idle_timeout.seconds()).min(expires_at),
            expires_at,
            previous_session_id: request.previous_session_id,
            ended: None,
        };
        Ok((session, warnings))
    }
}

/// Refuses an authentication that has not happened yet, by all clocks, or would not fit into access tokens.
pub(super) fn check_auth(auth: &Auth, now: Timestamp) -> Result<(), Error> {
    let (max, most) = (Auth::MAX_TEXT, Auth::MAX_METHODS);
    let invalid = |field, problem| Err(Error::Invalid { field, problem });
    if auth.time > now + access::LEEWAY {
        return invalid("auth.time", format!("is {}, in the future: it is {now}", auth.time));
    }
    if let Some(acr) = auth.acr.as_ref().filter(|acr| acr.len() > max) {
        return invalid("auth.acr", format!("has {} bytes; give at most {max}", acr.len()));
    }
    if auth.amr.len() > most {
        return invalid("auth.amr", format!("names {} methods; give at most {most}", auth.amr.len()));
    }
    match auth.amr.iter().find(|method| method.len() > max) {
        Some(method) => invalid("auth.amr", format!("has a method of {} bytes; give at most {max} each", method.len())),
        None => Ok(()),
    }
}

/// Checks data and claims against the definition and the limits; with what is only to be warned of.
pub(super) fn payload(
    definition: &Definition,
    data: &Map<String, Value>,
    claims: &Map<String, Value>,
) -> Result<(Object, Object, Vec<Violation>), Error> {
    let warnings = definition.check_data(data).map_err(|invalid| Error::DataInvalid(invalid.0))?;
    access::check_claims(claims).map_err(|reserved| refused("/claims", reserved.to_string()))?;
    let (data, claims) = (Object::from_map(data), Object::from_map(claims));
    for (path, text, max) in [("/data", data.as_str(), MAX_DATA), ("/claims", claims.as_str(), MAX_CLAIMS)] {
        if text.len() > max {
            return Err(refused(path, format!("at most {max} bytes of JSON, not {}", text.len())));
        }
    }
    Ok((data, claims, warnings))
}

fn refused(path: &str, expected: String) -> Error {
    Error::DataInvalid(vec![Violation { path: path.into(), expected, found: "object" }])
}

fn user_id(definition: &Definition, request: &StartRequest) -> Result<UserId, Error> {
    let given = request.user_id.clone();
    let Some(selector) = &definition.selector else {
        return Ok(given.unwrap_or_else(|| "".parse().expect("the empty user id is valid")));
    };
    let selected = selector.resolve(&request.data).map_err(|e| Error::SelectorUnresolved(e.to_string()))?;
    match given {
        Some(given) if given != selected => Err(Error::Invalid {
            field: "user_id",
            problem: format!("differs from what the selector {selector} finds in the data; leave one of them out"),
        }),
        _ => Ok(selected),
    }
}

fn idempotency(request: &StartRequest, now: Timestamp) -> Result<Option<Idempotency>, Error> {
    let Some(key) = &request.idempotency_key else { return Ok(None) };
    if key.is_empty() || key.len() > MAX_IDEMPOTENCY_KEY {
        let problem = format!("has {} bytes; give 1 to {MAX_IDEMPOTENCY_KEY}", key.len());
        return Err(Error::Invalid { field: "Idempotency-Key", problem });
    }
    let body = serde_json::to_vec(request).expect("a request of JSON values is JSON");
    Ok(Some(Idempotency { key: sha256(key.as_bytes()), request: sha256(&body), expires_at: now + IDEMPOTENCY_LASTS }))
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest::digest(&digest::SHA256, bytes).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// A start's event tells from where the *user* came, also where the caller gave that in the request.
fn with_client(ctx: &Context, client: &Client) -> Context {
    let mut ctx = ctx.clone();
    if *client != Client::default() {
        ctx.client = client.clone();
    }
    ctx
}
