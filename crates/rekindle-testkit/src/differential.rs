//! Random sequences of intents, answered by a store and by the one in memory: the answers must be equal.

use std::sync::Arc;

use proptest::prelude::*;
use rekindle::clock::{Seconds, Timestamp};
use rekindle::definition::OnMaxSessions;
use rekindle::journal::EventKind;
use rekindle::memory::MemoryStore;
use rekindle::session::{Auth, EndReason, Session, SessionId};
use rekindle::store::{
    Confirmation, Elevation, End, EndMany, FastForward, Idempotency, Start, Store, Sweep, Transfer, UserQuery,
};

use crate::fixtures::*;

/// One intent. Sessions are named by their place in the order of starts; all else is drawn from few values, so that they meet.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the variants say what their fields choose")]
pub enum Op {
    /// With what may stand against it.
    Start { user: u8, tag: bool, scope: bool, previous: Option<u8>, key: Option<(u8, u8)>, max: Option<(u8, bool)> },
    /// From the row as it is, or one generation behind.
    Advance { of: u8, behind: bool, elevate: bool },
    /// To so many generations ahead.
    FastForward { of: u8, by: u8 },
    /// Of the row's generation, or one ahead.
    Confirm { of: u8, ahead: bool },
    /// From the row's version, or one behind.
    Update { of: u8, behind: bool },
    /// As decided on the row, or in any case.
    End { of: u8, decided: bool, reason: u8 },
    /// By some of the filters.
    EndMany { user: Option<u8>, tag: bool, except: Option<u8>, until: Option<u8>, refreshed: Option<u8>, limit: u8 },
    /// For ever or for a while.
    Ban { user: u8, until: Option<u8> },
    /// Whether or not there is one.
    Lift { user: u8 },
    /// With everything that is there.
    Erase { user: u8 },
    /// A slice from the start.
    Sweep { budget: u8 },
    /// From the outbox.
    Take { limit: u8, settle: bool },
    /// Time passes.
    Wait { secs: u16 },
}

/// A sequence of intents.
pub fn ops() -> impl Strategy<Value = Vec<Op>> {
    let of = || 0..8u8;
    let user = || 0..4u8;
    let option = |strategy| proptest::option::weighted(0.2, strategy);
    let op = prop_oneof![
        6 => (user(), any::<bool>(), prop::bool::weighted(0.2), option(of()), option(0..3u8), 0..2u8, option(1..3u8), any::<bool>())
            .prop_map(|(user, tag, scope, previous, key, request, max, reject)| Op::Start {
                user, tag, scope, previous, key: key.map(|k| (k, request)), max: max.map(|m| (m, reject)),
            }),
        6 => (of(), prop::bool::weighted(0.2), prop::bool::weighted(0.2))
            .prop_map(|(of, behind, elevate)| Op::Advance { of, behind, elevate }),
        2 => (of(), 0..4u8).prop_map(|(of, by)| Op::FastForward { of, by }),
        2 => (of(), prop::bool::weighted(0.2)).prop_map(|(of, ahead)| Op::Confirm { of, ahead }),
        2 => (of(), prop::bool::weighted(0.2)).prop_map(|(of, behind)| Op::Update { of, behind }),
        2 => (of(), any::<bool>(), 0..10u8).prop_map(|(of, decided, reason)| Op::End { of, decided, reason }),
        1 => (option(user()), prop::bool::weighted(0.2), option(of()), option(0..200u8), option(0..200u8), 1..4u8)
            .prop_map(|(user, tag, except, until, refreshed, limit)| Op::EndMany {
                user, tag, except, until, refreshed, limit,
            }),
        1 => (user(), option(0..200u8)).prop_map(|(user, until)| Op::Ban { user, until }),
        1 => user().prop_map(|user| Op::Lift { user }),
        1 => user().prop_map(|user| Op::Erase { user }),
        2 => (1..5u8).prop_map(|budget| Op::Sweep { budget }),
        1 => (0..3u8, any::<bool>()).prop_map(|(limit, settle)| Op::Take { limit, settle }),
        4 => (0..700u16).prop_map(|secs| Op::Wait { secs }),
    ];
    proptest::collection::vec(op, 1..40)
}

/// So many random sequences, each on a new store; see [`agrees_with_memory`]. `new_store` gives a store and whatever must
/// outlive it.
///
/// # Panics
///
/// If an answer differs.
pub fn check<G>(cases: u32, new_store: impl AsyncFn() -> (Arc<dyn Transfer>, G)) {
    each(cases, async |ops| {
        let (store, _guard) = new_store().await;
        agrees_with_memory(store, ops).await;
    });
}

/// Hands `test` so many random sequences, each on a runtime of its own.
pub(crate) fn each(cases: u32, test: impl AsyncFn(Vec<Op>)) {
    proptest!(ProptestConfig::with_cases(cases), |(ops in ops())| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
        runtime.block_on(test(ops));
    });
}

/// Carries out `ops` on `store` and on a [`MemoryStore`], and compares every answer and all that can be listed at the end. The
/// store in memory, and the time at the end.
///
/// # Panics
///
/// If they differ.
pub async fn agrees_with_memory(store: Arc<dyn Store>, ops: Vec<Op>) -> (MemoryStore, Timestamp) {
    let pair = Pair { store, memory: MemoryStore::new() };
    let mut world = World { now: T0, sessions: Vec::new() };
    for op in &ops {
        pair.apply(&mut world, op).await;
    }
    pair.compare_lists(&world).await;
    (pair.memory, world.now)
}

struct World {
    now: Timestamp,
    sessions: Vec<Session>,
}

struct Pair {
    store: Arc<dyn Store>,
    memory: MemoryStore,
}

/// Asks both the same, and compares; the answer is the store's.
macro_rules! both {
    ($pair:expr, $method:ident($($argument:expr),*)) => {{
        let from_memory = $pair.memory.$method($($argument.clone()),*).await.expect("memory always answers");
        let from_store = $pair.store.$method($($argument),*).await.expect("the store answers");
        assert_eq!(from_store, from_memory, stringify!($method));
        from_store
    }};
}

const USERS: [&str; 4] = ["", "ada", "Ada", "a\u{0}\u{1F980}"];

impl Pair {
    async fn apply(&self, world: &mut World, op: &Op) {
        let now = world.now;
        match *op {
            Op::Wait { secs } => world.now = now + Seconds(secs.into()),
            Op::Start { user, tag: admin, scope, previous, key, max } => {
                let mut session = session_at(USERS[usize::from(user)], now);
                if admin {
                    session.tag = tag("admin");
                }
                if scope {
                    session.scope = scope_of("shop", "dev");
                }
                session.previous_session_id = previous.map(|of| id_of(world, of));
                let start = Start {
                    idempotency: key.map(|(key, request)| Idempotency {
                        key: [key; 32],
                        request: [request; 32],
                        expires_at: now + Seconds(500),
                    }),
                    max_sessions: max.map(|(max, reject)| {
                        (max.into(), if reject { OnMaxSessions::Reject } else { OnMaxSessions::EndOldest })
                    }),
                    ..start_of(&session)
                };
                both!(self, start(start));
                world.sessions.push(session);
            }
            Op::Advance { of, behind, elevate } => {
                let row = self.row(world, of).await;
                let mut advance = advance_of(&row, now);
                advance.event.notify = elevate;
                if behind {
                    advance.generation = advance.generation.saturating_sub(1);
                }
                if elevate && row.confirmed {
                    advance.next = row.position;
                }
                advance.elevation = elevate.then(|| Elevation {
                    auth: Auth { time: now, acr: Some("mfa".into()), amr: Vec::new() },
                    feed_until: now + Seconds(300),
                });
                both!(self, advance(advance));
            }
            Op::FastForward { of, by } => {
                let row = self.row(world, of).await;
                let to = position(row.position.generation + u32::from(by), now);
                let fast_forward = FastForward {
                    id: row.id,
                    scope: row.scope.clone(),
                    generation: row.position.generation,
                    to,
                    idle_timeout: IDLE,
                    event: event_of(&row, EventKind::Refresh, now),
                    now,
                };
                both!(self, fast_forward(fast_forward));
            }
            Op::Confirm { of, ahead } => {
                let row = self.row(world, of).await;
                let generation = row.position.generation + u32::from(ahead);
                both!(self, confirm(vec![Confirmation { scope: row.scope.clone(), session_id: row.id, generation }]));
            }
            Op::Update { of, behind } => {
                let row = self.row(world, of).await;
                let mut update = update_of(&row, r#"{"x":"\u0000"}"#, now);
                update.version -= u64::from(behind);
                both!(self, update(update));
            }
            Op::End { of, decided, reason } => {
                let row = self.row(world, of).await;
                let decided_on = decided.then_some((row.position.generation, row.position.commitment));
                let mut end = End { decided_on, ..end_of(&row, now, EndReason::ALL[usize::from(reason)]) };
                end.cause = decided.then(|| event_of(&row, EventKind::TheftDetected, now));
                end.ending.event.notify = decided;
                both!(self, end(end));
            }
            Op::EndMany { user: of_user, tag: admin, except, until, refreshed, limit } => {
                let mut end = EndMany {
                    user_id: of_user.map(|u| user(USERS[usize::from(u)])),
                    tag: admin.then(|| tag("admin")),
                    except: except.map(|of| id_of(world, of)),
                    started_until: until.map(|secs| at(u64::from(secs) * 10)),
                    refreshed_from: refreshed.map(|secs| at(u64::from(secs) * 10)),
                    limit: limit.into(),
                    ..end_all(now)
                };
                while let Some(next) = both!(self, end_many(end.clone())).next {
                    end.after = Some(next);
                    end.ending = ending(now, EndReason::Revoked);
                }
            }
            Op::Ban { user, until } => {
                let mut ban = ban_of(USERS[usize::from(user)], now);
                ban.ban.until = until.map(|secs| now + Seconds(secs.into()));
                ban.event.notify = until.is_some();
                both!(self, ban(ban));
            }
            Op::Lift { user: of_user } => {
                let (scope, user) = (&scope(), &user(USERS[usize::from(of_user)]));
                let audit = audit("user.unban", now);
                let from_memory = self.memory.lift_ban(scope, user, audit.clone()).await;
                assert_eq!(self.store.lift_ban(scope, user, audit).await, from_memory);
            }
            Op::Erase { user } => {
                let mut erase = erase_of(USERS[usize::from(user)], now);
                erase.ending.event.notify = true;
                both!(self, erase_user(erase));
            }
            Op::Sweep { budget } => {
                let mut sweep = Sweep { budget: budget.into(), notify: vec![tag("shop")], ..sweep_at(now) };
                while let Some(next) = both!(self, sweep(sweep.clone())).next {
                    sweep.after = Some(next);
                    sweep.ending = ending(now, EndReason::Idle);
                }
            }
            Op::Take { limit, settle } => {
                let taken = both!(self, take_notifications(now, now + Seconds(50), u32::from(limit)));
                for notification in taken {
                    let retry_at = (!settle).then_some(now + Seconds(100));
                    both!(self, settle_notification(notification.event.id, retry_at));
                }
            }
        }
    }

    async fn row(&self, world: &World, of: u8) -> Session {
        let id = id_of(world, of);
        both!(self, session(id)).unwrap_or_else(|| Session { id, ..session_at("ada", world.now) })
    }

    async fn compare_lists(&self, world: &World) {
        let now = world.now;
        for scope in [scope(), scope_of("shop", "dev")] {
            both!(self, sessions(sessions_in(scope.clone(), now)));
            both!(self, users(UserQuery { scope: scope.clone(), after: None, limit: 100, now }));
            for active in [true, false] {
                for name in USERS {
                    let mut query = sessions_in(scope.clone(), now);
                    (query.active, query.user_id) = (Some(active), Some(user(name)));
                    both!(self, sessions(query));
                }
            }
            let (from_store, from_memory) = (&self.store, &self.memory);
            assert_eq!(
                from_store.revocations(Some(&scope), 0, now, 1_000).await,
                from_memory.revocations(Some(&scope), 0, now, 1_000).await
            );
        }
        for session in &world.sessions {
            both!(self, session(session.id));
            both!(self, events(events_of(session.id)));
        }
        both!(self, secret_usage());
        both!(self, audit_log(None, 1_000));
        both!(self, take_notifications(now + Seconds(10_000), now + Seconds(20_000), 1_000));
    }
}

fn id_of(world: &World, of: u8) -> SessionId {
    match world.sessions.len() {
        0 => SessionId::from_bytes([9; 16]),
        n => world.sessions[usize::from(of) % n].id,
    }
}
