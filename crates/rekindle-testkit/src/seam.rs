//! Time and randomness that a test holds in its hands.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use rekindle::clock::{Clock, Seconds, SystemClock, Timestamp};
use rekindle::engine::{Engine, Parts, Settings};
use rekindle::memory::MemoryStore;
use rekindle::refresh::SecretRing;
use rekindle::revocation_log::NoRevocationLog;
use rekindle::rng::{Rng, SystemRng};

/// A working engine on an empty store in memory, with real time and randomness: for tests of what stands around an engine.
pub async fn engine_in_memory() -> Engine {
    let rng = Arc::new(SystemRng::default());
    let parts = Parts {
        store: Arc::new(MemoryStore::new()),
        revocation_log: Arc::new(NoRevocationLog),
        clock: Arc::new(SystemClock),
        secrets: SecretRing::parse(&SecretRing::generate(1, &*rng)).expect("a fresh secret"),
        rng,
        settings: Settings::new("http://127.0.0.1:3567"),
    };
    Engine::open(parts).await.expect("an empty store takes any secret")
}

/// A clock that stands still until it is told to move.
#[derive(Debug)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// Stands at `now`.
    pub fn at(now: Timestamp) -> Self {
        Self(AtomicI64::new(now.millis()))
    }

    /// Moves forward.
    pub fn advance(&self, by: Seconds) {
        self.set(self.now() + by);
    }

    /// Moves to a moment, also backwards.
    pub fn set(&self, now: Timestamp) {
        self.0.store(now.millis(), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }
}

/// Randomness that repeats with its seed (SplitMix64). Never outside tests.
#[derive(Debug)]
pub struct SeededRng(Mutex<u64>);

impl SeededRng {
    /// Always the same bytes for the same seed.
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(seed))
    }

    /// The next 64 bits.
    pub fn next(&self) -> u64 {
        let mut state = self.0.lock().expect("no test panics while drawing");
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub fn below(&self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// True once in `n` draws.
    pub fn one_in(&self, n: u64) -> bool {
        self.below(n) == 0
    }
}

impl Rng for SeededRng {
    fn fill(&self, dest: &mut [u8]) {
        for chunk in dest.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
    }
}
