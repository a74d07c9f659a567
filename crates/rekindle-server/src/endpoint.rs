//! The endpoints, one file each: request, answer, errors, handler.

mod api_keys;
mod audit;
mod definitions;
mod environments;
mod forward_auth;
mod healthz;
mod jwks;
mod metrics;
mod name;
mod openapi;
mod products;
mod readyz;
mod revocations;
mod sessions;
mod users;

use axum::http::Method;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        ContentBuilder, InfoBuilder, LicenseBuilder, OpenApi, PathItem, RefOr, Required, ResponseBuilder,
        path::{Operation, Parameter, ParameterBuilder, ParameterIn},
        schema::{ObjectBuilder, Ref, Type},
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};
use utoipa_axum::routes;

use crate::{app::Endpoints, problem::ProblemDocument};

const PROBLEM: &str = "application/problem+json";

/// Every endpoint of the API.
pub(crate) fn all() -> Endpoints {
    let endpoints = Endpoints::default()
        .with(routes!(healthz::healthz))
        .with(routes!(readyz::readyz))
        .with(routes!(metrics::metrics))
        .with(routes!(openapi::openapi))
        .with(routes!(jwks::jwks))
        .with(routes!(forward_auth::forward_auth))
        .with(routes!(revocations::revocations))
        .with(routes!(audit::audit_log));
    [
        sessions::register,
        users::register,
        products::register,
        environments::register,
        definitions::register,
        api_keys::register,
    ]
    .into_iter()
    .fold(endpoints, |endpoints, register| register(endpoints))
}

/// Puts into the document what is the same for every endpoint: title, who may call, the parameters in paths, and problems as the
/// answer to anything unexpected.
pub(crate) fn describe(document: &mut OpenApi) {
    document.info = InfoBuilder::new()
        .title("Rekindle")
        .version("1")
        .description(Some("Sessions that no thief can share and no bad network can end."))
        .license(Some(LicenseBuilder::new().name("Apache-2.0 OR MIT").build()))
        .build();
    let components = document.components.get_or_insert_default();
    let mut schemas = vec![(ProblemDocument::name().into_owned(), ProblemDocument::schema())];
    ProblemDocument::schemas(&mut schemas);
    components.schemas.extend(schemas);
    let content = ContentBuilder::new().schema(Some(RefOr::Ref(Ref::from_schema_name("Problem")))).build();
    let problem = ResponseBuilder::new()
        .description("What went wrong, as RFC 9457 says it; programs go by `code`")
        .content(PROBLEM, content.clone())
        .build();
    components.responses.insert("Problem".into(), problem.into());
    let api_key = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("rkk_…").build();
    components.add_security_scheme("api_key", SecurityScheme::Http(api_key));
    for (path, item) in &mut document.paths.paths {
        for (_, operation) in operations(item) {
            for name in path.split(['{', '}']).skip(1).step_by(2) {
                let parameter = ParameterBuilder::new()
                    .name(name)
                    .parameter_in(ParameterIn::Path)
                    .required(Required::True)
                    .schema(Some(ObjectBuilder::new().schema_type(Type::String)));
                operation.parameters.get_or_insert_default().push(parameter.build().into());
            }
            for (status, response) in &mut operation.responses.responses {
                if let RefOr::T(response) = response
                    && status.starts_with(['4', '5'])
                {
                    response.content.entry(PROBLEM.into()).or_insert_with(|| content.clone().into());
                }
            }
            let reference = RefOr::Ref(Ref::from_response_name("Problem"));
            operation.responses.responses.insert("default".into(), reference);
        }
    }
}

/// What a path answers, by method.
pub(crate) fn operations(item: &mut PathItem) -> impl Iterator<Item = (Method, &mut Operation)> {
    let operations = [
        (Method::GET, &mut item.get),
        (Method::PUT, &mut item.put),
        (Method::POST, &mut item.post),
        (Method::DELETE, &mut item.delete),
        (Method::OPTIONS, &mut item.options),
        (Method::HEAD, &mut item.head),
        (Method::PATCH, &mut item.patch),
        (Method::TRACE, &mut item.trace),
    ];
    operations.into_iter().filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}

/// Whether an operation's description names parameters in the query.
pub(crate) fn takes_query(operation: &Operation) -> bool {
    let in_query = |p: &RefOr<_>| matches!(p, RefOr::T(Parameter { parameter_in: ParameterIn::Query, .. }));
    operation.parameters.iter().flatten().any(in_query)
}
