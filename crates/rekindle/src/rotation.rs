//! The refresh protocol's whole decision, as pure functions. Read this first.
//!
//! [`decide`] is given what the store's row says, what the client presented, and the time; it answers what to do. It does
//! no I/O, draws nothing and knows no clock, so the model checker (`tests/exploration.rs`), the simulator and production
//! all call this very function. `docs/PROTOCOL.md` tells the same in prose, with the reasons and the test vectors.
//!
//! Vocabulary: a *generation* `n` grows by one at each successful rotation. The *commitment* `c_n` was recorded at the
//! step into generation n; the *opening* that hashes to it is needed for the step out of it. A generation without a
//! commitment is *uncommitted* (bearer).

use serde::{Deserialize, Serialize};

use crate::clock::{Seconds, Timestamp};
use crate::refresh::{Commitment, Presented, Proof};
use crate::session::SessionId;

/// Where a session stands: all that a refresh token is made from, beside the session's id and the secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    /// Counts successful rotations, from 0.
    pub generation: u32,
    /// Recorded at the step into this generation; [`Commitment::NONE`] for a bearer generation.
    pub commitment: Commitment,
    /// When the step into this generation was made, in whole seconds since the epoch.
    pub issued_at: u32,
    /// Which master secret authenticates this generation's token.
    pub kid: u8,
}

/// What [`decide`] needs to know of a session's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Row {
    /// Where the session stands.
    pub position: Position,
    /// This generation is known to have reached its client. Only the bearer rules ask.
    pub confirmed: bool,
    /// The session was ended, by whomever.
    pub revoked: bool,
    /// The idle expiry; never later than `expires_at`.
    pub idle_expires_at: Timestamp,
    /// The absolute expiry, fixed at the start.
    pub expires_at: Timestamp,
}

/// What to do about a token of a committed generation that comes without its opening.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnMissingProof {
    /// Answer [`Decision::ProofRequired`] and change nothing: a token alone can neither use nor end the session.
    #[default]
    Refuse,
    /// End the session: [`TheftKind::Reused`].
    Revoke,
    /// Treat the client as a bearer client from here on. A session survives a browser that evicted its script storage; a
    /// stolen cookie then works until its victim's next completed refresh.
    Downgrade,
}

/// The two policies that the decision depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Policy {
    /// For a committed token without an opening.
    pub on_missing_proof: OnMissingProof,
    /// How long after a rotation a bearer parent still gets its child again although the child was confirmed. Zero: never.
    pub reuse_leeway: Seconds,
}

/// How a theft was recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TheftKind {
    /// An old bearer token came back after its child was in use.
    Reused,
    /// Two parties hold the same client state, and both have moved.
    Forked,
    /// The right token came with a wrong opening: somebody has the token, but not the client.
    StolenToken,
}

/// Which of a session's clocks ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expiry {
    /// No successful refresh for the idle timeout.
    Idle,
    /// The absolute lifetime is over.
    Absolute,
}

/// What a refresh request leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Decision {
    /// Rotate: one conditional update to the next generation, recording this commitment. Whoever loses the update's race
    /// decides again on the fresh row.
    Advance(Commitment),
    /// Hand out the present generation's token again, byte for byte. No state changes, no clock moves.
    Reissue,
    /// The row is behind what this server's secret has authenticated: bring it to the token's position, then decide again.
    FastForward,
    /// The client sent something older than it should hold: no token, no change; it is told where the session stands.
    Superseded,
    /// The token alone is not enough: no token, no change.
    ProofRequired,
    /// Two parties use one session. What follows is up to the definition's `on_theft`.
    Theft(TheftKind),
    /// The session was ended earlier.
    Revoked,
    /// A clock ran out.
    Expired(Expiry),
    /// The proof's next commitment repeats the token's own: no client that follows the protocol sends this.
    InvalidProof,
}

/// Decides a refresh of an authentic token (rules 1 to 8 of `docs/PROTOCOL.md`; the first that applies wins).
///
/// `presented` has passed its MAC, and belongs to the session of `row`. `proof`, where there is one, has been parsed: its
/// lengths are right and its commitment is not zero.
pub fn decide(
    session: SessionId,
    row: &Row,
    presented: &Presented,
    proof: Option<&Proof>,
    now: Timestamp,
    policy: &Policy,
) -> Decision {
    let (m, n) = (presented.position.generation, row.position.generation);
    let (c, c_n) = (presented.position.commitment, row.position.commitment);
    let next = proof.map_or(Commitment::NONE, |p| p.commitment);

    let made_for_token = |p: &Proof| p.session_id == session && p.generation == m;

    // 1. What no honest client sends. A proof made for the generation before does carry this token's commitment (rule 6).
    if proof.is_some_and(|p| made_for_token(p) && p.commitment == c) {
        return Decision::InvalidProof;
    }
    // 2. Ended, or past the expiry that never moves.
    if row.revoked {
        return Decision::Revoked;
    }
    if now >= row.expires_at {
        return Decision::Expired(Expiry::Absolute);
    }
    // 3. The server lost writes; an authentic token of a later generation proves that they had been acknowledged.
    if m > n {
        return Decision::FastForward;
    }
    // 4. After rule 3, because a restored row's idle clock stopped with its backup.
    if now >= row.idle_expires_at {
        return Decision::Expired(Expiry::Idle);
    }
    // 5. Cookie jar and script storage parted: an old cookie, but the opening of the present generation.
    if let Some(p) = proof
        && m < n
        && p.session_id == session
        && p.generation == n
        && p.opening_matches(c_n)
    {
        return Decision::Reissue;
    }
    // 6. The proof was made for another token than the one it came with.
    if proof.is_some_and(|p| !made_for_token(p)) {
        return Decision::Superseded;
    }
    // 7. A committed token without an opening.
    if c.is_some() && proof.is_none_or(|p| p.opening.is_none()) {
        return missing_proof(row, presented, next, policy);
    }
    // 8. By generation.
    if m == n && c != c_n {
        return Decision::Theft(TheftKind::Forked);
    }
    if c.is_some() && !proof.is_some_and(|p| p.opening_matches(c)) {
        return Decision::Theft(TheftKind::StolenToken);
    }
    if m == n {
        return Decision::Advance(next);
    }
    if m + 1 == n {
        return if next.is_some() && next == c_n {
            Decision::Reissue
        } else if c.is_some() || (c_n.is_some() && next.is_some()) {
            Decision::Theft(TheftKind::Forked)
        } else if !row.confirmed || within(policy.reuse_leeway, row.position.issued_at, now) {
            Decision::Reissue
        } else {
            Decision::Theft(TheftKind::Reused)
        };
    }
    match proof {
        None => Decision::Theft(TheftKind::Reused),
        Some(p) if p.newest => Decision::Theft(TheftKind::Forked),
        Some(_) => Decision::Superseded,
    }
}

/// Rule 7: a committed token came without an opening.
fn missing_proof(row: &Row, presented: &Presented, next: Commitment, policy: &Policy) -> Decision {
    let (m, n) = (presented.position.generation, row.position.generation);
    match policy.on_missing_proof {
        OnMissingProof::Refuse => Decision::ProofRequired,
        OnMissingProof::Revoke => Decision::Theft(TheftKind::Reused),
        OnMissingProof::Downgrade => {
            let c_n = row.position.commitment;
            if m == n && presented.position.commitment != c_n {
                Decision::Theft(TheftKind::Forked)
            } else if m == n {
                Decision::Advance(next)
            } else if m + 1 == n && !row.confirmed && next == c_n {
                Decision::Reissue
            } else if c_n.is_none() {
                Decision::Theft(TheftKind::Reused)
            } else {
                Decision::ProofRequired
            }
        }
    }
}

/// The row that an up-to-date client's token implies.
///
/// When [`decide`] on this row says [`Decision::Advance`], the engine tries the conditional update at once, without reading
/// first: a refresh is then one round trip. The update's condition is exactly what this row assumes.
pub fn expected_row(presented: &Presented) -> Row {
    Row {
        position: presented.position,
        confirmed: true,
        revoked: false,
        idle_expires_at: Timestamp::MAX,
        expires_at: Timestamp::MAX,
    }
}

/// For how long after a rotation the parent's token still buys access tokens: pages that were being rendered meanwhile.
pub const MINT_OVERLAP: Seconds = Seconds(60);

/// What a mint request leads to. Minting never decides theft and confirms nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MintDecision {
    /// An access token that carries the *presented* generation.
    Serve,
    /// Too old a token: nothing is handed out, nothing changes.
    Superseded,
    /// The session was ended earlier.
    Revoked,
    /// A clock ran out.
    Expired(Expiry),
}

/// Decides a mint with an authentic token.
pub fn decide_mint(row: &Row, presented: &Presented, now: Timestamp) -> MintDecision {
    let (m, n) = (presented.position.generation, row.position.generation);
    if row.revoked {
        MintDecision::Revoked
    } else if now >= row.expires_at {
        MintDecision::Expired(Expiry::Absolute)
    } else if m > n {
        MintDecision::Serve
    } else if now >= row.idle_expires_at {
        MintDecision::Expired(Expiry::Idle)
    } else if (m == n && presented.position.commitment == row.position.commitment)
        || (m + 1 == n && within(MINT_OVERLAP, row.position.issued_at, now))
    {
        MintDecision::Serve
    } else {
        MintDecision::Superseded
    }
}

/// Whether `now` is less than `span` after `since`; a zero span holds nothing, a moment in the future counts as now.
fn within(span: Seconds, since: u32, now: Timestamp) -> bool {
    now.since(Timestamp::from_secs(i64::from(since))) < span
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refresh::Opening;

    const NOW: Timestamp = Timestamp::from_secs(1_000_000);
    const DEFAULT: Policy = Policy { on_missing_proof: OnMissingProof::Refuse, reuse_leeway: Seconds(10) };

    fn sid() -> SessionId {
        SessionId::from_bytes([7; 16])
    }

    /// The opening of generation `n` in lineage `who`.
    fn opening(who: u8, n: u32) -> Opening {
        Opening::from_bytes(&[[who; 16], [n as u8 + 1; 16]].concat()).unwrap()
    }

    fn committed(who: u8, n: u32) -> Position {
        Position { generation: n, commitment: opening(who, n).commitment(), issued_at: 999_000, kid: 1 }
    }

    fn bearer(n: u32) -> Position {
        Position { commitment: Commitment::NONE, ..committed(0, n) }
    }

    fn row(position: Position) -> Row {
        Row {
            position,
            confirmed: false,
            revoked: false,
            idle_expires_at: NOW + Seconds(100),
            expires_at: NOW + Seconds(1000),
        }
    }

    fn proof(who: u8, n: u32) -> Proof {
        Proof { opening: Some(opening(who, n)), ..upgrade(who, n) }
    }

    fn upgrade(who: u8, n: u32) -> Proof {
        Proof {
            session_id: sid(),
            generation: n,
            commitment: opening(who, n + 1).commitment(),
            opening: None,
            newest: false,
        }
    }

    fn run(row: Row, token: Position, proof: Option<Proof>) -> Decision {
        decide(sid(), &row, &Presented { session: sid(), position: token }, proof.as_ref(), NOW, &DEFAULT)
    }

    fn newest(proof: Proof) -> Option<Proof> {
        Some(Proof { newest: true, ..proof })
    }

    const A: u8 = 1;
    const T: u8 = 2;

    #[test]
    fn a_committed_client_advances_and_retries_for_ever() {
        let next = opening(A, 1).commitment();
        assert_eq!(run(row(committed(A, 0)), committed(A, 0), Some(proof(A, 0))), Decision::Advance(next));
        let moved = Row { confirmed: true, ..row(committed(A, 1)) };
        assert_eq!(run(moved, committed(A, 0), Some(proof(A, 0))), Decision::Reissue);
    }

    #[test]
    fn two_copies_of_one_client_are_seen_whoever_moves_first() {
        // The thief copied everything at generation 0 and advanced once; the victim draws another next opening.
        let thief_moved = row(Position { generation: 1, commitment: opening(T, 1).commitment(), ..committed(A, 0) });
        assert_eq!(run(thief_moved, committed(A, 0), Some(proof(A, 0))), Decision::Theft(TheftKind::Forked));
        // Twice: the victim is told, looks, holds nothing newer, and says so.
        let twice = row(Position { generation: 2, commitment: opening(T, 2).commitment(), ..committed(A, 0) });
        assert_eq!(run(twice, committed(A, 0), Some(proof(A, 0))), Decision::Superseded);
        assert_eq!(run(twice, committed(A, 0), newest(proof(A, 0))), Decision::Theft(TheftKind::Forked));
    }

    #[test]
    fn a_token_without_its_opening_moves_nothing() {
        for m in 0..=3 {
            assert_eq!(run(row(committed(A, 3)), committed(A, m), None), Decision::ProofRequired);
        }
        assert_eq!(run(row(committed(A, 3)), committed(A, 3), Some(upgrade(T, 3))), Decision::ProofRequired);
        let wrong = Proof { opening: Some(opening(T, 3)), ..proof(A, 3) };
        assert_eq!(run(row(committed(A, 3)), committed(A, 3), Some(wrong)), Decision::Theft(TheftKind::StolenToken));
    }

    #[test]
    fn an_old_cookie_with_the_present_opening_is_the_present_client() {
        assert_eq!(run(row(committed(A, 3)), committed(A, 1), Some(proof(A, 3))), Decision::Reissue);
        assert_eq!(run(row(committed(A, 3)), committed(A, 3), Some(proof(A, 2))), Decision::Superseded);
    }

    #[test]
    fn newest_counts_for_the_presented_generation_only() {
        // A thief moved on to 5; the cookie went back to 1, the storage stands at 4.
        let overtaken = row(committed(T, 5));
        assert_eq!(run(overtaken, committed(A, 1), newest(proof(A, 4))), Decision::Superseded);
        assert_eq!(run(overtaken, committed(A, 1), newest(proof(A, 1))), Decision::Theft(TheftKind::Forked));
    }

    #[test]
    fn bearer_parents_are_good_until_their_child_is_confirmed() {
        let unconfirmed = row(bearer(1));
        let confirmed = Row { confirmed: true, ..unconfirmed };
        let fresh = Row { position: Position { issued_at: 999_991, ..bearer(1) }, ..confirmed };
        assert_eq!(run(unconfirmed, bearer(0), None), Decision::Reissue);
        assert_eq!(run(fresh, bearer(0), None), Decision::Reissue);
        assert_eq!(run(confirmed, bearer(0), None), Decision::Theft(TheftKind::Reused));
        assert_eq!(run(row(bearer(2)), bearer(0), None), Decision::Theft(TheftKind::Reused));
        assert_eq!(run(row(bearer(1)), bearer(1), None), Decision::Advance(Commitment::NONE));
    }

    #[test]
    fn upgrading_races_with_itself_but_not_with_a_thief() {
        let upgraded = Row { confirmed: true, ..row(committed(A, 1)) };
        assert_eq!(run(upgraded, bearer(0), Some(upgrade(A, 0))), Decision::Reissue);
        assert_eq!(run(upgraded, bearer(0), Some(upgrade(T, 0))), Decision::Theft(TheftKind::Forked));
        let later = row(committed(A, 3));
        assert_eq!(run(later, bearer(0), Some(upgrade(A, 0))), Decision::Superseded);
        assert_eq!(run(later, bearer(0), newest(upgrade(A, 0))), Decision::Theft(TheftKind::Forked));
    }

    #[test]
    fn the_order_of_the_clocks() {
        let idle = Row { idle_expires_at: NOW, ..row(committed(A, 1)) };
        assert_eq!(run(idle, committed(A, 1), Some(proof(A, 1))), Decision::Expired(Expiry::Idle));
        assert_eq!(run(idle, committed(A, 5), Some(proof(A, 5))), Decision::FastForward);
        let over = Row { expires_at: NOW, ..idle };
        assert_eq!(run(over, committed(A, 5), Some(proof(A, 5))), Decision::Expired(Expiry::Absolute));
        let revoked = Row { revoked: true, ..over };
        assert_eq!(run(revoked, committed(A, 5), Some(proof(A, 5))), Decision::Revoked);
    }

    #[test]
    fn downgrade_never_continues_a_foreign_branch() {
        let policy = Policy { on_missing_proof: OnMissingProof::Downgrade, ..DEFAULT };
        let at = |row: Row, token: Position, p: Option<Proof>| {
            decide(sid(), &row, &Presented { session: sid(), position: token }, p.as_ref(), NOW, &policy)
        };
        assert_eq!(at(row(committed(A, 1)), committed(A, 1), None), Decision::Advance(Commitment::NONE));
        assert_eq!(at(row(committed(A, 1)), committed(T, 1), None), Decision::Theft(TheftKind::Forked));
        assert_eq!(at(row(bearer(2)), committed(A, 1), None), Decision::Reissue);
        let confirmed = Row { confirmed: true, ..row(bearer(2)) };
        assert_eq!(at(confirmed, committed(A, 1), None), Decision::Theft(TheftKind::Reused));
        assert_eq!(at(row(committed(A, 2)), committed(A, 1), None), Decision::ProofRequired);
    }

    #[test]
    fn a_commitment_that_repeats_the_tokens_own_is_refused_first() {
        let repeated = Proof { commitment: committed(A, 1).commitment, ..proof(A, 1) };
        let revoked = Row { revoked: true, ..row(committed(A, 1)) };
        assert_eq!(run(revoked, committed(A, 1), Some(repeated)), Decision::InvalidProof);
    }

    #[test]
    fn mint_serves_the_present_and_for_a_minute_the_parent() {
        let at = |row: Row, token: Position| decide_mint(&row, &Presented { session: sid(), position: token }, NOW);
        let r = row(Position { issued_at: 999_941, ..committed(A, 2) });
        assert_eq!(at(r, committed(A, 2)), MintDecision::Serve);
        assert_eq!(at(r, committed(A, 1)), MintDecision::Serve);
        assert_eq!(at(r, committed(A, 0)), MintDecision::Superseded);
        assert_eq!(at(r, committed(T, 2)), MintDecision::Superseded);
        assert_eq!(at(row(committed(A, 2)), committed(A, 1)), MintDecision::Superseded);
        assert_eq!(at(Row { idle_expires_at: NOW, ..r }, committed(A, 3)), MintDecision::Serve);
    }
}
