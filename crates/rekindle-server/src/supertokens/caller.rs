//! Who may call: SuperTokens' own API keys, Rekindle's, or none where none is asked for.

use axum::http::{HeaderMap, Method, StatusCode, header, request::Parts};
use rekindle::store::{ApiKey, Permission};
use subtle::ConstantTimeEq;

use super::{
    application::Application,
    is_public,
    path::{Resource, Route},
    reply::Reply,
};
use crate::{app::App, auth::ApiKeys, edge::RequestContext, problem::Code};

/// Refuses a caller without the key that it needs; who it is, for events.
pub(super) async fn check(
    server: &App,
    application: &Application,
    route: Route,
    parts: &Parts,
    context: &RequestContext,
) -> Result<Option<String>, Reply> {
    if is_public(route.resource) {
        return Ok(None);
    }
    let keys = &application.settings.api_keys;
    let exempt = &server.config().supertokens.keyless_from;
    let exempt = context.client_ip().is_some_and(|ip| exempt.iter().any(|network| network.contains(ip)));
    let given = given(&parts.headers);
    if given.is_some_and(|secret| is_one_of(secret, keys)) {
        return Ok(Some("supertokens".into()));
    }
    if let Some(secret) = given.filter(|secret| secret.starts_with("rkk_")) {
        match ApiKeys::find(server, secret).await {
            Ok(key) => {
                match server.rate_limit().check(&key.id) {
                    Ok(allowance) => context.note_allowance(allowance),
                    Err(_) => {
                        context.note_exhausted();
                        let line = "too many requests with this API key";
                        return Err(Reply::text(StatusCode::TOO_MANY_REQUESTS, line));
                    }
                }
                let needed = permission(route.resource, &parts.method);
                if !key.may(needed) {
                    let line = format!("this API key lacks the scope `{}`", needed.as_str());
                    return Err(Reply::text(StatusCode::FORBIDDEN, line));
                }
                return Ok(Some(key.id.clone()));
            }
            Err(problem) if problem.code() == Code::Unavailable => {
                return Err(Reply::text(StatusCode::SERVICE_UNAVAILABLE, "the store cannot be reached"));
            }
            _ => {}
        }
    }
    if needs_key(!keys.is_empty(), server.config().development, exempt) {
        return Err(Reply::text(StatusCode::UNAUTHORIZED, "Invalid API key"));
    }
    if is_of_a_page(&parts.headers) {
        return Err(Reply::text(StatusCode::FORBIDDEN, "web pages cannot call this server without an API key"));
    }
    Ok(None)
}

/// What one of Rekindle's own keys must allow: the same as where API v1 does it.
fn permission(resource: Resource, method: &Method) -> Permission {
    match resource {
        Resource::App | Resource::AppRemove | Resource::TenantRemove => Permission::Admin,
        Resource::Tenant if *method == Method::PUT => Permission::Admin,
        _ => Permission::Sessions,
    }
}

/// Whether a browser sent this for a web page. Backends send none of these headers.
fn is_of_a_page(headers: &HeaderMap) -> bool {
    headers.contains_key(header::ORIGIN) || headers.get("sec-fetch-site").is_some_and(|site| site != "none")
}

/// Whether a caller needs a key: where some are configured, and everywhere outside of development, but from exempt networks.
fn needs_key(configured: bool, development: bool, exempt: bool) -> bool {
    !exempt && (configured || !development)
}

/// The key that a request carries: as `api-key`, or as `Authorization` with or without `Bearer`.
fn given(headers: &HeaderMap) -> Option<&str> {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    header("api-key").or_else(|| {
        let text = header(header::AUTHORIZATION.as_str())?;
        Some(match text.split_once(' ') {
            Some((scheme, key)) if scheme.eq_ignore_ascii_case("bearer") => key.trim(),
            _ => text,
        })
    })
}

/// Looks at every key, so that the time tells nothing.
fn is_one_of(secret: &str, keys: &[[u8; 32]]) -> bool {
    let hash = ApiKey::hash_of(secret);
    keys.iter().fold(false, |found, key| found | bool::from(key.ct_eq(&hash)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_needs_a_key() {
        for (configured, development, exempt, needs) in [
            (false, true, false, false),
            (true, true, false, true),
            (true, true, true, false),
            (false, false, false, true),
            (true, false, false, true),
            (false, false, true, false),
        ] {
            assert_eq!(needs_key(configured, development, exempt), needs);
        }
    }

    #[test]
    fn a_key_comes_in_three_ways() {
        let headers = |name: &str, value: &str| {
            let name = axum::http::HeaderName::try_from(name).unwrap();
            HeaderMap::from_iter([(name, value.parse().unwrap())])
        };
        for (name, value) in
            [("api-key", "k"), ("authorization", "Bearer k"), ("authorization", "bearer  k"), ("authorization", "k")]
        {
            assert_eq!(given(&headers(name, value)), Some("k"));
        }
        assert_eq!(given(&HeaderMap::new()), None);
        assert!(is_one_of("k", &[[0; 32], ApiKey::hash_of("k")]) && !is_one_of("k", &[]));
    }
}
