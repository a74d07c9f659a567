//! Virtual users: each carries its own chain of tokens, as a client would.

use anyhow::{Context, Result};
use axum::http::StatusCode;
use rekindle::engine::Tokens;
use rekindle::refresh::{Commitment, Opening};
use rekindle::rng::{Rng, SystemRng};
use rekindle::session::SessionId;

use crate::face::{Face, FaceUser};
use crate::http::{Connection, FLOOR};

const SESSIONS: &str = "/v1/default/dev/sessions";
const REFRESH: &str = "/v1/default/dev/sessions/refresh";
const VERIFY: &str = "/v1/default/dev/sessions/verify";
const END: &str = "/v1/default/dev/sessions/end";

/// How many of a client's committed users take part when known tokens are verified.
pub const KNOWN: usize = 128;

/// What the users do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// Send a refresh to the endpoint that does nothing.
    HttpFloor,
    /// Sign in; every other one committed.
    Start,
    /// Refresh, each with its own commitment and opening; another session each time.
    RefreshCommitted,
    /// Refresh with nothing but the token; another session each time.
    RefreshBearer,
    /// Verify a token that the server has seen before, against the session's row.
    VerifyOnline,
    /// The same without reading the row.
    VerifyOffline,
    /// Refresh with a token whose last bits were changed.
    Forged,
    /// Whole lives: a start, then five times a refresh and three or two verifications.
    Chain,
    /// As a SuperTokens SDK asks.
    Face(Face),
    /// Sign out; another session each time, for as long as there are any that were started or are not committed.
    Revoke,
}

/// One session's client side.
pub struct User {
    session_id: SessionId,
    generation: u32,
    refresh_token: Box<str>,
    access_token: Box<str>,
    /// Of the present generation, if the session is committed.
    opening: Option<Opening>,
}

impl User {
    /// The client of a session that was just started with the commitment of `opening`.
    pub fn new(tokens: &Tokens, opening: Option<Opening>) -> Self {
        Self {
            session_id: tokens.session.id,
            generation: 0,
            refresh_token: tokens.refresh_token.expose().into(),
            access_token: tokens.access_token.expose().into(),
            opening,
        }
    }

    /// Its session's id.
    pub fn session_id(&self) -> SessionId {
        self.session_id
    }

    /// Its session's generation and commitment, if it is committed.
    pub fn position(&self) -> Option<(u32, Commitment)> {
        self.opening.as_ref().map(|opening| (self.generation, opening.commitment()))
    }

    async fn start(connection: &mut Connection, number: usize, opening: Option<Opening>) -> Result<Self> {
        let commitment =
            opening.as_ref().map_or_else(String::new, |o| format!(r#""commitment":"{}","#, o.commitment()));
        let body = format!(
            r#"{{"user_id":"user-{number:08}",{commitment}"data":{{"role":"member"}},"client":{{"ip":"203.0.113.7","user_agent":"Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0"}}}}"#
        );
        let answer = connection.post(SESSIONS, body, StatusCode::CREATED).await?;
        Ok(Self {
            session_id: text(&answer, "id")?.parse()?,
            generation: 0,
            refresh_token: text(&answer, "refresh_token")?.into(),
            access_token: text(&answer, "access_token")?.into(),
            opening,
        })
    }

    async fn refresh(&mut self, connection: &mut Connection, rng: &dyn Rng) -> Result<()> {
        let next = self.opening.as_ref().map(|_| Opening::draw(rng));
        let body = self.refresh_body(&self.refresh_token, next.as_ref());
        let answer = connection.post(REFRESH, body, StatusCode::OK).await?;
        self.generation += 1;
        self.refresh_token = text(&answer, "refresh_token")?.into();
        self.access_token = text(&answer, "access_token")?.into();
        self.opening = next;
        Ok(())
    }

    fn refresh_body(&self, token: &str, next: Option<&Opening>) -> String {
        match (&self.opening, next) {
            (Some(opening), Some(next)) => format!(
                r#"{{"refresh_token":"{token}","proof":{{"session_id":"{}","generation":{},"commitment":"{}","opening":"{}"}}}}"#,
                self.session_id,
                self.generation,
                next.commitment(),
                *opening.expose(),
            ),
            _ => format!(r#"{{"refresh_token":"{token}"}}"#),
        }
    }

    async fn verify(&self, connection: &mut Connection, online: bool) -> Result<()> {
        let body = format!(r#"{{"access_token":"{}","online":{online}}}"#, self.access_token);
        let answer = connection.post(VERIFY, body, StatusCode::OK).await?;
        let active = br#""active":true"#;
        answer.windows(active.len()).any(|w| w == active).then_some(()).context("an access token was refused")
    }

    async fn revoke(self, connection: &mut Connection) -> Result<()> {
        let body = format!(r#"{{"refresh_token":"{}"}}"#, self.refresh_token);
        connection.post(END, body, StatusCode::NO_CONTENT).await.map(drop)
    }

    /// Its refresh token with another MAC.
    fn forged_token(&self) -> String {
        let (signed, mac) = self.refresh_token.split_at(self.refresh_token.len() - 8);
        signed.chars().chain(mac.chars().map(|c| if c == 'A' { 'B' } else { 'A' })).collect()
    }
}

/// One connection's worth of users, who take turns.
pub struct Client {
    /// Which of the clients this is.
    pub number: usize,
    committed: Vec<User>,
    bearer: Vec<User>,
    /// Those of [`Scenario::Start`].
    started: Vec<User>,
    /// Those of [`Scenario::Face`].
    face: Vec<FaceUser>,
    /// The one whose life is under way in [`Scenario::Chain`].
    living: Option<User>,
    steps: usize,
    rng: SystemRng,
}

impl Client {
    /// Without users.
    fn new(number: usize) -> Self {
        Self {
            number,
            committed: Vec::new(),
            bearer: Vec::new(),
            started: Vec::new(),
            face: Vec::new(),
            living: None,
            steps: 0,
            rng: SystemRng::default(),
        }
    }

    /// Shares users of the face among `count` clients.
    pub fn of_face(users: Vec<FaceUser>, count: usize) -> Vec<Self> {
        let mut clients: Vec<_> = (0..count).map(Self::new).collect();
        for (i, user) in spread(users).enumerate() {
            clients[i % count].face.push(user);
        }
        clients
    }

    /// Shares users among `count` clients. No two neighbours in time go to one client in their order.
    pub fn share(users: Vec<User>, count: usize) -> Vec<Self> {
        let mut clients: Vec<_> = (0..count).map(Self::new).collect();
        let (committed, bearer): (Vec<_>, Vec<_>) = users.into_iter().partition(|user| user.opening.is_some());
        for (i, user) in spread(committed).enumerate() {
            clients[i % count].committed.push(user);
        }
        for (i, user) in spread(bearer).enumerate() {
            clients[i % count].bearer.push(user);
        }
        clients
    }

    /// All its users, to be shared anew.
    pub fn into_users(self) -> impl Iterator<Item = User> {
        self.committed.into_iter().chain(self.bearer).chain(self.started)
    }

    /// Whether it has what a request of the scenario needs.
    pub fn can(&self, scenario: Scenario) -> bool {
        scenario != Scenario::Revoke || !(self.started.is_empty() && self.bearer.is_empty())
    }

    /// One request of the scenario, and its answer.
    pub async fn step(&mut self, connection: &mut Connection, scenario: Scenario) -> Result<()> {
        let step = self.steps;
        self.steps += 1;
        let turn = |users: &[User]| step % users.len();
        let filler = || "x".repeat(300);
        let known = |users: &[User]| step % users.len().min(KNOWN);
        match scenario {
            Scenario::HttpFloor if self.committed.is_empty() => {
                connection.post(FLOOR, filler(), StatusCode::OK).await.map(drop)
            }
            Scenario::HttpFloor => {
                let user = &self.committed[turn(&self.committed)];
                let body = user.refresh_body(&user.refresh_token, Some(&Opening::draw(&self.rng)));
                connection.post(FLOOR, body, StatusCode::OK).await.map(drop)
            }
            Scenario::Start => {
                let user = self.start(connection, step).await?;
                self.started.push(user);
                Ok(())
            }
            Scenario::RefreshCommitted => {
                let turn = turn(&self.committed);
                self.committed[turn].refresh(connection, &self.rng).await
            }
            Scenario::RefreshBearer => {
                let turn = turn(&self.bearer);
                self.bearer[turn].refresh(connection, &self.rng).await
            }
            Scenario::VerifyOnline => self.committed[known(&self.committed)].verify(connection, true).await,
            Scenario::VerifyOffline => self.committed[known(&self.committed)].verify(connection, false).await,
            Scenario::Forged => {
                let user = &self.committed[turn(&self.committed)];
                let body = user.refresh_body(&user.forged_token(), Some(&Opening::draw(&self.rng)));
                connection.post(REFRESH, body, StatusCode::UNAUTHORIZED).await.map(drop)
            }
            Scenario::Chain => match (step % 16, &mut self.living) {
                (0, _) | (_, None) => {
                    self.living = Some(self.start(connection, step / 16).await?);
                    Ok(())
                }
                (at, Some(user)) if at % 3 == 1 => user.refresh(connection, &self.rng).await,
                (_, Some(user)) => user.verify(connection, true).await,
            },
            Scenario::Face(Face::Create) => {
                let user = FaceUser::create(connection, self.number * 1_000_000 + step).await?;
                self.face.push(user);
                Ok(())
            }
            Scenario::Face(face) => {
                // Its tokens are known: few enough that all were refreshed while the load ran up.
                let of = if face == Face::VerifyDatabase { self.face.len().min(KNOWN / 8) } else { self.face.len() };
                let user = &mut self.face[step % of];
                if face != Face::VerifyDatabase || !user.can_verify() {
                    user.refresh(connection).await?;
                }
                match face {
                    Face::RefreshAndVerify => user.verify(connection, false).await,
                    Face::VerifyDatabase => user.verify(connection, true).await,
                    _ => Ok(()),
                }
            }
            Scenario::Revoke => {
                let user = self.started.pop().or_else(|| self.bearer.pop()).context("no session is left to revoke")?;
                user.revoke(connection).await
            }
        }
    }

    async fn start(&self, connection: &mut Connection, number: usize) -> Result<User> {
        let opening = number.is_multiple_of(2).then(|| Opening::draw(&self.rng));
        User::start(connection, self.number * 1_000_000 + number, opening).await
    }
}

/// Users in such an order that no two neighbours in time are neighbours.
fn spread<T>(users: Vec<T>) -> impl Iterator<Item = T> {
    // A prime's multiples visit every place once, far from the one before.
    let (mut users, stride): (Vec<_>, _) = (users.into_iter().map(Some).collect(), 7_919);
    (0..users.len()).filter_map(move |i| {
        let place = i * stride % users.len();
        users[place].take()
    })
}

/// The text of a field of the JSON that the server writes: compact, and without escapes in what is looked for here.
pub fn text<'a>(answer: &'a [u8], field: &str) -> Result<&'a str> {
    let answer = std::str::from_utf8(answer)?;
    let marker = format!(r#""{field}":""#);
    let found = answer.find(&marker).and_then(|at| answer[at + marker.len()..].split('"').next());
    found.with_context(|| format!("an answer lacks `{field}`"))
}
