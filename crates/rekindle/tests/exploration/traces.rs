//! Sixteen traces that broke earlier drafts of the protocol, told step by step. What of them lies beyond the decision (the
//! conditional update, the confirm endpoint, the revocation log's file, a token's lifetime) is tested with the engine.

use rekindle::clock::Seconds;
use rekindle::rotation::{self, Decision, Expiry, MintDecision, OnMissingProof, TheftKind};

use crate::world::{
    Ask, Draw, FIRST, IDLE, NO_DRAW, Outcome, Reply, Request, Server, Stored, THIEF, Tick, Token, commitment, time,
};

const VICTIM: Draw = FIRST;
/// What the victim draws after its storage was lost.
const REDRAWN: Draw = FIRST + 1;

/// One session at its server.
struct Play {
    server: Server,
    row: Stored,
    now: Tick,
}

impl Play {
    fn committed() -> Self {
        Self { server: Server::DEFAULT, row: Stored::started(0, VICTIM), now: 0 }
    }

    fn bearer() -> Self {
        Self { row: Stored::started(0, NO_DRAW), ..Self::committed() }
    }

    fn under(on_missing_proof: OnMissingProof) -> Self {
        Self { server: Server { on_missing_proof, ..Server::DEFAULT }, ..Self::committed() }
    }

    fn exchange(&mut self, token: Token, ask: Option<Ask>) -> Outcome {
        self.server.serve(&mut self.row, Request { token, ask }, self.now)
    }

    fn send(&mut self, token: Token, ask: impl Into<Option<Ask>>) -> Decision {
        self.exchange(token, ask.into()).decision
    }

    /// The honest client, or whoever draws `who`, rotates `times` times and returns all tokens, the oldest first.
    fn rotate(&mut self, who: Draw, times: u8) -> Vec<Token> {
        let mut tokens = vec![self.row.token];
        for _ in 0..times {
            let token = self.row.token;
            let opening = token.draw;
            let ask = Ask { opening, ..upgrade(token.generation, who) };
            assert_eq!(self.send(token, ask), advance(token.generation + 1, who));
            tokens.push(self.row.token);
        }
        tokens
    }
}

/// The proof of a committed client: the opening of `generation` and the commitment of the next.
fn proof(generation: u8, who: Draw) -> Ask {
    Ask { opening: who, ..upgrade(generation, who) }
}

/// The proof of a client whose token is uncommitted, or whose storage was lost.
fn upgrade(generation: u8, who: Draw) -> Ask {
    Ask { session: 0, generation, opening: NO_DRAW, next: who, newest: false }
}

/// A copy of the victim at `generation` goes its own way.
fn fork(generation: u8) -> Ask {
    Ask { next: THIEF, ..proof(generation, VICTIM) }
}

fn newest(ask: Ask) -> Ask {
    Ask { newest: true, ..ask }
}

fn advance(generation: u8, who: Draw) -> Decision {
    Decision::Advance(commitment(0, generation, who))
}

const FORKED: Decision = Decision::Theft(TheftKind::Forked);
const REUSED: Decision = Decision::Theft(TheftKind::Reused);

#[test]
fn trace_01_silent_overtaking() {
    let mut play = Play::committed();
    let rt0 = play.row.token;
    assert_eq!(play.send(rt0, fork(0)), advance(1, THIEF));
    play.rotate(THIEF, 1);
    assert_eq!(play.send(rt0, proof(0, VICTIM)), Decision::Superseded);
    assert_eq!(play.send(rt0, newest(proof(0, VICTIM))), FORKED);
    assert!(play.row.revoked);

    // The same with a token alone under `downgrade`, whether the thief commits or not.
    for commits in [true, false] {
        let mut play = Play::under(OnMissingProof::Downgrade);
        for generation in 0..2 {
            let token = play.row.token;
            let ask = commits.then(|| upgrade(generation, THIEF));
            assert!(play.exchange(token, ask).advanced());
        }
        assert_eq!(play.send(rt0, proof(0, VICTIM)), Decision::Superseded);
        assert_eq!(play.send(rt0, newest(proof(0, VICTIM))), FORKED);
    }
}

#[test]
fn trace_02_the_tab_that_died() {
    // The next page, a second tab, a service worker: all send the new cookie with the proof that was made for the old one.
    let mut play = Play::committed();
    let tokens = play.rotate(VICTIM, 1);
    let superseded = play.exchange(tokens[1], Some(proof(0, VICTIM)));
    assert_eq!(superseded.decision, Decision::Superseded);
    let Reply::Superseded(told) = superseded.reply else { panic!("{superseded:?}") };
    assert_eq!((told.session, told.generation, told.draw, told.presented), (0, 1, VICTIM, 1));
    assert_eq!(play.send(tokens[1], proof(1, VICTIM)), advance(2, VICTIM));

    // Two sessions in one browser: the other session's proof, at the same generation.
    let token = play.row.token;
    let other = Ask { session: 1, ..proof(token.generation, VICTIM) };
    assert_eq!(play.send(token, other), Decision::Superseded);
}

#[test]
fn trace_03_the_jar_goes_back() {
    let mut play = Play::committed();
    let tokens = play.rotate(VICTIM, 3);
    let back = play.exchange(tokens[1], Some(proof(3, VICTIM)));
    assert_eq!((back.decision, back.reply), (Decision::Reissue, Reply::Tokens(tokens[3])));
}

#[test]
fn trace_04_the_upgrade_race() {
    let mut play = Play::bearer();
    play.server.reuse_leeway = Seconds(0);
    let rt0 = play.row.token;
    assert_eq!(play.send(rt0, upgrade(0, VICTIM)), advance(1, VICTIM));
    play.row.confirmed = true;
    assert_eq!(play.send(rt0, upgrade(0, VICTIM)), Decision::Reissue);
    play.rotate(VICTIM, 2);
    assert_eq!(play.send(rt0, upgrade(0, VICTIM)), Decision::Superseded);
}

#[test]
fn trace_05_the_upgrade_theft() {
    let mut play = Play::bearer();
    let rt0 = play.row.token;
    assert_eq!(play.send(rt0, upgrade(0, VICTIM)), advance(1, VICTIM));
    assert_eq!(play.send(rt0, upgrade(0, THIEF)), FORKED);
}

#[test]
fn trace_06_downgrade_and_a_lost_answer() {
    let mut play = Play::under(OnMissingProof::Downgrade);
    let rt0 = play.row.token;
    assert_eq!(play.send(rt0, None), Decision::Advance(commitment(0, 1, NO_DRAW)));
    assert_eq!(play.send(rt0, None), Decision::Reissue);
    // With a commitment drawn after the eviction it is the same.
    let mut play = Play::under(OnMissingProof::Downgrade);
    assert_eq!(play.send(rt0, upgrade(0, REDRAWN)), advance(1, REDRAWN));
    assert_eq!(play.send(rt0, upgrade(0, REDRAWN)), Decision::Reissue);
}

#[test]
fn trace_07_old_and_new_script_side_by_side() {
    let mut play = Play::committed();
    let rt0 = play.row.token;
    assert_eq!(play.send(rt0, None), Decision::ProofRequired);
    assert_eq!(play.send(rt0, proof(0, VICTIM)), advance(1, VICTIM));
    assert_eq!(play.send(rt0, None), Decision::ProofRequired);
    assert_eq!(play.send(play.row.token, None), Decision::ProofRequired);
    assert!(!play.row.revoked);
}

#[test]
fn trace_08_eviction() {
    let mut play = Play::committed();
    let token = play.rotate(VICTIM, 2)[2];
    // The opening that it drew anew does not hash to what it was told, so it sends none.
    let required = play.exchange(token, Some(upgrade(2, REDRAWN)));
    assert_eq!(required.decision, Decision::ProofRequired);
    assert!(matches!(required.reply, Reply::ProofRequired(told) if told.draw == VICTIM));
    assert!(!play.row.revoked);
    // Had it sent what it holds, it would have ended the session.
    assert_eq!(play.send(token, proof(2, REDRAWN)), Decision::Theft(TheftKind::StolenToken));
}

#[test]
fn trace_09_the_power_cut() {
    let mut play = Play::committed();
    let rt0 = play.row.token;
    assert_eq!(play.send(rt0, proof(0, VICTIM)), advance(1, VICTIM));
    assert_eq!(play.send(rt0, Ask { next: REDRAWN, ..proof(0, VICTIM) }), FORKED);
}

#[test]
fn trace_10_the_old_backup() {
    let mut play = Play::committed();
    let backup = play.row;
    let mut last = play.row.token;
    for _ in 0..3 {
        play.now += 1;
        last = *play.rotate(VICTIM, 1).last().expect("rotated");
    }
    assert!(play.now >= backup.idle);
    play.row = backup;
    let outcome = play.exchange(last, Some(proof(3, VICTIM)));
    assert!(outcome.fast_forwarded);
    assert_eq!(outcome.decision, advance(4, VICTIM));
    // Without the later token there is nothing to prove that the clock went on.
    play.row = backup;
    assert_eq!(play.send(backup.token, proof(0, VICTIM)), Decision::Expired(Expiry::Idle));
    // A revocation after the backup is in the log, which marks the row before anything else. (That a session started after
    // the backup has no row and is `session_expired` is the engine's test.)
    play.row = Stored { revoked: true, ..backup };
    assert_eq!(play.send(last, proof(3, VICTIM)), Decision::Revoked);
}

#[test]
fn trace_11_mint() {
    let mut play = Play::committed();
    let mint = |row: &Stored, token: Token, now: Tick| rotation::decide_mint(&row.row(), &token.presented(), time(now));
    let stolen = play.row.token;
    assert_eq!(mint(&play.row, stolen, 0), MintDecision::Serve);
    // The owner refreshes: an instant later (more than the overlap) the bare stolen cookie mints no more. A mint has no row to
    // write to, so it can confirm nothing; that its token carries the presented generation is the engine's test.
    let tokens = play.rotate(VICTIM, 1);
    assert_eq!(mint(&play.row, stolen, 0), MintDecision::Serve);
    assert_eq!(mint(&play.row, stolen, 1), MintDecision::Superseded);
    assert_eq!(mint(&play.row, tokens[1], 1), MintDecision::Serve);
    let tokens = play.rotate(VICTIM, 2);
    assert_eq!(mint(&play.row, stolen, 0), MintDecision::Superseded);
    // Ahead of a server that lost its writes: served as if the row were there, past the restored idle clock, too.
    let restored = Stored::started(0, VICTIM);
    assert_eq!(mint(&restored, tokens[2], IDLE), MintDecision::Serve);
    assert_eq!(mint(&restored, tokens[2], restored.expires), MintDecision::Expired(Expiry::Absolute));
    assert_eq!(mint(&Stored { revoked: true, ..restored }, tokens[2], 0), MintDecision::Revoked);
}

/// Which confirmations are taken is the engine's and the store's test. What the decision makes of one: a bearer child that
/// is confirmed ends its parent's second chance, a committed one knows no difference.
#[test]
fn trace_12_confirm() {
    for confirmed in [false, true] {
        let mut play = Play::bearer();
        play.server.reuse_leeway = Seconds(0);
        let rt0 = play.row.token;
        play.send(rt0, None);
        play.row.confirmed = confirmed;
        assert_eq!(play.send(rt0, None), if confirmed { REUSED } else { Decision::Reissue });

        let mut play = Play::committed();
        let rt0 = play.rotate(VICTIM, 1)[0];
        play.row.confirmed = confirmed;
        assert_eq!(play.send(rt0, proof(0, VICTIM)), Decision::Reissue);
    }
}

#[test]
fn trace_13_denial() {
    let mut play = Play::committed();
    for token in play.rotate(VICTIM, 3) {
        for ask in [None, Some(upgrade(token.generation, THIEF)), Some(newest(upgrade(token.generation, THIEF)))] {
            assert_eq!(play.send(token, ask), Decision::ProofRequired);
        }
    }
    assert!(!play.row.revoked);
}

/// Wrong lengths, zeros, and an opening without a commitment never become a `Proof`: the parser's tests. What is left:
#[test]
fn trace_14_a_self_made_commitment() {
    use rekindle::refresh::{Commitment, InvalidProof, Proof};
    assert_eq!(Commitment::parse(&"A".repeat(22)), Err(InvalidProof::CommitmentZero));
    assert!(matches!(Commitment::parse("AAAA"), Err(InvalidProof::CommitmentLength(3))));
    let alone =
        r#"{"session_id":"01010101-0101-0101-0101-010101010101","generation":0,"opening":"AAAAAAAAAAAAAAAAAAAAAA"}"#;
    assert!(serde_json::from_str::<Proof>(alone).is_err());

    // Equal to the token's own, before anything is decided, whatever the row says.
    for revoked in [false, true] {
        let play = Play::committed();
        let presented = play.row.token.presented();
        let proof = Proof { commitment: presented.position.commitment, ..proof(0, VICTIM).proof() };
        let row = rotation::Row { revoked, ..play.row.row() };
        let policy = play.server.policy();
        assert_eq!(
            rotation::decide(presented.session, &row, &presented, Some(&proof), time(0), &policy),
            Decision::InvalidProof
        );
    }
}

/// The update itself is the stores' conformance test. One of 64 wins it; what the others are told by the fresh row:
#[test]
fn trace_15_the_race_at_the_row() {
    let mut play = Play::committed();
    let rt0 = play.row.token;
    let read_before = play.row;
    // Tabs of one client all carry the same commitment.
    assert_eq!(play.send(rt0, proof(0, VICTIM)), advance(1, VICTIM));
    for _ in 1..64 {
        let mut stale = read_before;
        let decided = play.server.serve(&mut stale, Request { token: rt0, ask: Some(proof(0, VICTIM)) }, 0);
        assert_eq!(decided.decision, advance(1, VICTIM), "decided on the old row, whose update then finds nothing");
        let again = play.exchange(rt0, Some(proof(0, VICTIM)));
        assert_eq!((again.decision, again.reply), (Decision::Reissue, Reply::Tokens(play.row.token)));
    }
    // A thief among them is found out, and the rest are told that the session is over.
    assert_eq!(play.send(rt0, fork(0)), FORKED);
    assert_eq!(play.send(rt0, proof(0, VICTIM)), Decision::Revoked);
}

#[test]
fn trace_16_bearer_pages() {
    for (leeway, second) in [(Server::DEFAULT.reuse_leeway, Decision::Reissue), (Seconds(0), REUSED)] {
        let mut play = Play::bearer();
        play.server.reuse_leeway = leeway;
        let rt0 = play.row.token;
        assert!(play.exchange(rt0, None).advanced());
        let child = play.row.token;
        play.row.confirmed = true;
        let other = play.exchange(rt0, None);
        assert_eq!(other.decision, second);
        assert_eq!(other.reply == Reply::Tokens(child), second == Decision::Reissue);
    }
}
