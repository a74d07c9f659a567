//! Sessions and tokens as an application sees them, whether the engine is in its process or on a server.

use std::fmt;

use rekindle::{
    access::Binding,
    clock::{Seconds, Timestamp},
    engine,
    refresh::{Commitment, Proof},
    session::{Auth, Client, EndReason, Env, Scope, Session, SessionId, Tag, UserId},
};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::problem::FieldProblem;

/// The text of an access or refresh token. Handle it like a password; it never prints itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Zeroizing<String>);

impl Token {
    /// A token from its text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether it has the shape of a refresh token.
    pub fn is_refresh(&self) -> bool {
        self.0.starts_with("rkr_")
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl<'de> Deserialize<'de> for Token {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

/// A session to start. [`Start::user`] fills in what is usually left out.
#[derive(Debug, Clone, Default)]
pub struct Start {
    /// Whose session. With a selector it may be left out. Neither: anonymous.
    pub user_id: Option<UserId>,
    /// The application's data: at most 64 KiB of JSON.
    pub data: Map<String, Value>,
    /// Claims for the access token: at most 4 KiB of JSON, and with cookies about 2 KiB.
    pub claims: Map<String, Value>,
    /// The authentication that the session rests on; now, by default.
    pub auth: Option<Auth>,
    /// The first commitment of the client: the session is committed from birth.
    pub commitment: Option<Commitment>,
    /// From where the user signs in.
    pub client: Client,
    /// The session that this one replaces: it ends in the same step.
    pub previous_session_id: Option<SessionId>,
    /// Shortens the absolute lifetime.
    pub expires_in: Option<Seconds>,
    /// The same key with the same content gives the same session, for 24 hours. Only with one is a start repeated after a time-out.
    pub idempotency_key: Option<String>,
}

impl Start {
    /// A session of this user.
    pub fn user(user_id: UserId) -> Self {
        Self { user_id: Some(user_id), ..Self::default() }
    }
}

/// A refresh. It never prints its token.
#[derive(Debug, Clone)]
pub struct Refresh {
    /// The refresh token.
    pub token: Token,
    /// The client's proof.
    pub proof: Option<Proof>,
    /// From where the client asks.
    pub client: Client,
}

impl Refresh {
    /// A refresh of a client that sends no proofs.
    pub fn bearer(token: Token) -> Self {
        Self { token, proof: None, client: Client::default() }
    }
}

/// What a client gets.
#[derive(Debug, Clone, Deserialize)]
pub struct Tokens {
    /// The session as it is now.
    pub session: SessionInfo,
    /// Short-lived; verified without I/O.
    pub access_token: Token,
    /// When it expires.
    pub access_token_expires_at: Timestamp,
    /// For the next refresh.
    pub refresh_token: Token,
    /// When it expires unless it is used.
    pub refresh_token_expires_at: Timestamp,
    /// What the refresh token is committed to; `None` for a bearer generation.
    pub commitment: Option<Commitment>,
    /// In what the data does not fit the definition's schema, where that only warns.
    #[serde(default)]
    pub warnings: Vec<FieldProblem>,
}

impl Tokens {
    pub(crate) fn of(tokens: &engine::Tokens, now: Timestamp) -> Self {
        Self {
            session: SessionInfo::of(&tokens.session, now),
            access_token: Token::new(tokens.access_token.expose()),
            access_token_expires_at: tokens.access_token_expires_at,
            refresh_token: Token::new(tokens.refresh_token.expose()),
            refresh_token_expires_at: tokens.refresh_token_expires_at,
            commitment: Some(tokens.session.position.commitment).filter(|c| c.is_some()),
            warnings: tokens.warnings.iter().map(FieldProblem::from).collect(),
        }
    }
}

/// A short access token that was bought without rotating.
#[derive(Debug, Clone, Deserialize)]
pub struct Minted {
    /// The token.
    pub access_token: Token,
    /// When it expires.
    pub access_token_expires_at: Timestamp,
    /// Its session.
    pub session: SessionInfo,
}

/// Whether a session lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum State {
    Active,
    Ended,
}

/// A session's row, as it was when it was read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionInfo {
    /// Its id.
    pub id: SessionId,
    /// Its product.
    pub product: Tag,
    /// Its environment.
    pub env: Env,
    /// The tag of its definition.
    pub tag: Tag,
    /// Whose it is.
    pub user_id: UserId,
    /// Whether it lives.
    pub state: State,
    /// Why it ended, once it has.
    #[serde(default)]
    pub end_reason: Option<EndReason>,
    /// When it ended, once it has.
    #[serde(default)]
    pub ended_at: Option<Timestamp>,
    /// Grows by one at each refresh.
    pub generation: u32,
    /// What protects its refresh.
    pub binding: Binding,
    /// The application's data.
    pub data: Map<String, Value>,
    /// Its own claims for access tokens.
    pub claims: Map<String, Value>,
    /// Counts writes of `data` and `claims`.
    pub version: u64,
    /// From where it was started.
    pub client: Client,
    /// The authentication that it rests on.
    pub auth: Auth,
    /// When it started.
    pub created_at: Timestamp,
    /// When it was last refreshed.
    pub last_refreshed_at: Timestamp,
    /// It ends then unless it is refreshed.
    pub idle_expires_at: Timestamp,
    /// It ends then in any case.
    pub expires_at: Timestamp,
    /// The session that it replaced.
    #[serde(default)]
    pub previous_session_id: Option<SessionId>,
}

impl SessionInfo {
    pub(crate) fn of(session: &Session, now: Timestamp) -> Self {
        let ended = session.end(now);
        Self {
            id: session.id,
            product: session.scope.product.clone(),
            env: session.scope.env.clone(),
            tag: session.tag.clone(),
            user_id: session.user_id.clone(),
            state: if ended.is_some() { State::Ended } else { State::Active },
            end_reason: ended.map(|e| e.reason),
            ended_at: ended.map(|e| e.at),
            generation: session.position.generation,
            binding: session.position.commitment.into(),
            data: session.data.to_map(),
            claims: session.claims.to_map(),
            version: session.version,
            client: session.client.clone(),
            auth: session.auth.clone(),
            created_at: session.created_at,
            last_refreshed_at: session.last_refreshed_at(),
            idle_expires_at: session.idle_expires_at,
            expires_at: session.expires_at,
            previous_session_id: session.previous_session_id,
        }
    }

    /// Its product and environment.
    pub fn scope(&self) -> Scope {
        Scope { product: self.product.clone(), env: self.env.clone() }
    }
}

/// Which sessions to list, newest first; the filters that are given must all hold.
#[derive(Debug, Clone, Default)]
pub struct List {
    /// Of this user.
    pub user_id: Option<UserId>,
    /// In this state.
    pub state: Option<State>,
    /// The [`Page::next`] of the page before.
    pub after: Option<Cursor>,
    /// How many at most: 1 to 200, 50 by default.
    pub limit: Option<u32>,
}

/// Where a page ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor(pub(crate) String);

impl Cursor {
    /// The text, to be kept between two pages.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for Cursor {
    /// A text that [`Cursor::as_str`] gave. Another one is refused when a page is asked for.
    fn from(text: String) -> Self {
        Self(text)
    }
}

/// A page of sessions.
#[derive(Debug, Clone)]
pub struct Page {
    /// The sessions.
    pub sessions: Vec<SessionInfo>,
    /// Where the next page starts, if there is one.
    pub next: Option<Cursor>,
}

/// A change to a session's data or claims: JSON merge patches (RFC 7396), applied whole or not at all.
#[derive(Debug, Clone, Default)]
pub struct Patch {
    /// For `data`.
    pub data: Option<Map<String, Value>>,
    /// For `claims`; they reach the client with its next access token.
    pub claims: Option<Map<String, Value>>,
    /// Only if the session still has this version.
    pub if_version: Option<u64>,
}
