//! Logging: to standard error, as text or JSON. No token, cookie, query string or body ever gets there.

use std::{panic::PanicHookInfo, time::Duration};

use axum::http::{Method, StatusCode};
use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use crate::config::{Log, LogFormat, LogLevel, LogRequests};

/// Sends what is traced to standard error, from the configured level on, and panics with it. Call it once per process.
///
/// # Panics
/// When a subscriber is installed already.
pub fn install(log: &Log) {
    let builder = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(LevelFilter::TRACE)
        .with_target(false)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    match log.format {
        LogFormat::Text => builder.finish().with(filter(log.level)).init(),
        LogFormat::Json => builder.json().flatten_event(true).with_ansi(false).finish().with(filter(log.level)).init(),
    }
    std::panic::set_hook(Box::new(panicked));
}

/// What gets through. Of the libraries only warnings: what they tell beyond that has headers and the parameters of statements.
fn filter(level: LogLevel) -> Targets {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    Targets::new().with_default(level.min(LevelFilter::WARN)).with_target("rekindle", level)
}

/// Says where it happened. A message that was put together at run time is left out: it may quote what must not be logged.
fn panicked(info: &PanicHookInfo<'_>) {
    let message = info.payload().downcast_ref::<&'static str>().copied().unwrap_or("(message left out)");
    let at = info.location().map(ToString::to_string).unwrap_or_default();
    tracing::error!(at, message, "panic");
}

/// Which requests get a line.
#[derive(Debug, Clone)]
pub struct RequestLog {
    requests: LogRequests,
    slow: Duration,
}

impl RequestLog {
    /// As configured.
    pub fn new(log: &Log) -> Self {
        Self { requests: log.requests, slow: log.slow_request.duration() }
    }

    /// Writes one request's line, if it gets one: by its route's template, never its path. A failure that was planned is none.
    pub fn request(
        &self,
        id: &str,
        method: &Method,
        route: Option<&str>,
        status: StatusCode,
        took: Duration,
        planned: bool,
    ) {
        let route = route.unwrap_or("(unmatched)");
        let (status, ms) = (status.as_u16(), took.as_secs_f64() * 1e3);
        if status >= 500 && !planned {
            tracing::error!(request_id = id, %method, route, status, ms, "request failed");
        } else if took >= self.slow {
            tracing::warn!(request_id = id, %method, route, status, ms, "slow request");
        } else if self.requests == LogRequests::All {
            tracing::info!(request_id = id, %method, route, status, ms, "request");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[test]
    fn libraries_do_not_tell_details() {
        use tracing::Level;
        let filter = filter(LogLevel::Trace);
        assert!(filter.would_enable("rekindle::engine", &Level::TRACE));
        assert!(filter.would_enable("rekindle_server::http", &Level::TRACE));
        assert!(filter.would_enable("tokio_postgres::connection", &Level::WARN));
        for target in ["tokio_postgres::prepare", "h2::codec", "log"] {
            assert!(!filter.would_enable(target, &Level::INFO), "{target}");
        }
    }

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn lines(requests: LogRequests, status: StatusCode, took: Duration) -> String {
        lines_of(requests, status, took, false)
    }

    fn lines_of(requests: LogRequests, status: StatusCode, took: Duration, planned: bool) -> String {
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber =
            tracing_subscriber::fmt().json().flatten_event(true).with_writer(move || writer.clone()).finish();
        let log = RequestLog::new(&Log { requests, ..Log::default() });
        tracing::subscriber::with_default(subscriber, || {
            log.request("r1", &Method::GET, Some("/v1/{product}"), status, took, planned);
        });
        String::from_utf8(sink.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn only_failures_and_slow_requests_are_logged_by_default() {
        let fast = Duration::from_millis(1);
        assert_eq!(lines(LogRequests::Errors, StatusCode::OK, fast), "");
        assert_eq!(lines(LogRequests::Errors, StatusCode::UNAUTHORIZED, fast), "");
        assert!(lines(LogRequests::Errors, StatusCode::OK, Duration::from_secs(2)).contains("slow request"));
        let line = lines(LogRequests::Errors, StatusCode::INTERNAL_SERVER_ERROR, fast);
        for part in [r#""request_id":"r1""#, r#""route":"/v1/{product}""#, r#""status":500"#, r#""ms":1.0"#] {
            assert!(line.contains(part), "{part} is not in {line}");
        }
    }

    #[test]
    fn a_planned_refusal_is_no_failure() {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        assert_eq!(lines_of(LogRequests::Errors, status, Duration::ZERO, true), "");
        assert!(lines_of(LogRequests::All, status, Duration::ZERO, true).contains("INFO"));
        assert!(lines(LogRequests::Errors, status, Duration::ZERO).contains("ERROR"));
    }

    #[test]
    fn all_requests_are_logged_on_wish() {
        assert!(lines(LogRequests::All, StatusCode::OK, Duration::ZERO).contains("request"));
    }
}
