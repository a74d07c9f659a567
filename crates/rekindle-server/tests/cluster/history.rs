//! What the clients saw of two servers on one store, and what must hold of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Milliseconds since the run began.
pub type Millis = u64;

/// How long a server may take to learn of another's endings, when the store is there.
const LEARNS_WITHIN: Millis = 2000;

/// How long an access token lives: the default of definitions.
const ACCESS_TOKENS_LIVE: Millis = 15 * 60 * 1000;

/// A request and what came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Who asked.
    pub client: usize,
    /// Which server was asked.
    pub server: usize,
    /// The session that it was about; none where a start had no answer.
    pub session: Option<String>,
    pub began: Millis,
    pub ended: Millis,
    pub asked: Asked,
    pub answered: Answered,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Asked {
    Start,
    Refresh {
        /// The end of the presented token, which tells it from others.
        token: String,
        generation: u64,
    },
    Verify {
        online: bool,
    },
    /// To add this member to the session's data.
    Write(String),
    Revoke,
    Read,
    /// Nothing was asked: from here on, a second party has all that the client has.
    Copy,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Answered {
    /// Nothing, or not now: it may have been carried out.
    Nothing,
    Unavailable,
    Tokens {
        token: String,
        generation: u64,
    },
    /// The token is good, or the ending is acknowledged.
    Yes,
    Row {
        active: bool,
        generation: u64,
        members: BTreeSet<String>,
    },
    /// There is no such session.
    Missing,
    /// With this code.
    Refused(String),
}

/// What happened to the store.
#[derive(Debug, Clone)]
pub struct Outage {
    /// When the node was dead, or the servers were stopped.
    pub began: Millis,
    /// From when on each server served every request again.
    pub over: [Millis; 2],
    /// Since when what was acknowledged was in danger; never, on a store that keeps what it acknowledges.
    pub in_danger_since: Option<Millis>,
}

impl Outage {
    /// Whether the store may have lost what it acknowledged to this request.
    fn may_have_lost(&self, request: &Request) -> bool {
        self.in_danger_since.is_some_and(|since| request.ended >= since && request.began <= self.began)
    }

    /// Whether servers that were to learn of something from `at` on could not before it was over.
    fn delays(&self, at: Millis) -> bool {
        at + LEARNS_WITHIN >= self.began && at <= self.over[0].max(self.over[1])
    }
}

/// What a history is worth.
#[derive(Debug, Default)]
pub struct Verdict {
    /// What must not be.
    pub faults: Vec<String>,
    /// How often what was asked, and how it was answered.
    pub counts: BTreeMap<(&'static str, &'static str), usize>,
    pub sessions: usize,
    /// Sessions whose acknowledged start the store lost.
    pub lost_starts: usize,
    /// Acknowledged writes of data that the store lost.
    pub lost_writes: usize,
    /// Sessions whose ending the store lost: they lived for a moment at the server that had not acknowledged it.
    pub revived: usize,
    /// Copies of clients that were noticed.
    pub thefts: usize,
}

impl Verdict {
    /// How often this was asked and answered.
    pub fn count(&self, asked: &str, answered: &str) -> usize {
        self.counts.iter().filter(|((a, b), _)| (*a, *b) == (asked, answered)).map(|(_, n)| n).sum()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let requests: usize = self.counts.values().sum();
        write!(f, "{requests} requests about {} sessions:", self.sessions)?;
        for ((asked, answered), n) in &self.counts {
            write!(f, " {asked} {answered} {n},")?;
        }
        write!(
            f,
            " copies noticed {}; lost by the store: starts {}, writes {}, endings {}; faults: {}",
            self.thefts,
            self.lost_starts,
            self.lost_writes,
            self.revived,
            self.faults.len()
        )?;
        self.faults.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

/// Judges a history, in which these outages happened, in their order.
pub fn check(history: &[Request], outages: &[Outage]) -> Verdict {
    let mut verdict = Verdict::default();
    let mut sessions: BTreeMap<&str, Vec<&Request>> = BTreeMap::new();
    for request in history {
        if request.asked != Asked::Copy {
            *verdict.counts.entry((request.asked.name(), request.answered.name())).or_default() += 1;
        }
        match &request.session {
            Some(session) => sessions.entry(session).or_default().push(request),
            None if matches!(request.answered, Answered::Nothing | Answered::Unavailable) => {}
            None => verdict.faults.push(format!("a start was refused: {request:?}")),
        }
    }
    verdict.sessions = sessions.len();
    for (id, mut requests) in sessions {
        requests.sort_by_key(|request| request.began);
        Story { id, requests, outages }.check(&mut verdict);
    }
    verdict
}

/// All requests about one session, in the order in which they began.
struct Story<'a> {
    id: &'a str,
    requests: Vec<&'a Request>,
    outages: &'a [Outage],
}

/// That a session is over, as somebody was told.
struct Told<'a> {
    request: &'a Request,
    /// Whether it was the server that ended it, and so has it in its own log.
    by_who_ended_it: bool,
}

impl Story<'_> {
    fn check(&self, verdict: &mut Verdict) {
        if self.is_gone() {
            let start = self.requests.iter().find(|r| r.asked == Asked::Start);
            match start {
                Some(start) if self.may_have_lost(start) => verdict.lost_starts += 1,
                _ => self.fault(verdict, "an acknowledged session is gone", self.requests.last()),
            }
            return;
        }
        self.nobody_is_accused(verdict);
        self.nothing_comes_back(verdict);
        self.one_lineage_lives(verdict);
        self.no_write_is_lost(verdict);
        self.no_generation_is_lost(verdict);
    }

    fn may_have_lost(&self, request: &Request) -> bool {
        self.outages.iter().any(|outage| outage.may_have_lost(request))
    }

    /// When every server knows of an ending that was acknowledged `at` this moment.
    fn known_everywhere(&self, at: Millis) -> Millis {
        let learning = |at: Millis, outage: &Outage| {
            if outage.delays(at) { at.max(outage.over[0]).max(outage.over[1]) } else { at }
        };
        self.outages.iter().fold(at, learning) + LEARNS_WITHIN
    }

    fn fault(&self, verdict: &mut Verdict, what: &str, because: Option<&&Request>) {
        let all: String = self.requests.iter().map(|request| format!("\n    {request:?}")).collect();
        verdict.faults.push(format!("{}: {what}: {because:?}; all of it:{all}", self.id));
    }

    fn is_gone(&self) -> bool {
        self.requests.iter().any(|r| r.answered == Answered::Missing || r.answered.is_refused("session_expired"))
    }

    /// An honest client is never told that its session is over, nor to sign in again, unless somebody ended it.
    fn nobody_is_accused(&self, verdict: &mut Verdict) {
        let since = |asked: &[Asked]| self.requests.iter().find(|r| asked.contains(&r.asked)).map(|r| r.began);
        let (ended, copied) = (since(&[Asked::Revoke, Asked::Copy]), since(&[Asked::Copy]));
        for request in &self.requests {
            let Answered::Refused(code) = &request.answered else { continue };
            let after = |moment: Option<Millis>| moment.is_some_and(|moment| moment <= request.ended);
            match code.as_str() {
                "superseded" => {}
                "session_revoked" | "conflict" if after(ended) => {}
                "token_theft_detected" if after(copied) => verdict.thefts += 1,
                "access_token_expired" if self.is_old(request) => {}
                _ => self.fault(verdict, "an honest client was refused", Some(request)),
            }
        }
    }

    /// Whether the access token that a client has at a request may have expired: the newest one, or, where there are two parties, any.
    fn is_old(&self, request: &Request) -> bool {
        let brought = |r: &&&Request| r.client == request.client && r.ended <= request.began && r.brings_tokens();
        let issued = self.requests.iter().filter(brought).map(|r| r.began);
        let is_copied = self.requests.iter().any(|r| r.asked == Asked::Copy && r.ended <= request.began);
        let oldest = if is_copied { issued.min() } else { issued.max() };
        // Access tokens speak of whole seconds.
        oldest.is_some_and(|at| request.ended + 1000 >= at + ACCESS_TOKENS_LIVE)
    }

    /// Whoever was told that the session is over does not see it alive again.
    fn nothing_comes_back(&self, verdict: &mut Verdict) {
        let endings: Vec<Told> = self.requests.iter().filter_map(|request| told(request)).collect();
        let mut revived = false;
        for request in self.requests.iter().filter(|r| r.shows_life()) {
            for ending in &endings {
                if request.began <= ending.request.ended {
                    continue;
                }
                if request.began >= self.over_from(ending, request) {
                    self.fault(verdict, "an ended session lives", Some(request));
                    return;
                }
                revived |= !request.is_offline();
            }
        }
        verdict.revived += usize::from(revived);
    }

    /// From when on a server must not show the session alive.
    fn over_from(&self, ending: &Told, request: &Request) -> Millis {
        let at = ending.request.ended;
        let own = ending.by_who_ended_it && ending.request.server == request.server;
        // Without looking at the session, a server knows what it ended and what it learnt; and nobody knows what the store lost.
        if !own && (request.is_offline() || self.may_have_lost(ending.request)) {
            self.known_everywhere(at)
        } else {
            at
        }
    }

    /// One token for each generation; of a copied client's two, only one leads on.
    fn one_lineage_lives(&self, verdict: &mut Verdict) {
        let copied = self.requests.iter().any(|r| r.asked == Asked::Copy);
        let mut issued: BTreeMap<u64, BTreeSet<&str>> = BTreeMap::new();
        let mut led_on: BTreeMap<u64, BTreeSet<&str>> = BTreeMap::new();
        for request in &self.requests {
            let Answered::Tokens { token, generation } = &request.answered else { continue };
            let issued = issued.entry(*generation).or_default();
            issued.insert(token);
            if issued.len() > 1 && !copied {
                self.fault(verdict, "two tokens of one generation", Some(request));
                return;
            }
            if let Asked::Refresh { token, generation: presented } = &request.asked {
                if presented >= generation {
                    self.fault(verdict, "a refresh went backwards", Some(request));
                }
                let led_on = led_on.entry(*presented).or_default();
                if !self.may_have_lost(request) {
                    led_on.insert(token);
                }
                if led_on.len() > 1 {
                    self.fault(verdict, "two lineages live", Some(request));
                    return;
                }
            }
        }
    }

    /// What was acknowledged is in every later row.
    fn no_write_is_lost(&self, verdict: &mut Verdict) {
        let mut lost = BTreeSet::new();
        for write in &self.requests {
            let (Asked::Write(member), Answered::Row { .. }) = (&write.asked, &write.answered) else { continue };
            for read in self.requests.iter().filter(|read| read.began > write.ended) {
                let Answered::Row { members, .. } = &read.answered else { continue };
                if members.contains(member) {
                    continue;
                }
                if !self.may_have_lost(write) {
                    self.fault(verdict, &format!("the member `{member}` is lost"), Some(read));
                    return;
                }
                lost.insert(member);
            }
        }
        verdict.lost_writes += lost.len();
    }

    /// A row is never behind what was acknowledged.
    fn no_generation_is_lost(&self, verdict: &mut Verdict) {
        for refresh in &self.requests {
            let Answered::Tokens { generation: reached, .. } = refresh.answered else { continue };
            if self.may_have_lost(refresh) {
                continue;
            }
            let behind = self.requests.iter().find(|read| {
                read.began > refresh.ended
                    && matches!(read.answered, Answered::Row { generation, .. } if generation < reached)
            });
            if behind.is_some() {
                self.fault(verdict, &format!("generation {reached} is lost"), behind);
                return;
            }
        }
    }
}

fn told(request: &Request) -> Option<Told<'_>> {
    let by_who_ended_it = match &request.answered {
        Answered::Yes => request.asked == Asked::Revoke,
        Answered::Refused(code) => code == "token_theft_detected",
        _ => false,
    };
    (by_who_ended_it || request.answered.is_refused("session_revoked")).then_some(Told { request, by_who_ended_it })
}

impl Request {
    fn is_offline(&self) -> bool {
        self.asked == Asked::Verify { online: false }
    }

    fn brings_tokens(&self) -> bool {
        matches!(self.answered, Answered::Tokens { .. })
    }

    fn shows_life(&self) -> bool {
        match &self.answered {
            Answered::Tokens { .. } => true,
            Answered::Yes => matches!(self.asked, Asked::Verify { .. }),
            Answered::Row { active, .. } => *active,
            _ => false,
        }
    }
}

impl Asked {
    fn name(&self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Refresh { .. } => "refresh",
            Self::Verify { .. } => "verify",
            Self::Write(_) => "write",
            Self::Revoke => "revoke",
            Self::Read => "read",
            Self::Copy => "copy",
        }
    }
}

impl Answered {
    /// Whether the client may ask the same again.
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Nothing | Self::Unavailable)
    }

    fn is_refused(&self, with: &str) -> bool {
        matches!(self, Self::Refused(code) if code == with)
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Nothing => "unanswered",
            Self::Unavailable => "unavailable",
            Self::Tokens { .. } | Self::Yes | Self::Row { .. } => "answered",
            Self::Missing => "not found",
            Self::Refused(_) => "refused",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node is dead at 1000, and all is well again at 3000 and 4000.
    fn outage(in_danger_since: Option<Millis>) -> Outage {
        Outage { began: 1000, over: [3000, 4000], in_danger_since }
    }

    const DURABLE: Option<Millis> = None;
    const LOSSY: Option<Millis> = Some(900);

    fn request(server: usize, at: Millis, asked: Asked, answered: Answered) -> Request {
        Request { client: 0, server, session: Some("s".into()), began: at, ended: at + 10, asked, answered }
    }

    fn tokens(token: &str, generation: u64) -> Answered {
        Answered::Tokens { token: token.into(), generation }
    }

    fn start(at: Millis) -> Request {
        request(0, at, Asked::Start, tokens("t0", 0))
    }

    fn refresh(server: usize, at: Millis, from: (&str, u64), answered: Answered) -> Request {
        request(server, at, Asked::Refresh { token: from.0.into(), generation: from.1 }, answered)
    }

    fn refused(code: &str) -> Answered {
        Answered::Refused(code.into())
    }

    fn verify(server: usize, at: Millis, online: bool) -> Request {
        request(server, at, Asked::Verify { online }, Answered::Yes)
    }

    fn revoke(server: usize, at: Millis) -> Request {
        request(server, at, Asked::Revoke, Answered::Yes)
    }

    fn row(generation: u64, members: &[&str]) -> Answered {
        Answered::Row { active: true, generation, members: members.iter().map(ToString::to_string).collect() }
    }

    fn write(at: Millis, member: &str, all: &[&str]) -> Request {
        request(0, at, Asked::Write(member.into()), row(0, all))
    }

    fn read(at: Millis, answered: Answered) -> Request {
        request(1, at, Asked::Read, answered)
    }

    #[track_caller]
    fn good(history: &[Request], in_danger_since: Option<Millis>) -> Verdict {
        let verdict = check(history, &[outage(in_danger_since)]);
        assert_eq!(verdict.faults, Vec::<String>::new());
        verdict
    }

    #[track_caller]
    fn bad(history: &[Request], in_danger_since: Option<Millis>, what: &str) {
        let faults = check(history, &[outage(in_danger_since)]).faults;
        assert!(faults.len() == 1 && faults[0].contains(what), "{faults:?}");
    }

    #[test]
    fn a_quiet_life_is_good_and_counted() {
        let lost = request(1, 300, Asked::Refresh { token: "t1".into(), generation: 1 }, Answered::Nothing);
        let history = [
            start(0),
            refresh(0, 100, ("t0", 0), tokens("t1", 1)),
            verify(1, 200, false),
            lost,
            refresh(0, 400, ("t1", 1), tokens("t2", 2)),
            request(0, 500, Asked::Write("a".into()), row(2, &["a"])),
            read(600, row(2, &["a"])),
            revoke(1, 700),
            refresh(0, 800, ("t2", 2), refused("session_revoked")),
        ];
        let verdict = good(&history, DURABLE);
        assert_eq!(verdict.sessions, 1);
        assert_eq!((verdict.count("refresh", "answered"), verdict.count("refresh", "unanswered")), (2, 1));
    }

    #[test]
    fn an_honest_client_that_is_refused_is_seen() {
        for code in ["session_revoked", "token_theft_detected", "proof_required", "token_malformed", "invalid_request"]
        {
            bad(&[start(0), refresh(0, 100, ("t0", 0), refused(code))], DURABLE, "an honest client was refused");
        }
        let before = refresh(0, 100, ("t0", 0), refused("session_revoked"));
        bad(&[start(0), before, revoke(0, 200)], DURABLE, "an honest client was refused");
        let theft = refresh(0, 300, ("t0", 0), refused("token_theft_detected"));
        bad(&[start(0), revoke(0, 200), theft.clone()], DURABLE, "an honest client was refused");
        let copied = request(0, 100, Asked::Copy, Answered::Yes);
        assert_eq!(good(&[start(0), copied, theft], DURABLE).thefts, 1);
        let nobody = Request { session: None, ..request(0, 0, Asked::Start, refused("conflict")) };
        bad(&[nobody], DURABLE, "a start was refused");
    }

    #[test]
    fn an_access_token_may_have_expired_only_once_it_is_old() {
        let expired = |at| Request { answered: refused("access_token_expired"), ..verify(0, at, false) };
        bad(&[start(0), expired(ACCESS_TOKENS_LIVE - 1500)], DURABLE, "an honest client was refused");
        good(&[start(0), expired(ACCESS_TOKENS_LIVE)], DURABLE);
        let renewed = refresh(0, 5000, ("t0", 0), tokens("t1", 1));
        bad(&[start(0), renewed.clone(), expired(ACCESS_TOKENS_LIVE)], DURABLE, "an honest client was refused");
        let copied = request(0, 100, Asked::Copy, Answered::Yes);
        good(&[start(0), copied, renewed, expired(ACCESS_TOKENS_LIVE)], DURABLE);
    }

    #[test]
    fn a_session_that_is_gone_is_excused_only_where_its_start_was_in_danger() {
        let gone = || refresh(1, 5000, ("t0", 0), refused("session_expired"));
        assert_eq!(good(&[start(950), gone()], LOSSY).lost_starts, 1);
        bad(&[start(950), gone()], DURABLE, "is gone");
        bad(&[start(500), gone()], LOSSY, "is gone");
        bad(&[start(1500), gone()], LOSSY, "is gone");
        bad(&[start(500), read(5000, Answered::Missing)], LOSSY, "is gone");
    }

    #[test]
    fn an_ended_session_that_lives_is_seen() {
        let back = |server, at| refresh(server, at, ("t0", 0), tokens("t1", 1));
        for server in [0, 1] {
            bad(&[start(0), revoke(0, 100), back(server, 200)], DURABLE, "an ended session lives");
            bad(&[start(0), revoke(0, 100), verify(server, 200, true)], DURABLE, "an ended session lives");
            bad(&[start(0), revoke(0, 950), back(server, 8000)], LOSSY, "an ended session lives");
        }
        let heard = refresh(1, 200, ("t0", 0), refused("session_revoked"));
        let heard = [start(0), Request { answered: Answered::Nothing, ..revoke(0, 100) }, heard, back(0, 300)];
        bad(&heard, DURABLE, "an ended session lives");
        bad(&[start(0), revoke(0, 100), read(300, row(0, &[]))], DURABLE, "an ended session lives");
    }

    #[test]
    fn an_ending_that_the_store_lost_holds_where_it_was_acknowledged_and_soon_everywhere() {
        let back = |server, at| refresh(server, at, ("t0", 0), tokens("t1", 1));
        assert_eq!(good(&[start(0), revoke(0, 950), back(1, 5900)], LOSSY).revived, 1);
        bad(&[start(0), revoke(0, 950), back(1, 6000)], LOSSY, "an ended session lives");
        bad(&[start(0), revoke(0, 950), back(0, 3000)], LOSSY, "an ended session lives");
        bad(&[start(0), revoke(0, 950), back(1, 3000)], DURABLE, "an ended session lives");
        bad(&[start(0), revoke(0, 800), back(1, 3000)], LOSSY, "an ended session lives");
    }

    #[test]
    fn another_server_learns_of_an_ending_within_two_seconds_without_looking() {
        good(&[start(4500), revoke(0, 5000), verify(1, 7000, false)], DURABLE);
        bad(&[start(4500), revoke(0, 5000), verify(1, 7010, false)], DURABLE, "an ended session lives");
        bad(&[start(4500), revoke(0, 5000), verify(0, 5011, false)], DURABLE, "an ended session lives");
        good(&[start(0), revoke(0, 900), verify(1, 5900, false)], DURABLE);
        bad(&[start(0), revoke(0, 900), verify(1, 6000, false)], DURABLE, "an ended session lives");
    }

    #[test]
    fn two_lineages_are_seen() {
        let one = refresh(0, 100, ("t0", 0), tokens("t1", 1));
        let two = refresh(1, 200, ("t0", 0), tokens("u1", 1));
        bad(&[start(0), one.clone(), two.clone()], DURABLE, "two tokens of one generation");
        let copied = request(0, 50, Asked::Copy, Answered::Yes);
        let forked = [start(0), copied, one, two, refresh(0, 300, ("t1", 1), tokens("t2", 2))];
        good(&forked, DURABLE);
        let both = refresh(1, 400, ("u1", 1), tokens("u2", 2));
        bad(&[&forked[..], &[both]].concat(), DURABLE, "two lineages live");
        let backwards = refresh(0, 100, ("t1", 1), tokens("t1", 1));
        bad(&[start(0), backwards], DURABLE, "a refresh went backwards");
    }

    #[test]
    fn a_lost_write_is_seen() {
        bad(&[start(0), write(500, "a", &["a"]), read(600, row(0, &[]))], LOSSY, "the member `a` is lost");
        let other = write(700, "b", &["b"]);
        bad(&[start(0), write(500, "a", &["a"]), other], LOSSY, "the member `a` is lost");
        let history = [start(0), write(950, "a", &["a"]), read(5000, row(0, &[])), read(6000, row(0, &[]))];
        assert_eq!(good(&history, LOSSY).lost_writes, 1);
        bad(&history[..3], DURABLE, "the member `a` is lost");
        // One that is still under way may be in it or not.
        good(&[start(0), write(500, "a", &["a"]), read(505, row(0, &[]))], DURABLE);
    }

    #[test]
    fn a_lost_generation_is_seen() {
        let history = |at| [start(0), refresh(0, at, ("t0", 0), tokens("t1", 1)), read(5000, row(0, &[]))];
        bad(&history(500), LOSSY, "generation 1 is lost");
        bad(&history(950), DURABLE, "generation 1 is lost");
        good(&history(950), LOSSY);
    }
}
