//! A session's row: a hash with these fields. What is not there is absent; nothing has a default.
//!
//! | field | holds |
//! |---|---|
//! | `rev` | who wrote last: a token that no other write has |
//! | `of` | `product/environment tag` |
//! | `position` | `generation commitment`, the commitment in hexadecimal |
//! | `issued` | `seconds key-id`: when, and under which master secret, this generation was issued |
//! | `confirmed` | `0` or `1` |
//! | `least` | the least generation whose access tokens are accepted |
//! | `idle`, `expires` | when the session ends by itself, in milliseconds |
//! | `ended` | `milliseconds reason`, and which start or bulk ending did it, if one did |
//! | `auth`, `data`, `claims` | JSON |
//! | `version` | of data and claims |
//! | `start` | JSON: what never changes |
//! | `out` | effects on other slots that are still to be carried out, a line each |
//! | `gone` | alone: the session was removed a short while ago |

use rekindle::clock::Timestamp;
use rekindle::refresh::Commitment;
use rekindle::rotation::Position;
use rekindle::session::{Client, EndReason, Ended, Object, Scope, Session, SessionId, UserId};
use rekindle::store::{StoreError, StoreResult};
use serde::{Deserialize, Serialize};

use crate::keys::{hex, unhex};

/// Every field, in the order in which rows are read; scripts have the same list.
pub(crate) const FIELDS: [&str; 16] = [
    "rev",
    "of",
    "position",
    "issued",
    "confirmed",
    "least",
    "idle",
    "expires",
    "ended",
    "auth",
    "version",
    "start",
    "out",
    "gone",
    "data",
    "claims",
];

/// How many of them are not data or claims: what those read who only decide.
pub(crate) const WITHOUT_DATA: usize = 14;

/// A row as it was read.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) session: Session,
    pub(crate) rev: String,
    /// Effects that are still to be carried out.
    pub(crate) out: String,
    pub(crate) origin: Origin,
    /// The token of the start, or the event of the bulk ending, that ended it.
    pub(crate) ended_by: Option<String>,
}

/// By what the session was made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Origin {
    /// The token of the start.
    pub(crate) token: String,
    /// Its idempotency key, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) idempotency: Option<String>,
}

/// What was found under a session's key.
#[derive(Debug, Clone)]
pub(crate) enum Found {
    Row(Box<Row>),
    /// It was removed a short while ago.
    Gone,
    Nothing,
}

impl Found {
    pub(crate) fn row(self) -> Option<Row> {
        match self {
            Self::Row(row) => Some(*row),
            Self::Gone | Self::Nothing => None,
        }
    }
}

/// What never changes.
#[derive(Serialize, Deserialize)]
struct Fixed {
    definition_version: u32,
    user_id: UserId,
    client: Client,
    created_at: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    previous_session_id: Option<SessionId>,
    #[serde(flatten)]
    origin: Origin,
}

/// The value of `of`.
pub(crate) fn of(scope: &Scope, tag: &rekindle::session::Tag) -> String {
    format!("{scope} {tag}")
}

/// The value of `position`.
pub(crate) fn position(generation: u32, commitment: Commitment) -> String {
    format!("{generation} {}", hex(&commitment.to_bytes()))
}

/// The value of `issued`.
pub(crate) fn issued(position: &Position) -> String {
    format!("{} {}", position.issued_at, position.kid)
}

/// Every field of a new row.
pub(crate) fn encode(session: &Session, origin: &Origin) -> Vec<(&'static str, String)> {
    let fixed = Fixed {
        definition_version: session.definition_version,
        user_id: session.user_id.clone(),
        client: session.client.clone(),
        created_at: session.created_at.millis(),
        previous_session_id: session.previous_session_id,
        origin: origin.clone(),
    };
    let mut fields =
        vec![("of", of(&session.scope, &session.tag)), ("expires", session.expires_at.millis().to_string())];
    fields.push(("start", json(&fixed)));
    fields.extend(changeable(session, None));
    fields
}

/// The fields in which `new` differs from `old`: those to set, and those to remove.
pub(crate) fn changes(
    old: &Session,
    new: &Session,
    ended_by: Option<&str>,
) -> (Vec<(&'static str, String)>, Vec<&'static str>) {
    let before = changeable(old, None);
    let after = changeable(new, ended_by);
    let removed = before.iter().map(|(name, _)| *name).filter(|name| after.iter().all(|(n, _)| n != name)).collect();
    (after.into_iter().filter(|field| !before.contains(field)).collect(), removed)
}

fn changeable(session: &Session, ended_by: Option<&str>) -> Vec<(&'static str, String)> {
    let mut fields = vec![
        ("position", position(session.position.generation, session.position.commitment)),
        ("issued", issued(&session.position)),
        ("confirmed", u8::from(session.confirmed).to_string()),
        ("least", session.min_generation.to_string()),
        ("idle", session.idle_expires_at.millis().to_string()),
        ("auth", json(&session.auth)),
        ("version", session.version.to_string()),
        ("data", session.data.as_str().to_owned()),
        ("claims", session.claims.as_str().to_owned()),
    ];
    if let Some(ended) = session.ended {
        let by = ended_by.map(|token| format!(" {token}")).unwrap_or_default();
        fields.push(("ended", format!("{} {}{by}", ended.at.millis(), ended.reason.as_str())));
    }
    fields
}

/// Reads the values of [`FIELDS`], or of those [`WITHOUT_DATA`]: then data and claims are empty.
pub(crate) fn decode(id: SessionId, values: Vec<Option<Vec<u8>>>) -> StoreResult<Found> {
    Cells { id, values }.read()
}

struct Cells {
    id: SessionId,
    /// Of the fields, in their order.
    values: Vec<Option<Vec<u8>>>,
}

impl Cells {
    fn read(&self) -> StoreResult<Found> {
        if self.values.iter().all(Option::is_none) {
            return Ok(Found::Nothing);
        }
        if self.optional("gone")?.is_some() {
            return Ok(Found::Gone);
        }
        let (scope, tag) = self.parsed("of", |text| {
            let (scope, tag) = text.split_once(' ')?;
            Some((parse_scope(scope)?, tag.parse().ok()?))
        })?;
        let (generation, commitment) = self.parsed("position", |text| {
            let (generation, commitment) = text.split_once(' ')?;
            Some((generation.parse().ok()?, Commitment::from_bytes(unhex(commitment)?)))
        })?;
        let (issued_at, kid) = self.parsed("issued", |text| {
            let (at, kid) = text.split_once(' ')?;
            Some((at.parse().ok()?, kid.parse().ok()?))
        })?;
        let confirmed = self.parsed("confirmed", |text| match text {
            "0" => Some(false),
            "1" => Some(true),
            _ => None,
        })?;
        let (ended, ended_by) = match self.optional("ended")? {
            None => (None, None),
            Some(text) => ended(text).ok_or_else(|| self.corrupt("ended"))?,
        };
        let fixed: Fixed = self.json("start")?;
        let object = |column| match self.values.len() {
            WITHOUT_DATA => Ok(Object::empty()),
            _ => self.parsed(column, |text| Object::parse(text.into()).ok()),
        };
        let session = Session {
            id: self.id,
            scope,
            tag,
            definition_version: fixed.definition_version,
            user_id: fixed.user_id,
            position: Position { generation, commitment, issued_at, kid },
            confirmed,
            min_generation: self.parsed("least", |text| text.parse().ok())?,
            data: object("data")?,
            claims: object("claims")?,
            version: self.parsed("version", |text| text.parse().ok())?,
            client: fixed.client,
            auth: self.json("auth")?,
            created_at: Timestamp::from_millis(fixed.created_at),
            idle_expires_at: self.parsed("idle", time)?,
            expires_at: self.parsed("expires", time)?,
            previous_session_id: fixed.previous_session_id,
            ended,
        };
        Ok(Found::Row(Box::new(Row {
            session,
            rev: self.required("rev")?.to_owned(),
            out: self.optional("out")?.unwrap_or_default().to_owned(),
            origin: fixed.origin,
            ended_by,
        })))
    }

    fn optional(&self, column: &'static str) -> StoreResult<Option<&str>> {
        let place = FIELDS.iter().position(|field| *field == column).expect("a field of a row");
        let value = self.values.get(place).and_then(Option::as_ref);
        value.map(|value| std::str::from_utf8(value).map_err(|_| self.corrupt(column))).transpose()
    }

    fn required(&self, column: &'static str) -> StoreResult<&str> {
        self.optional(column)?.ok_or_else(|| self.corrupt(column))
    }

    fn parsed<T>(&self, column: &'static str, parse: impl FnOnce(&str) -> Option<T>) -> StoreResult<T> {
        parse(self.required(column)?).ok_or_else(|| self.corrupt(column))
    }

    fn json<T: serde::de::DeserializeOwned>(&self, column: &'static str) -> StoreResult<T> {
        self.parsed(column, |text| serde_json::from_str(text).ok())
    }

    fn corrupt(&self, column: &'static str) -> StoreError {
        StoreError::Corrupt { table: "sessions", column, id: self.id.to_string() }
    }
}

/// `product/environment`.
pub(crate) fn parse_scope(text: &str) -> Option<Scope> {
    let (product, env) = text.split_once('/')?;
    Some(Scope { product: product.parse().ok()?, env: env.parse().ok()? })
}

fn time(text: &str) -> Option<Timestamp> {
    text.parse().ok().map(Timestamp::from_millis).filter(|t| *t <= Timestamp::MAX)
}

fn ended(text: &str) -> Option<(Option<Ended>, Option<String>)> {
    let mut parts = text.split(' ');
    let (at, reason) = (time(parts.next()?)?, parts.next()?.parse::<EndReason>().ok()?);
    Some((Some(Ended { at, reason }), parts.next().map(str::to_owned)))
}

/// These types are JSON.
pub(crate) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("these types are JSON")
}
