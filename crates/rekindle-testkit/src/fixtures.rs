//! Plain values to build tests from. Ids are unique within a process and grow.

use std::sync::atomic::{AtomicU64, Ordering};

use rekindle::clock::{Seconds, Timestamp};
use rekindle::journal::{Context, Event, EventId, EventKind};
use rekindle::refresh::Commitment;
use rekindle::rotation::Position;
use rekindle::session::{Auth, Client, EndReason, Object, Scope, Session, SessionId, Tag, UserId};
use rekindle::store::{
    Advance, AuditEntry, Ban, BanUser, Cas, End, EndMany, Ending, EraseUser, EventQuery, SessionQuery, Start, Started,
    Store, Sweep, Update,
};

/// The moment at which fixtures begin.
pub const T0: Timestamp = Timestamp::from_secs(1_790_000_000);
/// How long a fixture's session lives without a refresh, and at most.
pub const IDLE: Seconds = Seconds(1_000);
/// The absolute lifetime of a fixture's session.
pub const ABSOLUTE: Seconds = Seconds(10_000);

/// `secs` after [`T0`].
pub fn at(secs: u64) -> Timestamp {
    T0 + Seconds(secs)
}

/// The scope that every store begins with.
pub fn scope() -> Scope {
    scope_of("default", "dev")
}

/// A scope by its names.
pub fn scope_of(product: &str, env: &str) -> Scope {
    Scope { product: tag(product), env: env.parse().expect("a valid slug") }
}

/// Scopes whose names begin alike, in an order that is not theirs.
pub fn like_named_scopes() -> Vec<Scope> {
    [("shop", "dev"), ("sh", "dev"), ("shop-x", "dev"), ("shop", "dev-x"), ("shop", "de"), ("shop-dev", "x")]
        .map(|(product, env)| scope_of(product, env))
        .into()
}

/// A tag.
pub fn tag(name: &str) -> Tag {
    name.parse().expect("a valid tag")
}

/// A user id.
pub fn user(id: &str) -> UserId {
    id.parse().expect("a valid user id")
}

/// A JSON object.
pub fn object(json: &str) -> Object {
    Object::parse(json.into()).expect("a JSON object")
}

/// Sixteen bytes that no other call returns, greater than those of earlier calls.
pub fn fresh_bytes() -> [u8; 16] {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let n = LAST.fetch_add(1, Ordering::Relaxed) + 1;
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&n.to_be_bytes());
    bytes[8] = 0x80;
    bytes
}

/// A session id.
pub fn session_id() -> SessionId {
    SessionId::from_bytes(fresh_bytes())
}

/// An event of nothing in particular; as an ending's template it names no session.
pub fn event(kind: EventKind, at: Timestamp) -> Event {
    Context::default().event(EventId::from_bytes(fresh_bytes()), at, kind)
}

/// An event of a session.
pub fn event_of(session: &Session, kind: EventKind, at: Timestamp) -> Event {
    Event { session_id: Some(session.id), generation: session.position.generation, ..event(kind, at) }
}

/// A commitment that is its number.
pub fn commitment(n: u8) -> Commitment {
    Commitment::from_bytes([n; 16])
}

/// Generation `generation` of a committed session.
pub fn position(generation: u32, at: Timestamp) -> Position {
    let issued_at = u32::try_from(at.secs()).expect("before 2106");
    Position { generation, commitment: commitment(generation.to_le_bytes()[0]), issued_at, kid: 1 }
}

/// A session that starts at [`T0`].
pub fn session(user_id: &str) -> Session {
    session_at(user_id, T0)
}

/// A session that starts `now`.
pub fn session_at(user_id: &str, now: Timestamp) -> Session {
    Session {
        id: session_id(),
        scope: scope(),
        tag: tag("default"),
        definition_version: 1,
        user_id: user(user_id),
        position: position(0, now),
        confirmed: false,
        min_generation: 0,
        data: object(r#"{"cart":[1,2]}"#),
        claims: Object::empty(),
        version: 1,
        client: Client { ip: Some("192.0.2.1".into()), user_agent: None, device: Some("a \"phone\"".into()) },
        auth: Auth { time: now, acr: None, amr: vec!["pwd".into()] },
        created_at: now,
        idle_expires_at: now + IDLE,
        expires_at: now + ABSOLUTE,
        previous_session_id: None,
        ended: None,
    }
}

/// A start without conditions.
pub fn start_of(session: &Session) -> Start {
    Start {
        session: session.clone(),
        idempotency: None,
        max_sessions: None,
        event: event_of(session, EventKind::Start, session.created_at),
        ending: ending(session.created_at, EndReason::Revoked),
    }
}

/// Starts a session that nothing stands against.
pub async fn start(store: &dyn Store, session: Session) -> Session {
    let started = store.start(start_of(&session)).await.expect("the store answers");
    assert_eq!(started, Started::Created(Vec::new()));
    session
}

/// The row as it is now.
pub async fn row(store: &dyn Store, id: SessionId) -> Session {
    store.session(id).await.expect("the store answers").expect("the session is there")
}

/// The next step of the row.
pub fn advance_of(session: &Session, now: Timestamp) -> Advance {
    let generation = session.position.generation + 1;
    Advance {
        id: session.id,
        scope: session.scope.clone(),
        tag: session.tag.clone(),
        generation: session.position.generation,
        commitment: session.position.commitment,
        next: position(generation, now),
        idle_timeout: IDLE,
        elevation: None,
        event: Event { generation, ..event_of(session, EventKind::Refresh, now) },
        now,
    }
}

/// A write of the row's data.
pub fn update_of(session: &Session, data: &str, now: Timestamp) -> Update {
    Update {
        id: session.id,
        scope: session.scope.clone(),
        version: session.version,
        data: object(data),
        claims: object(r#"{"role":"admin"}"#),
        event: event_of(session, EventKind::Update, now),
        now,
    }
}

/// An ending whose access tokens live 300 s more.
pub fn ending(at: Timestamp, reason: EndReason) -> Ending {
    Ending { at, reason, feed_until: at + Seconds(300), event: event(EventKind::End, at) }
}

/// An unconditional end.
pub fn end_of(session: &Session, at: Timestamp, reason: EndReason) -> End {
    let scope = session.scope.clone();
    End { id: session.id, scope, decided_on: None, ending: ending(at, reason), cause: None, audit: None }
}

/// An end of everything in [`scope`].
pub fn end_all(at: Timestamp) -> EndMany {
    EndMany {
        scope: scope(),
        user_id: None,
        except: None,
        tag: None,
        started_until: None,
        refreshed_from: None,
        after: None,
        limit: 100,
        ending: ending(at, EndReason::Revoked),
        audit: None,
    }
}

/// An end of a user's sessions.
pub fn end_all_of(user_id: &str, at: Timestamp) -> EndMany {
    EndMany { user_id: Some(user(user_id)), ..end_all(at) }
}

/// A ban for ever.
pub fn ban_of(user_id: &str, at: Timestamp) -> BanUser {
    let user_banned = Event { user_id: Some(user(user_id)), ..event(EventKind::UserBanned, at) };
    let mut end = end_all_of(user_id, at);
    end.ending.reason = EndReason::Banned;
    BanUser { ban: Ban { at, until: None, reason: Some("fraud".into()) }, end, event: user_banned }
}

/// An erasure.
pub fn erase_of(user_id: &str, at: Timestamp) -> EraseUser {
    EraseUser {
        scope: scope(),
        user_id: user(user_id),
        ending: ending(at, EndReason::UserDeleted),
        audit: audit("user.delete", at),
    }
}

/// An entry of the audit log.
pub fn audit(action: &str, at: Timestamp) -> AuditEntry {
    AuditEntry {
        id: EventId::from_bytes(fresh_bytes()),
        at,
        actor: "cli".into(),
        action: action.into(),
        target: "default".into(),
        ip: None,
        request_id: None,
    }
}

/// A sweep of everything that keeps ended sessions for 100 s.
pub fn sweep_at(now: Timestamp) -> Sweep {
    Sweep {
        now,
        retention: Seconds(100),
        after: None,
        budget: 1_000,
        ending: ending(now, EndReason::Idle),
        notify: Vec::new(),
    }
}

/// Every session of a scope.
pub fn sessions_in(scope: Scope, now: Timestamp) -> SessionQuery {
    SessionQuery {
        scope,
        user_id: None,
        tag: None,
        active: None,
        started_after: None,
        started_before: None,
        before: None,
        limit: 1_000,
        now,
    }
}

/// Every event of a session.
pub fn events_of(session_id: SessionId) -> EventQuery {
    EventQuery { session_id, kind: None, outcome: None, from: None, to: None, before: None, limit: 1_000 }
}

/// The row of an intent that must have applied.
pub fn applied(cas: Cas) -> Session {
    match cas {
        Cas::Applied(session) => session,
        Cas::Stale(row) => panic!("expected the write to apply, but the row is {row:?}"),
    }
}

/// The row that an intent must have lost against.
pub fn stale(cas: Cas) -> Option<Session> {
    match cas {
        Cas::Stale(row) => row,
        Cas::Applied(session) => panic!("expected a lost race, but it applied: {session:?}"),
    }
}
