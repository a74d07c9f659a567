//! The engine in this process.

use std::future::Future;
use std::sync::Arc;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use rekindle::{
    access::Verified,
    clock::{Seconds, Timestamp},
    engine::{self, Active, Elevate, EndAll, Engine, PresentedToken, RefreshOutcome, TokenRefusal, VerifyOutcome},
    journal::Context,
    session::{Auth, EndReason, SessionId, UserId},
    store::SessionQuery,
};
use serde::Deserialize;
use tokio::time::{Duration, Instant, sleep};

use crate::{
    handle::{Place, Trust},
    problem::Problem,
    session::{Cursor, List, Minted, Page, Patch, Refresh, SessionInfo, Start, State, Token, Tokens},
    watch::{Condition, Feed, Revocation, Watch},
};

/// How often the engine's upkeep is done: the bound on how late other servers' revocations are known here.
const TICK: Duration = Duration::from_millis(500);

/// How often the store is asked while somebody waits for a revocation.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// How many entries of the feed are read at a time.
const FEED_PAGE: u32 = 200;

#[derive(Clone)]
pub(crate) struct Embedded {
    engine: Engine,
    place: Arc<Place>,
}

impl Embedded {
    pub(crate) fn new(engine: Engine, place: Place) -> Self {
        Self { engine, place: Arc::new(place) }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.engine.now()
    }

    /// The engine's upkeep, and what it learns of revocations, until the handle is dropped.
    pub(crate) async fn keep_up(self, watch: Arc<Watch>) {
        let (mut upkeep, mut feed) = (Condition::of("the engine's upkeep"), Condition::of("the revocation feed"));
        let mut since = 0;
        loop {
            let asked_at = Instant::now();
            let kept = upkeep.note(self.engine.upkeep().await).is_some();
            // Without the upkeep, what other servers ended is not known here.
            while kept && let Some(Feed { entries, next }) = feed.note(self.feed(since).await) {
                since = next;
                let whole = entries.len() < FEED_PAGE as usize;
                watch.take_in(&entries, whole.then_some(asked_at));
                if whole {
                    break;
                }
            }
            sleep(TICK).await;
        }
    }

    pub(crate) async fn start(&self, start: Start) -> Result<Tokens, Problem> {
        let Start { user_id, data, claims, auth, commitment, client, previous_session_id, expires_in, idempotency_key } =
            start;
        let ctx = Context { client: client.clone(), ..Context::default() };
        let request = engine::StartRequest {
            tag: self.place.tag.clone(),
            user_id,
            data,
            claims,
            auth,
            commitment,
            client,
            previous_session_id,
            expires_in,
            idempotency_key,
        };
        let here = self.clone();
        let tokens = to_completion(async move { here.engine.start(&here.place.scope, request, &ctx).await }).await?;
        Ok(Tokens::of(&tokens, self.now()))
    }

    pub(crate) async fn refresh(&self, refresh: Refresh) -> Result<Tokens, Problem> {
        self.rotate(refresh, None).await
    }

    pub(crate) async fn elevate(&self, refresh: Refresh, auth: Auth) -> Result<Tokens, Problem> {
        self.rotate(refresh, Some(auth)).await
    }

    async fn rotate(&self, refresh: Refresh, auth: Option<Auth>) -> Result<Tokens, Problem> {
        let here = self.clone();
        to_completion(async move {
            let Refresh { token, proof, client } = refresh;
            let ctx = Context { client, ..Context::default() };
            let scope = &here.place.scope;
            let tag = Some(here.place.tag.clone());
            let request = engine::Refresh { refresh_token: token.expose(), tag, proof };
            let outcome = match auth {
                None => here.engine.refresh(scope, request, &ctx).await?,
                Some(auth) => here.engine.elevate(scope, Elevate { refresh: request, auth }, &ctx).await?,
            };
            match outcome {
                RefreshOutcome::Refreshed(tokens) => Ok(Tokens::of(&tokens, here.now())),
                RefreshOutcome::Refused(refusal) => Err(here.refused(&token, refusal)),
            }
        })
        .await
    }

    pub(crate) async fn mint(&self, refresh_token: &Token, lifetime: Option<Seconds>) -> Result<Minted, Problem> {
        let request = engine::Mint { refresh_token: refresh_token.expose(), lifetime };
        match self.engine.mint(&self.place.scope, request, &Context::default()).await? {
            engine::Minted::Token { access_token, expires_at, session } => Ok(Minted {
                access_token: Token::new(access_token.expose()),
                access_token_expires_at: expires_at,
                session: SessionInfo::of(&session, self.now()),
            }),
            engine::Minted::Refused(refusal) => Err(self.refused(refresh_token, refusal)),
        }
    }

    pub(crate) async fn verify(&self, access_token: &Token, trust: Trust) -> Result<Arc<Verified>, Problem> {
        let verify =
            |online| self.engine.verify(&self.place.scope, access_token.expose(), Some(&self.place.tag), online);
        if trust == Trust::Online
            && let VerifyOutcome::Inactive(refusal) = verify(true).await?
        {
            return Err(refused_access(access_token, refusal));
        }
        match verify(false).await? {
            VerifyOutcome::Active(Active::Token(verified)) => Ok(verified),
            VerifyOutcome::Active(Active::Row(_)) => unreachable!("it was not asked for the row"),
            VerifyOutcome::Inactive(refusal) => Err(refused_access(access_token, refusal)),
        }
    }

    pub(crate) async fn confirm(&self, seen: Vec<(SessionId, u32)>) -> Result<(), Problem> {
        Ok(self.engine.confirm(&self.place.scope, seen).await?)
    }

    pub(crate) async fn sign_out(&self, token: &Token) -> Result<(), Problem> {
        let (here, token) = (self.clone(), token.clone());
        to_completion(async move {
            let presented = match token.is_refresh() {
                true => PresentedToken::Refresh(token.expose()),
                false => PresentedToken::Access(token.expose()),
            };
            let signed_out = here.engine.sign_out(&here.place.scope, presented, &Context::default()).await?;
            signed_out.map_err(Problem::refused)
        })
        .await
    }

    pub(crate) async fn revoke(&self, id: SessionId) -> Result<(), Problem> {
        let here = self.clone();
        to_completion(async move {
            Ok(here.engine.revoke(&here.place.scope, id, EndReason::Revoked, &Context::default()).await?)
        })
        .await
    }

    pub(crate) async fn revoke_user(&self, user_id: &UserId, except: Option<SessionId>) -> Result<u64, Problem> {
        self.end_all(user_id, except, EndReason::Revoked).await
    }

    pub(crate) async fn credential_changed(&self, user_id: &UserId, keep: Option<SessionId>) -> Result<u64, Problem> {
        self.end_all(user_id, keep, EndReason::CredentialChanged).await
    }

    async fn end_all(&self, user_id: &UserId, except: Option<SessionId>, reason: EndReason) -> Result<u64, Problem> {
        let here = self.clone();
        let which = EndAll { user_id: Some(user_id.clone()), except, ..EndAll::default() };
        to_completion(async move {
            Ok(here.engine.revoke_all(&here.place.scope, which, reason, &Context::default()).await?)
        })
        .await
    }

    pub(crate) async fn list(&self, list: List) -> Result<Page, Problem> {
        let List { user_id, state, after, limit } = list;
        let limit = limit.unwrap_or(50);
        if !(1..=200).contains(&limit) {
            return Err(Problem::field("limit", "must be 1 to 200"));
        }
        let after = after.map(|Cursor(text)| text.parse::<SessionId>());
        let before = after.transpose().map_err(|_| Problem::field("cursor", "is none that a page gave"))?;
        let now = self.now();
        let query = SessionQuery {
            scope: self.place.scope.clone(),
            user_id,
            tag: Some(self.place.tag.clone()),
            active: state.map(|state| state == State::Active),
            started_after: None,
            started_before: None,
            before,
            // One too many shows that there is more.
            limit: limit + 1,
            now,
        };
        let mut sessions = self.engine.sessions(query).await?;
        let more = sessions.len() > limit as usize;
        sessions.truncate(limit as usize);
        let next = sessions.last().filter(|_| more).map(|last| Cursor(last.id.to_string()));
        Ok(Page { sessions: sessions.iter().map(|session| SessionInfo::of(session, now)).collect(), next })
    }

    pub(crate) async fn read(&self, id: SessionId) -> Result<SessionInfo, Problem> {
        Ok(SessionInfo::of(&self.engine.session(&self.place.scope, id).await?, self.now()))
    }

    pub(crate) async fn patch(&self, id: SessionId, patch: Patch) -> Result<SessionInfo, Problem> {
        let Patch { data, claims, if_version } = patch;
        let patch = engine::Patch { data, claims, if_version };
        let here = self.clone();
        let patched =
            to_completion(async move { here.engine.patch(&here.place.scope, id, patch, &Context::default()).await });
        Ok(SessionInfo::of(&patched.await?.session, self.now()))
    }

    pub(crate) async fn revocations(&self, since: u64, wait: Seconds) -> Result<Feed, Problem> {
        if wait > Seconds(30) {
            return Err(Problem::field("wait", "must be 0 to 30 seconds"));
        }
        let until = Instant::now() + Duration::from_secs(wait.0);
        loop {
            let feed = self.feed(since).await?;
            if !feed.entries.is_empty() || Instant::now() >= until {
                return Ok(feed);
            }
            sleep(ASK_EVERY).await;
        }
    }

    async fn feed(&self, since: u64) -> Result<Feed, Problem> {
        let entries = self.engine.revocations(&self.place.scope, since, FEED_PAGE).await?;
        let next = entries.last().map_or(since, |last| last.seq);
        Ok(Feed { entries: entries.iter().map(Revocation::from).collect(), next })
    }

    /// A refused refresh token. What is terminal names the session and the generation that it is about.
    fn refused(&self, token: &Token, refusal: TokenRefusal) -> Problem {
        let problem = Problem::refused(refusal);
        match self.engine.presented(token.expose()).filter(|_| problem.is_terminal()) {
            Some((session_id, generation)) => problem.about_token(session_id, generation),
            None => problem,
        }
    }
}

/// A refused access token. One whose session is over was signed by us, so that what it says of itself is true.
pub(crate) fn refused_access(token: &Token, refusal: TokenRefusal) -> Problem {
    #[derive(Deserialize)]
    struct Says {
        sid: SessionId,
        #[serde(rename = "gen")]
        generation: u32,
    }
    let problem = Problem::refused(refusal);
    let says = || {
        let payload = token.expose().split('.').nth(1)?;
        serde_json::from_slice::<Says>(&BASE64_URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
    };
    match says().filter(|_| problem.is_terminal()) {
        Some(Says { sid, generation }) => problem.about_token(sid, generation),
        None => problem,
    }
}

/// Carries work out to its end, even if the request that asked for it goes away: what was written must reach the revocation log, too.
async fn to_completion<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    match tokio::spawn(work).await {
        Ok(done) => done,
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(cancelled) => panic!("the runtime stops: {cancelled}"),
        },
    }
}
