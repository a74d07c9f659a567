//! Apps and tenants: who makes them, what they are configured with.

use axum::http::StatusCode;
use rekindle::{
    engine::Error,
    session::{Env, InvalidName},
};
use serde_json::{Map, Value, json};

use super::super::{
    Call,
    application::{self, Application},
    keys,
    path::{self, AppId},
    reply::{Reply, object},
    settings::Settings,
};

/// `PUT app`: creates an app or changes its configuration.
pub(super) async fn put_app(call: &Call) -> Result<Reply, Reply> {
    for_the_first_app(call)?;
    let id = app_id(call)?;
    let config = call.input.optional_object("coreConfig")?.cloned().unwrap_or_default();
    let put = Application::put(call.engine(), call.config(), id, &config, &call.ctx).await?;
    let (app, created) = put.map_err(Reply::bad)?;
    if created {
        keys::make_ahead(call.server.clone(), app, call.ctx.clone());
    }
    Ok(Reply::ok([("createdNew", created.into())]))
}

/// `GET app/list`.
pub(super) async fn apps(call: &Call) -> Result<Reply, Reply> {
    for_the_first_app(call)?;
    let mut apps = vec![json!({ "appId": "public", "tenants": tenant_views(&call.application) })];
    for product in call.engine().products().await? {
        let id = AppId::of(&product.product.tag);
        let is_app = product.definitions.iter().any(|(_, definition)| definition.tag == application::tag());
        if is_app
            && id != AppId::public()
            && let Some(app) = Application::open(call.engine(), call.config(), id).await?
        {
            apps.push(json!({ "appId": app.id.to_string(), "tenants": tenant_views(&app) }));
        }
    }
    Ok(Reply::ok([("apps", apps.into())]))
}

/// `POST app/remove`: removes an app without active sessions and other tenants.
pub(super) async fn remove_app(call: &Call) -> Result<Reply, Reply> {
    for_the_first_app(call)?;
    let id = app_id(call)?;
    if id == AppId::public() {
        return Err(Reply::text(StatusCode::FORBIDDEN, "Cannot delete public app"));
    }
    let Some(app) = Application::open(call.engine(), call.config(), id).await? else {
        return Ok(Reply::ok([("didExist", false.into())]));
    };
    if !app.tenants().is_empty() {
        let line = "Deleting an app with tenants is not allowed: remove its tenants first";
        return Err(Reply::text(StatusCode::FORBIDDEN, line));
    }
    match call.engine().delete_product(app.id.product(), &call.ctx).await {
        Ok(()) => Ok(Reply::ok([("didExist", true.into())])),
        Err(Error::Conflict(problem)) => Err(Reply::text(StatusCode::FORBIDDEN, problem)),
        Err(error) => Err(error.into()),
    }
}

/// The members of a tenant that are kept as they are.
const KEPT: [&str; 3] = ["firstFactors", "requiredSecondaryFactors", "coreConfig"];

/// `PUT tenant`: creates a tenant or changes it. Its `coreConfig` is kept and shown; what is in force is the app's.
pub(super) async fn put_tenant(call: &mut Call) -> Result<Reply, Reply> {
    call.for_the_app()?;
    let tenant = tenant_id(call)?;
    let config: Map<String, Value> = KEPT
        .iter()
        .filter(|name| call.input.names(name))
        .map(|name| ((*name).to_owned(), call.input.value(name).cloned().unwrap_or(Value::Null)))
        .collect();
    let server = call.server.clone();
    let (engine, configured) = (server.engine(), &server.config().supertokens);
    if let Some(core) = call.input.optional_object("coreConfig")? {
        Settings::changed(configured, &Map::new(), core).map_err(Reply::bad)?;
        if core.contains_key("api_keys") {
            return Err(Reply::bad("Invalid core config: api_keys can only be set for a whole app"));
        }
    }
    let created = call.application.put_tenant(engine, configured, &tenant, config, &call.ctx).await?;
    Ok(Reply::ok([("createdNew", created.into())]))
}

/// `GET tenant`: the one in the path.
pub(super) fn tenant(call: &Call) -> Result<Reply, Reply> {
    if !call.application.has(&call.tenant()) {
        return Ok(Reply::status("TENANT_NOT_FOUND_ERROR", []));
    }
    let mut view = tenant_view(&call.application, &call.tenant());
    view.insert("status".into(), "OK".into());
    Ok(Reply::Json(view))
}

/// `GET tenant/list`.
pub(super) fn tenants(call: &Call) -> Result<Reply, Reply> {
    call.for_the_app()?;
    Ok(Reply::ok([("tenants", tenant_views(&call.application).into())]))
}

/// `POST tenant/remove`: removes a tenant without active sessions.
pub(super) async fn remove_tenant(call: &mut Call) -> Result<Reply, Reply> {
    call.for_the_app()?;
    let tenant = tenant_id(call)?;
    if tenant == path::public() {
        return Err(Reply::text(StatusCode::FORBIDDEN, "Cannot delete public tenant, use remove app API instead"));
    }
    let server = call.server.clone();
    let removed =
        call.application.remove_tenant(server.engine(), &server.config().supertokens, &tenant, &call.ctx).await;
    match removed {
        Ok(existed) => Ok(Reply::ok([("didExist", existed.into())])),
        Err(Error::Conflict(problem)) => Err(Reply::text(StatusCode::FORBIDDEN, problem)),
        Err(error) => Err(error.into()),
    }
}

fn tenant_views(app: &Application) -> Vec<Map<String, Value>> {
    let tenants = [path::public()].into_iter().chain(app.tenants().into_keys().filter(|t| *t != path::public()));
    tenants.map(|tenant| tenant_view(app, &tenant)).collect()
}

fn tenant_view(app: &Application, tenant: &Env) -> Map<String, Value> {
    let config = app.tenants().remove(tenant).unwrap_or_default();
    let app_config = if *tenant == path::public() { Settings::shown(app.metadata()) } else { Map::new() };
    let core = config.get("coreConfig").cloned().unwrap_or_else(|| app_config.into());
    let member = |name: &str| config.get(name).cloned().unwrap_or_default();
    object([
        ("tenantId", tenant.as_str().into()),
        ("thirdParty", json!({ "providers": [] })),
        ("firstFactors", member("firstFactors")),
        ("requiredSecondaryFactors", member("requiredSecondaryFactors")),
        ("coreConfig", core),
    ])
}

/// Apps are made and listed by the app `public` alone.
fn for_the_first_app(call: &Call) -> Result<(), Reply> {
    if call.application.id == AppId::public() && call.tenant() == path::public() {
        return Ok(());
    }
    Err(Reply::text(StatusCode::FORBIDDEN, "Only public app and tenant can call this API"))
}

fn app_id(call: &Call) -> Result<AppId, Reply> {
    let id = call.input.text("appId")?.trim().to_ascii_lowercase();
    id.strip_prefix("appid-").unwrap_or(&id).parse().map_err(Reply::bad)
}

fn tenant_id(call: &Call) -> Result<Env, Reply> {
    let id = call.input.text("tenantId")?.trim().to_ascii_lowercase();
    id.parse().map_err(|error: InvalidName| Reply::bad(error.to_string().replace("environment", "tenantId")))
}
