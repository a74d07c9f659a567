//! Lists, page by page.

use std::str::FromStr;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use serde::{Deserialize, Deserializer, Serialize, de};
use utoipa::{IntoParams, ToSchema};

use crate::problem::Problem;

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// Give it as `cursor` to get the next page; null on the last one.
    pub next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// A page from up to `limit + 1` rows: the one too many only shows that there is more. `cursor` names the last row shown.
    pub fn of<R>(mut rows: Vec<R>, limit: Limit, cursor: impl Fn(&R) -> Vec<u8>, item: impl Fn(R) -> T) -> Self {
        let more = rows.len() > limit.0 as usize;
        rows.truncate(limit.0 as usize);
        let next_cursor = rows.last().filter(|_| more).map(|row| BASE64_URL_SAFE_NO_PAD.encode(cursor(row)));
        Self { items: rows.into_iter().map(item).collect(), next_cursor }
    }

    /// A page of a list that was read whole, in the order of its keys.
    pub fn of_all<R>(
        mut rows: Vec<R>,
        query: &PageQuery,
        key: impl Fn(&R) -> Vec<u8>,
        item: impl Fn(R) -> T,
    ) -> Result<Self, Problem> {
        if let Some(after) = cursor(query.cursor.as_deref())? {
            rows.retain(|row| key(row) > after);
        }
        Ok(Self::of(rows, query.limit, key, item))
    }
}

/// Which page of a list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// How many items at most: 1 to 200, 50 by default.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200)]
    pub limit: Limit,
    /// The `next_cursor` of the page before.
    pub cursor: Option<String>,
}

impl<T> Page<T> {
    /// The page with each item as `view` shows it.
    pub fn view<'a, V>(&'a self, view: impl Fn(&'a T) -> V) -> Page<V> {
        Page { items: self.items.iter().map(view).collect(), next_cursor: self.next_cursor.clone() }
    }
}

/// How many items a page has at most: 1 to 200, 50 by default.
#[derive(Debug, Clone, Copy)]
pub struct Limit(pub u32);

impl Limit {
    /// What to ask the store for, to know whether there is more.
    pub fn and_one(self) -> u32 {
        self.0 + 1
    }
}

impl Default for Limit {
    fn default() -> Self {
        Self(50)
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u32::deserialize(deserializer)? {
            limit @ 1..=200 => Ok(Self(limit)),
            _ => Err(de::Error::custom("must be 1 to 200")),
        }
    }
}

/// The bytes in a cursor that a page gave. Cursors are opaque to callers.
pub fn cursor(text: Option<&str>) -> Result<Option<Vec<u8>>, Problem> {
    let decode = |text| BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| unknown_cursor());
    text.map(decode).transpose()
}

/// The cursor of a list that is ordered by 16-byte ids.
pub fn id_cursor(text: Option<&str>) -> Result<Option<[u8; 16]>, Problem> {
    cursor(text)?.map(|bytes| bytes.try_into().map_err(|_| unknown_cursor())).transpose()
}

/// The cursor of a list that is ordered by names.
pub fn text_cursor<T: FromStr>(text: Option<&str>) -> Result<Option<T>, Problem> {
    let parse = |bytes| String::from_utf8(bytes).ok().and_then(|text| text.parse().ok()).ok_or_else(unknown_cursor);
    cursor(text)?.map(parse).transpose()
}

fn unknown_cursor() -> Problem {
    Problem::field("cursor", "is not one that a page of this list gave")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pages_of_a_whole_list_are_the_list() {
        let all: Vec<String> = (0..7).map(|i| i.to_string()).collect();
        let (mut seen, mut cursor) = (Vec::new(), None);
        loop {
            let query = PageQuery { limit: Limit(3), cursor: cursor.take() };
            let page = Page::of_all(all.clone(), &query, |s| s.clone().into_bytes(), |s| s).unwrap();
            seen.extend(page.items);
            match page.next_cursor {
                Some(next) => cursor = Some(next),
                None => break,
            }
        }
        assert_eq!(seen, all);
        let foreign = PageQuery { cursor: Some("!".into()), ..PageQuery::default() };
        assert!(Page::of_all(all, &foreign, |s| s.clone().into_bytes(), |s| s).is_err());
    }
}
