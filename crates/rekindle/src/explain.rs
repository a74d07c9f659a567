//! Why a session is alive, or how it ended: a pure function over its row and its events.

use serde::Serialize;

use crate::clock::Timestamp;
use crate::journal::{Event, EventKind, Outcome};
use crate::rotation::TheftKind;
use crate::session::{EndReason, Session, SessionId};

/// The answer, for people and programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// Which session.
    pub session_id: SessionId,
    /// Whether it is active.
    pub active: bool,
    /// One sentence that says it all.
    pub summary: String,
    /// The rule that ended it, or keeps it alive: a stable name like `idle_timeout` or `theft_forked`.
    pub rule: &'static str,
    /// When it ended, or the next moment at which a clock would end it.
    pub at: Timestamp,
    /// Why it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_reason: Option<EndReason>,
    /// The request that ended it, or that last kept it alive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<Event>,
    /// The last requests that were refused or answered again, newest first: what an unhappy client ran into.
    pub remarkable: Vec<Event>,
}

/// How many remarkable events an explanation shows.
const REMARKABLE: usize = 10;

/// Explains a session from its row and its events, newest first.
pub fn explain(session: &Session, events: &[Event], now: Timestamp) -> Explanation {
    let last = |wanted: fn(&Event) -> bool| events.iter().find(|e| wanted(e)).cloned();
    // What started the idle clock; an elevation does so in place, too.
    let moved = |e: &Event| {
        matches!(e.kind, EventKind::Start | EventKind::Elevate)
            || matches!(e.outcome, Some(Outcome::Advanced | Outcome::FastForwarded))
    };
    let (rule, at, request, summary) = match session.end(now) {
        None => {
            let (rule, at) = if session.expires_at <= session.idle_expires_at {
                ("absolute_lifetime", session.expires_at)
            } else {
                ("idle_timeout", session.idle_expires_at)
            };
            let summary = format!(
                "Active at generation {}: last refreshed at {}; it ends at {at} ({rule}) unless it is refreshed or ended before.",
                session.position.generation,
                session.last_refreshed_at()
            );
            (rule, at, last(moved), summary)
        }
        Some(ended) => {
            // An earlier one was only reported, and ended nothing.
            let theft = last(|e| e.kind == EventKind::TheftDetected).filter(|e| e.at == ended.at);
            let rule = rule(ended.reason, theft.as_ref());
            let request = match ended.reason {
                EndReason::Idle | EndReason::Absolute => last(moved),
                _ => theft.or_else(|| last(|e| e.kind == EventKind::End)),
            };
            let summary = format!("Ended at {}: {}.", ended.at, sentence(ended.reason, rule));
            (rule, ended.at, request, summary)
        }
    };
    let remarkable =
        |e: &&Event| e.kind == EventKind::TheftDetected || e.outcome.is_some_and(|o| o != Outcome::Advanced);
    Explanation {
        session_id: session.id,
        active: session.end(now).is_none(),
        summary,
        rule,
        at,
        end_reason: session.end(now).map(|e| e.reason),
        request,
        remarkable: events.iter().filter(remarkable).take(REMARKABLE).cloned().collect(),
    }
}

fn rule(reason: EndReason, theft: Option<&Event>) -> &'static str {
    match reason {
        EndReason::SignedOut => "signed_out",
        EndReason::Revoked => "revoked",
        EndReason::Replaced => "replaced_by_another_session",
        EndReason::Idle => "idle_timeout",
        EndReason::Absolute => "absolute_lifetime",
        EndReason::MaxSessions => "max_sessions_per_user",
        EndReason::CredentialChanged => "credential_changed",
        EndReason::Banned => "user_banned",
        EndReason::UserDeleted => "user_deleted",
        EndReason::Theft => match theft.and_then(|e| e.theft) {
            Some(TheftKind::Reused) => "theft_reused",
            Some(TheftKind::Forked) => "theft_forked",
            Some(TheftKind::StolenToken) => "theft_stolen_token",
            None => "theft_in_another_session",
        },
    }
}

fn sentence(reason: EndReason, rule: &str) -> &'static str {
    match (reason, rule) {
        (EndReason::SignedOut, _) => "its user signed out",
        (EndReason::Revoked, _) => "it was revoked by an operator or a backend",
        (EndReason::Replaced, _) => "another session was started in its place",
        (EndReason::Idle, _) => "it was not refreshed for the idle timeout",
        (EndReason::Absolute, _) => "its absolute lifetime was over",
        (EndReason::MaxSessions, _) => "its user started more sessions than the definition allows",
        (EndReason::CredentialChanged, _) => "its user's credentials changed",
        (EndReason::Banned, _) => "its user was banned",
        (EndReason::UserDeleted, _) => "its user was deleted",
        (EndReason::Theft, "theft_reused") => {
            "a refresh token that had been replaced, and whose replacement was in use, was presented again"
        }
        (EndReason::Theft, "theft_forked") => "two copies of one client both moved the session on",
        (EndReason::Theft, "theft_stolen_token") => "the right refresh token came with a wrong opening",
        (EndReason::Theft, _) => "theft was seen in another session of its user",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Seconds;
    use crate::journal::{Context, EventId};
    use crate::refresh::Commitment;
    use crate::rotation::Position;
    use crate::session::{Auth, Client, Ended, Object, Scope};

    const T: Timestamp = Timestamp::from_secs(1_000);

    fn session() -> Session {
        Session {
            id: SessionId::from_bytes([1; 16]),
            scope: Scope { product: "shop".parse().unwrap(), env: "prd".parse().unwrap() },
            tag: "web".parse().unwrap(),
            definition_version: 1,
            user_id: "u".parse().unwrap(),
            position: Position { generation: 3, commitment: Commitment::NONE, issued_at: 1_000, kid: 1 },
            confirmed: false,
            min_generation: 0,
            data: Object::empty(),
            claims: Object::empty(),
            version: 1,
            client: Client::default(),
            auth: Auth { time: T, acr: None, amr: vec![] },
            created_at: T,
            idle_expires_at: T + Seconds(100),
            expires_at: T + Seconds(1_000),
            previous_session_id: None,
            ended: None,
        }
    }

    fn event(kind: EventKind, outcome: Option<Outcome>) -> Event {
        Event { outcome, ..Context::default().event(EventId::from_bytes([2; 16]), T, kind) }
    }

    #[test]
    fn an_active_session_tells_which_clock_comes_next() {
        let advanced = event(EventKind::Refresh, Some(Outcome::Advanced));
        let told = explain(&session(), std::slice::from_ref(&advanced), T);
        assert!(told.active && told.remarkable.is_empty());
        assert_eq!((told.rule, told.at, told.request), ("idle_timeout", T + Seconds(100), Some(advanced)));
    }

    #[test]
    fn an_idle_session_tells_when_it_was_last_refreshed() {
        let told = explain(&session(), &[event(EventKind::Start, None)], T + Seconds(100));
        assert_eq!((told.rule, told.end_reason), ("idle_timeout", Some(EndReason::Idle)));
        assert_eq!(told.request.unwrap().kind, EventKind::Start);
    }

    #[test]
    fn theft_names_its_rule_and_its_request() {
        let theft = Event { theft: Some(TheftKind::Forked), ..event(EventKind::TheftDetected, None) };
        let ended = Session { ended: Some(Ended { at: T, reason: EndReason::Theft }), ..session() };
        let told = explain(&ended, &[event(EventKind::End, None), theft.clone()], T);
        assert_eq!((told.rule, told.request), ("theft_forked", Some(theft.clone())));
        assert_eq!(told.remarkable, [theft]);
        assert_eq!(told.summary, "Ended at 1970-01-01T00:16:40Z: two copies of one client both moved the session on.");
    }
}
