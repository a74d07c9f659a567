//! A client that keeps cookies as a browser does, and says where its requests come from.

use std::collections::BTreeMap;

use reqwest::{Client, Method, RequestBuilder, StatusCode, header::HeaderMap, redirect};
use serde_json::Value;

/// An answer, read whole.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// Its JSON, if its status is this.
    #[track_caller]
    pub fn with(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        if self.text.is_empty() { Value::Null } else { self.json() }
    }

    /// Its JSON, if it is a problem with this code.
    #[track_caller]
    pub fn refused(self, code: &str) -> Value {
        assert_eq!(self.headers["content-type"], "application/problem+json", "{}", self.text);
        let json = self.json();
        assert_eq!(json["code"], code, "{json}");
        assert_eq!(json["status"], self.status.as_u16());
        json
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub fn cookies(&self) -> Vec<&str> {
        self.headers.get_all("set-cookie").iter().map(|value| value.to_str().unwrap()).collect()
    }
}

#[derive(Debug, Clone)]
struct Cookie {
    value: String,
    path: String,
}

/// One browser with one cookie jar.
#[derive(Clone)]
pub struct Browser {
    client: Client,
    base: String,
    jar: BTreeMap<String, Cookie>,
}

impl Browser {
    pub fn new(port: u16) -> Self {
        let client = Client::builder().redirect(redirect::Policy::none()).build().unwrap();
        Self { client, base: format!("http://localhost:{port}"), jar: BTreeMap::new() }
    }

    /// A request of the site's own script.
    pub fn ask(&self, method: Method, path: &str) -> RequestBuilder {
        self.bare(method, path).header("sec-fetch-site", "same-origin").header("sec-fetch-mode", "cors")
    }

    /// A request that says nothing of where it comes from.
    pub fn bare(&self, method: Method, path: &str) -> RequestBuilder {
        let fits = |cookie: &Cookie| {
            cookie.path == "/" || path == cookie.path || path.starts_with(&format!("{}/", cookie.path))
        };
        let line: Vec<String> = self
            .jar
            .iter()
            .filter(|(_, cookie)| fits(cookie))
            .map(|(name, cookie)| format!("{name}={}", cookie.value))
            .collect();
        let request = self.client.request(method, format!("{}{path}", self.base));
        if line.is_empty() { request } else { request.header("cookie", line.join("; ")) }
    }

    /// Sends it, and keeps the cookies of the answer.
    pub async fn send(&mut self, request: RequestBuilder) -> Answer {
        let answer = lost(request).await;
        for line in answer.cookies() {
            let (pair, attributes) = line.split_once("; ").unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            let attribute = |name: &str| attributes.split("; ").find_map(|a| a.strip_prefix(name));
            if attribute("Max-Age=") == Some("0") {
                self.jar.remove(name);
            } else {
                let path = attribute("Path=").unwrap().to_owned();
                self.jar.insert(name.to_owned(), Cookie { value: value.to_owned(), path });
            }
        }
        answer
    }

    pub async fn get(&mut self, path: &str) -> Answer {
        self.send(self.ask(Method::GET, path)).await
    }

    /// A browser that shows a page.
    pub async fn visit(&mut self, path: &str) -> Answer {
        let request =
            self.bare(Method::GET, path).header("sec-fetch-site", "none").header("sec-fetch-mode", "navigate");
        self.send(request.header("accept", "text/html")).await
    }

    pub async fn post(&mut self, path: &str) -> Answer {
        self.send(self.ask(Method::POST, path)).await
    }

    pub async fn post_json(&mut self, path: &str, body: &Value) -> Answer {
        self.send(self.ask(Method::POST, path).json(body)).await
    }

    pub async fn log_in(&mut self, user: &str) -> Answer {
        let request = self.ask(Method::POST, "/login").body(user.to_owned());
        self.send(request).await
    }

    /// As a script does that keeps no openings.
    pub async fn refresh(&mut self) -> Answer {
        self.send(self.ask(Method::POST, "/auth/session/refresh").header("rekindle-request", "1")).await
    }

    /// As a script does that keeps them.
    pub async fn refresh_with(&mut self, proof: &str) -> Answer {
        self.send(self.ask(Method::POST, "/auth/session/refresh").header("rekindle-proof", proof)).await
    }

    pub async fn sign_out(&mut self) -> Answer {
        self.send(self.ask(Method::POST, "/auth/session/signout").header("rekindle-request", "1")).await
    }

    /// The names of its cookies.
    pub fn cookies(&self) -> Vec<&str> {
        self.jar.keys().map(String::as_str).collect()
    }

    pub fn cookie(&self, name: &str) -> &str {
        &self.jar[name].value
    }

    pub fn set(&mut self, name: &str, value: &str) {
        self.jar.insert(name.into(), Cookie { value: value.into(), path: "/".into() });
    }
}

/// Sends it; nobody keeps what comes back.
pub async fn lost(request: RequestBuilder) -> Answer {
    let answer = request.send().await.expect("the application answers");
    let (status, headers) = (answer.status(), answer.headers().clone());
    Answer { status, headers, text: answer.text().await.unwrap() }
}
