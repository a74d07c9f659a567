//! What goes over the border between Rust and JavaScript.

use http::HeaderMap;
use napi::bindgen_prelude::{Error, Result};
use napi_derive::napi;
use rekindle::access::Verified;
use rekindle_client::{
    Problem,
    session::{Minted, Tokens},
    web::Answer,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// An answer in full.
#[napi(object)]
pub struct NativeAnswer {
    /// Its status.
    pub status: u16,
    /// Names and values in turn; `set-cookie` may come several times.
    pub headers: Vec<String>,
    /// Its body.
    pub body: String,
}

impl From<Answer> for NativeAnswer {
    fn from(answer: Answer) -> Self {
        Self { status: answer.status.as_u16(), headers: headers(&answer.headers), body: answer.body }
    }
}

/// Names and values in turn.
pub fn headers(headers: &HeaderMap) -> Vec<String> {
    let text = |value: &http::HeaderValue| value.as_bytes().iter().map(|byte| char::from(*byte)).collect();
    headers.iter().flat_map(|(name, value)| [name.as_str().to_owned(), text(value)]).collect()
}

/// A problem as an error, whose message is its JSON; `lib/errors.js` reads it.
pub fn thrown(problem: Problem) -> Error {
    let mut said = serde_json::to_value(problem.about()).unwrap_or_else(|_| json!({}));
    said["code"] = json!(problem.code());
    said["status"] = problem.code().status().as_u16().into();
    said["detail"] = problem.detail().into();
    if let Some(after) = problem.tried_again_after() {
        said["retry_after"] = after.0.into();
    }
    Error::from_reason(said.to_string())
}

/// What the caller said, as a type; `invalid_request` with the place where it is not.
pub fn read<T: DeserializeOwned>(what: &str, value: Value) -> Result<T> {
    serde_json::from_value(value).map_err(|error| thrown(Problem::field(what, error.to_string())))
}

/// One text, as a type.
pub fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(what: &str, text: &str) -> Result<T> {
    text.parse().map_err(|error: T::Err| thrown(Problem::field(what, error.to_string())))
}

/// New tokens.
pub fn tokens(tokens: &Tokens) -> Value {
    json!({
        "session": tokens.session,
        "access_token": tokens.access_token.expose(),
        "access_token_expires_at": tokens.access_token_expires_at,
        "refresh_token": tokens.refresh_token.expose(),
        "refresh_token_expires_at": tokens.refresh_token_expires_at,
        "commitment": tokens.commitment,
        "warnings": tokens.warnings,
    })
}

/// A token that was bought without rotating.
pub fn minted(minted: &Minted) -> Value {
    json!({
        "session": minted.session,
        "access_token": minted.access_token.expose(),
        "access_token_expires_at": minted.access_token_expires_at,
    })
}

/// What an access token says.
pub fn verified(verified: &Verified) -> Value {
    json!({
        "session_id": verified.session,
        "user_id": verified.user_id,
        "product": verified.scope.product,
        "env": verified.scope.env,
        "tag": verified.tag,
        "generation": verified.generation,
        "binding": verified.binding,
        "token_id": verified.token_id,
        "issued_at": verified.issued_at,
        "expires_at": verified.expires_at,
        "auth": verified.auth,
        "claims": verified.claims.to_map(),
    })
}
