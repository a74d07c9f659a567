//! `GET users`: an environment's users.

use axum::{extract::State, http::StatusCode, response::Response};
use rekindle::session::UserId;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{
    app::App,
    auth::{Caller, Read},
    extract::{InScope, Query},
    page::{self, Limit, Page},
    problem::Problem,
    view::{UserView, json},
};

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    /// How many at most: 1 to 200, 50 by default.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200)]
    limit: Limit,
}

/// Lists the users that have sessions or a ban, in byte order of their ids.
#[utoipa::path(
    get,
    path = "/v1/{product}/{env}/users",
    tag = "users",
    security(("api_key" = ["read"])),
    params(Which),
    responses(
        (status = 200, description = "A page of users", body = Page<UserView>),
        (status = 404, description = "`product_not_found`, `environment_not_found`"),
    ),
)]
pub(super) async fn list_users(
    _: Caller<Read>,
    State(app): State<App>,
    InScope(scope): InScope,
    Query(which): Query<Which>,
) -> Result<Response, Problem> {
    let after: Option<UserId> = page::text_cursor(which.cursor.as_deref())?;
    let users = app.engine().users(&scope, after, which.limit.and_one()).await?;
    let page = Page::of(users, which.limit, |user| user.user_id.as_str().as_bytes().to_vec(), |user| user);
    Ok(json(StatusCode::OK, &page.view(UserView::from)))
}
