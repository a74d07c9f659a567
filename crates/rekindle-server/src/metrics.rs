//! Prometheus metrics: rate, errors and duration per route, refreshes by outcome, thefts by kind, the store's latency.
//!
//! Labels are closed sets (route templates, never paths), and a request touches only handles that exist already.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use axum::http::{Method, StatusCode};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text::encode},
    metrics::{
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::Gauge,
        histogram::Histogram,
        info::Info,
    },
    registry::{Registry, Unit},
};
use rekindle::rotation::TheftKind;

/// The content type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Tells how many transactions a store committed, and how many writes they carried.
pub type CommitCounts = Box<dyn Fn() -> (u64, u64) + Send + Sync>;

/// Everything that the server counts.
pub struct Metrics {
    registry: Registry,
    routes: HashMap<Box<str>, PerMethod>,
    unmatched: PerMethod,
    requests: Family<RequestLabels, Counter>,
    durations: Family<RouteLabels, Histogram, fn() -> Histogram>,
    refreshes: [Counter; RefreshOutcome::ALL.len()],
    thefts: [Counter; 3],
    store: Family<OperationLabels, Histogram, fn() -> Histogram>,
    commits: Commits,
    /// Connections that are open at the moment.
    pub connections: Gauge,
    signing_key_age: Gauge,
}

/// What came of a refresh, as a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "as in the protocol")]
pub enum RefreshOutcome {
    Advanced,
    Reissued,
    FastForwarded,
    Superseded,
    ProofRequired,
    Theft,
    Expired,
    Revoked,
    Malformed,
    Invalid,
    Unavailable,
}

impl RefreshOutcome {
    /// Every outcome, in the order of the declaration.
    pub const ALL: [Self; 11] = [
        Self::Advanced,
        Self::Reissued,
        Self::FastForwarded,
        Self::Superseded,
        Self::ProofRequired,
        Self::Theft,
        Self::Expired,
        Self::Revoked,
        Self::Malformed,
        Self::Invalid,
        Self::Unavailable,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Advanced => "advanced",
            Self::Reissued => "reissued",
            Self::FastForwarded => "fast_forwarded",
            Self::Superseded => "superseded",
            Self::ProofRequired => "proof_required",
            Self::Theft => "theft",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Malformed => "malformed",
            Self::Invalid => "invalid",
            Self::Unavailable => "unavailable",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: String,
    method: &'static str,
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: String,
    method: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabels {
    operation: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: &'static str,
}

/// The handles of one route and method; made at its first request, so that only what is used is exported.
#[derive(Default)]
struct RouteHandles {
    by_class: [OnceLock<Counter>; CLASSES.len()],
    duration: OnceLock<Histogram>,
}

type PerMethod = [RouteHandles; METHODS.len()];

const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "other"];
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
const UNMATCHED: &str = "(unmatched)";

/// From 100 µs to 10 s; a refresh takes well below a millisecond.
fn request_buckets() -> Histogram {
    Histogram::new([0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 10.0])
}

impl Metrics {
    /// For an app with these route templates; a request on any other path counts as `(unmatched)`.
    pub fn new<'a>(routes: impl IntoIterator<Item = &'a str>) -> Self {
        let mut root = Registry::default();
        let registry = root.sub_registry_with_prefix("rekindle");
        let requests = Family::default();
        registry.register("http_requests", "Requests by route, method and class of status", requests.clone());
        let durations = Family::new_with_constructor(request_buckets as fn() -> Histogram);
        let help = "From the request's head to the answer's head";
        registry.register_with_unit("http_request_duration", help, Unit::Seconds, durations.clone());
        let outcomes = Family::<OutcomeLabels, Counter>::default();
        registry.register("refreshes", "Refreshes by outcome", outcomes.clone());
        let kinds = Family::<KindLabels, Counter>::default();
        registry.register("thefts", "Sessions that two parties used, by how it showed", kinds.clone());
        let store = Family::new_with_constructor(request_buckets as fn() -> Histogram);
        registry.register_with_unit("store_duration", "The store's operations", Unit::Seconds, store.clone());
        let commits = Commits::default();
        registry.register_collector(Box::new(commits.clone()));
        let connections = Gauge::default();
        registry.register("connections", "Open connections", connections.clone());
        let signing_key_age = Gauge::default();
        let help = "Age of the oldest key that signs at the moment";
        registry.register_with_unit("signing_key_age", help, Unit::Seconds, signing_key_age.clone());
        registry.register("build", "The server's version", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        Self {
            routes: routes.into_iter().map(|route| (route.into(), PerMethod::default())).collect(),
            unmatched: PerMethod::default(),
            requests,
            durations,
            refreshes: RefreshOutcome::ALL
                .map(|outcome| outcomes.get_or_create_owned(&OutcomeLabels { outcome: outcome.as_str() })),
            thefts: ["reused", "forked", "stolen_token"].map(|kind| kinds.get_or_create_owned(&KindLabels { kind })),
            store,
            commits,
            connections,
            signing_key_age,
            registry: root,
        }
    }

    /// Counts one answered request; `route` is the matched template.
    pub fn request(&self, route: Option<&str>, method: &Method, status: StatusCode, took: Duration) {
        let (route, handles) = match route.and_then(|route| self.routes.get_key_value(route)) {
            Some((route, handles)) => (&**route, handles),
            None => (UNMATCHED, &self.unmatched),
        };
        let at = METHODS.iter().position(|m| *m == method.as_str()).unwrap_or(METHODS.len() - 1);
        let class = usize::from(status.as_u16() / 100).clamp(1, CLASSES.len()) - 1;
        let (handles, method) = (&handles[at], METHODS[at]);
        let labels = || RequestLabels { route: route.into(), method, status: CLASSES[class] };
        handles.by_class[class].get_or_init(|| self.requests.get_or_create_owned(&labels())).inc();
        handles
            .duration
            .get_or_init(|| self.durations.get_or_create_owned(&RouteLabels { route: route.into(), method }))
            .observe(took.as_secs_f64());
    }

    /// Counts one refresh.
    pub fn refresh(&self, outcome: RefreshOutcome) {
        self.refreshes[outcome as usize].inc();
    }

    /// Counts one theft.
    pub fn theft(&self, kind: TheftKind) {
        let at = match kind {
            TheftKind::Reused => 0,
            TheftKind::Forked => 1,
            TheftKind::StolenToken => 2,
        };
        self.thefts[at].inc();
    }

    /// Notes how long one operation of the store took.
    pub fn store(&self, operation: &'static str, took: Duration) {
        self.store.get_or_create(&OperationLabels { operation }).observe(took.as_secs_f64());
    }

    /// Counts what a store with group commit has committed: `counts` gives its transactions, and the writes that they carried.
    pub fn count_commits(&self, counts: CommitCounts) {
        // A server has one store.
        let _ = self.commits.0.set(counts);
    }

    /// Sets the age of the oldest key that signs at the moment.
    pub fn signing_key_age(&self, age: rekindle::clock::Seconds) {
        self.signing_key_age.set(i64::try_from(age.0).unwrap_or(i64::MAX));
    }

    /// Everything as OpenMetrics text.
    pub fn render(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a string");
        text
    }
}

/// Transactions and writes, read from the store when the metrics are.
#[derive(Clone, Default)]
struct Commits(Arc<OnceLock<CommitCounts>>);

impl fmt::Debug for Commits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Commits")
    }
}

impl Collector for Commits {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(counts) = self.0.get() else { return Ok(()) };
        let (transactions, writes) = counts();
        for (name, help, count) in [
            ("store_transactions", "Transactions that the store committed", transactions),
            ("store_writes", "Writes that the store's transactions carried", writes),
        ] {
            let counter = ConstCounter::new(count);
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_template_method_and_class() {
        let metrics = Metrics::new(["/v1/{product}"]);
        metrics.request(Some("/v1/{product}"), &Method::GET, StatusCode::OK, Duration::from_millis(2));
        metrics.request(Some("/v1/{product}"), &Method::GET, StatusCode::CREATED, Duration::from_millis(2));
        metrics.request(Some("/v1/secret"), &Method::GET, StatusCode::NOT_FOUND, Duration::ZERO);
        metrics.request(None, &Method::from_bytes(b"BREW").unwrap(), StatusCode::NOT_FOUND, Duration::ZERO);
        let text = metrics.render();
        for line in [
            r#"rekindle_http_requests_total{route="/v1/{product}",method="GET",status="2xx"} 2"#,
            r#"rekindle_http_requests_total{route="(unmatched)",method="GET",status="4xx"} 1"#,
            r#"rekindle_http_requests_total{route="(unmatched)",method="other",status="4xx"} 1"#,
            r#"rekindle_http_request_duration_seconds_bucket{le="0.0025",route="/v1/{product}",method="GET"} 2"#,
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("secret") && text.ends_with("# EOF\n"));
    }

    #[test]
    fn outcomes_kinds_and_operations_are_counted() {
        let metrics = Metrics::new([]);
        for outcome in RefreshOutcome::ALL {
            metrics.refresh(outcome);
        }
        metrics.theft(TheftKind::StolenToken);
        metrics.store("advance", Duration::from_micros(300));
        metrics.signing_key_age(rekindle::clock::Seconds(7));
        metrics.connections.inc();
        metrics.count_commits(Box::new(|| (2, 7)));
        let text = metrics.render();
        for line in [
            r#"rekindle_refreshes_total{outcome="reissued"} 1"#,
            r#"rekindle_thefts_total{kind="stolen_token"} 1"#,
            r#"rekindle_thefts_total{kind="reused"} 0"#,
            r#"rekindle_store_duration_seconds_count{operation="advance"} 1"#,
            "rekindle_store_transactions_total 2",
            "rekindle_store_writes_total 7",
            "rekindle_signing_key_age_seconds 7",
            "rekindle_connections 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
