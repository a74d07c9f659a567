//! The description against the server: what it says of a request is so.

use serde_json::{Map, Value, json};

use crate::server::Server;

/// Each operation as a request line, with its description.
fn operations(document: &Value) -> Vec<(String, Value)> {
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let path = path
            .replace("{product}", "default")
            .replace("{env}", "dev")
            .replace("{session_id}", "01890a5d-ac96-774b-bcce-b302099a8057")
            .replace("{user_id}", "ann")
            .replace(['{', '}'], "");
        for method in ["get", "put", "post", "patch", "delete"] {
            if let Some(operation) = item.get(method) {
                operations.push((format!("{} {path}", method.to_uppercase()), operation.clone()));
            }
        }
    }
    operations
}

fn document() -> Value {
    serde_json::from_str(&rekindle_server::app::openapi_json()).unwrap()
}

/// The names in backquotes.
fn quoted(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[tokio::test]
async fn every_endpoint_refuses_a_query_parameter_that_is_not_described_and_names_those_that_are() {
    let server = Server::new().await;
    let before = server.contents().await;
    let mut with_query = 0;
    for (line, operation) in operations(&document()) {
        let mut described: Vec<String> = operation["parameters"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|parameter| parameter["in"] == "query")
            .map(|parameter| parameter["name"].as_str().unwrap().to_owned())
            .collect();
        let answer = server.ask(&format!("{line}?zzz=1"), Value::Null).await;
        if line == "GET /v1/default/dev/auth" {
            // The application's query, and none of ours.
            answer.refused("token_malformed");
            continue;
        }
        let problem = answer.refused("invalid_request");
        assert_eq!(problem["fields"][0]["field"], "zzz", "{line}: {problem}");
        let (_, taken) = problem["detail"].as_str().unwrap().split_once("unknown field `zzz`").unwrap();
        let mut taken = quoted(taken);
        described.sort();
        taken.sort();
        assert_eq!(taken, described, "{line}");
        with_query += usize::from(!described.is_empty());
    }
    assert_eq!(with_query, 12);
    for line in ["DELETE users/?tag=mobile", "HEAD sessions/01890a5d-ac96-774b-bcce-b302099a8057?foo=1"] {
        assert_eq!(server.ask(line, Value::Null).await.status, 400, "{line}");
    }
    assert_eq!(server.contents().await, before);
}

/// `{"a": null}`, `{"b": {"c": null}}` and so on: whatever `schema` lets be null.
fn nulls(document: &Value, schema: &Value) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    let schema = match schema["$ref"].as_str() {
        Some(reference) => document.pointer(&reference[1..]).unwrap(),
        None => schema,
    };
    for part in schema["oneOf"].as_array().into_iter().chain(schema["allOf"].as_array()).flatten() {
        found.extend(nulls(document, part));
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let object = |value| Value::Object(Map::from_iter([(name.clone(), value)]));
        let null = |schema: &Value| {
            schema["type"] == "null" || schema["type"].as_array().is_some_and(|t| t.contains(&json!("null")))
        };
        if null(property) || property["oneOf"].as_array().is_some_and(|parts| parts.iter().any(null)) {
            found.push((name.clone(), object(Value::Null)));
        }
        found.extend(
            nulls(document, property).into_iter().map(|(path, value)| (format!("{name}.{path}"), object(value))),
        );
    }
    found
}

#[tokio::test]
async fn what_is_described_as_null_may_be_null() {
    let server = Server::new().await;
    let document = document();
    let mut tried = 0;
    for (line, operation) in operations(&document) {
        let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
        for (path, body) in nulls(&document, schema) {
            let answer = server.ask(&line, body).await;
            if answer.status == 400 {
                let problem = answer.json();
                assert_ne!(problem["fields"][0]["field"], path, "{line}: {problem}");
            }
            tried += 1;
        }
    }
    assert!(tried > 30, "{tried}");
}
