//! The endpoints, one file each: request, answer, errors, handler.

mod healthz;
mod openapi;

use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ContentBuilder, InfoBuilder, LicenseBuilder, OpenApi, RefOr, ResponseBuilder, schema::Ref},
};
use utoipa_axum::routes;

use crate::{app::Endpoints, problem::ProblemDocument};

/// Every endpoint of the API.
pub(crate) fn all() -> Endpoints {
    Endpoints::default().with(routes!(healthz::healthz)).with(routes!(openapi::openapi))
}

/// Puts into the document what is the same for every endpoint: title, and problems as the answer to anything unexpected.
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
    let problem = ResponseBuilder::new()
        .description("What went wrong, as RFC 9457 says it; programs go by `code`")
        .content(
            "application/problem+json",
            ContentBuilder::new().schema(Some(RefOr::Ref(Ref::from_schema_name("Problem")))).build(),
        )
        .build();
    components.responses.insert("Problem".into(), problem.into());
    for item in document.paths.paths.values_mut() {
        let operations = [
            &mut item.get,
            &mut item.put,
            &mut item.post,
            &mut item.delete,
            &mut item.options,
            &mut item.head,
            &mut item.patch,
            &mut item.trace,
        ];
        for operation in operations.into_iter().flatten() {
            let reference = RefOr::Ref(Ref::from_response_name("Problem"));
            operation.responses.responses.insert("default".into(), reference);
        }
    }
}
