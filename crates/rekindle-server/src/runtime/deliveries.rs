//! The delivery of webhooks: from the store's outbox to the receivers, at least once, in order per session.
//!
//! An event that has several receivers is done when all have it. Those that do are not asked again when another one fails, as
//! far as this process remembers.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
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

use super::{Condition, StartError, TICK};
use crate::{
    config::{Config, HttpUrl, Secret, SecretSource, Webhook, WebhookEvent},
    webhook::{Sender, Undelivered, next_attempt},
};

/// How many events are under way at once.
const AT_ONCE: usize = 64;
/// How long nobody else takes an event that was taken here: longer than an attempt.
const LEASE: Seconds = Seconds(3 * Sender::TIMEOUT.as_secs());

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
    let secret = webhook.secret.read().map_err(StartError::file("a webhook's secret", path))?;
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
    /// Those of the configured webhooks; `None` when there are none.
    pub(super) fn new(config: &Config, engine: Engine) -> Result<Option<Self>, StartError> {
        if config.webhooks.is_empty() {
            return Ok(None);
        }
        let endpoints = config.webhooks.iter().map(endpoint).collect::<Result<_, _>>()?;
        Ok(Some(Self(Arc::new(Shared { engine, sender: Sender::new()?, endpoints, have: Mutex::default() }))))
    }

    /// Delivers until `stop`, then finishes the attempts under way.
    pub(super) async fn run(self, mut stop: watch::Receiver<bool>) {
        let mut under_way = JoinSet::new();
        let mut outbox = Condition::of("the outbox of webhooks");
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
