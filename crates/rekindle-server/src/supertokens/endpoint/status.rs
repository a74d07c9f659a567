//! What says how the server is, and what answers for recipes that it has not.

use serde_json::{Value, json};

use super::super::{
    Call,
    cdi::Cdi,
    keys,
    reply::{Reply, object},
};

/// `GET /apiversion`: every version; the SDK takes the newest that it knows, too. It asks this first, so keys are made from here on.
pub(super) fn versions(call: Call) -> Reply {
    if call.application.definition().is_none() {
        keys::make_ahead(call.server, call.application, call.ctx);
    }
    let versions: Value = Cdi::all().map(|cdi| cdi.to_string()).collect();
    Reply::Json(object([("versions", versions)]))
}

/// `GET /config`: where a core's configuration is, for its own command line. Nobody is told.
pub(super) fn config() -> Reply {
    Reply::status("NOT ALLOWED", [])
}

/// `GET /devproductionmode`.
pub(super) fn mode(call: &Call) -> Reply {
    let mode = if call.server.config().development { "DEV" } else { "PRODUCTION" };
    Reply::ok([("mode", mode.into())])
}

/// `GET /telemetry`: there is none.
pub(super) fn telemetry() -> Reply {
    Reply::ok([("exists", false.into())])
}

/// `GET /ee/featureflag`: nothing is licensed.
pub(super) fn feature_flags() -> Reply {
    Reply::ok([("features", json!([])), ("usageStats", json!({}))])
}

/// `GET /user/id`: SDKs ask it at each login. Where the user is not known they take the id as it is.
pub(super) fn user_id(call: &Call) -> Result<Reply, Reply> {
    call.input.text("userId")?;
    Ok(Reply::status("UNKNOWN_USER_ID_ERROR", []))
}
