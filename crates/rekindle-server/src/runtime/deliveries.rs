//! The delivery of webhooks: from the store's outbox to the receivers, at least once, in order per session.
//!
//! An event that has several receivers is done when all have it. Those that do are not asked again when another one fails, as
//! far as this process remembers. The order is that of the outbox, which has one row for each event, whatever its receivers are:
//! a session's next event waits until all have the one before (docs/OPERATIONS.md, "Webhooks").
//!
//! A server without receivers leaves the outbox to those that have some, and removes only what nobody took for so long that
//! it would have been given up.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::body::Bytes;
use futures_util::future::join_all;
use rekindle::{
    clock::Seconds,
    engine::Engine,
    journal::EventId,
    session::Tag,
    store::{Notification, StoreError},
};
use serde_json::Value;
use tokio::{sync::watch, task::JoinSet, time::sleep};

use super::{Condition, OpenError, StartError, TICK};
use crate::{
    config::{Config, HttpUrl, Secret, SecretSource, Webhook, WebhookEvent},
    webhook::{GIVE_UP, Sender, Undelivered, next_attempt},
};

/// How many events are under way at once.
const AT_ONCE: usize = 64;
/// How long nobody else takes an event that was taken here: longer than an attempt.
const LEASE: Seconds = Seconds(3 * Sender::TIMEOUT.as_secs());

/// How often a server without receivers looks for what nobody delivers.
const EXPIRE_EVERY: Duration = Duration::from_secs(60);

/// One receiver.
pub struct Endpoint {
    product: Tag,
    events: Vec<WebhookEvent>,
    /// Where to.
    pub url: HttpUrl,
    /// Signed with.
    pub secret: Secret,
}

/// A configured webhook with its secret read.
pub fn endpoint(webhook: &Webhook) -> Result<Endpoint, StartError> {
    let path = match &webhook.secret {
        SecretSource::File(path) => path.clone(),
        SecretSource::Value(_) => PathBuf::new(),
    };
    let secret = webhook.secret.read().map_err(OpenError::file("a webhook's secret", path))?;
    Ok(Endpoint { product: webhook.product.clone(), events: webhook.events.clone(), url: webhook.url.clone(), secret })
}

/// The body of a notification: the event's fields, with `type` as webhooks call it, and the scope.
fn body(notification: &Notification, event: &str) -> Bytes {
    let mut body = serde_json::to_value(&notification.event).expect("an event is JSON");
    if let Value::Object(fields) = &mut body {
        fields.remove("kind");
        fields.insert("type".into(), event.into());
        fields.insert("product".into(), notification.scope.product.as_str().into());
        fields.insert("env".into(), notification.scope.env.as_str().into());
    }
    body.to_string().into()
}

/// Takes what is due and delivers it. Clones share everything.
#[derive(Clone)]
pub(super) struct Deliveries(Arc<Shared>);

struct Shared {
    engine: Engine,
    sender: Sender,
    endpoints: Vec<Endpoint>,
    /// Which receivers have an event that others still lack.
    have: Mutex<HashMap<EventId, HashSet<usize>>>,
}

impl Deliveries {
    /// Those of the configured webhooks.
    pub(super) fn new(config: &Config, engine: Engine) -> Result<Self, StartError> {
        let endpoints = config.webhooks.iter().map(endpoint).collect::<Result<_, _>>()?;
        Ok(Self(Arc::new(Shared { engine, sender: Sender::new()?, endpoints, have: Mutex::default() })))
    }

    /// Delivers until `stop`, then finishes the attempts under way.
    pub(super) async fn run(self, mut stop: watch::Receiver<bool>) {
        let mut under_way = JoinSet::new();
        let mut outbox = Condition::of("the outbox of webhooks");
        while self.0.endpoints.is_empty() && !*stop.borrow() {
            outbox.note(self.expire().await);
            tokio::select! {
                () = sleep(EXPIRE_EVERY) => {}
                _ = stop.changed() => {}
            }
        }
        while !*stop.borrow() {
            let room = AT_ONCE - under_way.len();
            if room > 0 {
                let taken = outbox.note(self.take(room).await).unwrap_or_default();
                for notification in taken {
                    under_way.spawn(self.clone().deliver(notification));
                }
            }
            tokio::select! {
                // The session's next event may be due now.
                Some(_) = under_way.join_next() => {}
                () = sleep(TICK) => {}
                _ = stop.changed() => {}
            }
        }
        while under_way.join_next().await.is_some() {}
    }

    /// Removes what was due so long ago that whoever delivers would have given it up.
    async fn expire(&self) -> Result<(), StoreError> {
        let (store, now) = (self.0.engine.store(), self.0.engine.now());
        loop {
            let overdue = store.take_notifications(now - GIVE_UP, now + LEASE, AT_ONCE as u32).await?;
            for notification in &overdue {
                store.settle_notification(notification.event.id, None).await?;
            }
            if overdue.is_empty() {
                return Ok(());
            }
            tracing::info!(events = overdue.len(), "events that no webhook was configured for were removed");
        }
    }

    async fn take(&self, limit: usize) -> Result<Vec<Notification>, StoreError> {
        let engine = &self.0.engine;
        let now = engine.now();
        engine.store().take_notifications(now, now + LEASE, u32::try_from(limit).unwrap_or(u32::MAX)).await
    }

    async fn deliver(self, notification: Notification) {
        let id = notification.event.id;
        let retry_at = match self.attempt(&notification).await {
            Ok(()) => None,
            Err(error) => {
                let (now, attempts) = (self.0.engine.now(), notification.attempts);
                let retry_at = next_attempt(attempts, notification.event.at, now, self.jitter());
                let product = &notification.scope.product;
                match retry_at {
                    Some(at) => {
                        tracing::warn!(event = %id, %product, attempts, %error, again_at = %at, "a webhook failed")
                    }
                    None => tracing::error!(event = %id, %product, attempts, %error, "a webhook was given up"),
                }
                retry_at
            }
        };
        if retry_at.is_none() {
            self.have().remove(&id);
        }
        if let Err(error) = self.0.engine.store().settle_notification(id, retry_at).await {
            // It stays in the outbox and comes again when its lease is over.
            tracing::warn!(event = %id, %error, "a webhook's outcome could not be written");
        }
    }

    /// Sends to every receiver that lacks the event. The first failure, if any.
    async fn attempt(&self, notification: &Notification) -> Result<(), Undelivered> {
        let Shared { engine, sender, endpoints, .. } = &*self.0;
        let id = notification.event.id;
        let Some(event) = WebhookEvent::of(notification.event.kind) else { return Ok(()) };
        let body = body(notification, event.as_str());
        let (name, now) = (id.to_string(), engine.now());
        let have = self.have().get(&id).cloned().unwrap_or_default();
        let wants = |e: &Endpoint| e.product == notification.scope.product && e.events.contains(&event);
        let lacking = endpoints.iter().enumerate().filter(|(at, e)| wants(e) && !have.contains(at));
        let attempts = lacking.map(|(at, e)| {
            let (body, name) = (body.clone(), &name);
            async move { (at, sender.send(&e.url, &e.secret, name, body, now).await) }
        });
        let mut failure = Ok(());
        for (at, outcome) in join_all(attempts).await {
            match outcome {
                Ok(()) => drop(self.have().entry(id).or_default().insert(at)),
                Err(error) => failure = failure.and(Err(error)),
            }
        }
        failure
    }

    fn have(&self) -> std::sync::MutexGuard<'_, HashMap<EventId, HashSet<usize>>> {
        self.0.have.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn jitter(&self) -> u8 {
        let mut byte = [0];
        self.0.engine.rng().fill(&mut byte);
        byte[0]
    }
}

#[cfg(test)]
mod tests {
    use rekindle::{
        clock::{Seconds, Timestamp},
        engine::{EndAll, Parts, Settings, StartRequest},
        journal::{Context, EventKind},
        memory::MemoryStore,
        refresh::SecretRing,
        revocation_log::NoRevocationLog,
        rng::SystemRng,
        session::{EndReason, Scope},
    };
    use rekindle_testkit::seam::ManualClock;

    use super::*;

    #[tokio::test]
    async fn without_receivers_only_what_nobody_took_for_days_is_removed() {
        let clock = Arc::new(ManualClock::at(Timestamp::from_secs(1_800_000_000)));
        let rng = Arc::new(SystemRng::default());
        let product: Tag = "default".parse().unwrap();
        let mut settings = Settings::new("https://shop.example");
        settings.notify.insert(product.clone(), [EventKind::Start, EventKind::End].into());
        let engine = Engine::open(Parts {
            store: Arc::new(MemoryStore::new()),
            revocation_log: Arc::new(NoRevocationLog),
            clock: clock.clone(),
            secrets: SecretRing::parse(&SecretRing::generate(1, &*rng)).unwrap(),
            rng,
            settings,
        })
        .await
        .unwrap();
        let scope = Scope { product: product.clone(), env: "dev".parse().unwrap() };
        let ctx = Context::default();
        let start = async || engine.start(&scope, StartRequest::new(product.clone(), None), &ctx).await.unwrap();
        start().await;
        engine.revoke_all(&scope, EndAll::default(), EndReason::Revoked, &ctx).await.unwrap();
        clock.advance(GIVE_UP);
        let recent = start().await.session.id;
        clock.advance(Seconds(1));
        let deliveries = Deliveries::new(&Config::default(), engine.clone()).unwrap();
        deliveries.expire().await.unwrap();
        let left = deliveries.take(10).await.unwrap();
        assert_eq!(left.iter().map(|n| n.event.session_id).collect::<Vec<_>>(), [Some(recent)]);
        // Both events of the old session are gone: nothing of it comes after.
        deliveries.0.engine.store().settle_notification(left[0].event.id, None).await.unwrap();
        assert!(deliveries.take(10).await.unwrap().is_empty());
    }
}
