//! Carrying everything in a store to another one: see [`crate::copy`].

use async_trait::async_trait;

use super::*;
use crate::clock::Seconds;

/// A store whose contents can be taken out whole, and put in.
///
/// Reading disturbs no server that works on the store. Nothing may work on a store that is written to by these methods: they do
/// not decide, they make it hold what they are given.
#[async_trait]
pub trait Transfer: Store {
    /// All that servers share.
    async fn configuration(&self) -> StoreResult<Configuration>;

    /// Replaces all that servers share, in one step; [`Store::config_version`] is greater than before, and at least that of
    /// `configuration`.
    async fn set_configuration(&self, configuration: Configuration) -> StoreResult<()>;

    /// How many records a section has; a store that would have to read them all may be a little wrong.
    async fn count(&self, section: Section) -> StoreResult<u64>;

    /// The next records of a section after `after`, in the order of their keys: at most `limit`, sessions no more than
    /// [`page_length`] allows, and none only at the end.
    async fn records(&self, section: Section, after: Option<RecordKey>, limit: u32) -> StoreResult<Vec<Record>>;

    /// Events of these sessions, of each those with ids after the given one, in the order of sessions and ids.
    async fn events_after(&self, sessions: Vec<(SessionId, Option<EventId>)>) -> StoreResult<Vec<Event>>;

    /// Makes records be as they are given, whatever was there under their keys; then adds events to their sessions, but for
    /// those that are there. May be repeated.
    async fn put(&self, records: Vec<Record>, events: Vec<Event>) -> StoreResult<()>;

    /// Removes what is there under these keys; with a session its events and its idempotency key.
    async fn remove(&self, keys: Vec<RecordKey>) -> StoreResult<()>;
}

/// How many bytes the data and claims of a page's sessions may have together.
pub const PAGE_BYTES: u64 = 4 << 20;

/// How many of the next sessions make a page, told by the bytes that the data and claims of each have: one at least, and more as
/// long as all have [`PAGE_BYTES`] at most.
pub fn page_length(sizes: impl IntoIterator<Item = u64>) -> usize {
    let totals = sizes.into_iter().scan(0, |total, size| {
        *total += size;
        Some(*total)
    });
    totals.enumerate().take_while(|(i, total)| *i == 0 || *total <= PAGE_BYTES).count()
}

/// All that servers share through a store, and that is small.
#[derive(Clone, PartialEq)]
pub struct Configuration {
    /// [`Store::config_version`].
    pub version: u64,
    /// By their tags.
    pub products: Vec<StoredProduct>,
    /// In the order in which they were added.
    pub signing_keys: Vec<SigningKey>,
    /// In the order in which they were added, revoked ones, too.
    pub api_keys: Vec<ApiKey>,
    /// By their key ids.
    pub secret_checks: Vec<(u8, [u8; 16])>,
}

/// A product with all that belongs to it, and its past.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredProduct {
    /// The product.
    pub product: Product,
    /// The longest lifetime of access tokens that any definition of it ever had.
    pub longest_access: Seconds,
    /// Its environments, by slug.
    pub environments: Vec<Environment>,
    /// Its definitions, by tag.
    pub definitions: Vec<StoredDefinition>,
}

/// A definition with its versions.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredDefinition {
    /// Its tag.
    pub tag: Tag,
    /// Which version holds; `None` once it was deleted.
    pub current: Option<u32>,
    /// Every version that there ever was, ascending.
    pub versions: Vec<(u32, Definition)>,
}

/// What there may be many of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Section {
    Sessions,
    Bans,
    Revocations,
    Notifications,
    Audit,
}

impl Section {
    /// Every section. Sessions come first: what is told of them later, is there by then.
    pub const ALL: [Self; 5] = [Self::Sessions, Self::Bans, Self::Revocations, Self::Notifications, Self::Audit];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sessions => "sessions",
            Self::Bans => "bans",
            Self::Revocations => "revocations",
            Self::Notifications => "notifications",
            Self::Audit => "audit",
        }
    }
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Record {
    Session(Box<StoredSession>),
    Ban(StoredBan),
    Revocation(Revocation),
    Notification(Box<Queued>),
    Audit(AuditEntry),
}

impl Record {
    /// Under which key it is.
    pub fn key(&self) -> RecordKey {
        match self {
            Self::Session(stored) => RecordKey::Session(stored.session.id),
            Self::Ban(stored) => RecordKey::Ban(stored.scope.clone(), stored.user_id.clone()),
            Self::Revocation(revocation) => RecordKey::Revocation(revocation.seq),
            Self::Notification(queued) => RecordKey::Notification(queued.notification.event.id),
            Self::Audit(entry) => RecordKey::Audit(entry.id),
        }
    }
}

/// What a record is known by in its section, and sorts by: byte by byte.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum RecordKey {
    Session(SessionId),
    /// By the scope as text, `product/environment`, and then by the user.
    Ban(Scope, UserId),
    Revocation(u64),
    Notification(EventId),
    Audit(EventId),
}

impl RecordKey {
    /// In which section.
    pub fn section(&self) -> Section {
        match self {
            Self::Session(_) => Section::Sessions,
            Self::Ban(..) => Section::Bans,
            Self::Revocation(_) => Section::Revocations,
            Self::Notification(_) => Section::Notifications,
            Self::Audit(_) => Section::Audit,
        }
    }

    /// Bytes that sort as the keys of one section do.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Session(id) => id.to_bytes().into(),
            Self::Ban(scope, user_id) => format!("{scope}\0{}", user_id.as_str()).into(),
            Self::Revocation(seq) => seq.to_be_bytes().into(),
            Self::Notification(id) | Self::Audit(id) => id.to_bytes().into(),
        }
    }
}

/// A session's row, and what else a store holds of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSession {
    /// The row.
    pub session: Session,
    /// The idempotency key that leads to it, until that is forgotten: it may have expired.
    pub idempotency: Option<Idempotency>,
    /// Its events. [`Transfer::put`] leaves this out of account.
    pub events: Held,
}

/// How many events a store holds of a session: none changes after it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Held {
    /// So many.
    pub count: u64,
    /// The one with the greatest id.
    pub last: Option<EventId>,
}

/// A ban with whom it keeps out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredBan {
    /// In which scope.
    pub scope: Scope,
    /// Whom.
    pub user_id: UserId,
    /// The ban; it may be over.
    pub ban: Ban,
}

/// A notification that is not delivered yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queued {
    /// The notification.
    pub notification: Notification,
    /// When it is to be sent, or sent again.
    pub due: Timestamp,
}
