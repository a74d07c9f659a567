//! Products.

mod create;
mod delete;
mod list;
mod read;
mod update;

use rekindle::store::Product;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::routes;

use crate::app::Endpoints;

pub(super) fn register(endpoints: Endpoints) -> Endpoints {
    endpoints.with(routes!(list::list_products, create::create_product)).with(routes!(
        read::read_product,
        update::update_product,
        delete::delete_product
    ))
}

/// A product: what sessions of one application have in common.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Product)]
struct ProductAnswer {
    /// Its name in paths, for good.
    tag: String,
    /// Its name for people.
    name: String,
}

impl From<Product> for ProductAnswer {
    fn from(product: Product) -> Self {
        Self { tag: product.tag.to_string(), name: product.name }
    }
}
