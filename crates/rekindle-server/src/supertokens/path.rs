//! The grammar of paths: `[base path] [/appid-<app>] [/<tenant>] <path of the interface>`, in any case, with or without a last slash.

use std::{fmt, str::FromStr};

use rekindle::session::{Env, Scope, Tag};

/// What a path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// The app.
    pub(super) app: AppId,
    /// The tenant, where the path names one.
    pub(super) tenant: Option<Env>,
    /// What is asked for; nothing for a path that looks like one of the interface and is none that is spoken here.
    pub(super) route: Option<Route>,
}

/// An app's id: `public`, or what follows `appid-`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct AppId(String);

/// From which times of the interface a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    /// Without `/recipe`, up to CDI 2.3.
    Plain,
    /// From CDI 2.4 on.
    Recipe,
    /// From all times.
    Any,
}

/// Declares the paths of the interface.
macro_rules! routes {
    ($($name:ident { $($family:ident $path:literal),+ })*) => {
        /// A resource of the interface.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Resource { $($name),* }

        /// Every path.
        const ROUTES: &[Route] = &[$($(Route { resource: Resource::$name, family: Family::$family, path: $path }),+),*];
    };
}

/// A path of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Route {
    /// What is there.
    pub(super) resource: Resource,
    /// Since when.
    pub(super) family: Family,
    /// Its text.
    pub(super) path: &'static str,
}

routes! {
    Hello { Any "/", Any "/hello" }
    ApiVersion { Any "/apiversion" }
    Config { Plain "/config" }
    Mode { Plain "/devproductionmode" }
    Handshake { Plain "/handshake", Recipe "/recipe/handshake" }
    Session { Plain "/session", Recipe "/recipe/session" }
    Verify { Plain "/session/verify", Recipe "/recipe/session/verify" }
    Refresh { Plain "/session/refresh", Recipe "/recipe/session/refresh" }
    Regenerate { Plain "/session/regenerate", Recipe "/recipe/session/regenerate" }
    Remove { Plain "/session/remove", Recipe "/recipe/session/remove" }
    SessionUser { Plain "/session/user", Recipe "/recipe/session/user" }
    SessionData { Plain "/session/data", Recipe "/recipe/session/data" }
    JwtData { Plain "/jwt/data", Recipe "/recipe/jwt/data" }
    Jwt { Recipe "/recipe/jwt" }
    RecipeJwks { Recipe "/recipe/jwt/jwks" }
    Jwks { Any "/.well-known/jwks.json" }
    UserId { Any "/user/id" }
    Telemetry { Any "/telemetry" }
    License { Any "/ee/license" }
    FeatureFlag { Any "/ee/featureflag" }
    App { Recipe "/recipe/multitenancy/app", Recipe "/recipe/multitenancy/app/v2" }
    AppRemove { Recipe "/recipe/multitenancy/app/remove" }
    AppList { Recipe "/recipe/multitenancy/app/list", Recipe "/recipe/multitenancy/app/list/v2" }
    Tenant { Recipe "/recipe/multitenancy/tenant", Recipe "/recipe/multitenancy/tenant/v2" }
    TenantRemove { Recipe "/recipe/multitenancy/tenant/remove" }
    TenantList { Recipe "/recipe/multitenancy/tenant/list", Recipe "/recipe/multitenancy/tenant/list/v2" }
}

/// Every path, for labels.
pub(super) fn templates() -> impl Iterator<Item = &'static str> {
    ROUTES.iter().map(|route| route.path)
}

/// Takes a path apart; nothing if it is none of the interface's.
pub(super) fn parse(base: &str, path: &str) -> Option<Target> {
    let path = path.to_ascii_lowercase();
    let path = path.strip_prefix(&base.to_ascii_lowercase()).filter(|rest| rest.is_empty() || rest.starts_with('/'))?;
    let path = path.strip_suffix('/').unwrap_or(path);
    let (app, path) = match path.strip_prefix("/appid-") {
        None => (AppId::public(), path),
        Some(rest) => {
            let end = rest.find('/').unwrap_or(rest.len());
            (rest[..end].parse().ok()?, &rest[end..])
        }
    };
    let here = |path: &str| ROUTES.iter().find(|route| route.path == if path.is_empty() { "/" } else { path }).copied();
    if let Some(route) = here(path) {
        return Some(Target { app, tenant: None, route: Some(route) });
    }
    let (tenant, rest) = split(path);
    // A tenant alone is none: the path may be anything.
    let route = here(rest).filter(|_| !rest.is_empty() && !STOP_WORDS.contains(&tenant));
    match tenant.parse::<Env>() {
        Ok(tenant) if route.is_some() => Some(Target { app, tenant: Some(tenant), route }),
        _ => {
            let foreign = app != AppId::public() || FOREIGN.contains(&tenant) || split(rest).0 == "recipe";
            foreign.then_some(Target { app, tenant: None, route: None })
        }
    }
}

const STOP_WORDS: [&str; 4] = ["recipe", "config", "users", "hello"];

/// How paths of the interface start, those that are not spoken here among them.
const FOREIGN: [&str; 6] = ["recipe", "user", "users", "requests", "bulk-import", "ee"];

/// The first segment of a path, and what follows it.
fn split(path: &str) -> (&str, &str) {
    let path = path.strip_prefix('/').unwrap_or(path);
    path.split_at(path.find('/').unwrap_or(path.len()))
}

impl AppId {
    /// The app that needs no name.
    pub(super) fn public() -> Self {
        Self("public".into())
    }

    /// The product that keeps this app's sessions. Ids that a tag cannot be, or that mean something else there, get `a-` in front.
    pub(super) fn product(&self) -> Tag {
        let taken = ["default", "products"].contains(&self.0.as_str()) || self.0.starts_with("a-");
        let tag = match self.0.as_str() {
            "public" => "default".parse(),
            id if taken => format!("a-{id}").parse(),
            id => id.parse().or_else(|_| format!("a-{id}").parse()),
        };
        tag.expect("the length was checked, and what follows `a-` may be anything in the alphabet")
    }

    /// The app of a product: the inverse of [`AppId::product`].
    pub(super) fn of(product: &Tag) -> Self {
        let tag = product.as_str();
        Self(if tag == "default" { "public" } else { tag.strip_prefix("a-").unwrap_or(tag) }.into())
    }

    /// The scope of one of its tenants.
    pub(super) fn scope(&self, tenant: &Env) -> Scope {
        Scope { product: self.product(), env: tenant.clone() }
    }
}

impl FromStr for AppId {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let valid = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if (1..=61).contains(&s.len()) && s.bytes().all(valid) {
            Ok(Self(s.to_owned()))
        } else {
            Err("appId must be 1 to 61 of a-z, 0-9 and -".into())
        }
    }
}

impl fmt::Display for AppId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The tenant that needs no name.
pub(super) fn public() -> Env {
    "public".parse().expect("a valid slug")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn said(base: &str, path: &str) -> String {
        let Some(Target { app, tenant, route }) = parse(base, path) else { return "-".into() };
        let tenant = tenant.map_or("-".into(), |t| t.to_string());
        format!("{app} {tenant} {}", route.map_or("?", |route| route.path))
    }

    #[test]
    fn the_grammar() {
        for (path, parsed) in [
            ("/", "public - /"),
            ("/hello", "public - /hello"),
            ("/Hello/", "public - /hello"),
            ("/recipe/session", "public - /recipe/session"),
            ("/RECIPE/Session/Verify/", "public - /recipe/session/verify"),
            ("/session/verify", "public - /session/verify"),
            ("/t1/recipe/session", "public t1 /recipe/session"),
            ("/public/recipe/session", "public public /recipe/session"),
            ("/appid-a1/recipe/session", "a1 - /recipe/session"),
            ("/appid-a1/t1/recipe/session/user", "a1 t1 /recipe/session/user"),
            ("/AppId-A1/T1/recipe/session", "a1 t1 /recipe/session"),
            ("/appid-a1", "a1 - /"),
            ("/appid-a1/.well-known/jwks.json", "a1 - /.well-known/jwks.json"),
            ("/t1/hello", "public t1 /hello"),
            ("/users/session", "public - ?"),
            ("/users/count", "public - ?"),
            ("/recipe/signin", "public - ?"),
            ("/t1/recipe/signin", "public - ?"),
            ("/appid-a1/users", "a1 - ?"),
            ("/v1/default/dev/sessions", "-"),
            ("/dashboard", "-"),
            ("/appid-", "-"),
            ("/appid-ä/hello", "-"),
            ("//", "public - /"),
        ] {
            assert_eq!(said("", path), parsed, "{path}");
        }
        assert_eq!(said("/Auth", "/auth/appid-a/recipe/jwt"), "a - /recipe/jwt");
        assert_eq!(said("/auth", "/auth"), "public - /");
        assert_eq!(said("/auth", "/authx/hello"), "-");
        assert_eq!(said("/auth", "/hello"), "-");
    }

    #[test]
    fn apps_that_are_products_by_another_name() {
        for (app, product) in [
            ("public", "default"),
            ("shop", "shop"),
            ("default", "a-default"),
            ("1", "a-1"),
            ("a-1", "a-a-1"),
            ("-", "a--"),
        ] {
            assert_eq!(app.parse::<AppId>().unwrap().product().as_str(), product);
        }
    }

    proptest! {
        #[test]
        fn no_two_apps_share_a_product(id in "[a-z0-9-]{1,61}") {
            let app: AppId = id.parse().unwrap();
            prop_assert_eq!(AppId::of(&app.product()), app);
        }

        #[test]
        fn any_path_is_read(path in "(/?(appid-)?[a-zA-Z0-9 é-]{0,6}){0,5}") {
            parse("", &path);
        }
    }
}
