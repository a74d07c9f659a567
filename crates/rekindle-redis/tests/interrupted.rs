//! Every intent, cut off at each of its commands: by a connection that is made again at once, and by an outage; where the slots are
//! together, and where they are not.

#[path = "common/proxy.rs"]
mod proxy;

use std::fmt::Debug;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};

use futures_util::future::join_all;
use proxy::{Loss, Proxy};
use rekindle::clock::Timestamp;
use rekindle::definition::OnMaxSessions;
use rekindle::journal::{Event, EventKind};
use rekindle::keys::{Algorithm, SigningKey};
use rekindle::memory::MemoryStore;
use rekindle::session::{Auth, EndReason, Session};
use rekindle::store::*;
use rekindle_redis::{RedisConfig, RedisStore};
use rekindle_testkit::fixtures::*;
use rekindle_testkit::servers::redis::Redis;

/// What every case begins with.
#[derive(Clone)]
struct World {
    ada: Vec<Session>,
    anonymous: Session,
    idle: Session,
    old: Session,
    starts: Vec<Start>,
    ban: BanUser,
}

impl World {
    fn new() -> Self {
        let ada: Vec<Session> = (0..3).map(|i| session_at("ada", at(i))).collect();
        let anonymous = session_at("", at(4));
        let idle = Session { idle_expires_at: at(20), ..session_at("eve", at(3)) };
        let old = Session { idle_expires_at: at(5), expires_at: at(5), ..session_at("old", at(0)) };
        let starts = ada.iter().chain([&anonymous, &idle, &old]).map(start_of).collect();
        Self { ada, anonymous, idle, old, starts, ban: ban_of("zed", at(1)) }
    }

    async fn make(&self, store: &dyn Store) {
        for start in &self.starts {
            assert_eq!(store.start(start.clone()).await, Ok(Started::Created(Vec::new())));
        }
        store.ban(self.ban.clone()).await.unwrap();
    }

    fn all(&self) -> Vec<&Session> {
        self.ada.iter().chain([&self.anonymous, &self.idle, &self.old]).collect()
    }
}

const USERS: [&str; 6] = ["ada", "", "eve", "old", "zed", "new"];
/// The moment of every intent.
const NOW: u64 = 30;

type Answer = Pin<Box<dyn Future<Output = Result<String, StoreError>> + Send>>;

/// An intent, which may be asked of several stores.
struct Intent {
    name: &'static str,
    ask: Box<dyn Fn(Arc<dyn Store>) -> Answer>,
    /// The session that it makes.
    makes: Option<Session>,
    /// It is of one session: it happens whole or not at all, whoever completes it.
    whole: bool,
}

fn intent<T, F>(name: &'static str, whole: bool, ask: impl Fn(Arc<dyn Store>) -> F + 'static) -> Intent
where
    T: Debug,
    F: Future<Output = Result<T, StoreError>> + Send + 'static,
{
    let ask = move |store| -> Answer {
        let answer = ask(store);
        Box::pin(async move { answer.await.map(|answer| format!("{answer:?}")) })
    };
    Intent { name, ask: Box::new(ask), makes: None, whole }
}

/// An intent of the store's method.
macro_rules! ask {
    ($whole:literal, $method:ident($($argument:expr),+)) => {
        ask!($whole, stringify!($method), $method($($argument),+))
    };
    ($whole:literal, $name:expr, $method:ident($argument:expr)) => {{
        let argument = $argument;
        intent($name, $whole, move |store| { let a = argument.clone(); async move { store.$method(a).await } })
    }};
    ($whole:literal, $name:expr, $method:ident($first:expr, $second:expr)) => {{
        let (first, second) = ($first, $second);
        intent($name, $whole, move |store| {
            let (a, b) = (first.clone(), second.clone());
            async move { store.$method(a, b).await }
        })
    }};
}

fn intents(world: &World) -> Vec<Intent> {
    let now = at(NOW);
    let first = &world.ada[0];
    let notified = |event: Event| Event { notify: true, ..event };
    let mut starting = Session { previous_session_id: Some(world.anonymous.id), ..session_at("ada", now) };
    starting.data = object(r#"{"text":"\u0000"}"#);
    let mut start = Start {
        idempotency: Some(Idempotency { key: [1; 32], request: [2; 32], expires_at: at(1_000) }),
        max_sessions: Some((2, OnMaxSessions::EndOldest)),
        ..start_of(&starting)
    };
    start.event.notify = true;
    start.ending.event.notify = true;
    let simple = session_at("new", now);
    let mut advance = advance_of(first, now);
    advance.event.notify = true;
    let mut elevate = advance_of(first, now);
    let auth = Auth { time: now, acr: Some("mfa".into()), amr: Vec::new() };
    elevate.elevation = Some(Elevation { auth, feed_until: at(330) });
    let fast_forward = FastForward {
        id: first.id,
        scope: scope(),
        generation: 0,
        to: position(3, now),
        idle_timeout: IDLE,
        event: notified(event_of(first, EventKind::Refresh, now)),
        now,
    };
    let mut end = End {
        cause: Some(notified(event_of(first, EventKind::TheftDetected, now))),
        audit: Some(audit("session.end", now)),
        ..end_of(first, now, EndReason::Theft)
    };
    end.ending.event.notify = true;
    let mut end_many = EndMany { audit: Some(audit("sessions.end", now)), ..end_all(now) };
    end_many.ending.event.notify = true;
    let mut ban = ban_of("ada", now);
    (ban.event.notify, ban.end.ending.event.notify) = (true, true);
    ban.ban.until = Some(at(5_000));
    let mut erase = erase_of("ada", now);
    erase.ending.event.notify = true;
    let sweep = Sweep { notify: vec![tag("default")], retention: rekindle::clock::Seconds(20), ..sweep_at(now) };
    let confirmation = Confirmation { scope: scope(), session_id: first.id, generation: 0 };
    let recorded = vec![notified(event_of(first, EventKind::Refresh, now))];
    let product = Change::CreateProduct(Product { tag: tag("shop"), name: "Shop".into() });
    let delete = Change::DeleteEnvironment { scope: scope(), now: at(20_000) };
    let key = SigningKey {
        kid: "key-1".parse().unwrap(),
        scope: scope(),
        chain: Algorithm::EdDsa.into(),
        public_jwk: "{}".into(),
        wrapped: vec![1, 2],
        created_at: now,
        signs_from: now,
    };
    let lift = audit("user.unban", now);
    vec![
        Intent { makes: Some(starting), ..ask!(true, start(start)) },
        Intent { makes: Some(simple.clone()), ..ask!(true, "simple start", start(start_of(&simple))) },
        ask!(true, advance(advance)),
        ask!(true, "elevation", advance(elevate)),
        ask!(true, fast_forward(fast_forward)),
        ask!(true, update(update_of(first, "{}", now))),
        ask!(true, end(end)),
        ask!(true, confirm(vec![confirmation])),
        ask!(true, record(recorded)),
        ask!(false, end_many(end_many.clone())),
        ask!(false, "end many of a user", end_many(EndMany { user_id: Some(user("ada")), ..end_many })),
        ask!(false, ban(ban)),
        intent("lift_ban", false, move |store: Arc<dyn Store>| {
            let lift = lift.clone();
            async move { store.lift_ban(&scope(), &user("zed"), lift).await }
        }),
        ask!(false, erase_user(erase)),
        ask!(false, sweep(sweep)),
        ask!(true, "create a product", change(product, audit("product.create", now))),
        ask!(false, "delete an environment", change(delete, audit("environment.delete", now))),
        ask!(true, add_signing_key(key, None)),
    ]
}

/// All that can be seen.
async fn seen(store: &dyn Store, world: &World, makes: Option<&Session>) -> String {
    let now = at(NOW);
    let mut seen =
        format!("{:#?}", store.users(UserQuery { scope: scope(), after: None, limit: 100, now }).await.unwrap());
    let mut add = |what: &dyn Debug| seen.push_str(&format!("\n{what:#?}"));
    for name in USERS {
        add(&store.user(&scope(), &user(name), now).await);
        let mut query = sessions_in(scope(), now);
        query.user_id = Some(user(name));
        add(&store.sessions(query).await);
    }
    add(&store.sessions(sessions_in(scope(), now)).await);
    for session in world.all().into_iter().chain(makes) {
        add(&store.session(session.id).await);
        add(&store.events(events_of(session.id)).await);
    }
    add(&store.revocations(None, 0, now, 100).await);
    add(&store.audit_log(None, 100).await);
    add(&store.secret_usage().await);
    add(&store.products().await);
    add(&store.scope(&scope()).await);
    let mut told = store.take_notifications(at(30_000), at(40_000), 100).await.unwrap();
    while !told.is_empty() {
        for notification in &told {
            add(&notification);
            store.settle_notification(notification.event.id, None).await.unwrap();
        }
        told = store.take_notifications(at(30_000), at(40_000), 100).await.unwrap();
    }
    seen
}

struct Case {
    world: World,
    proxied: Arc<dyn Store>,
    direct: Arc<dyn Store>,
    memory: Arc<dyn Store>,
    proxy: Proxy,
    /// What is seen before the intent.
    before: Arc<dyn Store>,
}

async fn case(world: &World, server: &Redis) -> Case {
    let url = server.new_url();
    let proxy = Proxy::start(server.port()).await;
    let through = url.replace(&format!(":{}/", server.port()), &format!(":{}/", proxy.port));
    let open = async |url: &str| RedisStore::open(RedisConfig::parse(url).unwrap()).await.unwrap();
    let (direct, proxied) = (open(&url).await, open(&through).await);
    let (memory, before) = (MemoryStore::new(), MemoryStore::new());
    for store in [&direct as &dyn Store, &memory, &before] {
        world.make(store).await;
    }
    Case {
        world: world.clone(),
        proxied: Arc::new(proxied),
        direct: Arc::new(direct),
        memory: Arc::new(memory),
        proxy,
        before: Arc::new(before),
    }
}

/// Runs each intent, cut at its first, second, … command, until there are no more of them; several cases at a time, because
/// most of it is waiting.
async fn at_every_command(check: impl AsyncFn(&Case, &Intent, i64, Loss)) {
    const AT_ONCE: i64 = 12;
    static CLUSTER: LazyLock<Redis> = LazyLock::new(Redis::cluster_of_one);
    let world = World::new();
    let losses = [Redis::shared(), &*CLUSTER].map(|server| [(server, Loss::Command), (server, Loss::Answer)]);
    for intent in intents(&world) {
        let ways = losses.into_iter().flatten().map(async |(server, loss)| {
            let run = async |n| {
                let case = case(&world, server).await;
                check(&case, &intent, n, loss).await;
                case.proxy.was_cut()
            };
            let mut n = 0;
            while join_all((n..n + AT_ONCE).map(&run)).await.into_iter().all(|was_cut| was_cut) {
                n += AT_ONCE;
            }
        });
        join_all(ways).await;
    }
}

/// The answer is that of an uninterrupted intent, and so is what it leaves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_breaks_is_not_noticed() {
    at_every_command(async |case, intent, n, loss| {
        case.proxy.cut(n, loss, false);
        let answer = (intent.ask)(Arc::clone(&case.proxied)).await;
        let expected = (intent.ask)(Arc::clone(&case.memory)).await;
        assert_eq!(answer, expected, "`{}`, {loss:?} {n} lost", intent.name);
        compare(case, intent, &case.memory, &format!("{loss:?} {n} lost")).await;
    })
    .await;
}

/// The intent is reported as unavailable; asked again, it leaves what one uninterrupted intent leaves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_intent_in_an_outage_can_be_asked_again() {
    at_every_command(async |case, intent, n, loss| {
        case.proxy.cut(n, loss, true);
        let answer = (intent.ask)(Arc::clone(&case.proxied)).await;
        if case.proxy.was_cut() {
            assert!(matches!(answer, Err(StoreError::Unavailable(_))), "`{}`: {answer:?}", intent.name);
        }
        let again = (intent.ask)(Arc::clone(&case.direct)).await;
        let expected = (intent.ask)(Arc::clone(&case.memory)).await;
        if ["end_many", "end many of a user", "ban"].contains(&intent.name) {
            assert_eq!(again, expected, "`{}`, {loss:?} {n} lost", intent.name);
        }
        compare(case, intent, &case.memory, &format!("{loss:?} {n} lost, and asked again")).await;
    })
    .await;
}

/// An intent that nobody asks again either happened whole or not at all, once somebody has come by.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_intent_in_an_outage_is_completed_by_others() {
    at_every_command(async |case, intent, n, loss| {
        case.proxy.cut(n, loss, true);
        let _ = (intent.ask)(Arc::clone(&case.proxied)).await;
        if !intent.whole {
            return;
        }
        // Nothing is over yet at that time: the sweep only comes by, as does who looks at the users.
        case.direct.sweep(sweep_at(Timestamp::EPOCH)).await.unwrap();
        for name in USERS {
            case.direct.user(&scope(), &user(name), at(NOW)).await.unwrap();
        }
        let found = seen(&*case.direct, &case.world, intent.makes.as_ref()).await;
        let before = seen(&*case.before, &case.world, intent.makes.as_ref()).await;
        (intent.ask)(Arc::clone(&case.memory)).await.unwrap();
        let after = seen(&*case.memory, &case.world, intent.makes.as_ref()).await;
        assert!(
            found == before || found == after,
            "`{}`, {loss:?} {n} lost:\n{}",
            intent.name,
            differences(&found, &after)
        );
    })
    .await;
}

async fn compare(case: &Case, intent: &Intent, expected: &Arc<dyn Store>, when: &str) {
    let found = seen(&*case.direct, &case.world, intent.makes.as_ref()).await;
    let expected = seen(&**expected, &case.world, intent.makes.as_ref()).await;
    assert!(found == expected, "`{}`, {when}:\n{}", intent.name, differences(&found, &expected));
}

/// The lines in which two texts differ.
fn differences(found: &str, expected: &str) -> String {
    let lines = |a: &str, b: &str, sign: &str| -> String {
        let known: std::collections::HashSet<&str> = b.lines().collect();
        a.lines().filter(|line| !known.contains(line)).map(|line| format!("{sign} {line}\n")).collect()
    };
    format!("{}{}", lines(expected, found, "-"), lines(found, expected, "+"))
}
