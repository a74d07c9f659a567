//! The state space: everything that a network, a browser, a server's disk and a thief can do to a few sessions.

use rekindle::clock::Seconds;
use rekindle::rotation::{self, Decision, Expiry, MintDecision, OnMissingProof, TheftKind};
use stateright::{Model, Property};

use crate::broken::Broken;
use crate::client::{Client, Kind, Next};
use crate::world::{
    ABSOLUTE, Ask, FIRST, GARBAGE, GENERATIONS, IDLE, NO_DRAW, Outcome, Reply, Request, Server, Stored, THIEF, Tick,
    Token, time,
};

/// What a thief takes when it takes something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loot {
    /// The refresh token.
    Token,
    /// The refresh token and its opening.
    TokenAndOpening,
    /// The whole storage, with the openings that were drawn but not yet used.
    Everything,
}

/// Which scripts a page runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Script {
    /// Sends proofs.
    New,
    /// Sends bare tokens only.
    Old,
    /// Both, side by side.
    Mixed,
}

/// One bounded world. Every order of what it allows is explored.
#[derive(Debug, Clone)]
pub struct Scenario {
    pub name: &'static str,
    pub kind: Kind,
    pub script: Script,
    /// Whether the login carried a first commitment.
    pub committed: bool,
    pub sessions: u8,
    /// The highest generation of a row.
    pub generations: u8,
    /// How many proofs, requests and responses are under way at once. Each may be lost, overtaken, or delayed for ever; a
    /// doubled one is the same one sent twice.
    pub network: usize,
    /// How often the script storage is lost.
    pub evictions: u8,
    /// What a thief takes, and how often.
    pub loot: Option<(Loot, u8)>,
    /// How often the server comes back with an earlier row.
    pub restores: u8,
    /// The last instant.
    pub ticks: Tick,
    /// Whether the present generation's access token may be used.
    pub confirms: bool,
    /// How often a session is ended from elsewhere.
    pub revocations: u8,
    pub server: Server,
    pub promises: &'static [Promise],
}

impl Scenario {
    pub const BASE: Self = Self {
        name: "",
        kind: Kind::Jar,
        script: Script::New,
        committed: true,
        sessions: 1,
        generations: 3,
        network: 2,
        evictions: 0,
        loot: None,
        restores: 0,
        ticks: 0,
        confirms: false,
        revocations: 0,
        server: Server::DEFAULT,
        promises: &[],
    };

    pub fn bounds(&self) -> String {
        let policy = match self.server.on_missing_proof {
            OnMissingProof::Refuse => "refuse",
            OnMissingProof::Revoke => "revoke",
            OnMissingProof::Downgrade => "downgrade",
        };
        let leeway = if self.server.reuse_leeway == Seconds(0) { "no leeway" } else { "leeway" };
        let (generations, network) = (self.generations, self.network);
        let mut text = format!("{policy}, {leeway} | generations ≤ {generations}, under way ≤ {network}");
        let mut add = |n: u8, what: &str| {
            if n > 0 {
                text.push_str(&format!(", {what} ≤ {n}"));
            }
        };
        add(self.sessions - 1, "more sessions");
        add(self.evictions, "evictions");
        add(self.loot.map_or(0, |(_, times)| times), "thefts");
        add(self.restores, "restores");
        add(self.ticks, "ticks");
        add(self.revocations, "revocations");
        text
    }
}

/// What must hold in every state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    NoTheft,
    CanRefresh,
    CanRefreshOrSignIn,
    NothingInvalid,
    ClearsOnlyTheEnded,
    OneBranch,
    ForkEnds,
    ForkEndsOrIsOutrun,
    ForkEndsOrIsGivenUp,
    TokenAloneIsNothing,
    BearerChildIsKept,
    BearerReplayIsTheft,
    StaysRevoked,
    ClocksHold,
    FastPath,
    MintAgrees,
}

impl Promise {
    pub fn name(self) -> &'static str {
        match self {
            Self::NoTheft => "1: no honest client is accused of theft",
            Self::CanRefresh => "1, 7: when messages flow again the client can refresh",
            Self::CanRefreshOrSignIn => "1: after an eviction the client can refresh, or is asked to sign in",
            Self::NothingInvalid => "1: no honest request is called invalid",
            Self::ClearsOnlyTheEnded => "1: a client clears only what has ended",
            Self::OneBranch => "2: after a fork one side only can ever advance",
            Self::ForkEnds => "2, 3: the overtaken client's next completed exchange ends the session",
            Self::ForkEndsOrIsOutrun => "2: the same, or the client's own later generation takes over",
            Self::ForkEndsOrIsGivenUp => "2: the same, or the client knows that it must sign out and in again",
            Self::TokenAloneIsNothing => "3: a stolen token alone rotates nothing",
            Self::BearerChildIsKept => "4: an unconfirmed child is handed out again",
            Self::BearerReplayIsTheft => "4: a replay after confirmation and leeway is theft",
            Self::StaysRevoked => "5: revoked stays revoked",
            Self::ClocksHold => "6: the clocks hold",
            Self::MintAgrees => "a mint serves what can still be refreshed, and nothing that has ended",
            Self::FastPath => "the single conditional update decides as the table does",
        }
    }

    fn property(self) -> Property<Scenario> {
        let condition: fn(&Scenario, &State) -> bool = match self {
            Self::NoTheft => |_, s| !s.harm.accused,
            Self::CanRefresh => |m, s| m.recover(s) == Recovery::Refreshed || m.rightly_over(s),
            Self::CanRefreshOrSignIn => {
                |m, s| matches!(m.recover(s), Recovery::Refreshed | Recovery::SignIn) || m.rightly_over(s)
            }
            Self::NothingInvalid => |_, s| !s.harm.invalid,
            Self::ClearsOnlyTheEnded => |_, s| !s.harm.cleared_alive,
            Self::OneBranch => |_, s| !s.harm.both_advanced,
            Self::ForkEnds => |m, s| !m.overtaken(s) || matches!(m.recover(s), Recovery::Theft),
            Self::ForkEndsOrIsOutrun => |m, s| {
                let ahead = s.client.token.is_some_and(|t| t.generation > s.rows[0].token.generation);
                !m.overtaken(s) || ahead || m.recover(s) == Recovery::Theft
            },
            Self::ForkEndsOrIsGivenUp => {
                |m, s| !m.overtaken(s) || matches!(m.recover(s), Recovery::Theft | Recovery::SignIn)
            }
            Self::TokenAloneIsNothing => |_, s| !s.harm.thief_advanced,
            Self::BearerChildIsKept => |_, s| !s.harm.child_lost,
            Self::BearerReplayIsTheft => |_, s| !s.harm.replay_missed,
            Self::StaysRevoked => |_, s| !s.harm.resurrected,
            Self::ClocksHold => {
                |_, s| !s.harm.late && s.rows.iter().all(|r| r.idle <= r.expires && r.expires == ABSOLUTE)
            }
            Self::MintAgrees => |_, s| !s.harm.mint,
            Self::FastPath => |_, s| !s.harm.fast_path,
        };
        Property::always(self.name(), condition)
    }
}

/// On its way, in no order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Message {
    /// A page has made a proof; the browser has not yet attached the cookie.
    Composed(Ask),
    Request(Request),
    Response(Request, Reply),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    Client,
    Thief,
}

/// What went wrong, once and for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Harm {
    pub accused: bool,
    pub invalid: bool,
    pub cleared_alive: bool,
    pub both_advanced: bool,
    pub thief_advanced: bool,
    pub child_lost: bool,
    pub replay_missed: bool,
    pub resurrected: bool,
    pub late: bool,
    pub fast_path: bool,
    pub mint: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Thief {
    pub tokens: Vec<Token>,
    /// By generation, a bit for each draw that was taken.
    known: [u8; GENERATIONS],
    thefts: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    pub rows: Vec<Stored>,
    /// The first session's row at the moment of a backup.
    backup: Option<Stored>,
    restores: u8,
    /// Sorted.
    pub net: Vec<Message>,
    pub client: Client,
    evictions: u8,
    pub thief: Thief,
    /// Who advanced last with a commitment that the other side cannot open.
    pub ahead: Option<Side>,
    /// Sessions that were ended, whatever the rows say.
    ended: [bool; 2],
    /// Sessions that ran out and were said to have, while the client held nothing fresher.
    ran_out: [bool; 2],
    revocations: u8,
    pub now: Tick,
    pub harm: Harm,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A page or process starts a refresh.
    Start,
    /// A script that knows no proofs does.
    StartBare,
    /// The browser attaches the cookie and the request leaves.
    Leave(Message),
    Serve(Message),
    Receive(Message),
    Lose(Message),
    UseAccessToken(Side),
    Evict,
    PowerCut,
    Backup,
    Restore,
    Tick,
    Revoke(u8),
    Steal,
    Thief(Request),
}

/// How an honest client fares that is alone with the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    Refreshed,
    SignIn,
    Theft,
    Ended,
    NoToken,
    Stuck,
}

impl Scenario {
    fn over(&self, state: &State, session: u8) -> bool {
        let row = &state.rows[usize::from(session)];
        state.ended[usize::from(session)] || row.revoked || state.now >= row.expires || state.now >= row.idle
    }

    /// The client's session was ended, or it ran out even by what the client was told last. Whether a client that holds
    /// nothing was right to clear is judged when it clears.
    fn rightly_over(&self, state: &State) -> bool {
        match state.client.token {
            Some(token) => {
                let session = usize::from(token.session);
                state.ended[session] || state.ran_out[session] || ran_out(token, state.now)
            }
            None => true,
        }
    }

    fn overtaken(&self, state: &State) -> bool {
        state.ahead == Some(Side::Thief) && !state.rows[0].revoked
    }

    /// Nothing is under way any more, everything arrives, and the client runs alone.
    pub fn recover(&self, state: &State) -> Recovery {
        let (mut rows, mut client, mut follow) = (state.rows.clone(), state.client.clone(), None);
        for _ in 0..6 {
            let Some(token) = client.token else { return Recovery::NoToken };
            let ask = match self.script {
                Script::Old => None,
                _ => Some(follow.take().unwrap_or_else(|| client.compose(token, self.server.broken))),
            };
            let request = Request { token, ask };
            let outcome = self.server.serve(&mut rows[usize::from(token.session)], request, state.now);
            if outcome.advanced() {
                return Recovery::Refreshed;
            }
            if outcome.theft().is_some() {
                return Recovery::Theft;
            }
            if outcome.reply == Reply::Ended {
                return Recovery::Ended;
            }
            match client.receive(self.kind, request, outcome.reply, self.server.broken) {
                Next::Rest => {}
                Next::Send(ask) => follow = Some(ask),
                Next::SignIn => return Recovery::SignIn,
            }
        }
        Recovery::Stuck
    }

    /// One exchange at the server, by either side, and what it breaks.
    fn exchange(&self, state: &mut State, side: Side, request: Request) -> Outcome {
        let session = usize::from(request.token.session);
        let before = state.rows[session];
        let outcome = self.server.serve(&mut state.rows[session], request, state.now);
        let (after, harm) = (&state.rows[session], &mut state.harm);

        harm.accused |= outcome.theft().is_some() && self.loot.is_none();
        harm.invalid |= outcome.decision == Decision::InvalidProof && side == Side::Client;
        harm.fast_path |= outcome.fast_path_differs;
        if let Reply::Tokens(_) = outcome.reply {
            harm.resurrected |= state.ended[session];
            harm.late |= state.now >= before.expires || (state.now >= before.idle && !outcome.fast_forwarded);
        }
        harm.late |= !before.revoked
            && state.now >= before.expires
            && !matches!(outcome.decision, Decision::Expired(Expiry::Absolute) | Decision::InvalidProof);
        harm.mint |= !mint_agrees(&before, request.token, state.now, outcome.decision);
        state.ended[session] |= after.revoked;
        state.ran_out[session] |= matches!(outcome.decision, Decision::Expired(_))
            && state.client.token.is_none_or(|held| ran_out(held, state.now));

        if outcome.advanced() {
            harm.thief_advanced |= side == Side::Thief;
            let known = state.thief.known[usize::from(after.token.generation)] & (1 << after.token.draw) != 0;
            let private = match side {
                Side::Client => state.thief.thefts > 0 && !known,
                Side::Thief => after.token.draw == THIEF || (self.committed && after.token.draw == NO_DRAW),
            };
            if private {
                harm.both_advanced |= state.ahead.is_some_and(|s| s != side);
                state.ahead = Some(side);
            }
        }

        let (m, n) = (request.token.generation, before.token.generation);
        let alive = !before.revoked && state.now < before.idle && state.now < before.expires;
        let bearer = request.token.draw == NO_DRAW && before.token.draw == NO_DRAW && request.ask.is_none();
        if alive && bearer && m < n {
            let leeway = self.server.reuse_leeway > Seconds(0) && state.now <= before.token.at + 1;
            let replayed = m + 1 < n || (before.confirmed && !leeway);
            harm.child_lost |= m + 1 == n && !before.confirmed && outcome.decision != Decision::Reissue;
            harm.replay_missed |= replayed && outcome.decision != Decision::Theft(TheftKind::Reused);
        }
        outcome
    }

    /// Everything that a thief can make of what it knows. It may know every commitment: tokens carry them.
    fn thief_requests(&self, state: &State, actions: &mut Vec<Action>) {
        for &token in &state.thief.tokens {
            let (m, row) = (token.generation, state.rows[0].token);
            actions.push(Action::Thief(Request { token, ask: None }));
            let mut named = vec![m];
            if row.generation != m {
                named.push(row.generation);
            }
            for generation in named {
                let known = |g: u8| state.thief.known[usize::from(g)] | 1 << THIEF;
                let openings = (NO_DRAW..=GARBAGE)
                    .filter(|d| matches!(*d, NO_DRAW | GARBAGE) || known(generation) & (1 << d) != 0);
                for opening in openings {
                    for next in FIRST..=THIEF {
                        let recorded = row.generation == generation + 1 && row.draw == next;
                        if !recorded && known(generation + 1) & (1 << next) == 0 {
                            continue;
                        }
                        for newest in [false, true] {
                            if newest && m + 1 >= row.generation {
                                continue;
                            }
                            let ask = Ask { session: 0, generation, opening, next, newest };
                            actions.push(Action::Thief(Request { token, ask: Some(ask) }));
                        }
                    }
                }
            }
        }
    }

    fn follow(&self, state: &mut State, ask: Ask) -> bool {
        match (self.kind, state.client.token) {
            (Kind::Jar, _) => state.net.push(Message::Composed(ask)),
            (Kind::Native, Some(token)) => state.net.push(Message::Request(Request { token, ask: Some(ask) })),
            (Kind::Native, None) => return false,
        }
        true
    }
}

impl Model for Scenario {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let draw = if self.committed { FIRST } else { NO_DRAW };
        let rows: Vec<_> = (0..self.sessions).map(|s| Stored::started(s, draw)).collect();
        let mut client = Client::new(rows[0].token);
        // A second login's response is still under way.
        let login = |row: &Stored| Message::Response(Request { token: row.token, ask: None }, Reply::Tokens(row.token));
        rows[1..].iter().for_each(|row| client.remember(row.token));
        vec![State {
            net: rows[1..].iter().map(login).collect(),
            rows,
            backup: None,
            restores: 0,
            client,
            evictions: 0,
            thief: Thief { tokens: Vec::new(), known: [0; GENERATIONS], thefts: 0 },
            ahead: None,
            ended: [false; 2],
            ran_out: [false; 2],
            revocations: 0,
            now: 0,
            harm: Harm::default(),
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let over = |s: u8| state.ended[usize::from(s)] && state.rows[usize::from(s)].revoked;
        let ends_matter = self.revocations > 0 || self.sessions > 1;
        if state.harm != Harm::default() || (!ends_matter && over(0)) {
            return;
        }
        if let Some(token) = state.client.token
            && state.net.len() < self.network
            && token.generation <= self.generations
        {
            if self.script != Script::Old {
                actions.push(Action::Start);
            }
            if self.script != Script::New {
                actions.push(Action::StartBare);
            }
        }
        for (at, &message) in state.net.iter().enumerate() {
            if at > 0 && state.net[at - 1] == message {
                continue;
            }
            actions.push(match message {
                Message::Composed(_) => Action::Leave(message),
                Message::Request(_) => Action::Serve(message),
                Message::Response(..) => Action::Receive(message),
            });
            actions.push(Action::Lose(message));
        }
        let row = &state.rows[0];
        if self.confirms && !row.confirmed {
            if state.client.token == Some(row.token) {
                actions.push(Action::UseAccessToken(Side::Client));
            }
            if state.thief.tokens.contains(&row.token) {
                actions.push(Action::UseAccessToken(Side::Thief));
            }
        }
        if state.evictions < self.evictions {
            actions.push(Action::Evict);
        }
        if self.server.broken == Some(Broken::SentBeforeDurable) && state.evictions == 0 {
            actions.push(Action::PowerCut);
        }
        if state.restores < self.restores {
            match state.backup {
                None => actions.push(Action::Backup),
                Some(backup) if backup != *row => actions.push(Action::Restore),
                Some(_) => {}
            }
        }
        if state.now < self.ticks {
            actions.push(Action::Tick);
        }
        if state.revocations < self.revocations {
            actions.extend((0..self.sessions).map(Action::Revoke));
        }
        if let Some((_, times)) = self.loot {
            if state.thief.thefts < times && state.client.token.is_some() {
                actions.push(Action::Steal);
            }
            self.thief_requests(state, actions);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        let broken = self.server.broken;
        let take = |state: &mut State, message: Message| {
            let at = state.net.iter().position(|m| *m == message).expect("it is under way");
            state.net.remove(at);
        };
        match action {
            Action::Start => {
                let token = state.client.token?;
                let ask = state.client.compose(token, broken);
                self.follow(&mut state, ask);
            }
            Action::StartBare => {
                let token = state.client.token?;
                state.net.push(Message::Request(Request { token, ask: None }));
            }
            Action::Leave(message @ Message::Composed(ask)) => {
                take(&mut state, message);
                state.net.push(Message::Request(Request { token: state.client.token?, ask: Some(ask) }));
            }
            Action::Serve(message @ Message::Request(request)) => {
                take(&mut state, message);
                let outcome = self.exchange(&mut state, Side::Client, request);
                state.net.push(Message::Response(request, outcome.reply));
            }
            Action::Receive(message @ Message::Response(request, reply)) => {
                take(&mut state, message);
                let held = state.client.token;
                if let Next::Send(ask) = state.client.receive(self.kind, request, reply, broken) {
                    self.follow(&mut state, ask);
                }
                if let (Some(held), None) = (held, state.client.token) {
                    state.harm.cleared_alive |= !self.over(&state, held.session)
                        && !ran_out(held, state.now)
                        && !state.ran_out[usize::from(held.session)];
                }
            }
            Action::Lose(message) => take(&mut state, message),
            Action::UseAccessToken(_) => state.rows[0].confirmed = true,
            Action::Evict => {
                state.client.evict();
                state.evictions += 1;
            }
            Action::PowerCut => {
                state.evictions += 1;
                if !state.client.forget_last_draw() {
                    return None;
                }
            }
            Action::Backup => state.backup = Some(state.rows[0]),
            Action::Restore => {
                state.rows[0] = state.backup?;
                state.restores += 1;
                // The revocation log is read before anything is served.
                state.rows[0].revoked |= state.ended[0] && broken != Some(Broken::NoRevocationLog);
            }
            Action::Tick => state.now += 1,
            Action::Revoke(session) => {
                state.revocations += 1;
                state.rows[usize::from(session)].revoked = true;
                state.ended[usize::from(session)] = true;
            }
            Action::Steal => {
                let (loot, _) = self.loot?;
                let token = state.client.token?;
                state.thief.thefts += 1;
                insert(&mut state.thief.tokens, token);
                let own = token.generation;
                for generation in 0..GENERATIONS as u8 {
                    let draw = state.client.opening(0, generation);
                    let taken = match loot {
                        Loot::Token => false,
                        Loot::TokenAndOpening => generation == own,
                        Loot::Everything => true,
                    };
                    if taken && draw != NO_DRAW {
                        state.thief.known[usize::from(generation)] |= 1 << draw;
                    }
                }
            }
            // Alone with the server: a thief's message that is delayed is one that it sends later.
            Action::Thief(request) => {
                if let Reply::Tokens(token) = self.exchange(&mut state, Side::Thief, request).reply {
                    insert(&mut state.thief.tokens, token);
                }
            }
            other => unreachable!("{other:?}"),
        }
        state.net.sort_unstable();
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        self.promises.iter().map(|p| p.property()).collect()
    }

    fn within_boundary(&self, state: &State) -> bool {
        state.rows.iter().all(|r| r.token.generation <= self.generations)
    }
}

/// Beside every refresh, a mint with the same token: it ends where the refresh ends, serves where the refresh rotates, and
/// serves nothing older than the parent.
fn mint_agrees(row: &Stored, token: Token, now: Tick, decision: Decision) -> bool {
    let mint = rotation::decide_mint(&row.row(), &token.presented(), time(now));
    match decision {
        Decision::Revoked => mint == MintDecision::Revoked,
        Decision::Expired(expiry) => mint == MintDecision::Expired(expiry),
        Decision::Advance(_) => mint == MintDecision::Serve,
        _ => mint != MintDecision::Serve || token.generation + 1 >= row.token.generation,
    }
}

/// No refresh since this token was issued, for the idle timeout or until the absolute expiry.
fn ran_out(token: Token, now: Tick) -> bool {
    now >= (token.at + IDLE).min(ABSOLUTE)
}

fn insert(tokens: &mut Vec<Token>, token: Token) {
    if let Err(at) = tokens.binary_search(&token) {
        tokens.insert(at, token);
    }
}
