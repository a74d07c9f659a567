//! Strict extractors: what a handler receives is well-formed, and what is not is answered with a problem that names the field.

use std::{borrow::Cow, collections::HashSet, fmt, str::FromStr};

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, RawPathParams, Request},
    http::{HeaderMap, Uri, header, request::Parts},
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use rekindle::session::{InvalidName, Scope, SessionId, Tag, UserId};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error as _, MapAccess, SeqAccess, Visitor},
};

use crate::{
    edge::RequestContext,
    problem::{Code, Problem},
    serde_message::{holds_token, without_value},
};

/// A JSON body. Its type has to deny unknown fields.
///
/// Refuses another content type (415), a body over the limit (413), and what is no `T`: bad JSON, JSON nested deeper than 128, an
/// unknown field, one that comes twice (wherever it is), a wrong type (400, naming the field's path, never its value).
#[derive(Debug)]
pub struct Json<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            return Err(Problem::new(Code::UnsupportedMediaType, "send `Content-Type: application/json`"));
        }
        from_json(&body(request).await?).map(Self)
    }
}

async fn body(request: Request) -> Result<Bytes, Problem> {
    let limit = RequestContext::of(request.extensions()).body_limit();
    match Limited::new(request.into_body(), limit).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(e) if e.is::<LengthLimitError>() => {
            Err(Problem::new(Code::PayloadTooLarge, format!("a body may have {limit} bytes")))
        }
        Err(_) => Err(Problem::new(Code::InvalidRequest, "the body ended before it was complete")),
    }
}

/// `application/json` or `application/….+json`, with any parameters.
fn is_json(headers: &HeaderMap) -> bool {
    let given = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim();
    let Some((kind, subtype)) = essence.split_once('/') else { return false };
    let suffix = subtype.rsplit_once('+').map_or(subtype, |(_, suffix)| suffix);
    kind.eq_ignore_ascii_case("application") && suffix.eq_ignore_ascii_case("json")
}

fn from_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    // serde would take an array for a struct, field by field.
    if bytes.trim_ascii_start().first() == Some(&b'[') {
        return Err(Problem::field("", "the body must be a JSON object"));
    }
    let value = read(bytes)?;
    read::<Distinct>(bytes)?;
    Ok(value)
}

fn read<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, Problem> {
    serde_json::from_slice(bytes).map_err(|e| {
        if !e.is_data() {
            return Problem::new(
                Code::InvalidRequest,
                format!("the body is not JSON (line {}, column {})", e.line(), e.column()),
            );
        }
        // Only now, because following the path costs time on every request.
        let error = serde_path_to_error::deserialize::<_, T>(&mut serde_json::Deserializer::from_slice(bytes)).err();
        error.map_or_else(Problem::internal, |e| field_problem(e.path(), &e.inner().to_string()))
    })
}

/// Any JSON in which no object has two fields of one name: of those, a map would keep the last one, and its sender's own parser perhaps
/// the first.
struct Distinct;

impl<'de> Deserialize<'de> for Distinct {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Seen;

        impl<'de> Visitor<'de> for Seen {
            type Value = Distinct;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Distinct, A::Error> {
                let mut names = HashSet::new();
                while let Some(name) = map.next_key::<Name<'de>>()? {
                    if let Some(Name(name)) = names.replace(name) {
                        return Err(A::Error::custom(format_args!("duplicate field `{name}`")));
                    }
                    map.next_value::<Distinct>()?;
                }
                Ok(Distinct)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Distinct, A::Error> {
                while items.next_element::<Distinct>()?.is_some() {}
                Ok(Distinct)
            }

            fn visit_str<E>(self, _: &str) -> Result<Distinct, E> {
                Ok(Distinct)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Distinct, E> {
                Ok(Distinct)
            }

            fn visit_u64<E>(self, _: u64) -> Result<Distinct, E> {
                Ok(Distinct)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Distinct, E> {
                Ok(Distinct)
            }

            fn visit_bool<E>(self, _: bool) -> Result<Distinct, E> {
                Ok(Distinct)
            }

            fn visit_unit<E>(self) -> Result<Distinct, E> {
                Ok(Distinct)
            }
        }

        deserializer.deserialize_any(Seen)
    }
}

/// A field's name, borrowed where it needs no unescaping.
#[derive(Deserialize, PartialEq, Eq, Hash)]
#[serde(transparent)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

/// The query string, as a type that denies unknown fields: an unknown, doubled or badly typed parameter is a 400 that names it.
#[derive(Debug)]
pub struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        from_query(parts.uri.query().unwrap_or_default()).map(Self)
    }
}

/// Refuses a query string, for a route that takes none: a parameter that is ignored may be one that mattered.
pub fn no_query(uri: &Uri) -> Result<(), Problem> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Nothing {}
    from_query(uri.query().unwrap_or_default()).map(|Nothing {}| ())
}

fn from_query<T: DeserializeOwned>(query: &str) -> Result<T, Problem> {
    let pairs = serde_urlencoded::Deserializer::new(form_urlencoded::parse(query.as_bytes()));
    serde_path_to_error::deserialize(pairs).map_err(|e| field_problem(e.path(), &e.inner().to_string()))
}

fn field_problem(path: &serde_path_to_error::Path, message: &str) -> Problem {
    // The path may end in an unknown key, and that can be anything.
    let mut field = if path.iter().next().is_none() { String::new() } else { path.to_string() };
    // serde blames the object around a missing or doubled field.
    let named = ["missing field `", "duplicate field `"].iter().find_map(|start| message.strip_prefix(start));
    if let Some(name) = named.and_then(|rest| rest.split('`').next())
        && !field.ends_with(name)
    {
        field = if field.is_empty() { name.to_owned() } else { format!("{field}.{name}") };
    }
    let shown = field.len() <= 200 && !holds_token(&field);
    Problem::field(if shown { field } else { String::new() }, without_value(message))
}

/// The product and environment of a path with `{product}` and `{env}`. What cannot be the name of one is not found.
#[derive(Debug)]
pub struct InScope(pub Scope);

impl<S: Send + Sync> FromRequestParts<S> for InScope {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let params = params(parts, state).await?;
        let product = named(&params, "product", Code::ProductNotFound)?;
        let env = named(&params, "env", Code::EnvironmentNotFound)?;
        Ok(Self(Scope { product, env }))
    }
}

/// The product of a path with `{product}`.
#[derive(Debug)]
pub struct PathProduct(pub Tag);

impl<S: Send + Sync> FromRequestParts<S> for PathProduct {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        named(&params(parts, state).await?, "product", Code::ProductNotFound).map(Self)
    }
}

/// The definition's tag of a path with `{tag}`.
#[derive(Debug)]
pub struct PathTag(pub Tag);

impl<S: Send + Sync> FromRequestParts<S> for PathTag {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        named(&params(parts, state).await?, "tag", Code::DefinitionNotFound).map(Self)
    }
}

/// The session of a path with `{session_id}`.
#[derive(Debug)]
pub struct PathSession(pub SessionId);

impl<S: Send + Sync> FromRequestParts<S> for PathSession {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        named(&params(parts, state).await?, "session_id", Code::SessionNotFound).map(Self)
    }
}

/// The user of a path with `{user_id}`; a path in which that segment is empty means the empty user id.
#[derive(Debug)]
pub struct PathUser(pub UserId);

impl<S: Send + Sync> FromRequestParts<S> for PathUser {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        named(&params(parts, state).await?, "user_id", Code::InvalidRequest).map(Self)
    }
}

/// The path's parameters, percent-decoded; bytes that are no UTF-8 are refused.
async fn params<S: Send + Sync>(parts: &mut Parts, state: &S) -> Result<RawPathParams, Problem> {
    RawPathParams::from_request_parts(parts, state)
        .await
        .map_err(|_| Problem::new(Code::InvalidRequest, "the path is not percent-encoded UTF-8"))
}

fn named<T: FromStr<Err = InvalidName>>(params: &RawPathParams, name: &str, code: Code) -> Result<T, Problem> {
    let text = params.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value);
    text.parse().map_err(|e: InvalidName| Problem::new(code, without_value(&e.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{Router, body::Body, http::StatusCode, routing::get};
    use proptest::prelude::*;
    use serde::Deserialize;
    use tower::ServiceExt;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        #[expect(dead_code)]
        token: Option<String>,
        #[expect(dead_code)]
        inner: Option<Inner>,
        #[expect(dead_code)]
        any: Option<serde_json::Value>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[expect(dead_code)]
        list: Vec<u32>,
    }

    fn refused(body: &str) -> String {
        let problem = from_json::<Outer>(body.as_bytes()).unwrap_err();
        assert_eq!(problem.code(), Code::InvalidRequest);
        problem.detail().to_owned()
    }

    #[test]
    fn a_wrong_body_is_named_by_field_and_never_quoted() {
        for (body, said) in [
            (r#"{"token": 12345}"#, "`token`: expected a string"),
            (r#"{"inner": {"list": [1, "hunter2"]}}"#, "`inner.list[1]`: expected u32"),
            (r#"{"inner": {"list": [], "x": 1}}"#, "`inner.x`: unknown field `x`, expected `list`"),
            (r#"{"inner": {}}"#, "`inner.list`: missing field `list`"),
            (r#"{"token": "a", "token": "b"}"#, "`token`: duplicate field `token`"),
            (r#"{"any": {"x": [{"a": 1, "b": {}, "\u0061": 2}]}}"#, "`any.x[0].a`: duplicate field `a`"),
            (r#"{"rkr_hunter2": 1}"#, "has a wrong value"),
            (r#"{"token": "hunter2}"#, "the body is not JSON (line 1, column 19)"),
            ("{} {}", "the body is not JSON (line 1, column 4)"),
            ("", "the body is not JSON (line 1, column 0)"),
            (" [null, null, null]", "the body must be a JSON object"),
        ] {
            assert_eq!(refused(body), said, "{body}");
        }
    }

    #[test]
    fn any_other_json_is_read() {
        let body =
            r#"{"any": [{"a": null, "b": true}, {"a": -1, "b": 1.5, "c": "x\n", "d": 18446744073709551615}, []]}"#;
        assert!(from_json::<Outer>(body.as_bytes()).is_ok());
    }

    #[test]
    fn deep_json_is_refused() {
        let deep = format!(r#"{{"any": {}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        assert!(refused(&deep).starts_with("the body is not JSON"));
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Page {
        limit: Option<u8>,
        user_id: Option<UserId>,
    }

    #[test]
    fn queries_are_as_strict() {
        let page: Page = from_query("limit=7&user_id=").unwrap();
        assert_eq!((page.limit, page.user_id.unwrap().as_str()), (Some(7), ""));
        for (query, said) in [
            ("limit=many", "`limit`: invalid digit found in string"),
            ("limt=7", "`limt`: unknown field `limt`, expected `limit` or `user_id`"),
            ("limit=7&limit=8", "`limit`: duplicate field `limit`"),
        ] {
            assert_eq!(from_query::<Page>(query).unwrap_err().detail(), said);
        }
    }

    proptest! {
        #[test]
        fn any_body_and_query_is_read_or_refused(text in ".{0,100}") {
            let _ = from_json::<Outer>(text.as_bytes());
            let _ = from_query::<Page>(&text);
        }
    }

    #[test]
    fn content_types_of_json_are_known() {
        for (given, json) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/merge-patch+json", true),
            ("text/json", false),
            ("application/x-www-form-urlencoded", false),
            ("application/jsonp", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, given.parse().unwrap())]);
            assert_eq!(is_json(&headers), json, "{given}");
        }
        assert!(!is_json(&HeaderMap::new()));
    }

    async fn at(path: &str) -> (StatusCode, String) {
        let app = Router::new()
            .route(
                "/{product}/{env}/s/{session_id}",
                get(|InScope(s): InScope, PathSession(id): PathSession| async move { format!("{s} {id}") }),
            )
            .route("/u/{user_id}", get(|PathUser(user): PathUser| async move { format!("<{user}>") }))
            .route("/u/", get(|PathUser(user): PathUser| async move { format!("<{user}>") }));
        let response = app.oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), 4096).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn paths_give_typed_names() {
        let id = "01890a5d-ac96-774b-bcce-b302099a8057";
        assert_eq!(at(&format!("/shop/live/s/{id}")).await.1, format!("shop/live {id}"));
        assert_eq!(at("/u/a%2Fb%20%C3%A9").await.1, "<a/b é>");
        assert_eq!(at("/u/").await.1, "<>");
        for (path, status, code) in [
            (format!("/Shop/live/s/{id}"), 404, "product_not_found"),
            (format!("/shop/-/s/{id}"), 404, "environment_not_found"),
            ("/shop/live/s/1".into(), 404, "session_not_found"),
            ("/u/%ff".into(), 400, "invalid_request"),
            (format!("/u/{}", "x".repeat(257)), 400, "invalid_request"),
        ] {
            let (got, body) = at(&path).await;
            assert_eq!(got.as_u16(), status, "{path}");
            assert!(body.contains(&format!("\"code\":\"{code}\"")), "{body}");
        }
    }
}
