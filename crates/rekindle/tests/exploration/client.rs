//! The honest client, to the letter of the protocol's "the client on each answer".

use crate::broken::Broken;
use crate::world::{Ask, Draw, FIRST, GENERATIONS, NO_DRAW, Reply, Request, Token, Told};

/// Where the refresh token is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// In the client's own storage, beside the openings: read and sent together, an older one never replaces a newer one.
    Native,
    /// In a cookie jar, which the newest *arriving* response writes and which is read when a request leaves, not when its
    /// proof is made. The readable marker is written by the same response, so it says what the jar holds.
    Jar,
}

/// All tabs, workers and processes of one client: they share the storage, and any of them may die at any point.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Client {
    pub token: Option<Token>,
    /// First writer wins, keyed by session and generation, durable before it is sent.
    openings: [[Draw; GENERATIONS]; 2],
    /// What the next draw will give.
    lineage: Draw,
}

/// What a client does after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing, or later afresh from what it then holds.
    Rest,
    /// Another request with this proof.
    Send(Ask),
    /// This session is lost to it: it signs out, and in again.
    SignIn,
}

impl Client {
    /// Logged in; with a first commitment, its opening is stored.
    pub fn new(token: Token) -> Self {
        let mut client = Self { token: Some(token), openings: [[NO_DRAW; GENERATIONS]; 2], lineage: FIRST };
        client.remember(token);
        client
    }

    /// Another login's first opening.
    pub fn remember(&mut self, token: Token) {
        self.openings[usize::from(token.session)][usize::from(token.generation)] = token.draw;
    }

    pub fn opening(&self, session: u8, generation: u8) -> Draw {
        self.openings[usize::from(session)][usize::from(generation)]
    }

    fn draw(&mut self, session: u8, generation: u8) -> Draw {
        let slot = &mut self.openings[usize::from(session)][usize::from(generation)];
        if *slot == NO_DRAW {
            *slot = self.lineage;
        }
        *slot
    }

    /// The proof for the token that the marker (or the storage) names.
    pub fn compose(&mut self, token: Token, broken: Option<Broken>) -> Ask {
        let held = self.opening(token.session, token.generation);
        let hashes = held == token.draw || broken == Some(Broken::UncheckedOpening);
        let opening = if token.draw != NO_DRAW && hashes { held } else { NO_DRAW };
        self.ask(token.session, token.generation, opening)
    }

    fn ask(&mut self, session: u8, generation: u8, opening: Draw) -> Ask {
        Ask { session, generation, opening, next: self.draw(session, generation + 1), newest: false }
    }

    /// The storage is lost; the cookie jar is not.
    pub fn evict(&mut self) {
        self.openings = [[NO_DRAW; GENERATIONS]; 2];
        self.lineage += 1;
    }

    /// A power cut loses the opening that was drawn last; false where there is none beyond the token's own.
    pub fn forget_last_draw(&mut self) -> bool {
        let Some(token) = self.token else { return false };
        let slots = &mut self.openings[usize::from(token.session)];
        let Some(last) = slots.iter().rposition(|d| *d != NO_DRAW).filter(|at| *at > usize::from(token.generation))
        else {
            return false;
        };
        slots[last] = NO_DRAW;
        self.lineage += 1;
        true
    }

    pub fn receive(&mut self, kind: Kind, request: Request, reply: Reply, broken: Option<Broken>) -> Next {
        match (reply, request.ask) {
            (Reply::Tokens(new), _) => {
                let older = |held: Token| held.session == new.session && held.generation > new.generation;
                if kind == Kind::Jar || !self.token.is_some_and(older) {
                    self.token = Some(new);
                }
                Next::Rest
            }
            (Reply::Ended, sent) => {
                let (session, generation) = match (broken, sent) {
                    (Some(Broken::EndedNamesNothing), Some(sent)) => (sent.session, sent.generation),
                    _ => (request.token.session, request.token.generation),
                };
                let same = |held: Token| (held.session, held.generation) == (session, generation);
                if broken == Some(Broken::ClearsAnything) || self.token.is_some_and(same) {
                    self.token = None;
                }
                Next::Rest
            }
            (Reply::Superseded(told), Some(sent)) => {
                if let Some(next) = self.go_on(sent, told, broken) {
                    Next::Send(next)
                } else if self.holds_nothing_newer(sent, told, broken) {
                    Next::Send(Ask { newest: true, ..sent })
                } else {
                    Next::Rest
                }
            }
            (Reply::ProofRequired(told), Some(sent)) => match self.go_on(sent, told, broken) {
                Some(next) => Next::Send(next),
                None if told.session == sent.session => Next::SignIn,
                None => Next::Rest,
            },
            // A script that knows no proofs knows no such answers either.
            (Reply::Superseded(_) | Reply::ProofRequired(_), None) | (Reply::Invalid, _) => Next::Rest,
        }
    }

    /// The proof for the generation that the answer names, if its opening is held and was not what was sent.
    fn go_on(&mut self, sent: Ask, told: Told, broken: Option<Broken>) -> Option<Ask> {
        let held = self.opening(sent.session, told.generation);
        let hashes = if broken == Some(Broken::ToldPresentedOnly) {
            told.generation != told.presented || (told.session == sent.session && held == told.presented_draw)
        } else {
            told.session == sent.session && held == told.draw
        };
        let already = sent.generation == told.generation && sent.opening == held;
        (held != NO_DRAW && hashes && !already).then(|| self.ask(sent.session, told.generation, held))
    }

    /// The answer is about the token that the proof was made for, the generation that it names is not ours, and what was sent
    /// is still what is stored: somebody else moved the session on.
    fn holds_nothing_newer(&self, sent: Ask, told: Told, broken: Option<Broken>) -> bool {
        let same_generation = told.presented == sent.generation;
        let about_sent = match broken {
            Some(Broken::ToldNoSession) => same_generation,
            Some(Broken::ToldPresentedOnly) => {
                same_generation
                    && told.presented_draw == sent.opening
                    && (sent.opening == NO_DRAW || told.session == sent.session)
            }
            _ => same_generation && told.session == sent.session,
        };
        let still_holds = if sent.opening == NO_DRAW {
            self.opening(sent.session, sent.generation + 1) == sent.next
        } else {
            self.opening(sent.session, sent.generation) == sent.opening
        };
        let after_next = &self.openings[usize::from(sent.session)][usize::from(sent.generation) + 2..];
        let nothing_newer =
            broken != Some(Broken::NewestOnlyIfNothingNewer) || after_next.iter().all(|d| *d == NO_DRAW);
        about_sent && still_holds && nothing_newer && !sent.newest
    }
}
