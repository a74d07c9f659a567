//! Webhooks: how an event is signed, sent, and tried again.

use std::{fmt::Write as _, time::Duration};

use aws_lc_rs::hmac;
use axum::body::Bytes;
use rekindle::clock::{Seconds, Timestamp};

use crate::{
    cause::chain,
    config::{HttpUrl, Secret},
};

/// The header with the signature: `t=<unix seconds>,v1=<hex HMAC-SHA256 of "<t>.<body>">`.
pub const SIGNATURE: &str = "rekindle-signature";
/// The header with the event's id; the same at every attempt, so that the receiver can tell a repetition.
pub const EVENT_ID: &str = "rekindle-event-id";

/// The value of [`SIGNATURE`] for a body that is sent at `now`.
pub fn sign(secret: &Secret, now: Timestamp, body: &[u8]) -> String {
    let t = now.secs();
    let mut header = format!("t={t},v1=");
    for byte in mac(secret, &t.to_string(), body).sign().as_ref() {
        write!(header, "{byte:02x}").expect("writing to a string");
    }
    header
}

/// Why a signature does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSignature {
    /// Not `t=…,v1=…`.
    #[error("the signature is not of the form `t=<unix seconds>,v1=<64 hexadecimal digits>`")]
    Form,
    /// Signed too long ago, or in the future.
    #[error("the signature's time is too far from now")]
    Time,
    /// Another secret or another body.
    #[error("the signature does not match the body")]
    Mismatch,
}

/// Checks a received body against its signature, which may be `tolerance` old (or early): what a receiver does.
pub fn verify(
    secret: &Secret,
    header: &str,
    body: &[u8],
    now: Timestamp,
    tolerance: Seconds,
) -> Result<(), InvalidSignature> {
    let value = |name| header.split(',').find_map(|part| part.trim().strip_prefix(name)).ok_or(InvalidSignature::Form);
    let t = value("t=")?;
    let sent = Timestamp::from_secs(t.parse().map_err(|_| InvalidSignature::Form)?);
    let tag = from_hex(value("v1=")?).ok_or(InvalidSignature::Form)?;
    if now.since(sent) > tolerance || sent.since(now) > tolerance {
        return Err(InvalidSignature::Time);
    }
    mac(secret, t, body).verify(&tag).map_err(|()| InvalidSignature::Mismatch)
}

/// `HMAC-SHA256(secret, "<t>.<body>")`.
struct Mac {
    key: hmac::Key,
    message: Vec<u8>,
}

fn mac(secret: &Secret, t: &str, body: &[u8]) -> Mac {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
    Mac { key, message: [t.as_bytes(), b".", body].concat() }
}

impl Mac {
    fn sign(&self) -> hmac::Tag {
        hmac::sign(&self.key, &self.message)
    }

    fn verify(&self, tag: &[u8]) -> Result<(), ()> {
        hmac::verify(&self.key, &self.message, tag).map_err(drop)
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?)).collect()
}

/// How long after it happened an event is given up.
pub const GIVE_UP: Seconds = Seconds(3 * 86_400);

/// When attempts are made: after the first one fails, again after 5 s, 10 s, 20 s … up to an hour apart, for three days.
///
/// `jitter` spreads receivers that failed together: 0 waits half of the full time, 255 almost all of it. `failures` counts the attempts so far.
/// `None`: give up.
pub fn next_attempt(failures: u32, first: Timestamp, now: Timestamp, jitter: u8) -> Option<Timestamp> {
    const BASE: u64 = 5;
    const CAP: u64 = 3600;
    let full = BASE.saturating_mul(1 << failures.saturating_sub(1).min(20)).min(CAP);
    let millis = full * 500 + full * 500 * u64::from(jitter) / 256;
    let at = Timestamp::from_millis(now.millis().saturating_add(i64::try_from(millis).unwrap_or(i64::MAX)));
    (at.since(first) <= GIVE_UP).then_some(at)
}

/// Why an attempt did not deliver. It says nothing of the event.
#[derive(Debug, thiserror::Error)]
pub enum Undelivered {
    /// The receiver answered something else than 2xx.
    #[error("the receiver answered {0}")]
    Status(u16),
    /// No answer: connection, TLS or time limit.
    #[error("no answer: {}", chain(.0))]
    NoAnswer(#[source] reqwest::Error),
}

/// Sends events. Clones share one connection pool.
#[derive(Debug, Clone)]
pub struct Sender(reqwest::Client);

impl Sender {
    /// How long one attempt may take.
    pub const TIMEOUT: Duration = Duration::from_secs(10);

    /// With certificates checked against the platform's roots, and without following redirects.
    pub fn new() -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(5))
            .timeout(Self::TIMEOUT)
            .user_agent(concat!("rekindle/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self(client))
    }

    /// Makes one attempt. Delivered means a 2xx answer; its body is not read.
    pub async fn send(
        &self,
        url: &HttpUrl,
        secret: &Secret,
        event_id: &str,
        body: Bytes,
        now: Timestamp,
    ) -> Result<(), Undelivered> {
        let request = self
            .0
            .post(url.as_str())
            .header(SIGNATURE, sign(secret, now, &body))
            .header(EVENT_ID, event_id)
            .header("content-type", "application/json")
            .body(body);
        // The URL may carry a token of the receiver's.
        let answer = request.send().await.map_err(|e| Undelivered::NoAnswer(e.without_url()))?;
        if answer.status().is_success() { Ok(()) } else { Err(Undelivered::Status(answer.status().as_u16())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{Router, http::HeaderMap, response::Redirect, routing::post};
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn secret() -> Secret {
        Secret::from("0123456789abcdef0123456789abcdef".to_owned())
    }

    #[test]
    fn a_signature_holds_for_its_body_secret_and_time_only() {
        let header = sign(&secret(), NOW, b"{}");
        let check = |secret: &Secret, header: &str, body: &[u8], now| verify(secret, header, body, now, Seconds(300));
        assert_eq!(check(&secret(), &header, b"{}", NOW + Seconds(300)), Ok(()));
        assert_eq!(check(&secret(), &header, b"{} ", NOW), Err(InvalidSignature::Mismatch));
        assert_eq!(check(&Secret::from("x".to_owned()), &header, b"{}", NOW), Err(InvalidSignature::Mismatch));
        assert_eq!(check(&secret(), &header, b"{}", NOW + Seconds(301)), Err(InvalidSignature::Time));
        assert_eq!(check(&secret(), &header, b"{}", NOW - Seconds(301)), Err(InvalidSignature::Time));
        let moved = header.replace("t=1800000000", "t=1800000001");
        assert_eq!(check(&secret(), &moved, b"{}", NOW), Err(InvalidSignature::Mismatch));
    }

    #[test]
    fn the_signature_is_the_documented_one() {
        // printf '1800000000.{}' | openssl dgst -sha256 -hmac 0123456789abcdef0123456789abcdef
        assert_eq!(
            sign(&secret(), NOW, b"{}"),
            "t=1800000000,v1=a8471f58daa469f8073cbebd823830f85e8942f4bbc0acd2ef47c28edc8c488e"
        );
    }

    proptest! {
        #[test]
        fn any_header_is_read_or_refused(header in ".{0,100}", hex in "[0-9a-g]{0,70}") {
            prop_assert!(verify(&secret(), &header, b"", NOW, Seconds(300)).is_err());
            let header = format!("t=1800000000,v1={hex}");
            prop_assert!(verify(&secret(), &header, b"", NOW, Seconds(300)).is_err());
        }

        #[test]
        fn attempts_come_later_each_time_and_end(jitter in any::<u8>()) {
            let (mut now, mut failures) = (NOW, 1);
            while let Some(at) = next_attempt(failures, NOW, now, jitter) {
                let wait = at.millis() - now.millis();
                prop_assert!((2500..=3_600_000).contains(&wait));
                (now, failures) = (at, failures + 1);
            }
            prop_assert!(now.since(NOW) <= Seconds(3 * 86_400) && failures > 70);
        }
    }

    async fn receiver() -> String {
        let accept = |headers: HeaderMap, body: Bytes| async move {
            let signature = headers[SIGNATURE].to_str().unwrap().to_owned();
            let valid = verify(&secret(), &signature, &body, NOW, Seconds(300)).is_ok();
            axum::http::StatusCode::from_u16(if valid && headers[EVENT_ID] == "e1" { 204 } else { 400 }).unwrap()
        };
        let app = Router::new()
            .route("/ok", post(accept))
            .route("/moved", post(|| async { Redirect::temporary("/ok") }))
            .route("/down", post(|| async { axum::http::StatusCode::SERVICE_UNAVAILABLE }));
        let config = crate::config::Config::default();
        let address = "127.0.0.1:0".parse().unwrap();
        let listener = crate::http::Listener::bind(address, &config, Default::default()).await.unwrap();
        let address = listener.address().unwrap();
        tokio::spawn(listener.serve(app, Default::default()));
        format!("http://{address}")
    }

    #[tokio::test]
    async fn an_event_arrives_signed_and_only_2xx_counts() {
        let base = receiver().await;
        let sender = Sender::new().unwrap();
        let send = async |path: &str| {
            let url = format!("{base}{path}").parse().unwrap();
            sender.send(&url, &secret(), "e1", Bytes::from_static(b"{}"), NOW).await
        };
        send("/ok").await.unwrap();
        assert!(matches!(send("/moved").await, Err(Undelivered::Status(307))));
        assert!(matches!(send("/down").await, Err(Undelivered::Status(503))));
    }

    #[tokio::test]
    async fn a_receiver_that_is_not_there_is_no_answer_and_its_url_is_not_told() {
        let url = "http://127.0.0.1:1/hook?token=hunter2".parse().unwrap();
        let error = Sender::new().unwrap().send(&url, &secret(), "e1", Bytes::new(), NOW).await.unwrap_err();
        assert!(matches!(error, Undelivered::NoAnswer(_)) && !format!("{error} {error:?}").contains("hunter2"));
        assert!(error.to_string().contains("refused"), "{error}");
    }
}
