//! `GET users/{user_id}`: one user.

use axum::{extract::State, http::StatusCode, response::Response};

use crate::{
    app::App,
    auth::{Caller, Read},
    extract::{InScope, PathUser},
    problem::Problem,
    view::{UserView, json},
};

/// What is known of a user.
#[utoipa::path(
    get,
    path = "/v1/{product}/{env}/users/{user_id}",
    tag = "users",
    security(("api_key" = ["read"])),
    responses(
        (status = 200, description = "The user", body = UserView),
        (status = 404, description = "`user_not_found`, `product_not_found`, `environment_not_found`"),
    ),
)]
pub(super) async fn show_user(
    _: Caller<Read>,
    State(app): State<App>,
    InScope(scope): InScope,
    PathUser(user_id): PathUser,
) -> Result<Response, Problem> {
    let user = app.engine().user(&scope, &user_id).await?;
    Ok(json(StatusCode::OK, &UserView::from(&user)))
}
