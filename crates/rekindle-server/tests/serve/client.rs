//! A client that keeps its tokens as PROTOCOL.md asks: what it sends is stored before it is sent, what it gets before it is used.

use rekindle::{refresh::Opening, rng::SystemRng};
use serde_json::{Value, json};

use crate::process::Server;

/// One login.
pub struct Client {
    /// The session's id.
    pub session: String,
    /// The newest refresh token that was received.
    pub token: String,
    /// Its generation.
    pub generation: u64,
    committed: Option<Committed>,
}

struct Committed {
    /// Of the present generation.
    opening: Opening,
    /// Of the next one; kept until an answer names it.
    next: Opening,
}

fn draw() -> Opening {
    Opening::draw(&SystemRng::default())
}

impl Client {
    /// Signs in.
    pub async fn start(server: &Server, user: &str, committed: bool) -> Self {
        let committed = committed.then(|| Committed { opening: draw(), next: draw() });
        let mut body = json!({ "user_id": user });
        if let Some(committed) = &committed {
            body["commitment"] = json!(committed.opening.commitment());
        }
        let (status, answer) = server.post("sessions", body).await;
        assert_eq!(status, 201, "{answer}");
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let (session, token) = (text(&answer["session"]["id"]), text(&answer["refresh_token"]));
        Self { session, token, generation: 0, committed }
    }

    /// The request of the next refresh: always the same until it was answered.
    pub fn request(&self) -> Value {
        let mut body = json!({ "refresh_token": self.token });
        if let Some(committed) = &self.committed {
            body["proof"] = json!({
                "session_id": self.session,
                "generation": self.generation,
                "commitment": committed.next.commitment(),
                "opening": &*committed.opening.expose(),
            });
        }
        body
    }

    /// Refreshes; `None`: no answer came.
    pub async fn try_refresh(&mut self, server: &Server) -> Option<u16> {
        let (status, answer) = server.try_ask("POST", "sessions/refresh", Some(&self.request())).await.ok()?;
        if status == 200 {
            self.token = answer["refresh_token"].as_str().unwrap().into();
            self.generation = answer["session"]["generation"].as_u64().unwrap();
            if let Some(committed) = &mut self.committed {
                committed.opening = std::mem::replace(&mut committed.next, draw());
            }
        }
        Some(status)
    }

    /// Refreshes where it must work.
    pub async fn refresh(&mut self, server: &Server) {
        assert_eq!(self.try_refresh(server).await, Some(200), "generation {}", self.generation);
    }
}
