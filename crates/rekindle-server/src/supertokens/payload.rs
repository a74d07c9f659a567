//! The user's payload (`userDataInJWT`) as a session's claims, and back.
//!
//! Names that Rekindle's own access tokens reserve are kept with a prefix; so is what the face has to remember of a session.

use rekindle::{access::RESERVED, keys::Chain};
use serde_json::{Map, Value};

use super::origin::Origin;

const PREFIX: &str = "st:";

/// Which keys sign the session's access tokens; absent for the dynamic ones. No escaped name is spelt like it.
const KEY: &str = "st:key";

/// That its client was given an anti-CSRF token with its last refresh token.
const ANTI_CSRF: &str = "st:csrf";

/// What is kept of an imported session's past.
const ORIGIN: &str = "st:origin";

/// What a session's claims hold.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Payload {
    /// `userDataInJWT`.
    pub(super) user_data: Map<String, Value>,
    /// Which keys sign.
    pub(super) chain: Chain,
    /// Whether its client was given an anti-CSRF token with its last refresh token.
    pub(super) anti_csrf: bool,
    /// Where the session came from, if it was imported.
    pub(super) origin: Option<Origin>,
}

impl Payload {
    /// Reads claims.
    pub(super) fn of(claims: Map<String, Value>) -> Self {
        let mut payload = Self { user_data: Map::new(), chain: Chain::Dynamic, anti_csrf: false, origin: None };
        for (name, value) in claims {
            match name.as_str() {
                KEY => payload.chain = Chain::Static,
                ANTI_CSRF => payload.anti_csrf = true,
                ORIGIN => payload.origin = value.as_str().and_then(Origin::parse),
                name => drop(payload.user_data.insert(name.strip_prefix(PREFIX).unwrap_or(name).to_owned(), value)),
            }
        }
        payload
    }

    /// What a refresh may change, as a merge patch of claims: nothing of the user's.
    pub(super) fn marks(&self) -> Map<String, Value> {
        let key = if self.chain == Chain::Static { "static".into() } else { Value::Null };
        let anti_csrf = if self.anti_csrf { true.into() } else { Value::Null };
        Map::from_iter([(KEY.to_owned(), key), (ANTI_CSRF.to_owned(), anti_csrf)])
    }

    /// Writes claims.
    pub(super) fn claims(&self) -> Map<String, Value> {
        let escaped = |name: &String| {
            let escape = name.starts_with(PREFIX) || RESERVED.contains(&name.as_str());
            if escape { format!("{PREFIX}{name}") } else { name.clone() }
        };
        let mut claims: Map<String, Value> =
            self.user_data.iter().map(|(name, value)| (escaped(name), value.clone())).collect();
        claims.extend(self.marks().into_iter().filter(|(_, value)| !value.is_null()));
        if let Some(origin) = &self.origin {
            claims.insert(ORIGIN.into(), origin.as_str().into());
        }
        claims
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rekindle::access::check_claims;

    proptest! {
        #[test]
        fn any_payload_reads_back(
            names in prop::collection::vec(
                prop_oneof!["(st:){0,2}(key|csrf|origin|sub|iss|x)?", prop::sample::select(RESERVED).prop_map(str::to_owned)], 0..6
            ),
            is_static: bool,
            anti_csrf: bool,
            origin in prop::option::of("[0-9a-f]{64}"),
        ) {
            let user_data = names.into_iter().map(|name| (name, Value::Null)).collect();
            let chain = if is_static { Chain::Static } else { Chain::Dynamic };
            let payload = Payload { user_data, chain, anti_csrf, origin: origin.as_deref().and_then(Origin::parse) };
            let claims = payload.claims();
            prop_assert!(check_claims(&claims).is_ok());
            prop_assert_eq!(Payload::of(claims), payload);
        }
    }
}
