//! Users, as far as they have sessions or a ban: `/v1/{product}/{env}/users…`.

mod ban;
mod credential_changed;
mod erase;
mod list;
mod revoke_sessions;
mod show;

use utoipa_axum::routes;

use crate::app::Endpoints;

pub(super) fn register(endpoints: Endpoints) -> Endpoints {
    endpoints
        .with(routes!(list::list_users))
        .with(routes!(show::show_user, erase::erase_user))
        .with(routes!(revoke_sessions::revoke_user_sessions))
        .with(routes!(credential_changed::credential_changed))
        .with(routes!(ban::ban_user, ban::lift_ban))
}
