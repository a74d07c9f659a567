//! The routes under `{base}/session`.

use ::axum::{
    Router,
    body::to_bytes,
    extract::Request,
    response::{IntoResponse, Response},
    routing::{MethodFilter, on},
};

use super::{extract, layer::described};
use crate::{
    exchange::{Route, Sessions},
    problem::{Code, Problem},
    web::Answer,
};

pub(super) fn routes<S: Clone + Send + Sync + 'static>(sessions: &Sessions) -> Router<S> {
    let base = &sessions.web().settings().base;
    Route::ALL.into_iter().fold(Router::new(), |router, route| {
        let method = MethodFilter::try_from(route.method()).expect("GET and POST are axum's, too");
        let answer = move |request: Request| answer(route, request);
        router.route(&format!("{base}/session/{}", route.name()), on(method, answer))
    })
}

async fn answer(route: Route, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let exchange = match extract::exchange(&parts) {
        Ok(exchange) => exchange,
        Err(refused) => return refused.into_response(),
    };
    // One byte more tells that there are more.
    let body = match to_bytes(body, Route::MAX_BODY + 1).await {
        Ok(body) => body,
        Err(_) => {
            let detail = format!("send at most {} bytes", Route::MAX_BODY);
            return Answer::from(&Problem::new(Code::PayloadTooLarge, detail)).into_response();
        }
    };
    exchange.answer(route, &described(&parts), &body).await.into_response()
}
