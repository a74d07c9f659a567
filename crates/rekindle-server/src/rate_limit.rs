//! How much one API key may ask for.

use std::{
    hash::Hash,
    num::NonZeroU32,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use governor::{
    Quota,
    clock::{Clock, DefaultClock},
    middleware::StateInformationMiddleware,
    state::keyed::DashMapStateStore,
};

use crate::{
    config::Limits,
    problem::{Code, Problem},
};

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// One budget per key (generic cell rate algorithm): `burst` requests at once, refilled at a steady rate.
///
/// Memory is bounded by the keys that were seen lately: those whose budget is full again are forgotten.
pub struct RateLimit<K: Hash + Eq + Clone, C: Clock = DefaultClock> {
    /// `None`: no limit.
    limiter: Option<governor::RateLimiter<K, DashMapStateStore<K>, C, StateInformationMiddleware>>,
    clock: C,
    policy: HeaderValue,
    per_second: u32,
    burst: u32,
    checks: AtomicU32,
}

/// What is left of a budget after a request that was let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// Requests that may come at once.
    pub remaining: u32,
    /// Seconds until the budget is full again, rounded up.
    pub reset: u32,
}

/// After so many requests the keys with a full budget are forgotten.
const FORGET_EVERY: u32 = 1 << 16;

impl<K: Hash + Eq + Clone> RateLimit<K> {
    /// As configured.
    pub fn new(limits: &Limits) -> Self {
        Self::with_clock(limits, DefaultClock::default())
    }
}

impl<K: Hash + Eq + Clone, C: Clock + Clone> RateLimit<K, C> {
    fn with_clock(limits: &Limits, clock: C) -> Self {
        let burst = NonZeroU32::new(limits.burst.saturating_u32()).unwrap_or(NonZeroU32::MIN);
        let rate = NonZeroU32::new(limits.requests_per_second.saturating_u32());
        let limiter = rate.map(|rate| {
            let quota = Quota::per_second(rate).allow_burst(burst);
            governor::RateLimiter::dashmap_with_clock(quota, clock.clone()).with_middleware()
        });
        let (per_second, burst) = (rate.map_or(0, NonZeroU32::get), burst.get());
        // The window is the time in which the whole quota refills.
        let window = if per_second == 0 { 0 } else { burst.div_ceil(per_second) };
        let policy = format!("\"key\";q={burst};w={window}").parse().expect("digits and quotes");
        Self { limiter, clock, policy, per_second, burst, checks: AtomicU32::new(0) }
    }

    /// Takes one request from the key's budget. `None`: there is no limit. An empty budget is a `rate_limited` problem with
    /// `Retry-After`; give its response [`RateLimit::write_exhausted`].
    pub fn check(&self, key: &K) -> Result<Option<Allowance>, Problem> {
        let Some(limiter) = &self.limiter else { return Ok(None) };
        if self.checks.fetch_add(1, Ordering::Relaxed) % FORGET_EVERY == FORGET_EVERY - 1 {
            limiter.retain_recent();
        }
        match limiter.check_key(key) {
            Ok(snapshot) => {
                let remaining = snapshot.remaining_burst_capacity();
                Ok(Some(Allowance {
                    remaining,
                    reset: (self.burst - remaining.min(self.burst)).div_ceil(self.per_second),
                }))
            }
            Err(not_until) => Err(Problem::new(
                Code::RateLimited,
                format!("this API key may send {} requests per second, and {} at once", self.per_second, self.burst),
            )
            .retry_after(not_until.wait_time_from(self.clock.now()).max(Duration::from_secs(1)))),
        }
    }

    /// Writes `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers) for a request that was let through.
    pub fn write(&self, allowance: Allowance, headers: &mut HeaderMap) {
        let value = format!("\"key\";r={};t={}", allowance.remaining, allowance.reset);
        headers.insert(POLICY, self.policy.clone());
        headers.insert(LIMIT, value.parse().expect("digits and quotes"));
    }

    /// Writes the same for one that was refused.
    pub fn write_exhausted(&self, headers: &mut HeaderMap) {
        self.write(Allowance { remaining: 0, reset: 1 }, headers);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Whole;
    use axum::response::IntoResponse;
    use governor::clock::FakeRelativeClock;

    fn limit(per_second: u64, burst: u64, clock: &FakeRelativeClock) -> RateLimit<u32, FakeRelativeClock> {
        let limits =
            Limits { requests_per_second: Whole::new(per_second), burst: Whole::new(burst), ..Limits::default() };
        RateLimit::with_clock(&limits, clock.clone())
    }

    #[test]
    fn a_key_spends_its_burst_then_waits_and_the_others_do_not() {
        let clock = FakeRelativeClock::default();
        let limit = limit(2, 4, &clock);
        for remaining in [3, 2, 1, 0] {
            assert_eq!(limit.check(&1).unwrap().unwrap().remaining, remaining);
        }
        let refused = limit.check(&1).unwrap_err();
        assert_eq!(refused.code(), Code::RateLimited);
        assert_eq!(refused.into_response().headers()["retry-after"], "1");
        assert!(limit.check(&2).is_ok());
        clock.advance(Duration::from_millis(500));
        assert!(limit.check(&1).is_ok());
        assert!(limit.check(&1).is_err());
    }

    #[test]
    fn the_headers_are_those_of_the_draft() {
        let limit = limit(2, 4, &FakeRelativeClock::default());
        let mut headers = HeaderMap::new();
        limit.write(limit.check(&1).unwrap().unwrap(), &mut headers);
        assert_eq!(headers["ratelimit-policy"], "\"key\";q=4;w=2");
        assert_eq!(headers["ratelimit"], "\"key\";r=3;t=1");
        limit.write_exhausted(&mut headers);
        assert_eq!(headers["ratelimit"], "\"key\";r=0;t=1");
    }

    #[test]
    fn zero_is_no_limit() {
        let limit = limit(0, 1, &FakeRelativeClock::default());
        for _ in 0..10 {
            assert_eq!(limit.check(&1).unwrap(), None);
        }
    }

    #[test]
    fn keys_that_rest_are_forgotten() {
        let clock = FakeRelativeClock::default();
        let limit = limit(1000, 1, &clock);
        for key in 0..FORGET_EVERY - 1 {
            limit.check(&key).unwrap();
        }
        clock.advance(Duration::from_secs(1));
        limit.check(&0).unwrap();
        assert!(limit.limiter.as_ref().unwrap().len() <= 1);
    }
}
