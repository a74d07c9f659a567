//! Requests to one of several servers: which one, how often, and what an answer means.

use std::borrow::Cow;
use std::sync::atomic::{AtomicUsize, Ordering};

use reqwest::{Client, Method, StatusCode, Url, header, redirect};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::time::{Duration, sleep};

use super::{InvalidRemote, Remote};
use crate::problem::{About, Code, Problem};
use rekindle::clock::Seconds;

/// Whether a request may be sent again when its answer was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// Twice is as good as once.
    Safe,
    /// Only where it is certain that no server has read it.
    OnlyUnsent,
}

/// A request.
pub(super) struct Call {
    method: Method,
    path: String,
    repeat: Repeat,
    headers: header::HeaderMap,
    body: Option<Vec<u8>>,
    /// How long a server may take to answer, if not as long as usual.
    within: Option<Duration>,
}

impl Call {
    pub(super) fn new(method: Method, path: String, repeat: Repeat) -> Self {
        Self { method, path, repeat, headers: header::HeaderMap::new(), body: None, within: None }
    }

    pub(super) fn json(mut self, body: &impl Serialize) -> Self {
        self.body = Some(serde_json::to_vec(body).expect("texts, numbers and maps are JSON"));
        self.headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
        self
    }

    /// `invalid_request` for a value that cannot stand in a header.
    pub(super) fn header(mut self, name: &'static str, value: &str) -> Result<Self, Problem> {
        let value = value.parse().map_err(|_| Problem::field(name, "must be visible ASCII"))?;
        self.headers.insert(name, value);
        Ok(self)
    }

    pub(super) fn within(mut self, at_most: Duration) -> Self {
        self.within = Some(at_most);
        self
    }
}

/// What came of one try.
enum Try {
    Answered(Answer),
    /// No server has read the request.
    Unsent(reqwest::Error),
    /// The request may have been carried out.
    Lost(reqwest::Error),
}

struct Answer {
    status: StatusCode,
    retry_after: Option<Seconds>,
    body: Vec<u8>,
}

/// The connections, and which server is asked first.
pub(super) struct Transport {
    client: Client,
    servers: Vec<Url>,
    authorization: header::HeaderValue,
    timeout: Duration,
    /// The place of the one that answered last.
    preferred: AtomicUsize,
}

/// How often all servers are tried before a request fails.
const ROUNDS: usize = 2;

/// How long to wait before the second round.
const PAUSE: Duration = Duration::from_millis(100);

impl Transport {
    pub(super) fn new(remote: &Remote) -> Result<Self, InvalidRemote> {
        if remote.servers.is_empty() {
            return Err(InvalidRemote::NoServer);
        }
        let parse = |text: &String| {
            let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
            let bare = url.filter(|url| url.path() == "/" && url.query().is_none() && url.username().is_empty());
            bare.ok_or_else(|| InvalidRemote::Url(text.clone()))
        };
        let key = remote.api_key.expose().trim();
        if key.is_empty() {
            return Err(InvalidRemote::ApiKey);
        }
        let mut authorization: header::HeaderValue =
            format!("Bearer {key}").parse().map_err(|_| InvalidRemote::ApiKey)?;
        authorization.set_sensitive(true);
        let client = Client::builder()
            .connect_timeout(remote.connect_timeout)
            // A redirect would carry the API key elsewhere.
            .redirect(redirect::Policy::none())
            .build()?;
        Ok(Self {
            client,
            servers: remote.servers.iter().map(parse).collect::<Result<_, _>>()?,
            authorization,
            timeout: remote.timeout,
            preferred: AtomicUsize::new(0),
        })
    }

    /// Asks, and reads the answer.
    pub(super) async fn ask<T: DeserializeOwned>(&self, call: Call) -> Result<T, Problem> {
        let answer = self.send(&call).await?;
        read(&answer)
    }

    /// Asks one server after the other, as far as that is safe, until one answers.
    async fn send(&self, call: &Call) -> Result<Answer, Problem> {
        let mut last = None;
        for round in 0..ROUNDS {
            if round > 0 {
                sleep(PAUSE).await;
            }
            let first = self.preferred.load(Ordering::Relaxed);
            for at in (0..self.servers.len()).map(|i| (first + i) % self.servers.len()) {
                match self.attempt(&self.servers[at], call).await {
                    Try::Answered(answer) if !is_outage(answer.status) => {
                        self.preferred.store(at, Ordering::Relaxed);
                        return Ok(answer);
                    }
                    Try::Answered(answer) if call.repeat == Repeat::OnlyUnsent => return Ok(answer),
                    Try::Answered(answer) => last = Some(problem(&answer)),
                    Try::Unsent(error) => last = Some(unreachable(&self.servers[at], &error, "cannot be reached")),
                    Try::Lost(error) => {
                        let lost = unreachable(&self.servers[at], &error, "did not answer");
                        if call.repeat == Repeat::OnlyUnsent {
                            return Err(lost);
                        }
                        last = Some(lost);
                    }
                }
            }
        }
        Err(last.expect("there is a server, and it was tried"))
    }

    async fn attempt(&self, server: &Url, call: &Call) -> Try {
        let url = server.join(&call.path).expect("our paths are paths");
        let mut request = self
            .client
            .request(call.method.clone(), url)
            .headers(call.headers.clone())
            .header(header::AUTHORIZATION, self.authorization.clone())
            .timeout(call.within.unwrap_or(self.timeout));
        if let Some(body) = &call.body {
            request = request.body(body.clone());
        }
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) if error.is_connect() || error.is_builder() => return Try::Unsent(error),
            Err(error) => return Try::Lost(error),
        };
        let status = response.status();
        let retry_after = response.headers().get(header::RETRY_AFTER);
        let retry_after = retry_after.and_then(|after| after.to_str().ok()?.parse().ok()).map(Seconds);
        match response.bytes().await {
            Ok(body) => Try::Answered(Answer { status, retry_after, body: body.into() }),
            Err(error) => Try::Lost(error),
        }
    }
}

/// Whether another server, or this one later, may answer better.
fn is_outage(status: StatusCode) -> bool {
    matches!(status, StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT)
}

fn unreachable(server: &Url, error: &reqwest::Error, what: &str) -> Problem {
    // The error itself names the URL, which holds user ids.
    let why = if error.is_timeout() { "in time" } else { "" };
    tracing::warn!(%server, timeout = error.is_timeout(), connect = error.is_connect(), "a Rekindle server {what}");
    let sentence = format!("the Rekindle server {server} {what} {why}");
    Problem::new(Code::Unavailable, format!("{}; the same request may be sent again", sentence.trim_end()))
}

fn read<T: DeserializeOwned>(answer: &Answer) -> Result<T, Problem> {
    if !answer.status.is_success() {
        return Err(problem(answer));
    }
    let body: &[u8] = if answer.body.is_empty() { b"null" } else { &answer.body };
    serde_json::from_slice(body).map_err(|error| {
        tracing::error!(%error, status = %answer.status, "a Rekindle server answered in a way that this version does not know");
        Problem::new(Code::Internal, "the Rekindle server's answer is not as documented; is it of another version?")
    })
}

/// A problem document, as far as it can be read.
#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    code: Cow<'a, str>,
    #[serde(borrow, default)]
    detail: Cow<'a, str>,
    #[serde(flatten)]
    about: About,
}

fn problem(answer: &Answer) -> Problem {
    let document = serde_json::from_slice::<Document<'_>>(&answer.body).ok();
    let known = |name: &str| Code::ALL.iter().copied().find(|code| code.as_str() == name);
    let problem = match document {
        Some(Document { code, detail, about }) => match known(&code) {
            Some(code) => Problem::new(code, detail.into_owned()).with(about),
            None => Problem::new(
                Code::Internal,
                format!("the Rekindle server answered with the unknown code `{code}`: {detail}"),
            ),
        },
        // Something in between answered.
        None if is_outage(answer.status) => Problem::new(Code::Unavailable, "no Rekindle server is available"),
        None if answer.status == StatusCode::TOO_MANY_REQUESTS => Problem::new(Code::RateLimited, "too many requests"),
        None => Problem::new(
            Code::Internal,
            format!("the URL does not lead to a Rekindle server: it answered {}", answer.status),
        ),
    };
    match answer.retry_after {
        Some(after) => problem.retry_after(after),
        None => problem,
    }
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transport").field("servers", &self.servers).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Token;

    fn answer(status: u16, body: &str) -> Answer {
        Answer { status: StatusCode::from_u16(status).unwrap(), retry_after: Some(Seconds(7)), body: body.into() }
    }

    #[test]
    fn a_problem_keeps_its_code_and_members() {
        let text = r#"{"type":"x","title":"y","status":409,"detail":"go \"on\"","code":"superseded","generation":7,"presented_generation":5}"#;
        let problem = problem(&answer(409, text));
        assert_eq!((problem.code(), problem.detail()), (Code::Superseded, "go \"on\""));
        assert_eq!((problem.about().generation, problem.about().presented_generation), (Some(7), Some(5)));
        assert_eq!(problem.tried_again_after(), Some(Seconds(7)));
    }

    #[test]
    fn what_something_in_between_answers_costs_nobody_a_session() {
        for (status, body, code) in [
            (502, "<html>", Code::Unavailable),
            (503, "", Code::Unavailable),
            (429, "", Code::RateLimited),
            (404, "nginx", Code::Internal),
            (401, "<html>", Code::Internal),
            (401, r#"{"code":"from_the_future"}"#, Code::Internal),
            (200, "<html>", Code::Internal),
        ] {
            let problem = read::<u32>(&answer(status, body)).unwrap_err();
            assert_eq!(problem.code(), code, "{status}");
            assert!(!problem.is_terminal());
        }
    }

    #[test]
    fn what_cannot_be_used_is_refused() {
        let with = |server: &str, key: &str| Transport::new(&Remote::new(server, key));
        for url in ["", "rekindle", "ftp://a", "http://a/path", "http://a?x", "http://user@a"] {
            assert!(matches!(with(url, "rkk_x"), Err(InvalidRemote::Url(_))), "{url}");
        }
        assert!(matches!(with("http://a", ""), Err(InvalidRemote::ApiKey)));
        assert!(matches!(with("http://a", "a\nb"), Err(InvalidRemote::ApiKey)));
        let none = Remote { servers: Vec::new(), ..Remote::new("http://a", "rkk_x") };
        assert!(matches!(Transport::new(&none), Err(InvalidRemote::NoServer)));
        let good = Remote::new("https://a:3567/", "rkk_secret");
        assert!(!format!("{good:?} {:?}", Transport::new(&good).unwrap()).contains("secret"));
        assert_eq!(Token::new("rkk_secret"), good.api_key);
    }
}
