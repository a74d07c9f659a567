//! What can be asked, one file per family.

mod jwt;
mod multitenancy;
mod session;
mod status;

use axum::http::{Method, StatusCode};

use super::{Call, cdi::Cdi, path::Resource, reply::Reply};

/// Answers a request.
pub(super) async fn answer(call: Call) -> Reply {
    answered(call).await.unwrap_or_else(|refused| refused)
}

async fn answered(mut call: Call) -> Result<Reply, Reply> {
    let (resource, cdi) = (call.route.resource, call.cdi);
    if !is_spoken(resource, cdi) {
        return Err(Reply::not_found());
    }
    let (get, post, put, delete) = match call.method {
        Method::GET => (true, false, false, false),
        Method::POST => (false, true, false, false),
        Method::PUT => (false, false, true, false),
        Method::DELETE => (false, false, false, true),
        _ => return Err(not_allowed()),
    };
    match resource {
        Resource::Hello => Ok(Reply::text(StatusCode::OK, "Hello")),
        Resource::ApiVersion if get => Ok(status::versions(call)),
        Resource::Config if get => Ok(status::config()),
        Resource::Mode if get => Ok(status::mode(&call)),
        Resource::Telemetry if get => Ok(status::telemetry()),
        Resource::License if get || put || delete => Ok(Reply::ok([])),
        Resource::FeatureFlag if get => Ok(status::feature_flags()),
        Resource::UserId if get => status::user_id(&call),
        Resource::Handshake if post => session::handshake::answer(&mut call).await,
        Resource::Session if post => session::create::answer(&mut call).await,
        Resource::Session if get && cdi >= Cdi::V2_8 => session::show::answer(&call).await,
        Resource::Session if delete && cdi < Cdi::V2_0 => session::remove::answer_delete(&call).await,
        Resource::Verify if post => session::verify::answer(&mut call).await,
        Resource::Refresh if post => session::refresh::answer(&mut call).await,
        Resource::Regenerate if post => session::regenerate::answer(&mut call).await,
        Resource::Remove if post => session::remove::answer(&call).await,
        Resource::SessionUser if get => session::user::answer(&call).await,
        Resource::SessionData if get => session::data::show(&call).await,
        Resource::SessionData if put => session::data::replace(&call).await,
        Resource::JwtData if get && cdi <= Cdi::V2_21 => session::data::show_payload(&call).await,
        Resource::JwtData if put => session::data::replace_payload(&call).await,
        Resource::Jwt if post => jwt::sign(&mut call).await,
        Resource::Jwks if get => jwt::well_known(&call).await,
        Resource::RecipeJwks if get => jwt::jwks(&mut call).await,
        Resource::App if put => multitenancy::put_app(&call).await,
        Resource::AppList if get => multitenancy::apps(&call).await,
        Resource::AppRemove if post => multitenancy::remove_app(&call).await,
        Resource::Tenant if put => multitenancy::put_tenant(&mut call).await,
        Resource::Tenant if get => multitenancy::tenant(&call),
        Resource::TenantList if get => multitenancy::tenants(&call),
        Resource::TenantRemove if post => multitenancy::remove_tenant(&mut call).await,
        _ => Err(not_allowed()),
    }
}

/// Which versions know a resource, beside what its path says.
fn is_spoken(resource: Resource, cdi: Cdi) -> bool {
    match resource {
        Resource::Handshake => cdi < Cdi::V2_21,
        Resource::Regenerate | Resource::Remove | Resource::JwtData => cdi >= Cdi::V2_0,
        Resource::Jwt | Resource::RecipeJwks => cdi >= Cdi::V2_9,
        Resource::App
        | Resource::AppList
        | Resource::AppRemove
        | Resource::Tenant
        | Resource::TenantList
        | Resource::TenantRemove => cdi >= Cdi::V3_0,
        _ => true,
    }
}

fn not_allowed() -> Reply {
    Reply::text(StatusCode::METHOD_NOT_ALLOWED, "Method not supported")
}
