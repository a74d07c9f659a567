//! What Rekindle logs, for the log of the application: nobody reads a library's own.

use std::fmt;
use std::sync::{OnceLock, PoisonError, RwLock};

use serde_json::{Map, Value};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    Layer,
    layer::{Context, SubscriberExt as _},
    registry::Registry,
};

/// A line of the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// `error`, `warn` or `info`.
    pub level: &'static str,
    /// What happened, as a sentence. Neither it nor a field holds a token, an opening or a key.
    pub message: String,
    /// What it is about.
    pub fields: Map<String, Value>,
}

type Listener = Box<dyn Fn(&Line) + Send + Sync>;

static LISTENERS: RwLock<Vec<Listener>> = RwLock::new(Vec::new());

/// Has `told` called, on whichever thread it happens, with each line from now on. It must not wait, nor panic.
pub fn on_log(told: impl Fn(&Line) + Send + Sync + 'static) {
    static SUBSCRIBED: OnceLock<bool> = OnceLock::new();
    LISTENERS.write().unwrap_or_else(PoisonError::into_inner).push(Box::new(told));
    // A Rust program that has a subscriber of its own has these lines there.
    SUBSCRIBED.get_or_init(|| tracing::subscriber::set_global_default(Registry::default().with(Listening)).is_ok());
}

struct Listening;

impl<S: Subscriber> Layer<S> for Listening {
    fn enabled(&self, metadata: &tracing::Metadata<'_>, _: Context<'_, S>) -> bool {
        *metadata.level() <= Level::INFO && metadata.is_event() && metadata.target().starts_with("rekindle")
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warn",
            _ => "info",
        };
        let mut line = Line { level, message: String::new(), fields: Map::new() };
        event.record(&mut line);
        for told in &*LISTENERS.read().unwrap_or_else(PoisonError::into_inner) {
            told(&line);
        }
    }
}

impl Line {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.fields.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Line {
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            _ => self.put(field, format!("{value:?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use serde_json::json;

    use super::*;

    #[test]
    fn lines_reach_every_listener() {
        let heard: [Arc<Mutex<Vec<Line>>>; 2] = Default::default();
        for heard in heard.clone() {
            on_log(move |line| heard.lock().unwrap().push(line.clone()));
        }
        tracing::warn!(target: "rekindle_client", error = %"no route", tries = 3u64, "a server does not answer");
        tracing::debug!(target: "rekindle_client", "not worth a line");
        tracing::error!(target: "somebody_else", "not ours");
        let fields = json!({ "error": "no route", "tries": 3 }).as_object().unwrap().clone();
        let line = Line { level: "warn", message: "a server does not answer".into(), fields };
        for heard in heard {
            assert_eq!(*heard.lock().unwrap(), std::slice::from_ref(&line));
        }
    }
}
