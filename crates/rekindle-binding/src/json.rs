//! Values that go over the border, with names in snake_case and times as texts.

use std::fmt;

use http::{HeaderMap, HeaderValue};
use rekindle::access::Verified;
use rekindle_client::{
    Problem,
    problem::Code,
    session::{Minted, Tokens},
    web::Answer,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Why something was not done.
#[derive(Debug)]
pub enum Failed {
    /// With one of the API's codes.
    Problem(Problem),
    /// There is no engine, or no way to a server; the text says why.
    Closed(String),
}

impl Failed {
    /// An `invalid_request`: what came over the border is not what it should be.
    pub fn invalid(why: &str) -> Self {
        Self::Problem(Problem::new(Code::InvalidRequest, why.to_owned()))
    }

    /// An `invalid_request` about one field.
    pub(crate) fn field(field: &str, why: impl fmt::Display) -> Self {
        Self::Problem(Problem::field(field, why.to_string()))
    }

    /// It, as a binding throws it: for a problem a JSON object with `code`, `status`, `detail` and what it is about; else the text.
    pub fn to_text(&self) -> String {
        match self {
            Self::Problem(problem) => problem_of(problem).to_string(),
            Self::Closed(why) => why.clone(),
        }
    }
}

impl From<Problem> for Failed {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

fn problem_of(problem: &Problem) -> Value {
    let mut said = serde_json::to_value(problem.about()).unwrap_or_else(|_| json!({}));
    said["code"] = json!(problem.code());
    said["status"] = problem.code().status().as_u16().into();
    said["detail"] = problem.detail().into();
    if let Some(after) = problem.tried_again_after() {
        said["retry_after"] = after.0.into();
    }
    said
}

/// What the caller said, as a type; `invalid_request` with the place where it is not.
pub(crate) fn read<T: DeserializeOwned>(what: &str, value: Value) -> Result<T, Failed> {
    serde_json::from_value(value).map_err(|error| Failed::field(what, error))
}

/// The same of an object; serde would take its members as an array, too.
pub(crate) fn read_object<T: DeserializeOwned>(what: &str, value: Value) -> Result<T, Failed> {
    if !value.is_object() {
        return Err(Failed::field(what, "must be an object"));
    }
    read(what, value)
}

/// One text, as a type.
pub(crate) fn parse<T: std::str::FromStr<Err: fmt::Display>>(what: &str, text: &str) -> Result<T, Failed> {
    text.parse().map_err(|error: T::Err| Failed::field(what, error))
}

/// An answer in full: `status`, `headers` as [`headers`], `body`.
pub fn answer(answer: &Answer) -> Value {
    json!({ "status": answer.status.as_u16(), "headers": headers(&answer.headers), "body": answer.body })
}

/// Pairs of name and value; `set-cookie` may come several times. Bytes are the characters of that number.
pub fn pairs(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &HeaderValue| value.as_bytes().iter().map(|byte| char::from(*byte)).collect();
    headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect()
}

/// [`pairs`] within other JSON.
pub fn headers(headers: &HeaderMap) -> Value {
    json!(pairs(headers))
}

/// New tokens.
pub(crate) fn tokens(tokens: &Tokens) -> Value {
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
pub(crate) fn minted(minted: &Minted) -> Value {
    json!({
        "session": minted.session,
        "access_token": minted.access_token.expose(),
        "access_token_expires_at": minted.access_token_expires_at,
    })
}

/// What an access token says.
pub(crate) fn verified(verified: &Verified) -> Value {
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
