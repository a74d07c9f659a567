use std::sync::Arc;

use rekindle::clock::Timestamp;
use rekindle::refresh::Commitment;
use rekindle::rotation::Position;
use rekindle::session::{Client, EndReason, Session, SessionId};
use rekindle::store::{Ban, Store};

use crate::fixtures::*;

/// Byte by byte: case, NUL, four-byte UTF-8, quotes, wildcards, both lengths' ends.
pub async fn user_ids_are_opaque(store: Arc<dyn Store>) {
    let long = "x".repeat(256);
    let ids =
        ["", "a", "A", "a\u{0}", "a\u{0}b", "%", "a%", "_", "'", "\"", "\\", "\u{1F980}", "e\u{301}", "\u{e9}", &long];
    let mut sessions = Vec::new();
    for id in ids {
        sessions.push(start(&*store, session(id)).await);
    }
    for session in sessions {
        assert_eq!(row(&*store, session.id).await, session);
        let mut query = sessions_in(scope(), at(1));
        query.user_id = Some(session.user_id.clone());
        assert_eq!(store.sessions(query).await.unwrap(), std::slice::from_ref(&session), "{:?}", session.user_id);
        let summary = store.user(&scope(), &session.user_id, at(1)).await.unwrap().unwrap();
        assert_eq!((summary.sessions, &summary.user_id), (1, &session.user_id));
        let ended = store.end_many(end_all_of(session.user_id.as_str(), at(1))).await.unwrap();
        assert_eq!(ended.ended.iter().map(|e| e.id).collect::<Vec<_>>(), [session.id]);
    }
}

/// 64 KiB, deep nesting, and every character: kept to the byte.
pub async fn data_is_kept_to_the_byte(store: Arc<dyn Store>) {
    let large = format!(r#"{{"text":"{}"}}"#, "\u{1F980}".repeat(16_000));
    let deep = format!(r#"{{"a":{}1{}}}"#, "[".repeat(100), "]".repeat(100));
    let odd = r#"{ "a" : "\u0000\ud83e\udd80'\"%_", "b":1e400, "a":-0.0 }"#;
    let mut session = start(&*store, session("ada")).await;
    for data in [large.as_str(), &deep, odd, "{}"] {
        session = applied(store.update(update_of(&session, data, at(1))).await.unwrap());
        assert_eq!(session.data.as_str(), data);
        session = applied(store.advance(advance_of(&session, at(1))).await.unwrap());
        assert_eq!(row(&*store, session.id).await, session);
        let other = Session { data: object(data), claims: object(data), ..crate::fixtures::session("ada") };
        let other = start(&*store, other).await;
        assert_eq!(row(&*store, other.id).await, other);
    }
}

/// The ends of every number, and odd texts.
pub async fn extreme_rows_are_kept(store: Arc<dyn Store>) {
    let position = Position { generation: u32::MAX, commitment: Commitment::NONE, issued_at: u32::MAX, kid: 255 };
    let odd = Some("\u{0}'\"\u{1F980}\n".to_owned());
    let session = Session {
        position,
        confirmed: true,
        min_generation: u32::MAX,
        definition_version: u32::MAX,
        version: i64::MAX.unsigned_abs(),
        client: Client { ip: odd.clone(), user_agent: odd.clone(), device: odd },
        created_at: Timestamp::EPOCH,
        idle_expires_at: Timestamp::MAX,
        expires_at: Timestamp::MAX,
        tag: tag(&"a".repeat(63)),
        scope: scope_of(&"p".repeat(63), &"9".repeat(32)),
        ..crate::fixtures::session("ada")
    };
    let session = start(&*store, session).await;
    assert_eq!(row(&*store, session.id).await, session);
    let mut query = sessions_in(session.scope.clone(), at(1));
    assert_eq!(store.sessions(query.clone()).await.unwrap(), std::slice::from_ref(&session));
    query.started_after = Some(Timestamp::EPOCH);
    assert!(store.sessions(query).await.unwrap().is_empty());
    let ended = applied(store.end(end_of(&session, Timestamp::from_millis(-1), EndReason::Revoked)).await.unwrap());
    assert_eq!(row(&*store, session.id).await, ended);
}

/// The first and the last id there can be.
pub async fn ids_sort_by_their_bytes(store: Arc<dyn Store>) {
    let bytes = [[0; 16], [0x7f; 16], [0x80; 16], [0xff; 16]];
    for id in bytes.into_iter().rev().map(SessionId::from_bytes) {
        start(&*store, Session { id, ..session("ada") }).await;
    }
    let listed = store.sessions(sessions_in(scope(), at(1))).await.unwrap();
    let expected: Vec<_> = bytes.into_iter().rev().map(SessionId::from_bytes).collect();
    assert_eq!(listed.iter().map(|s| s.id).collect::<Vec<_>>(), expected);
    let ended = store.end_many(end_all(at(1))).await.unwrap().ended;
    let expected: Vec<_> = bytes.into_iter().map(SessionId::from_bytes).collect();
    assert_eq!(ended.iter().map(|e| e.id).collect::<Vec<_>>(), expected);
    assert_eq!(store.sweep(sweep_at(at(20_000))).await.unwrap().removed, 4);
}

/// A ban's reason is any text, its end any moment.
pub async fn bans_are_kept_whole(store: Arc<dyn Store>) {
    for until in [None, Some(Timestamp::MAX)] {
        let mut ban = ban_of("ada", at(1));
        ban.ban = Ban { at: at(1), until, reason: Some("\u{0}\u{1F980} '; --".into()) };
        store.ban(ban.clone()).await.unwrap();
        let summary = store.user(&scope(), &user("ada"), at(2)).await.unwrap().unwrap();
        assert_eq!(summary.ban, Some(ban.ban));
    }
}
