//! Refresh, elevate and mint.

use std::fmt;

use super::scopes::{Grant, ScopeState};
use super::start::check_auth;
use super::{Engine, Error, Issued, Standing, TokenRefusal, Tokens, Unsigned};
use crate::access::AccessToken;
use crate::clock::{Seconds, Timestamp};
use crate::definition::{Definition, Mint as MintPolicy, OnTheft};
use crate::journal::{Context, Counterpart, Event, EventKind, Outcome};
use crate::refresh::{Commitment, Malformed, Presented, Proof};
use crate::rotation::{self, Decision, Expiry, MintDecision, Policy, Position, TheftKind};
use crate::session::{Auth, EndReason, Scope, Session, SessionId, Tag};
use crate::store::{Advance, Cas, Elevation, End, EndMany, EventQuery, FastForward};

/// A refresh request. It never prints its token.
#[derive(Clone)]
pub struct Refresh<'a> {
    /// The token's text.
    pub refresh_token: &'a str,
    /// The definition that the caller expects. Naming it saves a read where the product has several definitions.
    pub tag: Option<Tag>,
    /// The client's proof.
    pub proof: Option<Proof>,
}

impl fmt::Debug for Refresh<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refresh").field("tag", &self.tag).field("proof", &self.proof).finish_non_exhaustive()
    }
}

/// What a face decides for itself where it speaks another protocol than the session's definition does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conduct {
    /// Instead of the definition's `reuse_leeway`.
    pub reuse_leeway: Seconds,
    /// Instead of the definition's `on_theft`.
    pub on_theft: OnTheft,
}

/// A refresh after a re-authentication.
#[derive(Debug, Clone)]
pub struct Elevate<'a> {
    /// The refresh.
    pub refresh: Refresh<'a>,
    /// The re-authentication. Access tokens of older generations are refused from here on.
    pub auth: Auth,
}

/// What came of a refresh.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "the large one is the usual one")]
pub enum RefreshOutcome {
    /// The client's new tokens: of the next generation, or once more of the present one.
    Refreshed(Tokens),
    /// No tokens.
    Refused(TokenRefusal),
}

/// A mint request. It never prints its token.
#[derive(Clone)]
pub struct Mint<'a> {
    /// The refresh token's text.
    pub refresh_token: &'a str,
    /// For how long the access token should live; at most 60 seconds, which is also the default.
    pub lifetime: Option<Seconds>,
}

impl fmt::Debug for Mint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mint").field("lifetime", &self.lifetime).finish_non_exhaustive()
    }
}

/// What came of a mint.
#[derive(Debug, Clone)]
pub enum Minted {
    /// An access token of the presented generation, and the session.
    Token {
        /// The token.
        access_token: AccessToken,
        /// When it expires.
        expires_at: Timestamp,
        /// The session.
        session: Box<Session>,
    },
    /// None.
    Refused(TokenRefusal),
}

/// How often a refresh decides again before it gives up: each time somebody else moved the row in between.
const MAX_RACES: usize = 16;

/// A request that changed nothing is recorded at most this often, per session, outcome and presented generation.
const RECORD_EVERY: Seconds = Seconds(60);

/// The longest life of a minted access token.
const MAX_MINT: Seconds = Seconds(60);

/// Who asks, and in what scope: what every step of a refresh needs.
struct Request<'a> {
    scope: &'a Scope,
    state: &'a ScopeState,
    presented: Presented,
    tag: Option<Tag>,
    proof: Option<Proof>,
    auth: Option<Auth>,
    conduct: Option<Conduct>,
    ctx: &'a Context,
}

impl Request<'_> {
    fn policy(&self, definition: &Definition) -> Policy {
        let policy = definition.policy();
        Policy { reuse_leeway: self.conduct.map_or(policy.reuse_leeway, |c| c.reuse_leeway), ..policy }
    }

    fn on_theft(&self, definition: &Definition) -> OnTheft {
        self.conduct.map_or(definition.refresh.on_theft, |c| c.on_theft)
    }
}

/// A session that has moved, or whose present generation is handed out again.
struct Moved {
    session: Session,
    definition: Definition,
    issued: Issued,
    /// Whether the use of its access token must be reported.
    confirms: bool,
    now: Timestamp,
}

/// What one attempt led to: an answer, or a fresher row to decide on.
enum Step {
    Answer(Result<Moved, TokenRefusal>),
    DecideAgain(Option<Session>),
    /// The row was brought forward.
    FastForwarded(Session),
}

impl Engine {
    /// Rotates a refresh token, as `docs/PROTOCOL.md` tells.
    ///
    /// A repeated request gets the same refresh token and generation again (the access token is fresh). Theft is an outcome; the
    /// definition's `on_theft` is carried out before this returns.
    pub async fn refresh(&self, scope: &Scope, request: Refresh<'_>, ctx: &Context) -> Result<RefreshOutcome, Error> {
        self.rotate_and_sign(scope, request, None, ctx).await
    }

    /// The same for a caller that signs access tokens of its own, and has rules of its own for bearer tokens.
    ///
    /// Such a caller confirms generations that it sees in use with [`Engine::confirm`].
    pub async fn refresh_unsigned(
        &self,
        scope: &Scope,
        request: Refresh<'_>,
        conduct: Conduct,
        ctx: &Context,
    ) -> Result<Result<Unsigned, TokenRefusal>, Error> {
        let Ok(presented) = self.authenticate(request.refresh_token) else { return Ok(Err(TokenRefusal::Malformed)) };
        let state = self.active_scope(scope).await?;
        let Refresh { tag, proof, .. } = request;
        let conduct = Some(conduct);
        match self.rotate(Request { scope, state: &state, presented, tag, proof, auth: None, conduct, ctx }).await? {
            Ok(moved) => self.unsigned(moved.session, moved.issued).map(Ok),
            Err(refusal) => Ok(Err(refusal)),
        }
    }

    /// Rotates after a re-authentication: the session rests on `auth` from here on, and older access tokens are refused.
    pub async fn elevate(&self, scope: &Scope, request: Elevate<'_>, ctx: &Context) -> Result<RefreshOutcome, Error> {
        check_auth(&request.auth, self.now())?;
        self.rotate_and_sign(scope, request.refresh, Some(request.auth), ctx).await
    }

    /// Sells a short access token for a refresh token without rotating it: for server-side rendering.
    pub async fn mint(&self, scope: &Scope, request: Mint<'_>, ctx: &Context) -> Result<Minted, Error> {
        let Ok(presented) = self.authenticate(request.refresh_token) else {
            return Ok(Minted::Refused(TokenRefusal::Malformed));
        };
        let lifetime = request.lifetime.unwrap_or(MAX_MINT);
        if lifetime > MAX_MINT || lifetime == Seconds(0) {
            let problem = format!("{} s is not between 1 and {} s", lifetime.0, MAX_MINT.0);
            return Err(Error::Invalid { field: "lifetime", problem });
        }
        let state = self.active_scope(scope).await?;
        let session = match self.session_of(scope, &presented).await? {
            Ok(session) => session,
            Err(refusal) => return Ok(Minted::Refused(refusal)),
        };
        let definition = self.definition_of(&state, &session).await?;
        if definition.refresh.mint == MintPolicy::Off {
            return Err(Error::Conflict(format!("the definition `{}` does not allow minting", session.tag)));
        }
        let now = self.now();
        let refused = match rotation::decide_mint(&session.row(), &presented, now) {
            MintDecision::Serve => {
                let mut at_presented = session.clone();
                at_presented.position = presented.position;
                if presented.position.generation > session.position.generation {
                    if let Some(reason) = self.disbelieved(&presented) {
                        return Ok(Minted::Refused(TokenRefusal::Revoked(Some(reason))));
                    }
                    // The row lost writes, and its idle clock with them.
                    at_presented.idle_expires_at = session.expires_at;
                }
                let grant = Grant { lifetime, confirms: false };
                let (access_token, expires_at) = self.sign(&state, &definition, &at_presented, grant, now).await?;
                return Ok(Minted::Token { access_token, expires_at, session: Box::new(session) });
            }
            MintDecision::Superseded => {
                self.record_refused(ctx, &session, &presented, EventKind::Mint, Outcome::Superseded).await?;
                TokenRefusal::Superseded(standing(&session, &presented))
            }
            MintDecision::Revoked => TokenRefusal::Revoked(session.ended.map(|e| e.reason)),
            MintDecision::Expired(expiry) => TokenRefusal::Expired(expiry),
        };
        Ok(Minted::Refused(refused))
    }

    async fn rotate_and_sign(
        &self,
        scope: &Scope,
        refresh: Refresh<'_>,
        auth: Option<Auth>,
        ctx: &Context,
    ) -> Result<RefreshOutcome, Error> {
        let Ok(presented) = self.authenticate(refresh.refresh_token) else {
            return Ok(RefreshOutcome::Refused(TokenRefusal::Malformed));
        };
        let state = self.active_scope(scope).await?;
        let Refresh { tag, proof, .. } = refresh;
        let request = Request { scope, state: &state, presented, tag, proof, auth, conduct: None, ctx };
        match self.rotate(request).await? {
            Ok(Moved { session, definition, issued, confirms, now }) => {
                let grant = Grant { lifetime: definition.access_token.lifetime.seconds(), confirms };
                self.tokens(&state, &definition, session, issued, grant, now).await.map(RefreshOutcome::Refreshed)
            }
            Err(refusal) => Ok(RefreshOutcome::Refused(refusal)),
        }
    }

    async fn rotate(&self, request: Request<'_>) -> Result<Result<Moved, TokenRefusal>, Error> {
        let presented = request.presented;
        // The log may know of an ending that the store lost.
        self.known_ending(presented.session).await?;
        let mut step = self.optimistic(&request).await?;
        let mut fast_forwarded = false;
        for _ in 0..MAX_RACES {
            step = match step {
                Step::Answer(Ok(mut moved)) => {
                    if fast_forwarded {
                        moved.issued = Issued::FastForwarded;
                    }
                    // The store may have lost the ending after the log was asked, or a fast-forward revived an idle row.
                    let ended = self.known_ending(presented.session).await?;
                    return Ok(match ended {
                        Some(reason) => Err(TokenRefusal::Revoked(Some(reason))),
                        None => Ok(moved),
                    });
                }
                Step::Answer(refused) => return Ok(refused),
                // Boxed, because it is rare and large: the usual refresh does not carry its room around.
                Step::DecideAgain(session) => Box::pin(self.decide_on(&request, session)).await?,
                Step::FastForwarded(session) => {
                    fast_forwarded = true;
                    Box::pin(self.decide_on(&request, Some(session))).await?
                }
            };
        }
        Err(Error::Conflict("the session changed too often while it was refreshed; repeat the request".into()))
    }

    /// One round trip for a client that is up to date: the conditional update without reading first.
    ///
    /// It needs to know the definition, whose idle timeout is part of the update: named by the caller, or the only one.
    async fn optimistic(&self, request: &Request<'_>) -> Result<Step, Error> {
        let guess = match &request.tag {
            Some(tag) => request.state.definition(tag),
            None => request.state.only_definition(),
        };
        if let Some(definition) = guess {
            let expected = rotation::expected_row(&request.presented);
            let now = self.now();
            let (presented, proof) = (&request.presented, request.proof.as_ref());
            let policy = request.policy(definition);
            match rotation::decide(presented.session, &expected, presented, proof, now, &policy) {
                Decision::Advance(next) => return self.advance(request, definition, next, now).await,
                Decision::InvalidProof => return Err(repeated_commitment()),
                _ => {}
            }
        }
        Ok(Step::DecideAgain(self.inner.store.session(request.presented.session).await?))
    }

    async fn decide_on(&self, request: &Request<'_>, session: Option<Session>) -> Result<Step, Error> {
        let presented = &request.presented;
        let session = if self.flush_confirmation(presented.session).await? {
            self.inner.store.session(presented.session).await?
        } else {
            session
        };
        let refuse = |refusal| Ok(Step::Answer(Err(refusal)));
        let Some(session) = session else {
            return refuse(TokenRefusal::Expired(Expiry::Absolute));
        };
        if session.scope != *request.scope || request.tag.as_ref().is_some_and(|t| *t != session.tag) {
            return refuse(TokenRefusal::ScopeMismatch);
        }
        let definition = self.definition_of(request.state, &session).await?;
        let now = self.now();
        let policy = request.policy(&definition);
        match rotation::decide(session.id, &session.row(), presented, request.proof.as_ref(), now, &policy) {
            Decision::Advance(next) => self.advance(request, &definition, next, now).await,
            Decision::Reissue => self.reissue(request, &definition, session, now).await,
            Decision::FastForward => self.fast_forward(request, &definition, session, now).await,
            Decision::Superseded => {
                self.record_refused(request.ctx, &session, presented, EventKind::Refresh, Outcome::Superseded).await?;
                refuse(TokenRefusal::Superseded(standing(&session, presented)))
            }
            Decision::ProofRequired => {
                let (kind, outcome) = (EventKind::Refresh, Outcome::ProofRequired);
                self.record_refused(request.ctx, &session, presented, kind, outcome).await?;
                refuse(TokenRefusal::ProofRequired(standing(&session, presented)))
            }
            Decision::Theft(kind) => self.theft(request, &definition, session, kind, now).await,
            Decision::Revoked => refuse(TokenRefusal::Revoked(session.ended.map(|e| e.reason))),
            Decision::Expired(expiry) => refuse(TokenRefusal::Expired(expiry)),
            Decision::InvalidProof => Err(repeated_commitment()),
        }
    }

    async fn advance(
        &self,
        request: &Request<'_>,
        definition: &Definition,
        next: Commitment,
        now: Timestamp,
    ) -> Result<Step, Error> {
        let Position { generation, commitment, .. } = request.presented.position;
        let Some(next_generation) = generation.checked_add(1) else {
            return Ok(Step::Answer(Err(TokenRefusal::Expired(Expiry::Absolute))));
        };
        let next = Position {
            generation: next_generation,
            commitment: next,
            issued_at: u32::try_from(now.secs()).unwrap_or(u32::MAX),
            kid: self.inner.secrets.current(),
        };
        match self
            .inner
            .store
            .advance(self.advance_intent(request, definition, (generation, commitment), next, now))
            .await?
        {
            Cas::Applied(session) => {
                self.note_elevation(request, &session);
                Ok(answer(request, definition, session, Issued::Advanced, now))
            }
            Cas::Stale(session) => Ok(Step::DecideAgain(session)),
        }
    }

    fn advance_intent(
        &self,
        request: &Request<'_>,
        definition: &Definition,
        (generation, commitment): (u32, Commitment),
        next: Position,
        now: Timestamp,
    ) -> Advance {
        let kind = if request.auth.is_some() { EventKind::Elevate } else { EventKind::Refresh };
        let in_place = next.generation == generation;
        let event = Event {
            session_id: Some(request.presented.session),
            outcome: Some(if in_place { Outcome::Reissued } else { Outcome::Advanced }),
            generation: next.generation,
            presented_generation: in_place.then_some(request.presented.position.generation),
            ..self.event(request.ctx, now, kind)
        };
        let feed_until = now + request.state.longest_access;
        Advance {
            id: request.presented.session,
            scope: request.scope.clone(),
            tag: definition.tag.clone(),
            generation,
            commitment,
            next,
            idle_timeout: definition.refresh.idle_timeout.seconds(),
            elevation: request.auth.clone().map(|auth| Elevation { auth, feed_until }),
            event,
            now,
        }
    }

    /// Hands out the present generation again. An elevation is carried out in place: another tab's refresh went first.
    async fn reissue(
        &self,
        request: &Request<'_>,
        definition: &Definition,
        session: Session,
        now: Timestamp,
    ) -> Result<Step, Error> {
        if request.auth.as_ref().is_some_and(|auth| *auth != session.auth) {
            let here = (session.position.generation, session.position.commitment);
            let intent = self.advance_intent(request, definition, here, session.position, now);
            return match self.inner.store.advance(intent).await? {
                Cas::Applied(session) => {
                    self.note_elevation(request, &session);
                    Ok(answer(request, definition, session, Issued::Reissued, now))
                }
                Cas::Stale(session) => Ok(Step::DecideAgain(session)),
            };
        }
        self.record_refused(request.ctx, &session, &request.presented, EventKind::Refresh, Outcome::Reissued).await?;
        Ok(answer(request, definition, session, Issued::Reissued, now))
    }

    async fn fast_forward(
        &self,
        request: &Request<'_>,
        definition: &Definition,
        session: Session,
        now: Timestamp,
    ) -> Result<Step, Error> {
        let to = request.presented.position;
        if let Some(reason) = self.disbelieved(&request.presented) {
            let decided_on = Some((session.position.generation, session.position.commitment));
            let ending = self.ending(request.ctx, now, reason, request.state);
            let end = End { id: session.id, scope: session.scope, decided_on, ending, cause: None, audit: None };
            let (_, fresh) = self.end_one(end).await?;
            return Ok(match fresh {
                // Also one whose idle clock stopped with its backup: it cannot be ended, and must not come back.
                Some(fresh) if fresh.end(now).is_some() => Step::Answer(Err(TokenRefusal::Revoked(Some(reason)))),
                fresh => Step::DecideAgain(fresh),
            });
        }
        let event = Event {
            session_id: Some(session.id),
            outcome: Some(Outcome::FastForwarded),
            generation: to.generation,
            presented_generation: Some(to.generation),
            ..self.event(request.ctx, now, EventKind::Refresh)
        };
        let fast_forward = FastForward {
            id: session.id,
            scope: session.scope,
            generation: session.position.generation,
            to,
            idle_timeout: definition.refresh.idle_timeout.seconds(),
            event,
            now,
        };
        Ok(match self.inner.store.fast_forward(fast_forward).await? {
            Cas::Applied(session) => Step::FastForwarded(session),
            Cas::Stale(session) => Step::DecideAgain(session),
        })
    }

    /// Why a token that is newer than its row is not believed over it: the revocation log knows better.
    fn disbelieved(&self, newer: &Presented) -> Option<EndReason> {
        let (log, issued_at) = (&self.inner.log, Timestamp::from_secs(i64::from(newer.position.issued_at)));
        let rolled_back = || log.rolled_back(issued_at).then_some(EndReason::Revoked);
        log.ended(newer.session).map(|ended| ended.reason).or_else(rolled_back)
    }

    async fn theft(
        &self,
        request: &Request<'_>,
        definition: &Definition,
        session: Session,
        kind: TheftKind,
        now: Timestamp,
    ) -> Result<Step, Error> {
        let cause = Event {
            theft: Some(kind),
            presented_generation: Some(request.presented.position.generation),
            counterpart: self.counterpart(&session).await?,
            ..self.session_event(request.ctx, now, EventKind::TheftDetected, &session)
        };
        let refusal = TokenRefusal::Theft { kind, session_id: session.id, user_id: session.user_id.clone() };
        let answer = Ok(Step::Answer(Err(refusal)));
        let on_theft = request.on_theft(definition);
        if on_theft == OnTheft::ReportOnly {
            self.record_once(cause, &session, &request.presented).await?;
            return answer;
        }
        if on_theft == OnTheft::RevokeUser && !session.user_id.is_anonymous() {
            // These first: when something fails half-way, the theft is still there to be seen by the next request.
            let others = EndMany {
                scope: session.scope.clone(),
                user_id: Some(session.user_id.clone()),
                except: Some(session.id),
                tag: None,
                started_until: Some(now),
                refreshed_from: None,
                after: None,
                limit: 0,
                ending: self.ending(request.ctx, now, EndReason::Theft, request.state),
                audit: None,
            };
            self.end_batches(others, None).await?;
        }
        let mut ending = self.ending(request.ctx, now, EndReason::Theft, request.state);
        // Right after its cause in the journal's order.
        ending.event.id = cause.id.nth(1);
        let decided_on = Some((session.position.generation, session.position.commitment));
        let (id, scope) = (session.id, session.scope.clone());
        let end = End { id, scope, decided_on, ending, cause: Some(cause), audit: None };
        let (applied, fresh) = self.end_one(end).await?;
        if applied { answer } else { Ok(Step::DecideAgain(fresh)) }
    }

    /// Who moved the session last, before a theft was seen.
    async fn counterpart(&self, session: &Session) -> Result<Option<Counterpart>, Error> {
        let query = EventQuery {
            session_id: session.id,
            kind: None,
            outcome: Some(Outcome::Advanced),
            from: None,
            to: None,
            before: None,
            limit: 1,
        };
        let last = self.inner.store.events(query).await?.into_iter().next();
        Ok(last.map(|e| Counterpart { at: e.at, client: e.client, request_id: e.request_id }))
    }

    /// Signs an access token and issues the refresh token of the session's present position.
    pub(super) async fn tokens(
        &self,
        state: &ScopeState,
        definition: &Definition,
        session: Session,
        issued: Issued,
        grant: Grant,
        now: Timestamp,
    ) -> Result<Tokens, Error> {
        let (access_token, access_token_expires_at) = self.sign(state, definition, &session, grant, now).await?;
        let Unsigned { session, refresh_token, issued } = self.unsigned(session, issued)?;
        Ok(Tokens {
            refresh_token_expires_at: session.idle_expires_at,
            session,
            access_token,
            access_token_expires_at,
            refresh_token,
            issued,
            warnings: Vec::new(),
        })
    }

    /// Issues the refresh token of the session's present position.
    pub(super) fn unsigned(&self, session: Session, issued: Issued) -> Result<Unsigned, Error> {
        let refresh_token = self.inner.secrets.issue(session.id, &session.position).ok_or_else(|| {
            Error::Key(format!("the master secret with key id {} is not configured", session.position.kid))
        })?;
        Ok(Unsigned { session, refresh_token, issued })
    }

    /// The session of an authentic token in `scope`, or why the token is refused.
    async fn session_of(&self, scope: &Scope, presented: &Presented) -> Result<Result<Session, TokenRefusal>, Error> {
        Ok(match self.session_by_log(presented.session).await? {
            None => Err(TokenRefusal::Expired(Expiry::Absolute)),
            Some(session) if session.scope != *scope => Err(TokenRefusal::ScopeMismatch),
            Some(session) => Ok(session),
        })
    }

    /// Whose refresh token this is, and of which generation, if this server's secret made it. No I/O: it says nothing about the
    /// session. Terminal answers name it, so that a client clears only what the answer is about.
    pub fn presented(&self, refresh_token: &str) -> Option<(SessionId, u32)> {
        self.authenticate(refresh_token).ok().map(|p| (p.session, p.position.generation))
    }

    /// Authenticates a refresh token's text: what it says is true, and may be old.
    pub fn authenticate(&self, text: &str) -> Result<Presented, Malformed> {
        self.inner.secrets.authenticate(text)
    }

    fn note_elevation(&self, request: &Request<'_>, session: &Session) {
        if request.auth.is_some() {
            let until = self.now() + request.state.longest_access;
            self.note_revoked(session.id, Some(session.min_generation), until);
        }
    }

    /// Records a request that changed nothing, as [`Engine::record_once`] does.
    async fn record_refused(
        &self,
        ctx: &Context,
        session: &Session,
        presented: &Presented,
        kind: EventKind,
        outcome: Outcome,
    ) -> Result<(), Error> {
        let event = Event {
            outcome: Some(outcome),
            presented_generation: Some(presented.position.generation),
            ..self.session_event(ctx, self.now(), kind, session)
        };
        self.record_once(event, session, presented).await
    }

    /// Records an event that comes with no change, unless the same was recorded a moment ago.
    async fn record_once(&self, event: Event, session: &Session, presented: &Presented) -> Result<(), Error> {
        let (recorded, now) = (&self.inner.recorded, event.at);
        let key = (session.id, event.kind, event.outcome, presented.position.generation);
        if recorded.get(&key).is_some_and(|last| now.since(last) < RECORD_EVERY) {
            return Ok(());
        }
        recorded.insert(key, now);
        // What could not be written is written at the next attempt: a reported theft has no other trace.
        self.inner.store.record(vec![event]).await.inspect_err(|_| {
            recorded.remove(&key);
        })?;
        Ok(())
    }
}

fn answer(request: &Request<'_>, definition: &Definition, session: Session, issued: Issued, now: Timestamp) -> Step {
    // Where the parent or the child is a bearer token, the child's use must be reported, or the parent stays good.
    let parent = request.presented.position;
    let confirms = parent.commitment.is_none() || session.position.commitment.is_none();
    Step::Answer(Ok(Moved { session, definition: definition.clone(), issued, confirms, now }))
}

fn repeated_commitment() -> Error {
    Error::Invalid {
        field: "proof.commitment",
        problem: "repeats the token's own commitment; draw a fresh opening for each generation".into(),
    }
}

fn standing(session: &Session, presented: &Presented) -> Standing {
    Standing {
        session_id: session.id,
        generation: session.position.generation,
        presented_generation: presented.position.generation,
        commitment: session.position.commitment,
    }
}
