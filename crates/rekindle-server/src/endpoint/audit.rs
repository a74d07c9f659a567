//! `GET /v1/audit`.

use axum::{Json, extract::State};
use rekindle::{clock::Timestamp, journal::EventId, store::AuditEntry};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    app::App,
    auth::{Caller, Read},
    extract::Query,
    page::{Page, PageQuery, id_cursor},
    problem::Problem,
};

/// Who changed what, when, from where.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditEntry)]
pub(super) struct AuditAnswer {
    /// Its id; ids sort by time.
    #[schema(value_type = String, format = "uuid")]
    id: EventId,
    /// When.
    #[schema(value_type = String, format = "date-time")]
    at: Timestamp,
    /// Who: an API key's id, or `cli`.
    actor: String,
    /// What was done, like `definition.update`.
    action: String,
    /// To what, like `shop/definitions/default`.
    target: String,
    /// From where.
    #[serde(skip_serializing_if = "Option::is_none")]
    ip: Option<String>,
    /// By which request.
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
}

impl From<AuditEntry> for AuditAnswer {
    fn from(entry: AuditEntry) -> Self {
        let AuditEntry { id, at, actor, action, target, ip, request_id } = entry;
        Self { id, at, actor, action, target, ip, request_id }
    }
}

/// The audit log, newest first.
#[utoipa::path(
    get,
    path = "/v1/audit",
    tag = "administration",
    security(("api_key" = ["read"])),
    params(PageQuery),
    responses((status = 200, description = "A page of the audit log", body = Page<AuditAnswer>)),
)]
pub(super) async fn audit_log(
    _: Caller<Read>,
    State(app): State<App>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<AuditAnswer>>, Problem> {
    let before = id_cursor(query.cursor.as_deref())?.map(EventId::from_bytes);
    let entries = app.engine().audit_log(before, query.limit.and_one()).await?;
    Ok(Json(Page::of(entries, query.limit, |entry| entry.id.to_bytes().to_vec(), AuditAnswer::from)))
}
