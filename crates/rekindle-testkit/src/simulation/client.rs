//! Clients that follow `docs/PROTOCOL.md`, "The client on each answer", to the letter.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use rekindle::engine::{Standing, TokenRefusal};
use rekindle::refresh::{Commitment, Opening, Proof};
use rekindle::session::{SessionId, UserId};

use super::executor::Group;
use super::judge::Party;
use super::world::{Answer, Ask, Held, World};
use super::{MAX_SKEW, Plan, Variant};

/// Of how many generations, and of how many logins, openings are kept.
const KEPT_OPENINGS: usize = 8;

/// How many requests one refresh may take, however often it is told something new.
const MAX_ROUNDS: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Committed; token and openings in one durable storage.
    Native,
    /// Committed; the token in a cookie, openings in script storage, both shared by several tabs.
    Browser,
    /// Sends nothing but its token.
    Bearer,
    /// Starts as bearer, and sends commitments from its first refresh on.
    Upgrader,
    /// A copy of somebody's client, in the hands of somebody who gives nothing up.
    Thief,
}

impl Kind {
    pub(super) fn commits_at_login(self) -> bool {
        matches!(self, Self::Native | Self::Browser | Self::Thief)
    }

    /// Whether no request of it outlives its wait for the answer, and none is doubled.
    pub(super) fn is_orderly(self, plan: &Plan) -> bool {
        plan.orderly_bearers && !self.commits_at_login()
    }
}

/// What a client's storage holds durably, beside its token.
#[derive(Clone, Default)]
pub(super) struct Storage {
    /// The newest generation that an answer named, with its commitment.
    told: BTreeMap<SessionId, (u32, Commitment)>,
    openings: BTreeMap<(SessionId, u32), Opening>,
    /// Openings of logins, by idempotency key; the last few.
    logins: VecDeque<(String, Option<Opening>)>,
    /// The login that has no answer yet.
    pending_login: Option<String>,
}

/// One installation of a client: what its tabs or processes share.
pub(super) struct Device {
    pub(super) id: Party,
    pub(super) kind: Kind,
    pub(super) user: UserId,
    pub(super) held: RefCell<Option<Held>>,
    pub(super) storage: RefCell<Storage>,
    pub(super) in_flight: Rc<()>,
    /// Openings that were durable and are gone: evicted, or older than those that are kept.
    dropped: RefCell<BTreeSet<Commitment>>,
    logins: Cell<u64>,
    /// Which tab holds the Web Lock.
    lock: Cell<Option<Group>>,
    /// Openings that only memory has: what [`Variant::UndurableOpenings`] does wrong.
    volatile: RefCell<BTreeSet<(SessionId, u32)>>,
}

/// How a refresh ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exchange {
    Refreshed,
    /// A terminal answer.
    Ended,
    /// There is nothing (any more) to refresh with.
    SignIn,
    /// The session was given up: the openings that it needs are gone.
    GivenUp,
    /// No answer, or 503: the same again later.
    Unanswered,
}

/// The generation that a proof is made for, with the commitment that the client was told for it.
type Target = (SessionId, u32, Commitment);

impl Device {
    pub(super) fn new(id: Party, kind: Kind, user: UserId) -> Rc<Self> {
        Rc::new(Self {
            id,
            kind,
            user,
            held: RefCell::default(),
            storage: RefCell::default(),
            in_flight: Rc::new(()),
            dropped: RefCell::default(),
            logins: Cell::new(0),
            lock: Cell::new(None),
            volatile: RefCell::default(),
        })
    }

    pub(super) fn held(&self) -> Option<Held> {
        self.held.borrow().clone()
    }

    /// A browser applies cookies as they arrive, in whatever order that is.
    pub(super) fn set_cookies(&self, tokens: &Held) {
        if self.kind == Kind::Browser {
            *self.held.borrow_mut() = Some(tokens.clone());
        }
    }

    /// A tab or the whole process died.
    pub(super) fn crashed(&self, group: Group) {
        if self.lock.get() == Some(group) {
            self.lock.set(None);
        }
        for key in std::mem::take(&mut *self.volatile.borrow_mut()) {
            self.storage.borrow_mut().openings.remove(&key);
        }
    }

    /// The browser cleans up the storage of scripts; cookies stay.
    pub(super) fn evict(&self) {
        self.dropped.borrow_mut().extend(self.commitments());
        *self.storage.borrow_mut() = Storage::default();
    }

    /// The openings that are in storage, as commitments.
    pub(super) fn commitments(&self) -> BTreeSet<Commitment> {
        let storage = self.storage.borrow();
        let of_logins = storage.logins.iter().filter_map(|(_, opening)| opening.as_ref());
        storage.openings.values().chain(of_logins).map(Opening::commitment).collect()
    }

    /// Takes one opening into an otherwise empty storage: what a thief of token and opening has.
    pub(super) fn holds_only(&self, session: SessionId, generation: u32, opening: Opening) {
        self.storage.borrow_mut().openings.insert((session, generation), opening);
    }

    /// The opening of a generation, if it is there and hashes to the commitment that the client was told.
    pub(super) fn opening(&self, (session, generation, commitment): Target) -> Option<Opening> {
        let storage = self.storage.borrow();
        let kept = storage.openings.get(&(session, generation));
        let of_login = storage.logins.iter().filter(|_| generation == 0).filter_map(|(_, opening)| opening.as_ref());
        kept.into_iter().chain(of_login).find(|o| o.commitment() == commitment).cloned()
    }

    /// Where this client believes its session to be: the newer of the cookie's marker and what was stored.
    fn target(&self, held: &Held) -> Target {
        let marker = (held.session, held.generation, held.commitment);
        match self.storage.borrow().told.get(&held.session) {
            Some((generation, commitment)) if *generation > held.generation => (held.session, *generation, *commitment),
            _ => marker,
        }
    }

    /// The opening of the next generation: from storage, or drawn, and stored durably before anybody sees its commitment.
    async fn next_opening(&self, world: &World, key: (SessionId, u32)) -> Opening {
        if let Some(opening) = self.storage.borrow().openings.get(&key) {
            return opening.clone();
        }
        let drawn = Opening::draw(&world.rng);
        world.judge.borrow_mut().drew(drawn.commitment(), self.id);
        if world.plan.variant == Variant::UndurableOpenings {
            self.volatile.borrow_mut().insert(key);
        } else {
            world.sleep(world.rng.below(20)).await;
        }
        let mut storage = self.storage.borrow_mut();
        // The first writer wins: another tab may have drawn meanwhile.
        storage.openings.entry(key).or_insert(drawn).clone()
    }

    /// Stores an answer's tokens, never an older generation over a newer one.
    fn store(&self, tokens: &Held) {
        self.volatile.borrow_mut().clear();
        let mut held = self.held.borrow_mut();
        let is_newer = |h: &Held| h.session == tokens.session && h.generation <= tokens.generation;
        if self.kind != Kind::Browser && held.as_ref().is_none_or(is_newer) {
            *held = Some(tokens.clone());
        }
        let mut storage = self.storage.borrow_mut();
        let told = storage.told.entry(tokens.session).or_insert((tokens.generation, tokens.commitment));
        if told.0 <= tokens.generation {
            *told = (tokens.generation, tokens.commitment);
        }
        let session = tokens.session;
        let kept: Vec<(SessionId, u32)> =
            storage.openings.range((session, 0)..=(session, u32::MAX)).map(|(key, _)| *key).collect();
        for key in kept.iter().rev().skip(KEPT_OPENINGS) {
            let dropped = storage.openings.remove(key);
            self.dropped.borrow_mut().extend(dropped.map(|o| o.commitment()));
        }
    }

    /// Forgets a session that ended, unless something else was stored meanwhile.
    fn clear(&self, sent: &Held) {
        let mut held = self.held.borrow_mut();
        if held.as_ref().is_some_and(|h| h.session == sent.session && h.generation == sent.generation) {
            *held = None;
        }
    }

    /// Waits for the Web Lock where the browser has one.
    async fn acquire(&self, world: &World, tab: Group) {
        if self.kind != Kind::Browser || !world.plan.web_locks {
            return;
        }
        while self.lock.get().is_some_and(|holder| holder != tab) {
            world.sleep(50).await;
        }
        self.lock.set(Some(tab));
    }

    fn release(&self, tab: Group) {
        if self.lock.get() == Some(tab) {
            self.lock.set(None);
        }
    }

    /// Signs in; repeats a login that had no answer with the same idempotency key.
    pub(super) async fn sign_in(self: &Rc<Self>, world: &Rc<World>, tab: Group) -> Exchange {
        self.acquire(world, tab).await;
        let came = self.sign_in_once(world).await;
        self.release(tab);
        came
    }

    async fn sign_in_once(self: &Rc<Self>, world: &Rc<World>) -> Exchange {
        if self.held.borrow().is_some() {
            return Exchange::Unanswered;
        }
        self.settled(world).await;
        let pending = self.storage.borrow().pending_login.clone();
        let key = match pending {
            Some(key) => key,
            None => {
                self.logins.set(self.logins.get() + 1);
                let key = format!("login-{}-{}", self.id, self.logins.get());
                let opening = self.kind.commits_at_login().then(|| Opening::draw(&world.rng));
                if let Some(opening) = &opening {
                    world.judge.borrow_mut().drew(opening.commitment(), self.id);
                }
                world.sleep(world.rng.below(20)).await;
                let mut storage = self.storage.borrow_mut();
                storage.logins.push_back((key.clone(), opening));
                if storage.logins.len() > KEPT_OPENINGS {
                    let dropped = storage.logins.pop_front().and_then(|(_, opening)| opening);
                    self.dropped.borrow_mut().extend(dropped.map(|o| o.commitment()));
                }
                storage.pending_login = Some(key.clone());
                key
            }
        };
        let commitment = {
            let storage = self.storage.borrow();
            let login = storage.logins.iter().find(|(k, _)| *k == key);
            login.and_then(|(_, opening)| opening.as_ref()).map(Opening::commitment)
        };
        if self.kind.commits_at_login() && commitment.is_none() {
            // Evicted between the two: another login.
            self.storage.borrow_mut().pending_login = None;
            return Exchange::Unanswered;
        }
        match world.exchange(self, Ask::Start { key, commitment }).await {
            Some(Answer::Tokens(tokens)) => {
                self.storage.borrow_mut().pending_login = None;
                self.store(&tokens);
                Exchange::Refreshed
            }
            Some(Answer::Denied) => {
                self.storage.borrow_mut().pending_login = None;
                Exchange::Unanswered
            }
            _ => Exchange::Unanswered,
        }
    }

    /// One refresh, from reading the storage to a final answer.
    pub(super) async fn refresh(self: &Rc<Self>, world: &Rc<World>, tab: Group, elevate: bool) -> Exchange {
        self.acquire(world, tab).await;
        self.settled(world).await;
        let before = self.held();
        let overtaken = before.as_ref().filter(|h| world.judge.borrow().is_overtaken(h.session, self.id));
        let came = self.refresh_rounds(world, elevate).await;
        if let Some(held) = overtaken.filter(|_| came != Exchange::Unanswered) {
            let lives = world.judge.borrow().is_alive(held.session, world.time.now() + MAX_SKEW);
            if lives || came == Exchange::Refreshed {
                world.violated(2, format!("device {} was overtaken, and its exchange ended as {came:?}", self.id));
            }
        }
        self.release(tab);
        came
    }

    /// An orderly client does not ask again while it is still being answered.
    async fn settled(&self, world: &World) {
        while self.kind.is_orderly(&world.plan) && Rc::strong_count(&self.in_flight) > 1 {
            world.sleep(200).await;
        }
    }

    async fn refresh_rounds(self: &Rc<Self>, world: &Rc<World>, elevate: bool) -> Exchange {
        let (mut go_on, mut newest) = (None::<Target>, false);
        for _ in 0..MAX_ROUNDS {
            let Some(held) = self.held() else { return Exchange::SignIn };
            let target = go_on.take().unwrap_or_else(|| self.target(&held));
            let proof = self.proof(world, target, newest).await;
            // The cookie goes with the request as it leaves, which may be a later one than the proof was made for.
            world.sleep(world.rng.below(3)).await;
            let Some(token) = (if self.kind == Kind::Browser { self.held() } else { Some(held) }) else {
                return Exchange::SignIn;
            };
            match world.exchange(self, Ask::Refresh { token: token.clone(), proof, elevate }).await {
                Some(Answer::Tokens(tokens)) => {
                    self.store(&tokens);
                    return Exchange::Refreshed;
                }
                Some(Answer::Refused(TokenRefusal::Superseded(standing))) => {
                    let Some(next) = self.superseded(target, &standing, &mut newest) else {
                        return self.give_up(world, token, "superseded", standing.commitment).await;
                    };
                    go_on = next;
                }
                Some(Answer::Refused(TokenRefusal::ProofRequired(standing))) => {
                    let named = (standing.session_id, standing.generation, standing.commitment);
                    if self.opening(named).is_none() || named == target {
                        return self.give_up(world, token, "proof_required", standing.commitment).await;
                    }
                    go_on = Some(named);
                }
                Some(Answer::Refused(_)) => {
                    self.clear(&token);
                    return Exchange::Ended;
                }
                Some(Answer::Done | Answer::Denied | Answer::Unavailable) | None => return Exchange::Unanswered,
            }
        }
        Exchange::Unanswered
    }

    async fn proof(&self, world: &World, target: Target, newest: bool) -> Option<Proof> {
        let (session_id, generation, commitment) = target;
        if self.kind == Kind::Bearer {
            return None;
        }
        let next = self.next_opening(world, (session_id, generation + 1)).await;
        let opening = self.opening(target).filter(|_| commitment.is_some());
        Some(Proof { session_id, generation, commitment: next.commitment(), opening, newest })
    }

    /// Where to go on after `superseded`; `None`: this storage has lost its place.
    ///
    /// `newest` is said of the token that was presented, with *its* generation's opening: the server looks at nothing else.
    fn superseded(&self, sent: Target, standing: &Standing, newest: &mut bool) -> Option<Option<Target>> {
        let named = (standing.session_id, standing.generation, standing.commitment);
        if self.opening(named).is_some() && named != sent {
            return Some(Some(named));
        }
        let now = self.held().map(|held| self.target(&held));
        if now.is_some_and(|now| now.0 != sent.0 || now.1 > sent.1) {
            return Some(None);
        }
        let Some(held) = self.held() else { return Some(None) };
        let presented = (held.session, held.generation, held.commitment);
        if (presented.0, presented.1) != (standing.session_id, standing.presented_generation) {
            return Some(None);
        }
        if held.commitment.is_some() {
            self.opening(presented)?;
        }
        *newest = true;
        Some(Some(presented))
    }

    /// Nothing ended, but this client cannot go on: it signs out before it signs in again, as a thief may be the one who can.
    ///
    /// Property 1 allows it only where openings of both the presented and the named generation were there, and are gone.
    async fn give_up(self: &Rc<Self>, world: &Rc<World>, held: Held, told: &str, named: Commitment) -> Exchange {
        let gone = [held.commitment, named].iter().all(|c| self.dropped.borrow().contains(c));
        let honest = !world.judge.borrow().is_tainted(held.session);
        if honest && self.kind.commits_at_login() && !gone {
            world.violated(1, format!("device {} must sign in again: {told}, and nothing to answer it with", self.id));
        }
        let silently = self.kind == Kind::Thief || world.plan.variant == Variant::GivesUpSilently;
        if !silently && !matches!(world.exchange(self, Ask::SignOut { token: held.clone() }).await, Some(Answer::Done))
        {
            return Exchange::Unanswered;
        }
        self.clear(&held);
        Exchange::GivenUp
    }
}
