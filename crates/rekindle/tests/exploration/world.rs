//! Symbols for openings and times, and the server: a row, and what each decision does to it.

use std::sync::LazyLock;

use rekindle::clock::{Seconds, Timestamp};
use rekindle::refresh::{Commitment, Opening, Presented, Proof};
use rekindle::rotation::{self, Decision, OnMissingProof, Policy, Position, Row, TheftKind};
use rekindle::session::SessionId;

use crate::broken::Broken;

/// Which of several openings of one session and generation: 0 is none, 1 to 3 are the honest client's (a later one after its
/// storage was lost), then the thief's, then one that nobody ever committed to.
pub type Draw = u8;
pub const NO_DRAW: Draw = 0;
pub const FIRST: Draw = 1;
pub const THIEF: Draw = 4;
pub const GARBAGE: Draw = 5;

/// Generations that have openings in the table.
pub const GENERATIONS: usize = 8;
const SESSIONS: usize = 2;
const DRAWS: usize = 6;

static OPENINGS: LazyLock<Vec<(Opening, Commitment)>> = LazyLock::new(|| {
    (0..SESSIONS * GENERATIONS * DRAWS)
        .map(|at| Opening::from_bytes(&[at as u8; 16]).expect("16 bytes"))
        .map(|opening| (opening.clone(), opening.commitment()))
        .collect()
});

fn symbol(session: u8, generation: u8, draw: Draw) -> &'static (Opening, Commitment) {
    assert!(draw != NO_DRAW && usize::from(generation) < GENERATIONS, "draw {draw} of generation {generation}");
    &OPENINGS[(usize::from(session) * GENERATIONS + usize::from(generation)) * DRAWS + usize::from(draw)]
}

pub fn commitment(session: u8, generation: u8, draw: Draw) -> Commitment {
    if draw == NO_DRAW { Commitment::NONE } else { symbol(session, generation, draw).1 }
}

pub fn session_id(session: u8) -> SessionId {
    SessionId::from_bytes([session + 1; 16])
}

/// An instant of the model, far enough from the next for every time span of the policy to tell them apart.
pub type Tick = u8;
const TICK: u64 = 100;
/// Holds for the tick of the rotation and the one after it.
pub const LEEWAY: Seconds = Seconds(TICK + TICK / 2);
/// Ticks from a refresh to the idle expiry, and from the start to the absolute one.
pub const IDLE: Tick = 3;
pub const ABSOLUTE: Tick = 5;

pub fn time(tick: Tick) -> Timestamp {
    Timestamp::from_secs(1_000_000) + Seconds(u64::from(tick) * TICK)
}

/// A refresh token: symbols for what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token {
    pub session: u8,
    pub generation: u8,
    pub draw: Draw,
    pub at: Tick,
}

impl Token {
    pub fn presented(self) -> Presented {
        let position = Position {
            generation: self.generation.into(),
            commitment: commitment(self.session, self.generation, self.draw),
            issued_at: u32::try_from(time(self.at).secs()).expect("small"),
            kid: 1,
        };
        Presented { session: session_id(self.session), position }
    }
}

/// A proof; `next` is never [`NO_DRAW`], as the parser guarantees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ask {
    pub session: u8,
    pub generation: u8,
    pub opening: Draw,
    pub next: Draw,
    pub newest: bool,
}

impl Ask {
    pub fn proof(self) -> Proof {
        Proof {
            session_id: session_id(self.session),
            generation: self.generation.into(),
            commitment: commitment(self.session, self.generation + 1, self.next),
            opening: (self.opening != NO_DRAW).then(|| symbol(self.session, self.generation, self.opening).0.clone()),
            newest: self.newest,
        }
    }
}

/// A refresh as it reaches the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Request {
    pub token: Token,
    pub ask: Option<Ask>,
}

/// What `superseded` and `proof_required` say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Told {
    pub session: u8,
    /// The row's generation and commitment.
    pub generation: u8,
    pub draw: Draw,
    /// The presented token's.
    pub presented: u8,
    pub presented_draw: Draw,
}

/// A server's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reply {
    Tokens(Token),
    Superseded(Told),
    ProofRequired(Told),
    /// Expired, revoked or theft: the terminal ones.
    Ended,
    Invalid,
}

/// One session's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stored {
    pub token: Token,
    pub confirmed: bool,
    pub revoked: bool,
    pub idle: Tick,
    pub expires: Tick,
}

impl Stored {
    pub fn started(session: u8, draw: Draw) -> Self {
        let token = Token { session, generation: 0, draw, at: 0 };
        Self { token, confirmed: false, revoked: false, idle: IDLE, expires: ABSOLUTE }
    }

    pub fn row(&self) -> Row {
        Row {
            position: self.token.presented().position,
            confirmed: self.confirmed,
            revoked: self.revoked,
            idle_expires_at: time(self.idle),
            expires_at: time(self.expires),
        }
    }
}

/// What an exchange did, beside the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    pub decision: Decision,
    pub reply: Reply,
    pub fast_forwarded: bool,
    /// The one round trip of the normal case would have ended otherwise.
    pub fast_path_differs: bool,
}

impl Outcome {
    pub fn advanced(&self) -> bool {
        matches!(self.decision, Decision::Advance(_))
    }

    pub fn theft(&self) -> Option<TheftKind> {
        match self.decision {
            Decision::Theft(kind) => Some(kind),
            _ => None,
        }
    }
}

/// The policies of one session definition, and the rule that is broken on purpose, if any.
#[derive(Debug, Clone, Copy)]
pub struct Server {
    pub on_missing_proof: OnMissingProof,
    pub reuse_leeway: Seconds,
    /// `on_theft`: whether theft ends the session or is only reported.
    pub report_only: bool,
    pub broken: Option<Broken>,
}

impl Server {
    pub const DEFAULT: Self =
        Self { on_missing_proof: OnMissingProof::Refuse, reuse_leeway: LEEWAY, report_only: false, broken: None };

    pub fn policy(&self) -> Policy {
        Policy { on_missing_proof: self.on_missing_proof, reuse_leeway: self.reuse_leeway }
    }

    /// One refresh: decide, and apply as the protocol's "what each decision does" says.
    ///
    /// Decision and update are one step. That is sound: an update that lost its race decides again on the fresh row, and an
    /// answer that needs no update is the answer of the moment of the read, delayed.
    pub fn serve(&self, row: &mut Stored, request: Request, now: Tick) -> Outcome {
        let before = *row;
        let presented = request.token.presented();
        let proof = request.ask.map(Ask::proof);
        let decide = |row: &Row| {
            let policy = self.policy();
            match self.broken {
                None => rotation::decide(presented.session, row, &presented, proof.as_ref(), time(now), &policy),
                Some(broken) => broken.decide(row, &presented, proof.as_ref(), time(now), &policy),
            }
        };
        let mut decision = decide(&row.row());
        let fast_forwarded = decision == Decision::FastForward;
        if fast_forwarded {
            row.token = request.token;
            row.confirmed = true;
            row.idle = self.idle_from(now, row.expires);
            decision = decide(&row.row());
        }
        let told = Told {
            session: request.token.session,
            generation: row.token.generation,
            draw: row.token.draw,
            presented: request.token.generation,
            presented_draw: request.token.draw,
        };
        let reply = match decision {
            Decision::Advance(c) => {
                let (session, generation) = (row.token.session, row.token.generation + 1);
                let draw = request.ask.map_or(NO_DRAW, |a| a.next);
                assert_eq!(c, commitment(session, generation, draw), "the proof's commitment is recorded, or none");
                row.token = Token { session, generation, draw, at: now };
                row.confirmed = false;
                row.idle = self.idle_from(now, row.expires);
                Reply::Tokens(row.token)
            }
            Decision::Reissue => Reply::Tokens(row.token),
            Decision::Superseded => Reply::Superseded(told),
            Decision::ProofRequired => Reply::ProofRequired(told),
            Decision::Theft(_) => {
                row.revoked |= !self.report_only;
                Reply::Ended
            }
            Decision::Revoked | Decision::Expired(_) => Reply::Ended,
            Decision::InvalidProof => Reply::Invalid,
            Decision::FastForward => unreachable!("the row is at the token's position"),
        };
        let expected = decide(&rotation::expected_row(&presented));
        let update_applies =
            before.token == request.token && !before.revoked && now < before.idle && now < before.expires;
        let fast_path_differs = matches!(expected, Decision::Advance(_)) && update_applies && expected != decision;
        Outcome { decision, reply, fast_forwarded, fast_path_differs }
    }

    fn idle_from(&self, now: Tick, expires: Tick) -> Tick {
        if self.broken == Some(Broken::IdleUnclamped) { now + IDLE } else { (now + IDLE).min(expires) }
    }
}
