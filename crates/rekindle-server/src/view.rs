//! What the API shows of the engine's values: borrowed, and written straight into the answer.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use rekindle::{
    access::{Binding, Verified},
    clock::Timestamp,
    engine::{Patched, Tokens},
    explain::Explanation,
    journal::{Counterpart, Event, EventId, EventKind, Outcome},
    refresh::Commitment,
    rotation::TheftKind,
    session::{Auth, Client, EndReason, Env, Object, Session, SessionId, Tag, UserId},
    store::{Ban, Revocation, UserSummary},
};
use serde::Serialize;
use utoipa::{
    ToSchema,
    openapi::{
        Object as SchemaObject,
        schema::{ObjectBuilder, Type},
    },
};

use crate::problem::FieldProblem;

/// An answer with `view` as its JSON.
pub(crate) fn json(status: StatusCode, view: &impl Serialize) -> Response {
    let body = serde_json::to_vec(view).expect("views are JSON");
    (status, [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
}

/// A session as it is told.
#[derive(Serialize, ToSchema)]
#[schema(as = Session)]
pub(crate) struct SessionView<'a> {
    /// A UUID.
    #[schema(value_type = String, format = "uuid")]
    id: SessionId,
    #[schema(value_type = String)]
    product: &'a Tag,
    #[schema(value_type = String)]
    env: &'a Env,
    #[schema(value_type = String)]
    tag: &'a Tag,
    /// Empty: anonymous.
    #[schema(value_type = String)]
    user_id: &'a UserId,
    state: State,
    /// Why it ended, once it has: the first reason stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = end_reasons, required = false)]
    end_reason: Option<EndReason>,
    /// When it ended, once it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = "date-time")]
    ended_at: Option<Timestamp>,
    /// Grows by one at each successful refresh.
    generation: u32,
    #[schema(schema_with = bindings)]
    binding: Binding,
    #[schema(value_type = HashMap<String, serde_json::Value>)]
    data: &'a Object,
    #[schema(value_type = HashMap<String, serde_json::Value>)]
    claims: &'a Object,
    /// Counts writes of `data` and `claims`.
    version: u64,
    #[schema(value_type = ClientSchema)]
    client: &'a Client,
    #[schema(value_type = AuthSchema)]
    auth: &'a Auth,
    #[schema(value_type = String, format = "date-time")]
    created_at: Timestamp,
    #[schema(value_type = String, format = "date-time")]
    last_refreshed_at: Timestamp,
    /// It ends then unless it is refreshed.
    #[schema(value_type = String, format = "date-time")]
    idle_expires_at: Timestamp,
    /// It ends then in any case.
    #[schema(value_type = String, format = "date-time")]
    expires_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = "uuid")]
    previous_session_id: Option<SessionId>,
}

/// Whether a session lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, serde::Deserialize, ToSchema)]
#[schema(as = SessionState)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    Active,
    Ended,
}

impl<'a> SessionView<'a> {
    /// The session as it is `now`.
    pub(crate) fn of(session: &'a Session, now: Timestamp) -> Self {
        let ended = session.end(now);
        Self {
            id: session.id,
            product: &session.scope.product,
            env: &session.scope.env,
            tag: &session.tag,
            user_id: &session.user_id,
            state: if ended.is_none() { State::Active } else { State::Ended },
            end_reason: ended.map(|ended| ended.reason),
            ended_at: ended.map(|ended| ended.at),
            generation: session.position.generation,
            binding: session.position.commitment.into(),
            data: &session.data,
            claims: &session.claims,
            version: session.version,
            client: &session.client,
            auth: &session.auth,
            created_at: session.created_at,
            last_refreshed_at: session.last_refreshed_at(),
            idle_expires_at: session.idle_expires_at,
            expires_at: session.expires_at,
            previous_session_id: session.previous_session_id,
        }
    }
}

/// What an access token says of its session.
#[derive(Serialize, ToSchema)]
#[schema(as = TokenSession)]
pub(crate) struct TokenView<'a> {
    #[schema(value_type = String, format = "uuid")]
    id: SessionId,
    #[schema(value_type = String)]
    product: &'a Tag,
    #[schema(value_type = String)]
    env: &'a Env,
    #[schema(value_type = String)]
    tag: &'a Tag,
    #[schema(value_type = String)]
    user_id: &'a UserId,
    state: State,
    generation: u32,
    #[schema(schema_with = bindings)]
    binding: Binding,
    #[schema(value_type = HashMap<String, serde_json::Value>)]
    claims: &'a Object,
    #[schema(value_type = AuthSchema)]
    auth: &'a Auth,
}

impl<'a> From<&'a Verified> for TokenView<'a> {
    fn from(token: &'a Verified) -> Self {
        Self {
            id: token.session,
            product: &token.scope.product,
            env: &token.scope.env,
            tag: &token.tag,
            user_id: &token.user_id,
            state: State::Active,
            generation: token.generation,
            binding: token.binding,
            claims: &token.claims,
            auth: &token.auth,
        }
    }
}

/// What a client gets.
#[derive(Serialize, ToSchema)]
#[schema(as = Tokens)]
pub(crate) struct TokensView<'a> {
    session: SessionView<'a>,
    /// A JWT.
    access_token: &'a str,
    #[schema(value_type = String, format = "date-time")]
    access_token_expires_at: Timestamp,
    /// For the next refresh.
    refresh_token: &'a str,
    #[schema(value_type = String, format = "date-time")]
    refresh_token_expires_at: Timestamp,
    /// What the refresh token is committed to; null for a bearer generation.
    #[schema(value_type = Option<String>)]
    commitment: Option<Commitment>,
    /// In what the data of a new session does not fit the definition's schema, where its `schema_mode` is `warn`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    warnings: Vec<FieldProblem>,
}

impl<'a> TokensView<'a> {
    /// The tokens, with their session as it is `now`.
    pub(crate) fn of(tokens: &'a Tokens, now: Timestamp) -> Self {
        Self {
            session: SessionView::of(&tokens.session, now),
            access_token: tokens.access_token.expose(),
            access_token_expires_at: tokens.access_token_expires_at,
            refresh_token: tokens.refresh_token.expose(),
            refresh_token_expires_at: tokens.refresh_token_expires_at,
            commitment: Some(tokens.session.position.commitment).filter(|c| c.is_some()),
            warnings: tokens.warnings.iter().map(FieldProblem::from).collect(),
        }
    }
}

/// A session after a change.
#[derive(Serialize, ToSchema)]
#[schema(as = PatchedSession)]
pub(crate) struct PatchedView<'a> {
    #[serde(flatten)]
    session: SessionView<'a>,
    /// In what its data does not fit the definition's schema, where its `schema_mode` is `warn`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    warnings: Vec<FieldProblem>,
}

impl<'a> PatchedView<'a> {
    /// The session as it is `now`, with the warnings.
    pub(crate) fn of(patched: &'a Patched, now: Timestamp) -> Self {
        let warnings = patched.warnings.iter().map(FieldProblem::from).collect();
        Self { session: SessionView::of(&patched.session, now), warnings }
    }
}

/// One event of a session.
#[derive(Serialize, ToSchema)]
#[schema(as = Event)]
pub(crate) struct EventView<'a> {
    #[schema(value_type = String, format = "uuid")]
    id: EventId,
    #[schema(value_type = String, format = "date-time")]
    at: Timestamp,
    #[schema(schema_with = event_kinds)]
    kind: EventKind,
    /// What came of a request.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = outcomes, required = false)]
    outcome: Option<Outcome>,
    /// The session's generation afterwards.
    generation: u32,
    /// The presented token's generation, where it differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    presented_generation: Option<u32>,
    /// Why the session ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = end_reasons, required = false)]
    reason: Option<EndReason>,
    /// How a theft was recognised: `reused`, `forked` or `stolen_token`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    theft: Option<TheftKind>,
    /// The other party of a theft: who last moved the session on.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<CounterpartSchema>)]
    counterpart: Option<&'a Counterpart>,
    #[schema(value_type = ClientSchema)]
    client: &'a Client,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    /// The id of the API key that asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    actor: Option<&'a str>,
}

impl<'a> From<&'a Event> for EventView<'a> {
    fn from(event: &'a Event) -> Self {
        Self {
            id: event.id,
            at: event.at,
            kind: event.kind,
            outcome: event.outcome,
            generation: event.generation,
            presented_generation: event.presented_generation,
            reason: event.reason,
            theft: event.theft,
            counterpart: event.counterpart.as_ref(),
            client: &event.client,
            request_id: event.request_id.as_deref(),
            actor: event.actor.as_deref(),
        }
    }
}

/// Why a session is alive, or how it ended.
#[derive(Serialize, ToSchema)]
#[schema(as = Explanation)]
pub(crate) struct ExplanationView<'a> {
    #[schema(value_type = String, format = "uuid")]
    session_id: SessionId,
    active: bool,
    /// One sentence for people.
    summary: &'a str,
    /// The rule that ended it, or that will, like `idle_timeout` or `theft_forked`.
    rule: &'a str,
    /// When it ended, or the next moment at which a clock would end it.
    #[schema(value_type = String, format = "date-time")]
    at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = end_reasons, required = false)]
    end_reason: Option<EndReason>,
    /// The request that ended it, or that last kept it alive.
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<EventView<'a>>,
    /// The last requests that were refused or answered again, newest first.
    remarkable: Vec<EventView<'a>>,
}

impl<'a> From<&'a Explanation> for ExplanationView<'a> {
    fn from(told: &'a Explanation) -> Self {
        Self {
            session_id: told.session_id,
            active: told.active,
            summary: &told.summary,
            rule: told.rule,
            at: told.at,
            end_reason: told.end_reason,
            request: told.request.as_ref().map(EventView::from),
            remarkable: told.remarkable.iter().map(EventView::from).collect(),
        }
    }
}

/// What is known of a user.
#[derive(Serialize, ToSchema)]
#[schema(as = User)]
pub(crate) struct UserView<'a> {
    #[schema(value_type = String)]
    user_id: &'a UserId,
    /// Sessions that are kept, ended ones included.
    sessions: u64,
    active_sessions: u64,
    /// When the first of them started.
    #[schema(value_type = Option<String>, format = "date-time")]
    first_seen: Option<Timestamp>,
    /// When one of them was last started or refreshed.
    #[schema(value_type = Option<String>, format = "date-time")]
    last_seen: Option<Timestamp>,
    /// The ban in force.
    #[schema(value_type = Option<BanSchema>)]
    ban: Option<&'a Ban>,
}

impl<'a> From<&'a UserSummary> for UserView<'a> {
    fn from(user: &'a UserSummary) -> Self {
        Self {
            user_id: &user.user_id,
            sessions: user.sessions,
            active_sessions: user.active_sessions,
            first_seen: user.first_seen,
            last_seen: user.last_seen,
            ban: user.ban.as_ref(),
        }
    }
}

/// Access tokens that are no longer good though they have not expired.
#[derive(Serialize, ToSchema)]
#[schema(as = Revocation)]
pub(crate) struct RevocationView {
    #[schema(value_type = String, format = "uuid")]
    session_id: SessionId,
    #[schema(value_type = String, format = "date-time")]
    at: Timestamp,
    /// From then on this entry can be forgotten.
    #[schema(value_type = String, format = "date-time")]
    expires_at: Timestamp,
    /// Only tokens whose `gen` is below this: the session was elevated. Absent: all of them, the session has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    below_generation: Option<u32>,
}

impl From<&Revocation> for RevocationView {
    fn from(revocation: &Revocation) -> Self {
        Self {
            session_id: revocation.session_id,
            at: revocation.at,
            expires_at: revocation.expires_at,
            below_generation: revocation.below_generation(),
        }
    }
}

/// How many sessions a request ended.
#[derive(Serialize, ToSchema)]
pub(crate) struct Revoked {
    /// How many.
    pub(crate) revoked: u64,
}

/// Declares the description of a type that the engine reads and writes itself.
macro_rules! described {
    ($(#[$doc:meta])* $name:ident as $shown:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(ToSchema)]
        #[schema(as = $shown)]
        #[expect(dead_code, reason = "only its description is used")]
        pub(crate) struct $name {
            $($(#[$field_doc])* $field: $type,)*
        }
    };
}

described! {
    /// From where a user came, as the calling backend saw it. Each text is cut to 512 bytes.
    ClientSchema as Client {
        ip: Option<String>,
        user_agent: Option<String>,
        /// A name for the device that its user would recognise.
        device: Option<String>,
    }
}

described! {
    /// When and how the user last authenticated.
    AuthSchema as Auth {
        #[schema(format = "date-time")]
        time: String,
        /// The authentication context class that was reached.
        acr: Option<String>,
        /// The methods that were used, as RFC 8176 names them.
        #[schema(required = false)]
        amr: Vec<String>,
    }
}

described! {
    /// What a client sends beside its refresh token.
    ProofSchema as Proof {
        /// The session that the client believes its token to belong to.
        #[schema(format = "uuid")]
        session_id: String,
        /// The generation that the client believes its token to have.
        generation: u32,
        /// The commitment of the next generation: 16 bytes as base64url without padding.
        commitment: String,
        /// What opens the token's own commitment: 16 to 64 bytes as base64url without padding.
        opening: Option<String>,
        /// "I was told `superseded`, looked, and hold nothing newer."
        #[schema(required = false)]
        newest: bool,
    }
}

described! {
    /// Who last moved a session on before a theft was seen.
    CounterpartSchema as Counterpart {
        #[schema(format = "date-time")]
        at: String,
        client: ClientSchema,
        request_id: Option<String>,
    }
}

described! {
    /// A ban.
    BanSchema as Ban {
        #[schema(format = "date-time")]
        at: String,
        /// For ever if absent.
        #[schema(format = "date-time")]
        until: Option<String>,
        reason: Option<String>,
    }
}

/// The closed list of reasons for which a session ends.
pub(crate) fn end_reasons() -> SchemaObject {
    one_of(EndReason::ALL.map(EndReason::as_str))
}

/// The closed list of event kinds.
pub(crate) fn event_kinds() -> SchemaObject {
    one_of(EventKind::ALL.map(EventKind::as_str))
}

/// The closed list of what comes of a recorded request.
pub(crate) fn outcomes() -> SchemaObject {
    one_of(Outcome::ALL.map(Outcome::as_str))
}

fn bindings() -> SchemaObject {
    one_of(["bearer", "committed"])
}

fn one_of<const N: usize>(names: [&'static str; N]) -> SchemaObject {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(names)).build()
}
