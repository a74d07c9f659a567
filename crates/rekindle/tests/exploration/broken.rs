//! The rules, each left out or turned around on purpose: the exploration must find what each of them is for.
//!
//! The server's rules are broken around the production function: its input or its answer is changed for the one rule, and
//! the rest of the table stays what production calls. The client's are in `client.rs`, the store's in `model.rs`.

use rekindle::clock::Timestamp;
use rekindle::refresh::{Commitment, Presented, Proof};
use rekindle::rotation::{self, Decision, Expiry, Policy, Row};

use crate::world::{Ask, GARBAGE, session_id};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Broken {
    /// Rule 1 taken literally: any proof that repeats the token's commitment is invalid.
    RepeatedCommitmentLiteral,
    /// Rule 2: a revoked row is not looked at.
    RevokedIgnored,
    /// Rule 2: the absolute expiry is not looked at.
    AbsoluteIgnored,
    /// Rule 3: a server that is behind says so, and stays behind.
    NoFastForward,
    /// Rules 3 and 4 the other way round.
    IdleBeforeFastForward,
    /// Rule 4: the idle expiry is not looked at.
    IdleIgnored,
    /// Rule 5.
    NoRule5,
    /// Rule 6: a proof is taken to be made for the token that it came with.
    NoNamedGeneration,
    /// Rule 7: no opening counts as a wrong one.
    NoRule7,
    /// Rule 8, m = n: a foreign branch is continued.
    ForeignBranch,
    /// Rule 8: any opening will do.
    AnyOpening,
    /// Rule 8, n-1: a repetition counts as another commitment.
    NoExactRetry,
    /// Rule 8, n-1: another commitment counts as a repetition.
    NoFork,
    /// Rule 8, n-1: an upgrade is treated as a bearer client.
    NoUpgradeRows,
    /// Rule 8, n-1, bearer: every child counts as confirmed.
    AlwaysConfirmed,
    /// Rule 8, n-1, bearer: no child counts as confirmed.
    NeverConfirmed,
    /// Rule 8, < n-1: `newest` is not looked at.
    NoNewest,
    /// Rule 8, < n-1: `newest` is always assumed.
    AlwaysNewest,
    /// Rule 8, < n-1, bearer: superseded instead of theft.
    OldBearerSuperseded,
    /// The idle expiry may pass the absolute one.
    IdleUnclamped,
    /// A restored backup brings a revoked session back: no revocation log.
    NoRevocationLog,
    /// Client: a drawn opening may be sent before it is durable.
    SentBeforeDurable,
    /// Client: an opening is sent without asking whether it hashes to the commitment that the client was told.
    UncheckedOpening,
    /// Client and server: `superseded` and `proof_required` say the presented token's commitment only.
    ToldPresentedOnly,
    /// Client and server: `superseded` and `proof_required` do not say which session they are about.
    ToldNoSession,
    /// Client: `newest` only where no opening at all is newer than the one after the one sent.
    NewestOnlyIfNothingNewer,
    /// Client and server: a terminal answer does not say which session and generation it is about.
    EndedNamesNothing,
    /// Client: a terminal answer clears whatever is there.
    ClearsAnything,
}

impl Broken {
    /// The production decision with this one rule broken.
    pub fn decide(
        self,
        row: &Row,
        presented: &Presented,
        proof: Option<&Proof>,
        now: Timestamp,
        policy: &Policy,
    ) -> Decision {
        let session = presented.session;
        let production =
            |row: &Row, proof: Option<&Proof>| rotation::decide(session, row, presented, proof, now, policy);
        let (m, n) = (presented.position.generation, row.position.generation);
        let (c, c_n) = (presented.position.commitment, row.position.commitment);
        let changed = |change: &dyn Fn(&mut Proof)| {
            proof.cloned().map(|mut p| {
                change(&mut p);
                p
            })
        };
        let decision = production(row, proof);
        match self {
            Self::RepeatedCommitmentLiteral if proof.is_some_and(|p| p.commitment == c) => Decision::InvalidProof,
            Self::RevokedIgnored => production(&Row { revoked: false, ..*row }, proof),
            Self::AbsoluteIgnored => production(&Row { expires_at: Timestamp::MAX, ..*row }, proof),
            Self::NoFastForward if decision == Decision::FastForward => Decision::Superseded,
            Self::IdleBeforeFastForward if decision == Decision::FastForward && now >= row.idle_expires_at => {
                Decision::Expired(Expiry::Idle)
            }
            Self::IdleIgnored => production(&Row { idle_expires_at: Timestamp::MAX, ..*row }, proof),
            // Without its opening, such a proof falls through to rule 6.
            Self::NoRule5 if m < n && proof.is_some_and(|p| p.generation == n) => {
                production(row, changed(&|p| p.opening = None).as_ref())
            }
            Self::NoNamedGeneration => {
                let named = changed(&|p| (p.session_id, p.generation) = (session, m));
                production(row, named.as_ref())
            }
            Self::NoRule7 if c.is_some() && proof.is_none_or(|p| p.opening.is_none()) => {
                let garbage = self::garbage(presented);
                let proof = Proof { commitment: proof.map_or(garbage.commitment, |p| p.commitment), ..garbage };
                production(row, Some(&proof))
            }
            Self::ForeignBranch if m == n => {
                let mut row = *row;
                row.position.commitment = c;
                production(&row, proof)
            }
            Self::AnyOpening if decision == Decision::Theft(rotation::TheftKind::StolenToken) && m == n => {
                Decision::Advance(proof.map_or(Commitment::NONE, |p| p.commitment))
            }
            Self::NoExactRetry if m + 1 == n && c.is_some() && proof.is_some_and(|p| p.generation == m) => {
                let other = self::garbage(presented).commitment;
                production(row, changed(&|p| p.commitment = other).as_ref())
            }
            Self::NoFork if m + 1 == n && c_n.is_some() && proof.is_some_and(|p| p.generation == m) => {
                production(row, changed(&|p| p.commitment = c_n).as_ref())
            }
            Self::NoUpgradeRows if m < n && c.is_none() && proof.is_some_and(|p| p.generation == m) => {
                production(row, None)
            }
            Self::AlwaysConfirmed => production(&Row { confirmed: true, ..*row }, proof),
            Self::NeverConfirmed => production(&Row { confirmed: false, ..*row }, proof),
            Self::NoNewest => production(row, changed(&|p| p.newest = false).as_ref()),
            Self::AlwaysNewest => production(row, changed(&|p| p.newest = true).as_ref()),
            Self::OldBearerSuperseded
                if m + 1 < n && proof.is_none() && decision == Decision::Theft(rotation::TheftKind::Reused) =>
            {
                Decision::Superseded
            }
            _ => decision,
        }
    }
}

/// A proof made for this token with an opening and a commitment that nobody else uses.
fn garbage(presented: &Presented) -> Proof {
    let session = u8::from(presented.session == session_id(1));
    let generation = presented.position.generation as u8;
    Ask { session, generation, opening: GARBAGE, next: GARBAGE, newest: false }.proof()
}
