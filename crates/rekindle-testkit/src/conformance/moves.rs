use std::sync::Arc;

use rekindle::clock::Seconds;
use rekindle::journal::{EventKind, Outcome};
use rekindle::refresh::Commitment;
use rekindle::rotation::Position;
use rekindle::session::{Auth, EndReason, Session};
use rekindle::store::{Advance, Confirmation, Elevation, FastForward, Revocation, Revoked, Store, Update};

use crate::fixtures::*;

/// Position, confirmation and idle clock move; nothing else does.
pub async fn an_advance_moves_the_row(store: Arc<dyn Store>) {
    let mut session = start(&*store, session("ada")).await;
    for generation in 1..=300u32 {
        let now = at(u64::from(generation));
        let advance = advance_of(&session, now);
        let moved = applied(store.advance(advance.clone()).await.unwrap());
        session = Session { position: advance.next, idle_expires_at: now + IDLE, ..session };
        assert_eq!(moved, session);
    }
    assert_eq!(row(&*store, session.id).await, session);
    let events = store.events(events_of(session.id)).await.unwrap();
    assert_eq!(events.len(), 301);
    assert_eq!((events[0].kind, events[0].generation), (EventKind::Refresh, 300));
}

/// The absolute expiry never moves, and the idle expiry never passes it.
pub async fn an_advance_never_passes_the_absolute_expiry(store: Arc<dyn Store>) {
    let session = start(&*store, Session { expires_at: at(1_200), ..session("ada") }).await;
    let moved = applied(store.advance(advance_of(&session, at(999))).await.unwrap());
    assert_eq!((moved.idle_expires_at, moved.expires_at), (at(1_200), at(1_200)));
    let endless = Advance { idle_timeout: Seconds(u64::MAX), ..advance_of(&moved, at(1_000)) };
    assert_eq!(applied(store.advance(endless).await.unwrap()).idle_expires_at, at(1_200));
}

/// Each single condition, violated in turn, gives the fresh row and changes nothing.
pub async fn an_advance_needs_every_condition(store: Arc<dyn Store>) {
    let session = start(&*store, session("ada")).await;
    let session = applied(store.advance(advance_of(&session, at(1))).await.unwrap());
    let good = advance_of(&session, at(2));
    let broken = [
        Advance { scope: scope_of("default", "prod"), ..good.clone() },
        Advance { scope: scope_of("shop", "dev"), ..good.clone() },
        Advance { tag: tag("admin"), ..good.clone() },
        Advance { generation: 0, ..good.clone() },
        Advance { generation: 2, ..good.clone() },
        Advance { commitment: commitment(9), ..good.clone() },
        Advance { commitment: Commitment::NONE, ..good.clone() },
        Advance { now: session.idle_expires_at, ..good.clone() },
        Advance { now: session.expires_at, ..good.clone() },
    ];
    for advance in broken {
        assert_eq!(stale(store.advance(advance.clone()).await.unwrap()), Some(session.clone()), "{advance:?}");
    }
    assert_eq!(row(&*store, session.id).await, session);
    assert_eq!(store.events(events_of(session.id)).await.unwrap().len(), 2);
    let unknown = Advance { id: session_id(), ..good.clone() };
    assert_eq!(stale(store.advance(unknown).await.unwrap()), None);
    applied(store.advance(good).await.unwrap());
}

/// Absolute expiry and an earlier end, each on its own.
pub async fn an_advance_needs_a_living_session(store: Arc<dyn Store>) {
    let expired = Session { idle_expires_at: at(90), expires_at: at(50), ..session("ada") };
    let expired = start(&*store, expired).await;
    assert_eq!(stale(store.advance(advance_of(&expired, at(50))).await.unwrap()), Some(expired));
    let ended = start(&*store, session("ada")).await;
    let ended = applied(store.end(end_of(&ended, at(1), EndReason::Revoked)).await.unwrap());
    assert_eq!(stale(store.advance(advance_of(&ended, at(2))).await.unwrap()), Some(ended));
}

/// The new authentication is kept, and older access tokens enter the feed.
pub async fn an_elevation_refuses_older_generations(store: Arc<dyn Store>) {
    let session = start(&*store, session("ada")).await;
    let auth = Auth { time: at(5), acr: Some("urn:mfa".into()), amr: vec!["pwd".into(), "otp".into()] };
    let elevation = Some(Elevation { auth: auth.clone(), feed_until: at(305) });
    let moved = applied(store.advance(Advance { elevation, ..advance_of(&session, at(5)) }).await.unwrap());
    assert_eq!((&moved.auth, moved.min_generation), (&auth, 1));
    assert_eq!(row(&*store, session.id).await, moved);
    let feed = store.revocations(Some(&scope()), 0, at(6), 10).await.unwrap();
    let expected = Revocation {
        seq: feed[0].seq,
        scope: scope(),
        session_id: session.id,
        what: Revoked::Below(1),
        at: at(5),
        expires_at: at(305),
    };
    assert_eq!(feed, [expected]);
    // A plain step leaves both as they are.
    let moved = applied(store.advance(advance_of(&moved, at(6))).await.unwrap());
    assert_eq!((moved.auth, moved.min_generation), (auth, 1));
}

/// Where the row is, nothing new is on its way to the client: what was confirmed stays so.
pub async fn an_elevation_in_place_keeps_the_confirmation(store: Arc<dyn Store>) {
    for confirmed in [false, true] {
        let session = start(&*store, Session { confirmed, ..session("ada") }).await;
        let auth = Auth { time: at(5), acr: Some("urn:mfa".into()), amr: Vec::new() };
        let elevation = Some(Elevation { auth, feed_until: at(305) });
        let in_place = Advance { next: session.position, elevation, ..advance_of(&session, at(5)) };
        let moved = applied(store.advance(in_place).await.unwrap());
        assert_eq!((moved.position, moved.confirmed), (session.position, confirmed));
        assert_eq!((moved.idle_expires_at, moved.min_generation), (at(1_005), 0));
        assert_eq!(row(&*store, session.id).await, moved);
    }
}

fn forward(session: &Session, to: u32, now: u64) -> FastForward {
    FastForward {
        id: session.id,
        scope: session.scope.clone(),
        generation: session.position.generation,
        to: Position { kid: 2, ..position(to, at(now)) },
        idle_timeout: IDLE,
        event: {
            let mut event = event_of(session, EventKind::Refresh, at(now));
            event.outcome = Some(Outcome::FastForwarded);
            event
        },
        now: at(now),
    }
}

/// To the token's position, confirmed, with the idle clock restarted: also after the idle expiry.
pub async fn a_fast_forward_brings_the_row_forward(store: Arc<dyn Store>) {
    let session = start(&*store, session("ada")).await;
    let moved = applied(store.fast_forward(forward(&session, 7, 2_000)).await.unwrap());
    let position = Position { kid: 2, ..position(7, at(2_000)) };
    let expected = Session { position, confirmed: true, idle_expires_at: at(3_000), ..session };
    assert_eq!(moved, expected);
    assert_eq!(row(&*store, expected.id).await, expected);
    let last = store.events(events_of(expected.id)).await.unwrap().remove(0);
    assert_eq!(last.outcome, Some(Outcome::FastForwarded));
}

/// Each single condition, violated in turn.
pub async fn a_fast_forward_needs_every_condition(store: Arc<dyn Store>) {
    let session = start(&*store, session("ada")).await;
    let session = applied(store.advance(advance_of(&session, at(1))).await.unwrap());
    let good = forward(&session, 3, 2);
    let broken = [
        FastForward { scope: scope_of("default", "prod"), ..good.clone() },
        FastForward { generation: 0, ..good.clone() },
        FastForward { generation: 2, ..good.clone() },
        FastForward { to: position(1, at(2)), ..good.clone() },
        FastForward { to: position(0, at(2)), ..good.clone() },
        FastForward { now: session.expires_at, ..good.clone() },
    ];
    for fast_forward in broken {
        assert_eq!(stale(store.fast_forward(fast_forward).await.unwrap()), Some(session.clone()));
    }
    let unknown = FastForward { id: session_id(), ..good };
    assert_eq!(stale(store.fast_forward(unknown).await.unwrap()), None);
    assert_eq!(row(&*store, session.id).await, session);
}

/// A sweep that ran on a row without its last refreshes ended nobody for good.
pub async fn a_fast_forward_undoes_a_noted_idle_expiry(store: Arc<dyn Store>) {
    let session = start(&*store, session("ada")).await;
    assert_eq!(store.sweep(sweep_at(at(1_050))).await.unwrap().ended, 1);
    let noted = row(&*store, session.id).await;
    assert_eq!(noted.ended.map(|e| e.reason), Some(EndReason::Idle));
    let moved = applied(store.fast_forward(forward(&session, 2, 1_060)).await.unwrap());
    assert_eq!((moved.ended, moved.idle_expires_at), (None, at(2_060)));
    assert_eq!(row(&*store, session.id).await, moved);
}

/// Every other reason stays.
pub async fn a_fast_forward_never_undoes_a_revocation(store: Arc<dyn Store>) {
    for reason in EndReason::ALL.into_iter().filter(|r| *r != EndReason::Idle) {
        let session = start(&*store, session("ada")).await;
        let ended = applied(store.end(end_of(&session, at(1), reason)).await.unwrap());
        assert_eq!(stale(store.fast_forward(forward(&session, 2, 2)).await.unwrap()), Some(ended));
    }
}

fn confirmation(session: &Session, generation: u32) -> Confirmation {
    Confirmation { scope: session.scope.clone(), session_id: session.id, generation }
}

/// At exactly that generation, in that scope, not ended; in batches; again and again.
pub async fn a_confirmation_needs_every_condition(store: Arc<dyn Store>) {
    let session = start(&*store, session("ada")).await;
    let session = applied(store.advance(advance_of(&session, at(1))).await.unwrap());
    let elsewhere = Confirmation { scope: scope_of("default", "prod"), ..confirmation(&session, 1) };
    let unknown = Confirmation { session_id: session_id(), ..confirmation(&session, 1) };
    let wrong = vec![confirmation(&session, 0), confirmation(&session, 2), elsewhere, unknown.clone()];
    store.confirm(wrong).await.unwrap();
    assert_eq!(row(&*store, session.id).await, session);
    store.confirm(vec![unknown, confirmation(&session, 1), confirmation(&session, 1)]).await.unwrap();
    let confirmed = Session { confirmed: true, ..session };
    assert_eq!(row(&*store, confirmed.id).await, confirmed);
    store.confirm(vec![confirmation(&confirmed, 1)]).await.unwrap();
    store.confirm(Vec::new()).await.unwrap();
    assert_eq!(row(&*store, confirmed.id).await, confirmed);
    // The next generation is unconfirmed again.
    assert!(!applied(store.advance(advance_of(&confirmed, at(2))).await.unwrap()).confirmed);
}

/// An ended session's row does not change.
pub async fn a_confirmation_leaves_ended_sessions(store: Arc<dyn Store>) {
    let session = start(&*store, session("ada")).await;
    let ended = applied(store.end(end_of(&session, at(1), EndReason::Revoked)).await.unwrap());
    store.confirm(vec![confirmation(&session, 0)]).await.unwrap();
    assert_eq!(row(&*store, session.id).await, ended);
}

/// Data, claims and version; the idle clock stays.
pub async fn an_update_writes_data_and_claims(store: Arc<dyn Store>) {
    let session = start(&*store, session("ada")).await;
    let update = update_of(&session, r#"{"cart":[]}"#, at(3));
    let updated = applied(store.update(update.clone()).await.unwrap());
    let expected = Session { version: 2, data: update.data, claims: update.claims, ..session };
    assert_eq!(updated, expected);
    assert_eq!(row(&*store, expected.id).await, expected);
    let last = store.events(events_of(expected.id)).await.unwrap().remove(0);
    assert_eq!(last.kind, EventKind::Update);
}

/// Each single condition: a slow writer never undoes a logout.
pub async fn an_update_needs_every_condition(store: Arc<dyn Store>) {
    let session = start(&*store, session("ada")).await;
    let session = applied(store.update(update_of(&session, "{}", at(1))).await.unwrap());
    let good = update_of(&session, r#"{"a":1}"#, at(2));
    let broken = [
        Update { scope: scope_of("default", "prod"), ..good.clone() },
        Update { version: 1, ..good.clone() },
        Update { version: 3, ..good.clone() },
        Update { now: session.idle_expires_at, ..good.clone() },
        Update { now: session.expires_at, ..good.clone() },
    ];
    for update in broken {
        assert_eq!(stale(store.update(update).await.unwrap()), Some(session.clone()));
    }
    assert_eq!(stale(store.update(Update { id: session_id(), ..good.clone() }).await.unwrap()), None);
    let ended = applied(store.end(end_of(&session, at(2), EndReason::SignedOut)).await.unwrap());
    assert_eq!(stale(store.update(good).await.unwrap()), Some(ended.clone()));
    assert_eq!(row(&*store, session.id).await, ended);
}

/// An advance and an update do not get in each other's way.
pub async fn moves_and_updates_are_independent(store: Arc<dyn Store>) {
    let session = start(&*store, session("ada")).await;
    applied(store.advance(advance_of(&session, at(1))).await.unwrap());
    let updated = applied(store.update(update_of(&session, r#"{"a":1}"#, at(2))).await.unwrap());
    assert_eq!((updated.position.generation, updated.version), (1, 2));
}
