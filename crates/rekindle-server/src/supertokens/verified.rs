//! Access tokens that were verified, by their SHA-256: what was signed once stays signed, and says the same.

use std::sync::Arc;

use aws_lc_rs::digest;
use quick_cache::{Weighter, sync::Cache};
use rekindle::keys::{Chain, KeyId};

use super::access::{Claims, Version};

/// An access token with a good signature; it may have expired.
pub(super) struct Signed {
    /// Its format.
    pub(super) version: Version,
    /// Whether a dynamic or a static key signed it.
    pub(super) chain: Chain,
    /// What it says.
    pub(super) claims: Claims,
    /// The key that signed it. Where this is none of its app's keys any more, the token is good no longer.
    pub(super) key: KeyId,
}

/// Those of late, of every app. It never holds a token.
pub(crate) struct VerifiedTokens(Cache<[u8; 32], Arc<Signed>, Weight>);

/// How many bytes they take together, about.
const CAPACITY: u64 = 4 << 20;

impl Default for VerifiedTokens {
    fn default() -> Self {
        Self(Cache::with_weighter(CAPACITY as usize / 1024, CAPACITY, Weight))
    }
}

impl VerifiedTokens {
    /// What is known of a token.
    pub(super) fn get(&self, token: &str) -> Option<Arc<Signed>> {
        self.0.get(&hash(token))
    }

    /// Keeps what was found out.
    pub(super) fn insert(&self, token: &str, signed: &Arc<Signed>) {
        self.0.insert(hash(token), signed.clone());
    }
}

fn hash(token: &str) -> [u8; 32] {
    let hash = digest::digest(&digest::SHA256, token.as_bytes());
    hash.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

#[derive(Clone)]
struct Weight;

impl Weighter<[u8; 32], Arc<Signed>> for Weight {
    fn weight(&self, _: &[u8; 32], signed: &Arc<Signed>) -> u64 {
        /// An entry's structs, and the short texts in them.
        const FIXED: u64 = 768;
        // A payload's members, each with its node of the map: some sixteen times its JSON at worst, usually four.
        FIXED + 4 * serde_json::to_string(&signed.claims.user_data).map_or(0, |text| text.len() as u64)
    }
}
