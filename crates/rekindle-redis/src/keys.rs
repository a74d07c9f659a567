//! The names of keys. What is between braces decides the slot on a cluster.

use std::fmt::{self, Write as _};

use aws_lc_rs::digest::{SHA256, digest};
use rekindle::session::{Scope, SessionId, UserId};

/// Over how many slots a scope's indexes are spread. Part of the layout: it never changes.
pub(crate) const BUCKETS: u8 = 16;

/// What stands for a user of a scope in keys and index entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct UserKey([u8; 16]);

impl UserKey {
    pub(crate) fn new(scope: &Scope, user_id: &UserId) -> Self {
        let text = format!("{scope}\0{}", user_id.as_str());
        let hash = digest(&SHA256, text.as_bytes());
        Self(hash.as_ref()[..16].try_into().expect("a digest has 32 bytes"))
    }

    pub(crate) fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    pub(crate) fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    pub(crate) fn bucket(self) -> u8 {
        self.0[0] % BUCKETS
    }
}

impl fmt::Display for UserKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

/// The bucket of a session in its scope's index: by the random end of its id.
pub(crate) fn bucket(id: SessionId) -> u8 {
    let bytes = id.to_bytes();
    (bytes[15] ^ bytes[7]) % BUCKETS
}

/// Makes the names of keys.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    prefix: String,
}

impl Keys {
    pub(crate) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.into() }
    }

    fn name(&self, tag: impl fmt::Display, part: &str) -> String {
        format!("{}:{{{tag}}}:{part}", self.prefix)
    }

    /// Row, stream of events, and the events that came late: one slot.
    pub(crate) fn session(&self, id: SessionId) -> [String; 3] {
        ["row", "events", "late"].map(|part| self.name(format_args!("s:{id}"), part))
    }

    pub(crate) fn row(&self, id: SessionId) -> String {
        self.name(format_args!("s:{id}"), "row")
    }

    /// What is known of a user, its sessions' ids, and the starts under way: one slot.
    pub(crate) fn user(&self, user: UserKey) -> [String; 3] {
        ["user", "sessions", "starts"].map(|part| self.name(format_args!("u:{user}"), part))
    }

    /// Which session an idempotency key of a user led to; in the user's slot.
    pub(crate) fn user_idempotency(&self, user: UserKey, key: &str) -> String {
        self.name(format_args!("u:{user}"), &format!("key:{key}"))
    }

    /// Which request an idempotency key of a scope stands for.
    pub(crate) fn idempotency(&self, scope: &Scope, key: &str) -> String {
        self.name(format_args!("k:{scope}/{key}"), "request")
    }

    /// The ids of a scope's sessions in a bucket.
    pub(crate) fn scope_sessions(&self, scope: &Scope, bucket: u8) -> String {
        self.name(format_args!("b:{bucket}"), &format!("sessions:{scope}"))
    }

    /// The ids of a scope's users in a bucket, and how often one was added: one slot.
    pub(crate) fn scope_users(&self, scope: &Scope, bucket: u8) -> [String; 2] {
        let tag = format_args!("b:{bucket}").to_string();
        [self.name(&tag, &format!("users:{scope}")), self.name(&tag, "added")]
    }

    /// The feed, its entries' numbers by event (or by the number itself, where a copy brought it), their expiries, and the last
    /// number: one slot.
    pub(crate) fn feed(&self) -> [String; 4] {
        ["entries", "numbers", "expiries", "last"].map(|part| self.name("feed", part))
    }

    /// Notifications, each session's in order, when the first of each is due, attempts, and when each is due: one slot.
    pub(crate) fn outbox(&self) -> [String; 5] {
        ["events", "queue", "due", "attempts", "at"].map(|part| self.name("outbox", part))
    }

    /// Bans with an end, by it.
    pub(crate) fn bans(&self) -> String {
        self.name("bans", "until")
    }

    /// Products, environments, definitions, signing keys, API keys; and the definitions' versions: one slot.
    pub(crate) fn config(&self) -> [String; 2] {
        ["current", "versions"].map(|part| self.name("config", part))
    }

    /// The audit log; in the configuration's slot.
    pub(crate) fn audit(&self) -> String {
        self.name("config", "audit")
    }

    /// Every scope in which a session or a ban was ever written.
    pub(crate) fn scopes(&self) -> String {
        self.name("config", "scopes")
    }
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The reverse of [`hex`].
pub(crate) fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}
