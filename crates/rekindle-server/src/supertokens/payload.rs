//! The user's payload (`userDataInJWT`) as a session's claims, and back.
//!
//! Names that Rekindle's own access tokens reserve are kept with a prefix; so is what the face has to remember of a session.

use rekindle::{access::RESERVED, keys::Chain};
use serde_json::{Map, Value};

use super::origin::Origin;

const PREFIX: &str = "st:";

/// Which keys sign the session's access tokens; absent for the dynamic ones. No escaped name is spelt like it.
const KEY: &str = "st:key";

/// What is kept of an imported session's past.
const ORIGIN: &str = "st:origin";

/// What a session's claims hold.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Payload {
    /// `userDataInJWT`.
    pub(super) user_data: Map<String, Value>,
    /// Which keys sign.
    pub(super) chain: Chain,
    /// Where the session came from, if it was imported.
    pub(super) origin: Option<Origin>,
}

impl Payload {
    /// Reads claims.
    pub(super) fn of(claims: Map<String, Value>) -> Self {
        let mut payload = Self { user_data: Map::new(), chain: Chain::Dynamic, origin: None };
        for (name, value) in claims {
            match name.as_str() {
                KEY => payload.chain = Chain::Static,
                ORIGIN => payload.origin = value.as_str().and_then(Origin::parse),
                name => drop(payload.user_data.insert(name.strip_prefix(PREFIX).unwrap_or(name).to_owned(), value)),
            }
        }
        payload
    }

    /// Writes claims.
    pub(super) fn claims(&self) -> Map<String, Value> {
        let escaped = |name: &String| {
            let escape = name.starts_with(PREFIX) || RESERVED.contains(&name.as_str());
            if escape { format!("{PREFIX}{name}") } else { name.clone() }
        };
        let mut claims: Map<String, Value> =
            self.user_data.iter().map(|(name, value)| (escaped(name), value.clone())).collect();
        if self.chain == Chain::Static {
            claims.insert(KEY.into(), "static".into());
        }
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
                prop_oneof!["(st:){0,2}(key|origin|sub|iss|x)?", prop::sample::select(RESERVED).prop_map(str::to_owned)], 0..6
            ),
            is_static: bool,
            origin in prop::option::of("[0-9a-f]{64}"),
        ) {
            let user_data = names.into_iter().map(|name| (name, Value::Null)).collect();
            let chain = if is_static { Chain::Static } else { Chain::Dynamic };
            let payload = Payload { user_data, chain, origin: origin.as_deref().and_then(Origin::parse) };
            let claims = payload.claims();
            prop_assert!(check_claims(&claims).is_ok());
            prop_assert_eq!(Payload::of(claims), payload);
        }
    }
}
