//! Names for people.

use serde::{Deserialize, Deserializer, de};

/// A name of 1 to 128 bytes.
#[derive(Debug, Clone)]
pub(super) struct Name(pub(super) String);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if (1..=128).contains(&text.len()) { Ok(Self(text)) } else { Err(de::Error::custom("must be 1 to 128 bytes")) }
    }
}
