//! What is to be done about each session of the core. Pure.

use rekindle::{
    engine::{Engine, Import},
    keys::Chain,
    session::{Env, Session},
};
use serde_json::{Map, Value};

use super::{
    super::{application, handle::Handle, origin::Origin, payload::Payload},
    source::CoreSession,
};

/// A session as it can be imported, or why not.
pub(super) fn import(core: &CoreSession) -> Result<(Env, Import), String> {
    let handle: Handle =
        core.handle.parse().map_err(|()| "its handle is not a UUID, or one with its tenant".to_owned())?;
    if handle.tenant.as_str() != core.tenant {
        return Err(format!("its handle names another tenant than its row, `{}`", core.tenant));
    }
    let origin =
        Origin::parse(&core.refresh_token_hash_2).ok_or("its `refresh_token_hash_2` is not SHA-256 in hexadecimal")?;
    let chain = if core.use_static_key { Chain::Static } else { Chain::Dynamic };
    let payload = Payload {
        user_data: object("jwt_user_payload", &core.payload)?,
        chain,
        // Each token there says it of itself.
        anti_csrf: false,
        origin: Some(origin),
    };
    let import = Import {
        id: handle.id,
        user_id: core.user_id.parse().map_err(|error| format!("{error}"))?,
        data: object("session_data", &core.data)?,
        claims: payload.claims(),
        created_at: core.created_at,
        idle_expires_at: core.expires_at,
    };
    Ok((handle.tenant, import))
}

/// A JSON object; nothing there is an empty one.
fn object(column: &str, text: &str) -> Result<Map<String, Value>, String> {
    match serde_json::from_str(if text.is_empty() { "{}" } else { text }) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(Value::Null) => Ok(Map::new()),
        _ => Err(format!("its `{column}` is not a JSON object")),
    }
}

/// How a session that is to be imported compares with the one that has its id here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Compared {
    /// It was imported as it is.
    Same,
    /// It was imported, and has changed in the core since: this is how it is to be now.
    Changed(Box<Session>),
    /// Its client has come over: what the core has is old.
    InUse,
    /// It was ended here.
    Ended,
    /// It is none that was imported.
    Foreign,
}

/// Compares them.
pub(super) fn compare(wanted: &Session, present: &Session) -> Compared {
    if present.scope != wanted.scope || !was_imported(present) {
        Compared::Foreign
    } else if present.ended.is_some() {
        Compared::Ended
    } else if !is_untouched(present) {
        Compared::InUse
    } else if (&present.user_id, &present.data, &present.claims, present.idle_expires_at)
        == (&wanted.user_id, &wanted.data, &wanted.claims, wanted.idle_expires_at)
    {
        Compared::Same
    } else {
        Compared::Changed(Box::new(Session {
            user_id: wanted.user_id.clone(),
            data: wanted.data.clone(),
            claims: wanted.claims.clone(),
            idle_expires_at: wanted.idle_expires_at.min(present.expires_at),
            ..present.clone()
        }))
    }
}

/// Whether a session was imported.
pub(super) fn was_imported(session: &Session) -> bool {
    session.tag == application::tag() && Payload::of(session.claims.to_map()).origin.is_some()
}

/// Whether an imported session is as the import left it: nobody has refreshed it here, or written to it.
pub(super) fn is_untouched(session: &Session) -> bool {
    session.position.generation == Engine::IMPORTED_AT && session.confirmed && session.version == 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use rekindle::clock::Timestamp;

    fn core() -> CoreSession {
        CoreSession {
            app: "public".into(),
            tenant: "public".into(),
            handle: "5f0c3a3e-2f53-4b0e-9a53-0c3b6a1b2c3d".into(),
            user_id: "ann".into(),
            refresh_token_hash_2: "ab".repeat(32),
            data: r#"{"a":null}"#.into(),
            payload: r#"{"sub":"x","role":"admin"}"#.into(),
            expires_at: Timestamp::from_secs(2_000_000_000),
            created_at: Timestamp::from_secs(1_900_000_000),
            use_static_key: true,
        }
    }

    #[test]
    fn a_session_keeps_what_it_carries() {
        let (tenant, planned) = import(&core()).unwrap();
        assert_eq!((tenant.as_str(), planned.user_id.as_str()), ("public", "ann"));
        assert_eq!(Value::Object(planned.data), serde_json::json!({ "a": null }));
        let payload = Payload::of(planned.claims);
        assert_eq!(Value::Object(payload.user_data), serde_json::json!({ "sub": "x", "role": "admin" }));
        assert_eq!((payload.chain, payload.origin.unwrap().as_str()), (Chain::Static, "ab".repeat(32).as_str()));
        let handle = format!("{}_t1", core().handle);
        let (tenant, _) = import(&CoreSession { tenant: "t1".into(), handle, ..core() }).unwrap();
        assert_eq!(tenant.as_str(), "t1");
        assert!(import(&CoreSession { data: String::new(), payload: "null".into(), ..core() }).is_ok());
    }

    #[test]
    fn what_cannot_be_taken_over_is_told() {
        for (core, said) in [
            (CoreSession { handle: "x".into(), ..core() }, "handle"),
            (CoreSession { handle: format!("{}_t1", core().handle), ..core() }, "tenant"),
            (CoreSession { tenant: "t1".into(), ..core() }, "tenant"),
            (CoreSession { refresh_token_hash_2: "x".into(), ..core() }, "refresh_token_hash_2"),
            (CoreSession { data: "[]".into(), ..core() }, "session_data"),
            (CoreSession { payload: "{".into(), ..core() }, "jwt_user_payload"),
            (CoreSession { user_id: "u".repeat(257), ..core() }, "user id"),
        ] {
            let why = import(&core).unwrap_err();
            assert!(why.contains(said), "{why}");
        }
    }
}
